package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// To is a peer, as the server of the lab tells of it.
type To struct {
	Address netip.AddrPort
	Key     wire.Fingerprint
	Ticket  string
}

// Client asks peers.
type Client struct {
	key tls.Certificate

	mu    sync.Mutex // guards the fields below
	dial  net.Dialer
	lists int // of peers that there were
	peers map[who]*kept
}

// kept is the connections to a peer.
type kept struct {
	*http.Client
	list int // the last list that it was on
}

// keptLists is how many lists of peers without it the connections to a peer outlive. Lists are mixed every few
// seconds, so a peer is often on the next one but one. Handshakes were a seventeenth of what an agent's
// processor did in a room of 16 when connections ended with the first list.
const keptLists = 2

// who is a peer whose connections are kept.
type who struct {
	address netip.AddrPort
	key     wire.Fingerprint
}

// NewClient makes a client that shows a key.
func NewClient(key tls.Certificate) *Client {
	return &Client{key: key, dial: net.Dialer{Timeout: room.DialWait, KeepAlive: 15 * time.Second}, peers: map[who]*kept{}}
}

// From has further connections come from one address of this machine.
func (c *Client) From(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dial.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
}

// Close closes all connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(func(*kept) bool { return true })
}

// Keep takes a new list of peers, and closes the connections to those that were not on this one or the lists before.
func (c *Client) Keep(peers []To) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists++
	for _, p := range peers {
		if h := c.peers[who{p.Address, p.Key}]; h != nil {
			h.list = c.lists
		}
	}
	c.close(func(h *kept) bool { return c.lists-h.list > keptLists })
}

func (c *Client) close(which func(*kept) bool) {
	for w, h := range c.peers {
		if which(h) {
			h.CloseIdleConnections()
			delete(c.peers, w)
		}
	}
}

func (c *Client) http(to To) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := who{to.Address, to.Key}
	if h := c.peers[w]; h != nil {
		return h.Client
	}
	dial := c.dial
	t := &http.Transport{
		DialContext: dial.DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.key},
			InsecureSkipVerify: true, // VerifyConnection compares the key instead
			VerifyConnection:   wire.Pinned("a peer", to.Key),
		},
		TLSHandshakeTimeout: room.QuietWait, IdleConnTimeout: wire.QuietWait / 2,
		MaxConnsPerHost: room.PerPeer + 1, MaxIdleConnsPerHost: room.PerPeer + 1,
		MaxResponseHeaderBytes: 4 << 10, DisableCompression: true, ReadBufferSize: 64 << 10,
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	h := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.peers[w] = &kept{h, c.lists}
	return h
}

// FaultError says what is wrong with a peer.
type FaultError struct {
	Fault room.Fault
	Err   error
}

func (e *FaultError) Error() string { return fmt.Sprintf("%s: %v", e.Fault, e.Err) }
func (e *FaultError) Unwrap() error { return e.Err }

// FaultOf is the fault that an error of a Client says. It is room.Away if it says none.
func FaultOf(err error) room.Fault {
	var f *FaultError
	if errors.As(err, &f) {
		return f.Fault
	}
	return room.Away
}

// errQuiet is why a request ends from which nothing comes.
var errQuiet = errors.New("nothing comes any more")

// ask sends a request, and calls read with the body of the answer.
func (c *Client) ask(ctx context.Context, to To, path string, q []byte, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(room.DialWait+room.QuietWait, func() { cancel(errQuiet) })
	defer quiet.Stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.Address.String()+path, bytes.NewReader(q))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+to.Ticket)
	resp, err := c.http(to).Do(r)
	if err != nil {
		return fault(ctx, err)
	}
	defer resp.Body.Close()
	in := &watched{ctx: ctx, r: resp.Body, quiet: quiet}
	if resp.StatusCode == http.StatusOK {
		return read(in)
	}
	b, err := wire.ReadAll(in, wire.MaxProblem)
	if err != nil {
		return err
	}
	p, err := wire.ParseProblem(b, resp.StatusCode)
	switch {
	case err != nil:
		return &FaultError{room.Away, fmt.Errorf("the peer answers %.40q: %w", resp.Status, err)}
	case p.Code == wire.CodeBusy:
		return &FaultError{room.Busy, p}
	}
	return &FaultError{room.Away, p}
}

// fault makes an error of a connection that broke.
func fault(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errQuiet):
		return &FaultError{room.Stalls, cause}
	case cause != nil:
		return cause // the caller does not want it any more
	}
	return &FaultError{room.Away, err}
}

// watched is the body of an answer.
type watched struct {
	ctx   context.Context
	r     io.Reader
	quiet *time.Timer
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if n > 0 {
		w.quiet.Reset(room.QuietWait)
	}
	if err != nil && err != io.EOF {
		err = fault(w.ctx, err)
	}
	return n, err
}

// Have asks how many further uploads a peer has room for, and which units of some pages it has.
func (c *Client) Have(ctx context.Context, to To, pages []object.Name) (free int, have [][]byte, err error) {
	err = c.ask(ctx, to, wire.HavePath, wire.AppendPages(nil, pages), func(body io.Reader) error {
		b, err := wire.ReadAll(body, wire.MaxHave)
		if err != nil {
			return err
		}
		if free, have, err = wire.ParseHave(b, len(pages)); err != nil {
			return &FaultError{room.Garbage, err}
		}
		return nil
	})
	return free, have, err
}

// Chunks fetches chunks of a page, and calls got for each, in order. at has their numbers,
// and want what the page says of them. dst gives memory for the bytes of a chunk before
// compression, and got gets them there. They were compared with the name. The stored form is
// in buf's memory, and stays there only until got returns.
func (c *Client) Chunks(ctx context.Context, to To, page object.Name, at []uint32, want []chunk.Ref, buf []byte,
	dst func(i int) []byte, got func(i int, o object.Object, raw []byte) error) error {
	return c.ask(ctx, to, wire.ChunksPath, wire.AppendChunks(nil, page, at), func(body io.Reader) error {
		for i := range at {
			o, err := receive(body, want[i], buf)
			if err != nil {
				return err
			}
			raw, err := o.Decode(dst(i))
			if err != nil {
				return &FaultError{room.Garbage, err}
			}
			if err := got(i, o, raw); err != nil {
				return err
			}
		}
		if err := wire.ReadEnd(body); err != nil {
			return garbage(err)
		}
		return nil
	})
}

// receive reads one chunk. Its bytes are not compared with its name yet.
func receive(body io.Reader, want chunk.Ref, buf []byte) (object.Object, error) {
	h, err := wire.ReadHeader(body)
	switch {
	case err != nil:
		return object.Object{}, garbage(err)
	case h.Lack != nil:
		return object.Object{}, &FaultError{room.Lacks, h.Lack}
	case h.Key != object.Key{Kind: object.Chunk, Name: want.Name} || int(h.Raw) != want.Len:
		err := fmt.Errorf("it sends %v of %d bytes where %v of %d is due", h.Key, h.Raw, want.Name, want.Len)
		return object.Object{}, &FaultError{room.Garbage, err}
	}
	o, err := h.ReadObject(body, buf)
	if err != nil {
		return o, garbage(err)
	}
	return o, nil
}

// garbage makes an error of bytes that are no answer. One that was cut off is no fault of its
// bytes: the peer may have ended.
func garbage(err error) error {
	var f *FaultError
	switch {
	case errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &FaultError{room.Away, io.ErrUnexpectedEOF}
	}
	return &FaultError{room.Garbage, err}
}

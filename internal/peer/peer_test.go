package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	root   = object.Name{1}
	page   = object.Name{2}
	secret = wire.RoomSecret{3}
	clock  = time.Unix(2e9, 0)
)

// shelf is a Source with some chunks of one page.
type shelf struct {
	mu     sync.Mutex
	chunks []object.Object
	refs   []chunk.Ref
	holds  chan struct{} // if it is not nil, each chunk waits for it
	asked  atomic.Int32  // chunks
}

func newShelf(n int) *shelf {
	s := &shelf{}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		raw := bytes.Repeat([]byte{byte(i), byte(r.Uint32())}, 20000+r.IntN(20000))
		for j := range len(raw) / 2 {
			raw[j] = byte(r.Uint32())
		}
		name := object.NameOf(raw)
		s.chunks = append(s.chunks, object.Encode(object.Key{Kind: object.Chunk, Name: name}, raw, nil))
		s.refs = append(s.refs, chunk.Ref{Name: name, Len: len(raw)})
	}
	return s
}

func (s *shelf) Have(r, p object.Name) []byte {
	if r != root || p != page {
		return nil
	}
	return []byte{5}
}

func (s *shelf) Chunk(ctx context.Context, r, p object.Name, at uint32, buf []byte) (object.Object, error) {
	s.asked.Add(1)
	if s.holds != nil {
		select {
		case <-s.holds:
		case <-ctx.Done():
			return object.Object{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r != root || p != page || int(at) >= len(s.chunks) {
		return object.Object{}, fmt.Errorf("chunk %d of %v: %w", at, p, chunk.ErrMissing)
	}
	o := s.chunks[at]
	o.Data = append(buf[:0], o.Data...)
	return o, nil
}

// rig is a server and a client.
type rig struct {
	shelf  *shelf
	server *Server
	client *Client
	to     To
	log    *bytes.Buffer
}

func newRig(t *testing.T, most int64) *rig {
	t.Helper()
	key, print, err := NewKey()
	must(t, err)
	ours, oursPrint, err := NewKey()
	must(t, err)
	r := &rig{shelf: newShelf(70), log: new(bytes.Buffer)}
	r.server = NewServer(ServerConfig{
		Key: key, Source: r.shelf, Now: func() time.Time { return clock },
		Secrets: func(n object.Name) []wire.RoomSecret {
			if n != root {
				return nil
			}
			return []wire.RoomSecret{{8}, secret}
		},
		Log: func(format string, args ...any) { fmt.Fprintf(r.log, format+"\n", args...) },
	})
	r.server.Limit(most)
	l, err := Listen("127.0.0.1:0")
	must(t, err)
	go r.server.Serve(l)
	t.Cleanup(r.server.Close)
	r.client = NewClient(ours)
	t.Cleanup(r.client.Close)
	r.to = To{netip.MustParseAddrPort(l.Addr().String()), print, ticketFor("127.0.0.1", oursPrint).String()}
	return r
}

func ticketFor(from string, key wire.Fingerprint) wire.Ticket {
	return secret.Ticket(root, clock.Add(time.Minute), netip.MustParseAddr(from), key)
}

// fetch fetches chunks, and returns how many came.
func (r *rig) fetch(ctx context.Context, at ...uint32) (n int, err error) {
	return r.fetchOf(ctx, page, at...)
}

func (r *rig) fetchOf(ctx context.Context, page object.Name, at ...uint32) (n int, err error) {
	var want []chunk.Ref
	for _, i := range at {
		ref := chunk.Ref{Name: object.Name{9}, Len: 1}
		if int(i) < len(r.shelf.refs) {
			ref = r.shelf.refs[i]
		}
		want = append(want, ref)
	}
	buf, raw := make([]byte, 0, object.MaxChunk), make([]byte, 0, object.MaxChunk+object.Slack)
	into := func(int) []byte { return raw[:0] }
	err = r.client.Chunks(ctx, r.to, page, at, want, buf, into, func(i int, o object.Object, got []byte) error {
		if object.NameOf(got) != want[i].Name || o.Name != want[i].Name || i != n {
			return fmt.Errorf("chunk %d came as %d, %v", n, i, o.Key)
		}
		n++
		return nil
	})
	return n, err
}

func wantFault(t *testing.T, what string, err error, f room.Fault) {
	t.Helper()
	var fault *FaultError
	if !errors.As(err, &fault) || fault.Fault != f {
		t.Errorf("%s: %v, and not %s", what, err, f)
	}
}

// TestServes: a box with a ticket hears what a peer has, and gets it.
func TestServes(t *testing.T) {
	r := newRig(t, 0)
	free, have, err := r.client.Have(t.Context(), r.to, []object.Name{page, {8}})
	must(t, err)
	if free != room.Uploads || len(have) != 2 || !slices.Equal(have[0], []byte{5}) || len(have[1]) > 0 {
		t.Errorf("it has %v, and room for %d uploads", have, free)
	}
	all := make([]uint32, 64)
	sum := int64(0)
	for i := range all {
		all[i] = uint32(i + 3)
		sum += int64(len(r.shelf.chunks[i+3].Data)) + wire.FrameSize
	}
	n, err := r.fetch(t.Context(), all...)
	if must(t, err); n != 64 {
		t.Errorf("%d chunks came", n)
	}
	if r.server.Sent() != sum || r.server.Free() != room.Uploads {
		t.Errorf("%d bytes were sent, not %d; %d uploads are free", r.server.Sent(), sum, r.server.Free())
	}
	n, err = r.fetch(t.Context(), 1, 99)
	if wantFault(t, "a chunk that is not there", err, room.Lacks); n != 1 {
		t.Errorf("%d chunks came before", n)
	}
}

// TestUnread: an upload takes its place until the client has it, and not until the kernel has. A box whose port
// is full says so, and others ask one whose port is idle.
func TestUnread(t *testing.T) {
	r := newRig(t, 0)
	all := make([]uint32, wire.MaxPlaces)
	for i := range all {
		all[i] = uint32(i)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.to.Address.String()+wire.ChunksPath,
		bytes.NewReader(wire.AppendChunks(nil, page, all)))
	must(t, err)
	q.Header.Set("Authorization", "Bearer "+r.to.Ticket)
	a, err := r.client.http(r.to).Do(q)
	must(t, err)
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		t.Fatalf("the answer is %s", a.Status)
	}
	for range 50 { // the kernel would take all of it in a few milliseconds
		if free := r.server.Free(); free != room.Uploads-1 {
			t.Fatalf("nothing was read, and %d uploads are free", free)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if free, _, err := r.client.Have(t.Context(), r.to, []object.Name{page}); err != nil || free != room.Uploads-1 {
		t.Errorf("others hear of %d free uploads, %v", free, err)
	}
	_, err = io.Copy(io.Discard, a.Body)
	must(t, err)
	for r.server.Free() != room.Uploads {
		time.Sleep(time.Millisecond)
	}
}

// TestStrangers: nobody gets anything without a ticket for this image, of this peer, for this
// address and this key, that is not too old.
func TestStrangers(t *testing.T) {
	r := newRig(t, 0)
	sound := r.to
	other, otherPrint, err := NewKey()
	must(t, err)
	ours := wire.FingerprintOf(r.client.key.Leaf)
	from := netip.MustParseAddr("127.0.0.1")
	for what, ticket := range map[string]string{
		"no ticket":       "",
		"nonsense":        "abc",
		"another address": ticketFor("127.0.0.2", ours).String(),
		"another key":     ticketFor("127.0.0.1", otherPrint).String(),
		"too old":         secret.Ticket(root, clock.Add(-time.Second), from, ours).String(),
		"another image":   secret.Ticket(object.Name{7}, clock.Add(time.Minute), from, ours).String(),
		"another peer's":  wire.RoomSecret{9}.Ticket(root, clock.Add(time.Minute), from, ours).String(),
	} {
		r.to.Ticket = ticket
		_, err := r.fetch(t.Context(), 1)
		wantFault(t, what, err, room.Away)
		if _, _, err := r.client.Have(t.Context(), r.to, []object.Name{page}); err == nil {
			t.Errorf("%s: it hears what there is", what)
		}
	}
	if r.server.Sent() > 0 || r.log.Len() == 0 {
		t.Errorf("%d bytes were sent; the log says %q", r.server.Sent(), r.log)
	}
	r.to = sound
	r.client.dial.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	r.client.Close()
	if _, err := r.fetch(t.Context(), 1); err == nil {
		t.Error("a ticket is good from another address")
	}
	r.client.dial.LocalAddr = nil
	stolen := NewClient(other)
	defer stolen.Close()
	if _, _, err := stolen.Have(t.Context(), sound, []object.Name{page}); err == nil {
		t.Error("a ticket is good with another key")
	}
	bare := NewClient(tls.Certificate{})
	defer bare.Close()
	if _, _, err := bare.Have(t.Context(), sound, []object.Name{page}); err == nil {
		t.Error("a ticket is good without a key")
	}
	r.client.Close()
	r.to.Key = otherPrint
	_, err = r.fetch(t.Context(), 1)
	if wantFault(t, "a peer with another key", err, room.Away); !errors.Is(err, wire.ErrKey) {
		t.Errorf("a peer with another key: %v", err)
	}
}

// TestByPage: a chunk is had by a page that one knows, and by nothing else.
func TestByPage(t *testing.T) {
	r := newRig(t, 0)
	for _, name := range []object.Name{r.shelf.refs[1].Name, root, {}} {
		n, err := r.fetchOf(t.Context(), name, 0)
		if n != 0 {
			t.Errorf("%d chunks came by the name %v", n, name)
		}
		wantFault(t, name.String(), err, room.Lacks)
	}
}

// TestBusy: more uploads at once than there may be are put off, and their end makes room.
func TestBusy(t *testing.T) {
	r := newRig(t, 0)
	r.shelf.holds = make(chan struct{})
	r.to.Ticket = ticketFor("127.0.0.1", wire.FingerprintOf(r.client.key.Leaf)).String()
	var done sync.WaitGroup
	for i := range room.Uploads {
		done.Go(func() { // MaxConnsPerHost is less, so each has a client of its own; maxEach is too
			key, print, err := NewKey()
			if err != nil {
				t.Error(err)
				return
			}
			c := NewClient(key)
			defer c.Close()
			from := fmt.Sprintf("127.0.0.%d", 10+i)
			c.dial.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
			to := r.to
			to.Ticket = ticketFor(from, print).String()
			into := func(int) []byte { return nil }
			got := func(int, object.Object, []byte) error { return nil }
			if err := c.Chunks(t.Context(), to, page, []uint32{1}, r.shelf.refs[1:2], nil, into, got); err != nil {
				t.Error(err)
			}
		})
	}
	for r.shelf.asked.Load() < room.Uploads {
		time.Sleep(time.Millisecond)
	}
	if n := r.server.Free(); n != 0 {
		t.Errorf("with %d uploads, %d are free", room.Uploads, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), room.QuietWait)
	defer cancel()
	_, err := r.fetch(ctx, 1)
	wantFault(t, "one more", err, room.Busy)
	if _, _, err := r.client.Have(t.Context(), r.to, []object.Name{page}); err != nil {
		t.Errorf("a busy peer does not say what it has: %v", err)
	}
	close(r.shelf.holds)
	done.Wait()
	for r.server.Free() < room.Uploads {
		time.Sleep(time.Millisecond)
	}
	if _, err := r.fetch(t.Context(), 1); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// TestLimit: a box sends no more in a second than it may, and in fewer uploads where each would
// be too slow.
func TestLimit(t *testing.T) {
	const most = 4e6
	r := newRig(t, most)
	start := time.Now()
	for range 2 {
		if _, err := r.fetch(t.Context(), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16); err != nil {
			t.Fatal(err)
		}
	}
	least := time.Duration(float64(r.server.Sent()-2*sendTogether) / most * float64(time.Second))
	if took := time.Since(start); took < least {
		t.Errorf("%d bytes took %v", r.server.Sent(), took)
	}
	for most, want := range map[int64]int{0: room.Uploads, 1: 0, slotRate: 1, 3*slotRate + 1: 3, 1 << 40: room.Uploads} {
		if n := Uploads(most); n != want {
			t.Errorf("with %d bytes a second there are %d uploads, not %d", most, n, want)
		}
	}
}

// TestGone: a client that goes away, or that the caller ends, frees its place.
func TestGone(t *testing.T) {
	r := newRig(t, 0)
	r.shelf.holds = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { _, err := r.fetch(ctx, 1); ended <- err }()
	for r.server.Free() == room.Uploads {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	for r.server.Free() < room.Uploads {
		time.Sleep(time.Millisecond)
	}
}

// TestRequests: requests that no box sends are refused.
func TestRequests(t *testing.T) {
	r := newRig(t, 0)
	for what, q := range map[string]struct {
		path string
		body []byte
	}{
		"no page": {wire.HavePath, nil}, "half a page": {wire.HavePath, make([]byte, 31)},
		"many pages": {wire.HavePath, make([]byte, 32*(wire.MaxPages+1))}, "no chunk": {wire.ChunksPath, page[:]},
		"many chunks": {wire.ChunksPath, make([]byte, wire.MaxChunksBytes+4)},
		"no order":    {wire.ChunksPath, wire.AppendChunks(nil, page, []uint32{1, 1})},
		"no request":  {wire.PeerPrefix + "x", nil},
	} {
		err := r.client.ask(t.Context(), r.to, q.path, q.body, func(io.Reader) error { return nil })
		wantFault(t, what, err, room.Away)
	}
	if _, err := r.fetch(t.Context(), 1); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// evil is a peer that answers what it likes.
func evil(t *testing.T, answer func(w http.ResponseWriter)) (*rig, func()) {
	t.Helper()
	r := newRig(t, 0)
	key, print, err := NewKey()
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{key}, ClientAuth: tls.RequestClientCert},
	}
	go srv.ServeTLS(l, "", "")
	r.to.Address, r.to.Key = netip.MustParseAddrPort(l.Addr().String()), print
	return r, func() { srv.Close() }
}

// TestEvil: nothing that a peer sends is taken but the chunk that was asked for, and the fault
// has its name.
func TestEvil(t *testing.T) {
	shelf := newShelf(70)
	first := shelf.chunks[1]
	frame := func(o object.Object) []byte { return append(wire.AppendHeader(nil, o), o.Data...) }
	changed := first
	changed.Data = append([]byte(nil), first.Data...)
	changed.Data[len(changed.Data)/2] ^= 1
	raw := make([]byte, shelf.refs[1].Len)
	zeros := object.Encode(first.Key, raw, nil) // of the right length, under the right name
	bomb := object.Encode(first.Key, make([]byte, object.MaxChunk), nil)
	bomb.RawLen = first.RawLen // it unpacks to more than it says
	short := frame(first)
	ofPage := first
	ofPage.Kind = object.Page
	for what, c := range map[string]struct {
		bytes []byte
		fault room.Fault
	}{
		"a bit that was changed":     {frame(changed), room.Garbage},
		"other bytes":                {frame(zeros), room.Garbage},
		"a bomb":                     {frame(bomb), room.Garbage},
		"another chunk":              {frame(shelf.chunks[2]), room.Garbage},
		"a page":                     {frame(ofPage), room.Garbage},
		"no frame":                   {bytes.Repeat([]byte("x"), 200), room.Garbage},
		"one more":                   {append(frame(first), frame(first)...), room.Garbage},
		"less":                       {short[:len(short)-1], room.Away},
		"nothing":                    {nil, room.Away},
		"a lack":                     {wire.AppendLack(nil, chunk.ErrMissing), room.Lacks},
		"a frame with another sum":   {slices.Concat(frame(first)[:64], changed.Data), room.Garbage},
		"a lack with a wrong length": {append(wire.AppendLack(nil, chunk.ErrMissing)[:60], 1, 2, 3, 4), room.Garbage},
	} {
		t.Run(what, func(t *testing.T) {
			r, end := evil(t, func(w http.ResponseWriter) { w.Write(c.bytes) })
			defer end()
			n, err := r.fetch(t.Context(), 1)
			wantFault(t, what, err, c.fault)
			if n > 0 && what != "one more" {
				t.Error("it is taken")
			}
		})
	}
	bad := map[string][]byte{
		"long": make([]byte, wire.MaxHave+1), "empty": {}, "cut": {8, 9}, "more": {8, 0, 0, 0}, "huge": {8, 255, 255},
	}
	for what, b := range bad {
		r, end := evil(t, func(w http.ResponseWriter) { w.Write(b) })
		if _, have, err := r.client.Have(t.Context(), r.to, []object.Name{page}); err == nil {
			t.Errorf("%s: it has %v", what, have)
		}
		end()
	}
}

// TestStalls: a peer that sends nothing more is given up, also one that accepts and is silent.
func TestStalls(t *testing.T) {
	testenv.Long(t, "4 seconds")
	t.Parallel()
	hold := make(chan struct{})
	r, end := evil(t, func(w http.ResponseWriter) {
		w.Write(make([]byte, 10))
		w.(http.Flusher).Flush()
		<-hold
	})
	defer end()
	defer close(hold)
	start := time.Now()
	_, err := r.fetch(t.Context(), 1)
	wantFault(t, "a peer that stalls", err, room.Stalls)
	if took := time.Since(start); took > 5*room.QuietWait {
		t.Errorf("it was given up after %v", took)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts, but the kernel
	must(t, err)
	defer l.Close()
	r.to.Address = netip.MustParseAddrPort(l.Addr().String())
	_, _, err = r.client.Have(t.Context(), r.to, []object.Name{page})
	if err == nil || FaultOf(err) != room.Away && FaultOf(err) != room.Stalls {
		t.Errorf("a peer that is silent: %v", err)
	}
}

// FuzzReceive: whatever a peer sends, what is taken has the name that was asked for.
func FuzzReceive(f *testing.F) {
	s := newShelf(1)
	f.Add(append(wire.AppendHeader(nil, s.chunks[0]), s.chunks[0].Data...))
	f.Add(wire.AppendLack(nil, chunk.ErrMissing))
	buf, raw := make([]byte, 0, object.MaxChunk), make([]byte, 0, object.MaxChunk+object.Slack)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := receive(bytes.NewReader(b), s.refs[0], buf)
		if err != nil {
			return
		}
		if got, err := o.Decode(raw); err == nil && (object.NameOf(got) != s.refs[0].Name || len(got) != s.refs[0].Len) {
			t.Error("other bytes are taken")
		}
	})
}

// TestKeptConnections: connections to a peer outlive some lists without it, and no more.
func TestKeptConnections(t *testing.T) {
	r := newRig(t, 0)
	ask := func() *http.Client {
		if _, _, err := r.client.Have(t.Context(), r.to, []object.Name{page}); err != nil {
			t.Fatal(err)
		}
		return r.client.http(r.to)
	}
	first := ask()
	for range 10 {
		for range keptLists {
			r.client.Keep(nil)
		}
		r.client.Keep([]To{r.to})
	}
	if ask() != first {
		t.Error("the connections were closed between two lists")
	}
	for range keptLists + 1 {
		r.client.Keep(nil)
	}
	if len(r.client.peers) > 0 || ask() == first {
		t.Error("the connections to a peer outlive all lists")
	}
}

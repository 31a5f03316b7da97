// Package tftp is a TFTP server that only gives files out. It is for boot
// loaders: RFC 1350 with the options of RFC 2347, 2348, 2349 and 7440. It knows
// nothing of jobs and boxes.
package tftp

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// DefaultMaxBlock fits into a packet of 1460 bytes. Tunnels and VLANs of
	// many networks let no 1500 bytes through, and a loader does not notice.
	DefaultMaxBlock = 1428
	// MaxWindow bounds how many blocks are sent without an answer.
	MaxWindow = 64
	// DefaultMaxTransfers bounds the memory: a transfer takes about 10 KiB.
	DefaultMaxTransfers = 1024

	maxOfClient = 32              // transfers of one address at once
	drain       = 5 * time.Second // for transfers that are under way when the server ends
)

// File is what a client reads. Its size must not change.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// Request says who asked for which file.
type Request struct {
	Name   string         // as the client sent it: it may have any bytes but 0
	Client netip.AddrPort // the client
	Server netip.Addr     // the address that the client asked
}

// Transfer is what became of a request.
type Transfer struct {
	Request
	Size     int64 // of the file, bytes
	Block    int   // bytes
	Window   int   // blocks
	Duration time.Duration
	// Probe is true if the client only wanted to know the size. UEFI firmware
	// asks so before each file, and ends with an error packet.
	Probe bool
	// Err is nil if the client confirmed the whole file.
	Err error
}

// Server gives files out. Its fields must not change while it serves.
type Server struct {
	// Open opens the file that is asked for. If the error is fs.ErrNotExist or
	// fs.ErrPermission, the client is told so. Open is called by one goroutine
	// for each request.
	Open func(Request) (File, error)
	// Done is told of each request that was answered, if it is not nil. It is
	// called by several goroutines.
	Done func(Transfer)
	// MaxBlock bounds the size of a block for a client, in bytes. If Server has
	// no such function, or if it returns 0, the bound is DefaultMaxBlock.
	MaxBlock func(client netip.Addr) int
	// MaxTransfers bounds how many clients are served at once. 0 means
	// DefaultMaxTransfers. Clients past it get no answer, so they ask again.
	MaxTransfers int
	// OnePort sends everything from the port that is asked, where a firewall
	// lets only this port through. The standard has a new port for each
	// transfer (RFC 1350 section 4).
	OnePort bool

	drain time.Duration // if it is not 0, instead of the constant; for tests

	mu      sync.Mutex
	asking  map[netip.AddrPort]*running // those that have not heard from their client
	silent  list.List                   // the same, the oldest first
	routes  map[netip.AddrPort]*running // all, if OnePort
	clients map[netip.Addr]int          // transfers of each address
	count   int                         // transfers, without those that were told to stop
	busy    int                         // goroutines
	wg      sync.WaitGroup
}

// running is a transfer that is under way.
type running struct {
	client  netip.AddrPort
	ctx     context.Context
	stop    func(error)
	place   *list.Element // in Server.silent, nil once the client was heard
	dropped bool          // it is not counted any more
	last    time.Time     // when the client was heard last, for OnePort
	inbox   chan []byte   // for OnePort
}

// Serve answers the requests that come to conn, which must be an IPv4 socket.
// When ctx ends, it takes no more requests, waits some seconds for transfers
// that are under way, and returns nil. It does not close conn.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	pc := ipv4.NewPacketConn(conn)
	if err := pc.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return fmt.Errorf("TFTP needs the address that a packet was sent to: %w", err)
	}
	conn.SetReadBuffer(1 << 20)       // a room of boxes may start at once
	conn.SetReadDeadline(time.Time{}) // an earlier Serve left one behind
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	transfers, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	local, _ := conn.LocalAddr().(*net.UDPAddr)
	buf := make([]byte, maxRequest+1)
	for {
		n, cm, from, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return s.end(cancel)
		}
		if errors.Is(err, net.ErrClosed) {
			cancel(err)
			s.wg.Wait()
			return err
		}
		if err != nil { // for example an ICMP answer to what was sent before
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		client := from.(*net.UDPAddr).AddrPort()
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		asked := destination(cm, local)
		if !asked.IsValid() || client.Port() == 0 {
			continue
		}
		s.packet(transfers, pc, buf[:n], client, asked)
	}
}

// destination is the address that a packet was sent to. It is not valid for
// broadcasts, which get no answer (RFC 1123 section 4.2.3.4).
func destination(cm *ipv4.ControlMessage, local *net.UDPAddr) netip.Addr {
	var a netip.Addr
	if cm != nil {
		a, _ = netip.AddrFromSlice(cm.Dst)
	} else if local != nil {
		a, _ = netip.AddrFromSlice(local.IP)
	}
	a = a.Unmap()
	if !a.Is4() || a.IsMulticast() || a.IsUnspecified() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}
	}
	return a
}

// end waits for the transfers, and stops what is left after a while.
func (s *Server) end(cancel context.CancelCauseFunc) error {
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(cmp.Or(s.drain, drain)):
		cancel(errors.New("the server ended"))
		<-done
	}
	return nil
}

// packet takes one packet that came to the port of the server.
func (s *Server) packet(ctx context.Context, pc *ipv4.PacketConn, p []byte, client netip.AddrPort, asked netip.Addr) {
	req, err := parseRequest(p)
	if errors.Is(err, errNoRequest) {
		s.pass(p, client)
		return
	}
	var wrong *protocolError
	if errors.As(err, &wrong) {
		to := net.UDPAddrFromAddrPort(client)
		pc.WriteTo(errorPacket(wrong.code, wrong.text), &ipv4.ControlMessage{Src: asked.AsSlice()}, to)
		return
	}
	r := s.begin(ctx, client)
	if r == nil {
		return
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer s.forget(r)
		s.serve(r, pc, req, Request{Name: req.name, Client: client, Server: asked})
	}()
}

// begin makes room for a transfer. It returns nil if the request gets no
// answer. The client asks again then.
func (s *Server) begin(ctx context.Context, client netip.AddrPort) *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking == nil {
		s.asking, s.routes, s.clients = map[netip.AddrPort]*running{}, map[netip.AddrPort]*running{}, map[netip.Addr]int{}
	}
	// The request came twice, or the client did not get the answer. The answer
	// is sent again by itself.
	if s.asking[client] != nil {
		return nil
	}
	if old := s.routes[client]; old != nil {
		if time.Since(old.last) < time.Second {
			return nil
		}
		s.drop(old) // a box that was restarted asks from the same port
		old.stop(errors.New("the client asked anew"))
	}
	limit := s.MaxTransfers
	if limit <= 0 {
		limit = DefaultMaxTransfers
	}
	if s.clients[client.Addr()] >= maxOfClient || s.busy >= 2*limit {
		return nil
	}
	if s.count >= limit {
		oldest := s.silent.Front()
		if oldest == nil {
			return nil
		}
		// A flood of requests from addresses that never answer must not keep
		// others out.
		r := oldest.Value.(*running)
		s.drop(r)
		r.stop(errDisplaced)
	}
	r := &running{client: client, last: time.Now()}
	r.ctx, r.stop = context.WithCancelCause(ctx)
	if s.OnePort {
		r.inbox = make(chan []byte, MaxWindow)
		s.routes[client] = r
	}
	r.place = s.silent.PushBack(r)
	s.asking[client] = r
	s.clients[client.Addr()]++
	s.count++
	s.busy++
	return r
}

// drop takes a transfer out of the lists. s.mu is held.
func (s *Server) drop(r *running) {
	if r.dropped {
		return
	}
	r.dropped = true
	s.answered(r)
	if s.routes[r.client] == r {
		delete(s.routes, r.client)
	}
	s.count--
	if s.clients[r.client.Addr()]--; s.clients[r.client.Addr()] == 0 {
		delete(s.clients, r.client.Addr())
	}
}

// answered notes that the client of a transfer was heard. s.mu is held.
func (s *Server) answered(r *running) {
	if r.place != nil {
		s.silent.Remove(r.place)
		r.place = nil
		delete(s.asking, r.client)
	}
}

func (s *Server) forget(r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(r)
	s.busy--
	r.stop(nil)
}

func (s *Server) heard(r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered(r)
}

// pass gives a packet to the transfer that it belongs to, if all goes through
// one port.
func (s *Server) pass(p []byte, client netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.routes[client]
	if r == nil {
		return
	}
	r.last = time.Now()
	select {
	case r.inbox <- append([]byte(nil), p...):
	default: // it answers too often
	}
}

// serve runs one transfer and tells of it.
func (s *Server) serve(r *running, pc *ipv4.PacketConn, req request, who Request) {
	begin := time.Now()
	result := Transfer{Request: who}
	result.Err = s.answer(r, pc, req, &result)
	result.Duration = time.Since(begin)
	if s.Done != nil {
		s.Done(result)
	}
}

func (s *Server) answer(r *running, pc *ipv4.PacketConn, req request, result *Transfer) error {
	l, err := s.link(r, pc, result.Request)
	if err != nil {
		return err
	}
	defer l.Close()
	file, err := s.Open(result.Request)
	if err != nil {
		code, text := uint16(codeOther), "the server cannot open the file"
		switch {
		case errors.Is(err, fs.ErrNotExist):
			code, text = codeNotFound, "there is no such file"
		case errors.Is(err, fs.ErrPermission):
			code, text = codeForbidden, "the file is not given out"
		}
		l.send(errorPacket(code, text))
		return err
	}
	defer file.Close()
	result.Size = file.Size()
	tr := &transfer{link: l, file: file, size: result.Size, heard: func() { s.heard(r) }}
	tr.options = s.take(req.options, result.Client.Addr())
	err = tr.run()
	result.Block, result.Window = int(tr.block), int(tr.window)
	var ended *clientError
	if errors.As(err, &ended) && tr.sent == 0 {
		result.Probe, err = true, nil
	}
	if cause := context.Cause(r.ctx); err != nil && cause != nil {
		err = cause
	}
	return err
}

// take bounds what a client asked for.
func (s *Server) take(o options, client netip.Addr) options {
	most := 0
	if s.MaxBlock != nil {
		most = s.MaxBlock(client)
	}
	if most <= 0 {
		most = DefaultMaxBlock
	}
	o.block = min(o.block, most)
	o.window = min(o.window, MaxWindow)
	return o
}

// closer is a link with an end.
type closer interface {
	link
	io.Closer
}

// link makes the way that the packets of a transfer take.
func (s *Server) link(r *running, pc *ipv4.PacketConn, who Request) (closer, error) {
	if s.OnePort {
		return &shared{r: r, pc: pc, who: who}, nil
	}
	// The answer comes from the very address that was asked. A loader takes no
	// other.
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(who.Server, 0)))
	if err != nil {
		return nil, fmt.Errorf("cannot answer from %s: %w", who.Server, err)
	}
	o := &own{UDPConn: conn, client: who.Client}
	o.end = context.AfterFunc(r.ctx, func() { conn.Close() })
	return o, nil
}

// own is a socket of one transfer.
type own struct {
	*net.UDPConn
	client netip.AddrPort
	end    func() bool
	buf    [maxRequest]byte
}

func (o *own) Close() error {
	o.end()
	return o.UDPConn.Close()
}

func (o *own) send(p []byte) error {
	_, err := o.WriteToUDPAddrPort(p, o.client)
	return passing(err)
}

func (o *own) receive(until time.Time) ([]byte, error) {
	o.SetReadDeadline(until)
	for {
		n, from, err := o.ReadFromUDPAddrPort(o.buf[:])
		if err != nil {
			return nil, err
		}
		if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) == o.client {
			return o.buf[:n], nil
		}
		// Somebody else's packet does not disturb the transfer (RFC 1350
		// section 4).
		o.WriteToUDPAddrPort(errorPacket(codeUnknownID, "this transfer is another client's"), from)
	}
}

// shared is one transfer on the server's only port.
type shared struct {
	r   *running
	pc  *ipv4.PacketConn
	who Request
}

func (l *shared) Close() error { return nil }

func (l *shared) send(p []byte) error {
	_, err := l.pc.WriteTo(p, &ipv4.ControlMessage{Src: l.who.Server.AsSlice()}, net.UDPAddrFromAddrPort(l.who.Client))
	return passing(err)
}

func (l *shared) receive(until time.Time) ([]byte, error) {
	select { // what is here already goes before the time
	case p := <-l.r.inbox:
		return p, nil
	default:
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case p := <-l.r.inbox:
		return p, nil
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	case <-l.r.ctx.Done():
		return nil, context.Cause(l.r.ctx)
	}
}

// passing takes an error of sending for a lost packet, unless the socket is
// closed. A full queue of a network card is no reason to give a box up.
func passing(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

package peering_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/peer/peering"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/testenv/testkey"
	"testbox-imaging/internal/wire"
)

const (
	mib   = 1 << 20
	unit  = 256 << 10
	limit = 5 * time.Minute // far more than anything here takes
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lab is a server with a backup of one box, in this process.
type lab struct {
	t      testing.TB
	blobs  *mem.Store
	cert   tls.Certificate
	key    wire.Fingerprint
	addr   string
	record *image.Record
	source string // file of the disk
	size   int64

	port port         // of the server
	made atomic.Int32 // boxes

	mu   sync.Mutex // guards the fields below
	sent int64      // bytes of chunks and pages
	off  bool       // rooms
	news []boxapi.RoomNews
	http *http.Server
	api  *boxapi.Server
	l    net.Listener
}

// newLab makes a lab whose image has so many regions, and so many bytes of data in each.
func newLab(t testing.TB, regions int, data int) *lab {
	t.Helper()
	l := &lab{t: t, blobs: &mem.Store{}, addr: "127.0.0.1:0", source: filepath.Join(t.TempDir(), "source")}
	var err error
	l.cert, l.key, err = testkey.New()
	must(t, err)
	must(t, store.Init(t.Context(), l.blobs))
	l.size = int64(regions-1)*chunk.RegionSize + int64(data)*2
	f, err := os.Create(l.source)
	must(t, err)
	must(t, f.Truncate(l.size))
	for i := range regions {
		_, err := f.WriteAt(halfText(data, uint64(i)), int64(i)*chunk.RegionSize)
		must(t, err)
	}
	must(t, f.Close())
	l.start()
	t.Cleanup(l.kill)
	return l
}

// halfText is data of which half can be compressed.
func halfText(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := mathrand.New(mathrand.NewPCG(seed, 1))
	for i := 0; i < n; i += 4096 {
		if i/4096%2 == 0 {
			for j := i; j < i+4096; j++ {
				b[j] = byte(r.Uint32())
			}
		} else {
			copy(b[i:i+4096], bytes.Repeat(fmt.Appendf(nil, "line %d of %d\n", i, seed), 400))
		}
	}
	return b
}

// start starts the server, as a new process would.
func (l *lab) start() {
	l.t.Helper()
	s, err := store.Open(context.Background(), store.Config{Blobs: l.blobs, PackSize: 8 << 20})
	must(l.t, err)
	if l.record == nil {
		l.backUp(s)
	}
	api := boxapi.New(boxapi.Config{
		Grants: l, Begin: func() chunk.Session { return s.Begin() }, Images: s,
		Log: func(string, ...any) {},
		Room: func(string) boxapi.RoomSetting {
			l.mu.Lock()
			defer l.mu.Unlock()
			return boxapi.RoomSetting{On: !l.off, Unit: unit}
		},
		RoomNews: func(n boxapi.RoomNews) { l.mu.Lock(); defer l.mu.Unlock(); l.news = append(l.news, n) },
		Sent:     func(_ string, n int64) { l.mu.Lock(); defer l.mu.Unlock(); l.sent += n },
	})
	mux := http.NewServeMux()
	api.Routes(mux)
	listener, err := net.Listen("tcp", l.addr)
	for end := time.Now().Add(limit); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		listener, err = net.Listen("tcp", l.addr) // a connection may have the port for a moment
	}
	must(l.t, err)
	srv := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{l.cert}}}
	boxapi.Limit(srv)
	l.mu.Lock()
	l.addr, l.http, l.api, l.l = listener.Addr().String(), srv, api, listener
	l.mu.Unlock()
	go srv.ServeTLS(&slowListener{listener, &l.port}, "", "")
}

// port is a network port that sends so many bytes in a second.
type port struct {
	rate int64 // 0 means no limit

	mu   sync.Mutex // guards next
	next time.Time
}

func (p *port) wait(n int) {
	if p.rate == 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	d := p.next.Sub(now)
	p.mu.Unlock()
	time.Sleep(d)
}

type slowListener struct {
	net.Listener
	port *port
}

func (l *slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &slowConn{c, l.port}, err
}

type slowConn struct {
	net.Conn
	port *port
}

func (c *slowConn) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), 16<<10)]
		c.port.wait(len(part))
		var m int
		m, err = c.Conn.Write(part)
		n, b = n+m, b[len(part):]
	}
	return n, err
}

func (l *lab) backUp(s *store.Store) {
	l.t.Helper()
	d := l.disk()
	src, err := disk.OpenPath(l.source, d, false)
	must(l.t, err)
	defer src.Close()
	session := s.Begin()
	l.record = &image.Record{Format: image.RecordFormat, Box: "127.0.0.1"}
	_, err = backup.Make(l.t.Context(), session, l.record, []backup.Disk{{Name: "sda", Identity: d.Identity, Source: src}}, backup.Options{})
	must(l.t, err)
	must(l.t, session.Close())
}

// stored is how long the chunks of the image are in the store.
func (l *lab) stored() (n int64) {
	l.t.Helper()
	s, err := store.Open(l.t.Context(), store.Config{Blobs: l.blobs, ReadOnly: true})
	must(l.t, err)
	defer s.Close()
	im, err := s.OpenImage(l.t.Context(), l.record, "sda")
	must(l.t, err)
	defer im.Close()
	for i := range im.Root.Pages {
		r, err := im.Region(l.t.Context(), i)
		must(l.t, err)
		for j := range r.Len() {
			at, err := r.Place(j)
			must(l.t, err)
			o, err := im.Getter().Get(l.t.Context(), at, nil)
			must(l.t, err)
			n += int64(len(o.Data))
		}
	}
	return n
}

func (l *lab) disk() disk.Disk {
	return disk.Disk{Name: "sda", Identity: image.Identity{Size: l.size, SectorSize: 512}}
}

// kill ends the server without a word.
func (l *lab) kill() {
	l.mu.Lock()
	srv, api, listener := l.http, l.api, l.l
	l.http = nil
	l.mu.Unlock()
	if srv != nil {
		listener.Close()
		srv.Close()
		api.Close()
	}
}

// Grant implements boxapi.Authority.
func (l *lab) Grant(_ context.Context, token string, from netip.Addr) (boxapi.Grant, error) {
	if token == "" {
		return boxapi.Grant{}, fs.ErrNotExist
	}
	return boxapi.Grant{Box: from.String(), MayRead: func(string, string, string) bool { return true }}, nil
}

// box is a box that restores.
type testBox struct {
	l     *lab
	node  *peering.Node
	image *peering.Image
	chunk *chunk.Image
	path  string // of its disk
	opt   copier.RestoreOptions
	stay  chan struct{} // if it is not nil, the box serves others until it is closed
	done  chan struct{} // is told when the disk is restored, if stay is not nil

	mu  sync.Mutex // guards log
	log []string
}

func (b *testBox) logf(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, fmt.Sprintf(format, args...))
}

func (b *testBox) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%q", b.log)
}

// client makes an HTTP client of a box with an address of its own.
func (l *lab) client(from netip.Addr) *http.Client {
	c := remote.NewHTTP(l.key)
	dial := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c.Transport.(*http.Transport).DialContext = dial.DialContext
	return c
}

// box makes a box with an empty disk.
func (l *lab) box(memory int64) *testBox {
	l.t.Helper()
	b := &testBox{l: l, path: filepath.Join(l.t.TempDir(), "disk")}
	var err error
	from := netip.AddrFrom4([4]byte{127, 0, 1, byte(l.made.Add(1))})
	b.node, err = peering.NewNode(peering.Config{Address: from, Memory: memory, Now: time.Now, Log: b.logf})
	must(l.t, err)
	l.t.Cleanup(b.node.Close)
	must(l.t, os.WriteFile(b.path, nil, 0o600))
	must(l.t, os.Truncate(b.path, l.size))
	cfg := remote.Config{HTTP: l.client(from), Base: "https://" + l.addr, Token: rand.Text(), Log: b.logf}
	c, err := remote.New(cfg)
	must(l.t, err)
	l.t.Cleanup(cfg.HTTP.CloseIdleConnections)
	b.chunk, err = c.OpenImage(l.t.Context(), l.record, "sda")
	must(l.t, err)
	l.t.Cleanup(func() { b.chunk.Close() })
	ask, err := remote.RoomOf(b.chunk)
	must(l.t, err)
	b.image = b.node.Image(b.chunk, ask)
	b.opt.Workers = 2
	return b
}

// restore restores the image to the disk.
func (b *testBox) restore(ctx context.Context) (image.Receipt, error) {
	dev, err := disk.OpenPath(b.path, b.l.disk(), true)
	if err != nil {
		return image.Receipt{}, err
	}
	defer dev.Close()
	defer b.image.Close()
	b.opt.Log = b.logf
	r, err := copier.Restore(ctx, []copier.Job{{Name: "sda", Image: b.image, Target: dev, SectorSize: 512}}, b.opt)
	if err != nil {
		return image.Receipt{}, err
	}
	if b.stay != nil {
		b.done <- struct{}{}
		<-b.stay
	}
	return r[0], nil
}

// stays restores the disk, and serves others until end is called.
func (b *testBox) stays() (end func()) {
	b.stay, b.done = make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { all(b.l.t, []*testBox{b}) })
	<-b.done
	return func() {
		close(b.stay)
		wait.Wait()
	}
}

// exact fails unless the disk has what the source has.
func (b *testBox) exact() {
	b.l.t.Helper()
	f, err := os.Open(b.path)
	must(b.l.t, err)
	defer f.Close()
	src, err := os.Open(b.l.source)
	must(b.l.t, err)
	defer src.Close()
	got, want := make([]byte, mib), make([]byte, mib)
	for off := int64(0); off < b.l.size; off += mib {
		n := min(mib, b.l.size-off)
		_, err := f.ReadAt(got[:n], off)
		must(b.l.t, err)
		_, err = src.ReadAt(want[:n], off)
		must(b.l.t, err)
		if !bytes.Equal(got[:n], want[:n]) {
			b.l.t.Fatalf("the disk has other bytes in the MiB at %d", off)
		}
	}
}

// all restores all boxes at once.
func all(t testing.TB, boxes []*testBox) (receipts []image.Receipt) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	receipts = make([]image.Receipt, len(boxes))
	errs := make([]error, len(boxes))
	var wait sync.WaitGroup
	for i, b := range boxes {
		wait.Go(func() { receipts[i], errs[i] = b.restore(ctx) })
	}
	wait.Wait()
	for i, b := range boxes {
		if errs[i] != nil {
			t.Fatalf("box %d: %v; it says %s", i, errs[i], b.said())
		}
		b.exact()
	}
	return receipts
}

package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// served is a server that runs.
type served struct {
	*Server
	addr *net.UDPAddr
	conn *net.UDPConn
	stop func()

	mu   sync.Mutex
	done []Transfer
}

func serve(t testing.TB, s *Server) *served {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	must(t, err)
	out := &served{Server: s, conn: conn, addr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: conn.LocalAddr().(*net.UDPAddr).Port}}
	s.drain = 200 * time.Millisecond // some clients of the tests never answer
	s.Done = func(tr Transfer) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.done = append(out.done, tr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, conn) }()
	out.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		conn.Close()
	})
	t.Cleanup(out.stop)
	return out
}

func (s *served) at(ip string) *net.UDPAddr {
	return &net.UDPAddr{IP: net.ParseIP(ip), Port: s.addr.Port}
}

// results waits until n transfers have ended.
func (s *served) results(t testing.TB, n int) []Transfer {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		done := slices.Clone(s.done)
		s.mu.Unlock()
		if len(done) >= n {
			return done
		}
		if time.Now().After(until) {
			t.Fatalf("%d transfers have ended, not %d", len(done), n)
		}
	}
}

// ports runs a test for both ways of using ports.
func ports(t *testing.T, test func(t *testing.T, one bool)) {
	for _, one := range []bool{false, true} {
		t.Run(fmt.Sprintf("oneport=%v", one), func(t *testing.T) { test(t, one) })
	}
}

func TestGet(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		for _, c := range []struct {
			size    int
			options []string
			each    bool
		}{
			{size: 0}, {size: 1}, {size: 511}, {size: 512}, {size: 513}, {size: 100_000},
			{size: 100_000, options: []string{"blksize", "1408"}},
			{size: 2816, options: []string{"BLKSIZE", "1408", "TSIZE", "0"}},
			{size: 100_000, options: []string{"blksize", "1000", "windowsize", "4", "tsize", "0", "timeout", "2"}},
			{size: 100_000, options: []string{"windowsize", "7"}, each: true},
			{size: 64 * 512, options: []string{"windowsize", "64"}},
			{size: 0, options: []string{"tsize", "0"}},
		} {
			data := noise(c.size)
			s := serve(t, &Server{OnePort: one, Open: files{"f": data}.open})
			l := &loader{wire: dial(t, "127.0.0.1", s.addr), options: c.options, each: c.each}
			got, err := l.get("f")
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes with %q: got %d bytes, %v", c.size, c.options, len(got), err)
			}
			r := s.results(t, 1)[0]
			if r.Err != nil || r.Probe || r.Size != int64(c.size) || r.Name != "f" || r.Client.Addr().String() != "127.0.0.1" {
				t.Errorf("%d bytes with %q: %+v", c.size, c.options, r)
			}
		}
	})
}

// Block numbers go on with 0 after 65535, for a file of more blocks.
func TestRollover(t *testing.T) {
	data := noise(65536*8 + 20)
	s := serve(t, &Server{Open: files{"f": data}.open})
	l := &loader{wire: dial(t, "127.0.0.1", s.addr), options: []string{"blksize", "8", "windowsize", "64"}}
	got, err := l.get("f")
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What a client asks for is taken within bounds, and nonsense is passed over.
func TestOptions(t *testing.T) {
	for _, c := range []struct{ asked, want string }{
		{"blksize 1468", "blksize=1428"},
		{"blksize 65464 windowsize 65535", "blksize=1428 windowsize=64"},
		{"blksize 8 tsize 0", "blksize=8 tsize=1000"},
		{"tsize 77", "tsize=1000"},
		{"timeout 255", "timeout=255"},
		{"timeout 256 tsize 0", "tsize=1000"},
		{"windowsize 0 blksize 7 tsize 0", "tsize=1000"},
		{"blksize -1 windowsize x multicast 1 tsize 0", "tsize=1000"},
		{"blksize 99999999999999999999 tsize 0", "tsize=1000"},
		{"windowsize 0", ""},
		{"rollover 1", ""},
		{"", ""},
	} {
		s := serve(t, &Server{Open: files{"f": noise(1000)}.open})
		l := &loader{wire: dial(t, "127.0.0.1", s.addr), options: strings.Fields(c.asked)}
		got, err := l.get("f")
		var said []string
		for k, v := range l.got {
			said = append(said, k+"="+v)
		}
		slices.Sort(said)
		if err != nil || len(got) != 1000 || strings.Join(said, " ") != c.want {
			t.Errorf("asked for %q, got %q, %d bytes, %v", c.asked, said, len(got), err)
		}
		s.stop()
	}
	s := serve(t, &Server{Open: files{"f": noise(1000)}.open, MaxBlock: func(client netip.Addr) int {
		if client.String() == "127.0.0.2" {
			return 700
		}
		return 0
	}})
	for from, want := range map[string]string{"127.0.0.1": "1428", "127.0.0.2": "700"} {
		l := &loader{wire: dial(t, from, s.addr), options: []string{"blksize", "9000"}}
		if _, err := l.get("f"); err != nil || l.got["blksize"] != want {
			t.Errorf("%s was given blocks of %s, %v", from, l.got["blksize"], err)
		}
	}
}

func TestRefusals(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		s := serve(t, &Server{OnePort: one, Open: files{"f": noise(10)}.open})
		long := strings.Repeat("n", maxName+1)
		for _, c := range []struct {
			packet, want string
		}{
			{string(readRequest("nothing")), "error 1 there is no such file"},
			{string(readRequest("closed")), "error 2 the file is not given out"},
			{"\x00\x02f\x00octet\x00", "error 2 this server takes no files"},
			{"\x00\x01f\x00netascii\x00", "error 0 this server sends files in mode octet (binary) alone"},
			{"\x00\x01f\x00octet", "error 4 the request is cut off"},
			{"\x00\x01f\x00", "error 4 the request has no file name or no mode"},
			{"\x00\x01\x00octet\x00", "error 4 the request has no file name or no mode"},
			{string(readRequest(long)), "error 4 the file name has more than 512 bytes"},
			{string(readRequest("f", strings.Split(strings.Repeat("x y ", 40), " ")...)), "error 8 the request has too many options"},
		} {
			d := dial(t, "127.0.0.1", s.addr)
			d.WriteToUDP([]byte(c.packet), s.addr)
			p := d.read(20 * time.Second)
			if len(p) < 5 || binary.BigEndian.Uint16(p) != opError {
				t.Errorf("%q: %q", c.packet, p)
			} else if got := (&tftpError{binary.BigEndian.Uint16(p[2:]), string(p[4 : len(p)-1])}).Error(); got != c.want {
				t.Errorf("%q: %s", c.packet, got)
			}
		}
		done := s.results(t, 2)
		slices.SortFunc(done, func(a, b Transfer) int { return strings.Compare(b.Name, a.Name) }) // they may be told in another order
		if len(done) != 2 || !errors.Is(done[0].Err, fs.ErrNotExist) || !errors.Is(done[1].Err, fs.ErrPermission) {
			t.Errorf("%+v", done)
		}
		for _, p := range []string{"", "\x00", "\x00\x01", "\x00\x03\x00\x01data", "\x00\x04\x00\x01", "\x00\x05\x00\x01text\x00",
			"\x00\x09f\x00octet\x00", string(readRequest("f", long, long, long))} {
			d := dial(t, "127.0.0.1", s.addr)
			d.WriteToUDP([]byte(p), s.addr)
			if p := d.read(50 * time.Millisecond); p != nil {
				t.Errorf("an answer to %q: %q", p, p)
			}
		}
	})
}

// UEFI firmware asks for the size and ends with an error packet. It is not a
// failure.
func TestProbe(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		s := serve(t, &Server{OnePort: one, Open: files{"f": noise(5000)}.open})
		d := dial(t, "127.0.0.1", s.addr)
		d.write(readRequest("f", "tsize", "0"))
		if p := d.read(20 * time.Second); string(p) != "\x00\x06tsize\x005000\x00" {
			t.Fatalf("%q", p)
		}
		d.write(errorPacket(8, "User aborted the transfer\x01\xff"))
		if r := s.results(t, 1)[0]; !r.Probe || r.Err != nil || r.Size != 5000 {
			t.Errorf("%+v", r)
		}
		d = dial(t, "127.0.0.1", s.addr)
		d.write(readRequest("f"))
		d.read(20 * time.Second)
		d.write(errorPacket(3, "disk full\x01\xff"))
		if r := s.results(t, 2)[1]; r.Probe || r.Err == nil || r.Err.Error() != `the client ended the transfer: error 3 "disk full??"` {
			t.Errorf("%+v", r)
		}
	})
}

// The answer comes from the address that was asked, whatever addresses the
// machine has.
func TestAddressAsked(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		s := serve(t, &Server{OnePort: one, Open: files{"f": noise(5000)}.open})
		for i, ip := range []string{"127.0.0.1", "127.0.0.9", "127.8.0.1"} {
			l := &loader{wire: dial(t, "127.0.0.1", s.at(ip)), options: []string{"tsize", "0"}} // its socket takes no other address
			if got, err := l.get("f"); err != nil || len(got) != 5000 {
				t.Errorf("%s: %d bytes, %v", ip, len(got), err)
			}
			// The next transfer begins when this one is told, as they may be told in another order.
			if r := s.results(t, i+1)[i]; r.Server.String() != ip {
				t.Errorf("%s was asked, not %s", r.Server, ip)
			}
		}
	})
}

// Another's packets do not disturb a transfer.
func TestStranger(t *testing.T) {
	s := serve(t, &Server{Open: files{"f": noise(2000)}.open})
	d, stranger := dial(t, "127.0.0.1", s.addr), dial(t, "127.0.0.3", s.addr)
	d.write(readRequest("f"))
	if p := d.read(20 * time.Second); len(p) != 516 {
		t.Fatalf("%d bytes", len(p))
	}
	for _, p := range []string{"\x00\x04\x00\x01", "\x00\x05\x00\x00end\x00", "x"} {
		stranger.WriteToUDP([]byte(p), d.peer)
		buf := make([]byte, 100)
		stranger.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := stranger.Read(buf); err != nil || n < 5 || binary.BigEndian.Uint32(buf) != opError<<16|codeUnknownID {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	for n := range byte(4) {
		d.write([]byte{0, opAck, 0, n + 1})
		if n == 3 {
			break
		}
		if p := d.read(20 * time.Second); len(p) < 4 || p[3] != n+2 {
			t.Fatalf("after block %d: %q", n+1, p)
		}
	}
	if r := s.results(t, 1)[0]; r.Err != nil {
		t.Error(r.Err)
	}
}

// A room of boxes starts at once, on a line that loses and doubles packets and
// changes their order.
func TestRoomOnBadLine(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		t.Parallel() // they wait for what was lost
		data, boxes := noise(testenv.Effort(20_000, 120_000)), testenv.Effort(40, 200)
		s := serve(t, &Server{OnePort: one, Open: files{"f": data}.open})
		var wg sync.WaitGroup
		for i := range boxes {
			wg.Go(func() {
				d := dial(t, fmt.Sprintf("127.0.1.%d", i+1), s.addr)
				d.bad = rand.New(rand.NewPCG(uint64(i), 2))
				l := &loader{wire: d, patient: i%2 == 0, each: i%5 == 0}
				if i%3 > 0 {
					l.options = []string{"blksize", "1408", "windowsize", fmt.Sprint(1 + i%9)}
				}
				got, err := l.get("f")
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("box %d got %d bytes, %v", i, len(got), err)
				}
			})
		}
		wg.Wait()
		// The last answer may be lost, and nobody sends it again. The server waits some seconds for it.
		for _, r := range s.results(t, testenv.Effort(boxes/2, boxes)) {
			if r.Err != nil && !errors.Is(r.Err, errUnconfirmed) && !errors.Is(r.Err, errSilent) {
				t.Error(r.Err)
			}
		}
	})
}

// Requests without number, from addresses that never answer, neither fill the
// memory nor keep a box out.
func TestFlood(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		data := noise(50_000)
		s := serve(t, &Server{OnePort: one, Open: files{"f": data}.open, MaxTransfers: 50})
		before := runtime.NumGoroutine()
		flood := make([]*socket, 40)
		for i := range flood {
			flood[i] = dial(t, fmt.Sprintf("127.0.2.%d", i+1), s.addr)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 3, byte(n))})
				if err == nil {
					c.WriteToUDP(readRequest("f", "tsize", "0"), s.addr)
					c.Close()
				}
				time.Sleep(time.Millisecond)
			}
		})
		for i := range 10 {
			l := &loader{wire: dial(t, fmt.Sprintf("127.0.4.%d", i+1), s.addr), options: []string{"blksize", "1408"}}
			if got, err := l.get("f"); err != nil || !bytes.Equal(got, data) {
				t.Errorf("a box got %d bytes, %v", len(got), err)
			}
		}
		if n := runtime.NumGoroutine() - before; n > 2*50+20 {
			t.Errorf("%d goroutines", n)
		}
		cancel()
		wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.count > 50 || len(s.asking) > 50 || s.silent.Len() > 50 || len(s.clients) > 51 {
			t.Errorf("%d transfers, %d and %d silent, %d clients", s.count, len(s.asking), s.silent.Len(), len(s.clients))
		}
	})
}

// A box comes in although all places are taken by clients that never answer.
func TestDisplaced(t *testing.T) {
	ports(t, func(t *testing.T, one bool) {
		s := serve(t, &Server{OnePort: one, Open: files{"f": noise(1000)}.open, MaxTransfers: 5})
		for i := range 5 {
			d := dial(t, fmt.Sprintf("127.0.5.%d", i+1), s.addr)
			d.write(readRequest("f"))
			d.read(20 * time.Second)
		}
		l := &loader{wire: dial(t, "127.0.0.1", s.addr)}
		if got, err := l.get("f"); err != nil || len(got) != 1000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		// The box may have its file before the end of the other transfer is told.
		all := s.results(t, 2)
		displaced := func(r Transfer) bool {
			return errors.Is(r.Err, errDisplaced) && r.Client.Addr().String() == "127.0.5.1"
		}
		if len(all) != 2 || displaced(all[0]) == displaced(all[1]) {
			t.Errorf("%+v", all)
		}
	})
}

// One box cannot take all places.
func TestManyOfOneClient(t *testing.T) {
	s := serve(t, &Server{Open: files{"f": noise(5000)}.open})
	var mine []*socket
	for range maxOfClient + 10 {
		d := dial(t, "127.0.0.1", s.addr)
		d.write(readRequest("f"))
		mine = append(mine, d)
	}
	other := &loader{wire: dial(t, "127.0.0.2", s.addr)}
	if _, err := other.get("f"); err != nil {
		t.Error(err)
	}
	for i, d := range mine { // they were looked at before the other's
		within := 20 * time.Second
		if i >= maxOfClient {
			within = 50 * time.Millisecond
		}
		if answered := d.read(within) != nil; answered != (i < maxOfClient) {
			t.Errorf("request %d is answered: %v", i, answered)
		}
	}
}

// The server ends in the middle of transfers: they come to their end, and
// requests that come meanwhile are the next server's.
func TestEnd(t *testing.T) {
	data := noise(20_000)
	s := &Server{Open: files{"f": data}.open}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, conn) }()
	d := dial(t, "127.0.0.1", conn.LocalAddr())
	d.write(readRequest("f"))
	p := d.read(20 * time.Second)
	cancel()
	time.Sleep(50 * time.Millisecond)
	late := dial(t, "127.0.0.1", conn.LocalAddr())
	late.write(readRequest("f"))
	var got []byte
	for ; ; p = d.read(20 * time.Second) {
		got = append(got, p[4:]...)
		d.write([]byte{0, opAck, p[2], p[3]})
		if len(p) < 516 {
			break
		}
	}
	if err := <-ended; err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { ended <- s.Serve(ctx, conn) }()
	if p := late.read(20 * time.Second); len(p) != 516 {
		t.Errorf("the next server answers %q", p)
	}
	late.write(errorPacket(0, "enough"))
	cancel()
	<-ended
}

// The clients that people have.
func TestClients(t *testing.T) {
	data := noise(3_000_000)
	ports(t, func(t *testing.T, one bool) {
		s := serve(t, &Server{OnePort: one, Open: files{"a/kernel": data}.open})
		port := fmt.Sprint(s.addr.Port)
		for name, args := range map[string][]string{
			"curl":  {"-s", "-S", "-o", "OUT", "tftp://127.0.0.1:" + port + "/a/kernel"},
			"tftp":  {"-m", "binary", "127.0.0.1", port, "-c", "get", "a/kernel", "OUT"},
			"atftp": {"--option", "blksize 1428", "--option", "windowsize 8", "--get", "-r", "a/kernel", "-l", "OUT", "127.0.0.1", port},
		} {
			t.Run(name, func(t *testing.T) {
				testenv.Tools(t, name)
				out := filepath.Join(t.TempDir(), "out")
				for i := range args {
					args[i] = strings.Replace(args[i], "OUT", out, 1)
				}
				said, err := exec.Command(name, args...).CombinedOutput()
				got, _ := os.ReadFile(out)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%v, %d bytes: %s", err, len(got), said)
				}
			})
		}
	})
}

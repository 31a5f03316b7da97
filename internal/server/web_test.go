package server

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/testenv"
)

// webRequest sends one request as it is written here, and returns the status and the body.
func webRequest(t *testing.T, at net.Addr, text string) (status int, header http.Header, body string) {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	must(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	_, err = io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n")+"\r\nHost: x\r\nConnection: close\r\n\r\n")
	must(t, err)
	raw, err := io.ReadAll(c)
	must(t, err)
	head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
	fmt.Sscanf(head, "HTTP/1.1 %d", &status)
	header = http.Header{}
	for _, line := range strings.Split(head, "\r\n")[1:] {
		key, value, _ := strings.Cut(line, ": ")
		header.Set(key, value)
	}
	return status, header, body
}

// A box gets the files of the area by HTTP, but no other box's boot file, and nothing
// beside the area.
func TestWeb(t *testing.T) {
	p := newParts(t)
	dir := filepath.Join(p.Config.TFTPDir(), "pxelinux.cfg")
	must(t, os.WriteFile(filepath.Join(dir, "default"), []byte("DEFAULT local"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "0A000007"), []byte("secret"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "7F000001"), []byte("mine"), 0o644))
	at, stop := run(t, p)
	defer stop()
	for _, c := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /pxelinux.cfg/default HTTP/1.1", 200, "DEFAULT local"},
		{"GET //pxelinux.cfg//default HTTP/1.1", 200, "DEFAULT local"},
		{"GET http://other/pxelinux.cfg/default HTTP/1.1", 200, "DEFAULT local"},
		{"GET /pxelinux.cfg/default HTTP/1.1\nRange: bytes=8-", 206, "local"},
		{"GET /pxelinux.cfg/default HTTP/1.1\nRange: bytes=99-", 416, ""},
		{"HEAD /pxelinux.cfg/default HTTP/1.1", 200, ""},
		{"GET /pxelinux.cfg/7F000001 HTTP/1.1", 200, "mine"},
		{"GET /pxelinux.cfg/0A000007 HTTP/1.1", 404, ""},
		{"HEAD /pxelinux.cfg/0A000007 HTTP/1.1", 404, ""},
		{"GET /pxelinux.cfg HTTP/1.1", 404, ""},
		{"GET / HTTP/1.1", 404, ""},
		{"GET /../ledger.db HTTP/1.1", 404, ""},
		{"GET /%2e%2e/ledger.db HTTP/1.1", 404, ""},
		{"GET /..%5cledger.db HTTP/1.1", 404, ""},
		{"PUT /pxelinux.cfg/default HTTP/1.1\nContent-Length: 0", 405, ""},
		{"OPTIONS * HTTP/1.1", 200, ""},
		{"CONNECT other:22 HTTP/1.1", 405, ""},
	} {
		status, header, body := webRequest(t, at.HTTP, c.request)
		if status != c.status || c.body != "" && body != c.body || header.Get("Location") != "" || strings.Contains(body, "secret") {
			t.Errorf("%.60s: %d %v %.60q", c.request, status, header, body)
		}
		if c.request == "HEAD /pxelinux.cfg/default HTTP/1.1" && header.Get("Content-Length") != "13" {
			t.Errorf("HEAD says %v", header)
		}
	}
}

// The client that people and other boot programs have.
func TestWebCurl(t *testing.T) {
	testenv.Tools(t, "curl")
	p := newParts(t)
	data := make([]byte, 5<<20)
	rand.Read(data)
	must(t, os.WriteFile(filepath.Join(p.Config.TFTPDir(), "big"), data, 0o644))
	at, stop := run(t, p)
	defer stop()
	half := filepath.Join(t.TempDir(), "half")
	must(t, os.WriteFile(half, data[:1<<20], 0o644))
	for _, args := range [][]string{{"--continue-at", "-"}, {"--http1.0"}, {"--limit-rate", "20M"}} {
		args = append(args, "--fail", "--silent", "--show-error", "--output", half, "http://"+at.HTTP.String()+"/big")
		out, err := exec.Command("curl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %v: %v: %s", args, err, out)
		}
		if got, err := os.ReadFile(half); err != nil || !bytes.Equal(got, data) {
			t.Errorf("curl %v: %d bytes that are not the file's, %v", args, len(got), err)
		}
	}
}

// A client that does not read is cut off, and holds nobody up meanwhile.
func TestWebSlow(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "big"), make([]byte, 64<<20), 0o644))
	var log lockedBuffer
	n, err := newNetboot(&server{Parts: Parts{Log: slog.New(slog.NewTextHandler(&log, nil))}, roster: newRoster(), sights: &sight.List{}}, dir)
	must(t, err)
	defer n.close()
	n.quiet = 300 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	web := n.web()
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(l) }()
	slow, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer slow.Close()
	_, err = io.WriteString(slow, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	answer, err := http.Get("http://" + l.Addr().String() + "/big")
	must(t, err)
	if size, err := io.Copy(io.Discard, answer.Body); size != 64<<20 || err != nil {
		t.Errorf("beside a slow client another one got %d bytes, %v", size, err)
	}
	answer.Body.Close()
	for end := time.Now().Add(time.Minute); !strings.Contains(log.String(), "did not get a file"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the slow client was not cut off:\n%s", log.String())
		}
	}
	slow.SetReadDeadline(time.Now().Add(time.Minute))
	if size, err := io.Copy(io.Discard, slow); size >= 64<<20 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the slow client got %d bytes, %v", size, err)
	}
	web.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Another program has the port: the server starts all the same, and says so. One address
// cannot take all connections.
func TestWebTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	p := newParts(t)
	var log lockedBuffer
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.Config.HTTP = taken.Addr().String()
	at, stop := run(t, p)
	if at.HTTP != nil || !strings.Contains(log.String(), "No box can be rescued") || !strings.Contains(log.String(), "give http another one") {
		t.Errorf("HTTP is at %v, and the log says\n%s", at.HTTP, log.String())
	}
	must(t, stop())
	p.Config.HTTP = ""
	log.reset()
	at, stop = run(t, p)
	if at.HTTP != nil || strings.Contains(log.String(), "level=WARN") {
		t.Errorf("HTTP is at %v, and the log says\n%s", at.HTTP, log.String())
	}
	must(t, stop())
}

func TestWebConnections(t *testing.T) {
	at, stop := run(t, newParts(t))
	defer stop()
	var conns [2 * maxWebBox]net.Conn
	for i := range conns {
		var err error
		conns[i], err = net.Dial("tcp", at.HTTP.String())
		must(t, err)
		defer conns[i].Close()
	}
	open := 0
	for i, c := range slices.Backward(conns[:]) {
		wait := 10 * time.Millisecond // all later ones are closed by now
		if i >= maxWebBox {
			wait = time.Minute // it is to be closed, and a busy machine takes its time
		}
		c.SetReadDeadline(time.Now().Add(wait))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		}
	}
	if open != maxWebBox {
		t.Errorf("one address has %d connections open, not %d", open, maxWebBox)
	}
}

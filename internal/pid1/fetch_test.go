package pid1

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/testenv"
)

// fetchBench is a fetcher and its server.
type fetchBench struct {
	*fetcher
	server *httptest.Server
	said   lockedBuffer
	beats  atomic.Int64
	root   bootcfg.RootFile
}

func newFetchBench(t *testing.T, data []byte, serve http.HandlerFunc) *fetchBench {
	t.Helper()
	b := &fetchBench{server: httptest.NewServer(serve)}
	t.Cleanup(b.server.Close)
	sum := sha256.Sum256(data)
	b.root = bootcfg.RootFile{
		Server: netip.MustParseAddrPort(b.server.Listener.Addr().String()), Path: "/root", SHA256: hex.EncodeToString(sum[:]),
	}
	b.fetcher = newFetcher(&system{})
	b.say = func(format string, args ...any) { fmt.Fprintf(&b.said, format+"\n", args...) }
	b.beat = func() { b.beats.Add(1) }
	b.free = func() (int64, error) { return 1 << 40, nil }
	b.pause = 10 * time.Millisecond
	return b
}

func someRoot(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

func (b *fetchBench) want(t *testing.T, data []byte) {
	t.Helper()
	file, err := b.fetch(t.Context(), b.root)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.said.String())
	}
	defer file.Close()
	got, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<40))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v, and not the %d that were sent", len(got), err, len(data))
	}
}

// What a server says, and what it takes to get the root all the same.
func TestFetch(t *testing.T) {
	data := someRoot(5<<20 + 17)
	content := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	unavailable := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) }
	elsewhere := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }
	half := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
	}
	broken := func(w http.ResponseWriter, _ *http.Request) {
		half(w)
		panic(http.ErrAbortHandler)
	}
	for name, c := range map[string]struct {
		first func(w http.ResponseWriter, r *http.Request) // the answer to the first request; nil is the right one
		then  func(w http.ResponseWriter, r *http.Request)
		says  string
	}{
		"at once":                  {nil, content, "the root is there: 5.2 MB"},
		"an error":                 {unavailable, content, "answers 503"},
		"not there yet":            {http.NotFound, content, "answers 404"},
		"sent elsewhere":           {elsewhere, content, "answers 302"},
		"a broken connection":      {broken, content, "2.6 MB so far"},
		"an end that is too early": {func(w http.ResponseWriter, r *http.Request) { half(w) }, content, "2.6 MB so far"},
		"a wrong byte": {func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append([]byte{data[0] ^ 1}, data[1:]...)))
		}, content, "has the SHA-256 "},
		"no parts": {broken,
			func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); content(w, r) }, "2.6 MB so far"},
		"another part": {broken,
			func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					r.Header.Set("Range", "bytes=5-")
				}
				content(w, r)
			}, "it sends from 5 of "},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			b := newFetchBench(t, data, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 && c.first != nil {
					c.first(w, r)
					return
				}
				c.then(w, r)
			})
			b.want(t, data)
			if !strings.Contains(b.said.String(), c.says) || b.beats.Load() < 4 {
				t.Errorf("%d beats, and said\n%s", b.beats.Load(), b.said.String())
			}
		})
	}
}

// What no try mends ends the start, so that the box restarts after its retry time.
func TestFetchForGood(t *testing.T) {
	data := someRoot(1 << 20)
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	for name, c := range map[string]struct {
		spoil func(b *fetchBench)
		serve http.HandlerFunc
		asked int64
		says  string
	}{
		"a wrong hash": {func(b *fetchBench) { b.root.SHA256 = strings.Repeat("0a", 32) }, serve, wrongTries, "and the boot file says 0a0a0a"},
		"too little memory": {func(b *fetchBench) { b.free = func() (int64, error) { return memoryReserve + 1<<20 - 1, nil } }, serve, 1,
			"this box has 202.4 MB of free memory; the root has 1.0 MB, and 201.3 MB beside it are needed"},
		"no length": {func(*fetchBench) {}, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(data)
		}, 1, "the server says that it has -1 bytes"},
		"a length that cannot be": {func(*fetchBench) {}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(int64(maxFetch+1)))
			w.Write(data)
		}, 1, "the server says that it has"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			b := newFetchBench(t, data, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				c.serve(w, r)
			})
			c.spoil(b)
			if file, err := b.fetch(t.Context(), b.root); !errors.Is(err, errForGood) || !strings.Contains(err.Error(), c.says) || file != nil {
				t.Errorf("%v", err)
			}
			if asked.Load() != c.asked {
				t.Errorf("it was asked %d times, not %d", asked.Load(), c.asked)
			}
		})
	}
}

// A server that is away makes no sign of progress, so that the stall time restarts the
// box. When it comes back, the fetch goes on.
func TestFetchAway(t *testing.T) {
	data := someRoot(3 << 20)
	b := newFetchBench(t, data, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	at := b.server.Listener.Addr().String()
	b.server.Close()
	go func() {
		for strings.Count(b.said.String(), "trying again") < 5 {
			time.Sleep(time.Millisecond)
		}
		if b.beats.Load() != 0 {
			t.Error("a server that is away counts as progress")
		}
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Error(err)
			return
		}
		b.server = &httptest.Server{Listener: l, Config: b.server.Config}
		b.server.Config = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		})}
		b.server.Start()
	}()
	b.want(t, data)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	b.root.Path = "/none"
	b.client.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no route")
	}}
	if _, err := b.fetch(ctx, b.root); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// Many boxes fetch at once.
func TestFetchMany(t *testing.T) {
	data := someRoot(2 << 20)
	b := newFetchBench(t, data, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { b.want(t, data) })
	}
	all.Wait()
}

func TestFreeMemory(t *testing.T) {
	if n, err := freeMemory(); err != nil || n < 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// FuzzParseRange: whatever a server says is a part of a file, or an error.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/10", "bytes */10", "bytes 5-9/*", "", "5-9/10", "bytes -5-9/10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, total, err := parseRange(s)
		if err == nil && !strings.HasPrefix(s, fmt.Sprintf("bytes %d-", from)) && !strings.Contains(s, "+") && !strings.Contains(s, "bytes 0") &&
			!strings.Contains(s, "bytes -0") {
			t.Errorf("%q is from %d of %d", s, from, total)
		}
	})
}

// TestSquashRoot puts a root together that was fetched as a squashfs, in a mount
// namespace of its own.
func TestSquashRoot(t *testing.T) {
	if dir := os.Getenv(insideEnv); dir != "" {
		insideSquashRoot(t, dir)
		return
	}
	testenv.Root(t)
	testenv.Tools(t, "unshare", "mksquashfs")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	runInside(t, dir, "TestSquashRoot", "--mount", "--uts")
}

func insideSquashRoot(t *testing.T, dir string) {
	tree, image, program := filepath.Join(dir, "tree"), filepath.Join(dir, "root.squashfs"), filepath.Join(dir, "program")
	write(t, program, "agent", 0o644)
	write(t, tree+"/etc/hosts", "old", 0o644)
	write(t, tree+"/etc/fstab", "areas", 0o644)
	write(t, tree+"/usr/bin/sudo", "set-uid", 0o755|os.ModeSetuid)
	write(t, tree+"/media/x", "", 0o644)
	if out, err := exec.Command("mksquashfs", tree, image, "-comp", "zstd", "-quiet").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v: %s", err, out)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sethostname([]byte("box42.lab.example")); err != nil {
		t.Fatal(err)
	}
	b := newFetchBench(t, data, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, image) })
	s := &system{cmd: &bootcfg.Cmdline{Fetch: b.root}, con: newConsole(), live: newPulse(time.Minute)}
	n := newRoot{dir: filepath.Join(dir, "root"), stage: filepath.Join(dir, "stage")}
	if err := n.mount(func(lower string) error { return s.mountRoot(t.Context(), lower) }); err != nil {
		t.Fatal(err)
	}
	b.server.Close() // and nothing of it is needed any more
	if err := n.fill([]byte("nameserver 10.0.0.53\n"), program); err != nil {
		t.Fatal(err)
	}
	checkNewRoot(t, n.dir, tree)
	for range 2 {
		if err := n.forget("etc/fstab"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(n.dir, "etc/fstab")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("fstab is still there: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Join(n.dir, layerRO), &st); err != nil || st.Type != unix.SQUASHFS_MAGIC {
		t.Errorf("the lower layer is of the kind %#x, %v", st.Type, err)
	}
}

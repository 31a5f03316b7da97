package imagefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/imagefs"
	"testbox-imaging/internal/testenv"
)

// TestMain is the process that dies while its mount is up, if the environment
// says so.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IMAGEFS_TEST_DIE"); dir != "" {
		_, err := imagefs.New(dir, []imagefs.File{{Name: "sda", Size: 1 << 20, ReaderAt: bytes.NewReader(make([]byte, 1<<20))}}, nil)
		fmt.Println(err)
		select {}
	}
	os.Exit(m.Run())
}

// mount is a mount, and what it logged.
type mount struct {
	dir string
	end context.CancelFunc
	// ended is closed when Wait has returned.
	ended chan struct{}

	mu  sync.Mutex // guards log
	log []string
}

func (m *mount) logf(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *mount) logged() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log)
}

func start(t *testing.T, dir string, files ...imagefs.File) *mount {
	t.Helper()
	testenv.Root(t)
	m := &mount{dir: dir, ended: make(chan struct{})}
	server, err := imagefs.New(dir, files, m.logf)
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.end = context.WithCancel(context.Background())
	go func() {
		server.Wait(ctx)
		close(m.ended)
	}()
	t.Cleanup(func() {
		m.end()
		m.wantEnd(t)
	})
	return m
}

func (m *mount) wantEnd(t *testing.T) {
	t.Helper()
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		t.Fatal("the mount does not end")
	}
	if names, err := os.ReadDir(m.dir); err != nil || len(names) > 0 {
		t.Errorf("the folder has %v, %v", names, err)
	}
}

func (m *mount) path(name string) string { return filepath.Join(m.dir, name+".raw") }

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func disk(name string, b []byte) imagefs.File {
	return imagefs.File{Name: name, Size: int64(len(b)), ModTime: time.Unix(1_800_000_000, 500), ReaderAt: bytes.NewReader(b)}
}

func TestReads(t *testing.T) {
	disks := map[string][]byte{}
	var files []imagefs.File
	for _, size := range []int{0, 1, 4095, 4096, 1<<20 + 513, 5<<20 + 1} {
		name := fmt.Sprint("disk ", size)
		disks[name] = noise(size)
		files = append(files, disk(name, disks[name]))
	}
	m := start(t, t.TempDir(), files...)
	if names, err := os.ReadDir(m.dir); err != nil || len(names) != len(files) {
		t.Errorf("the folder has %v, %v", names, err)
	}
	for name, want := range disks {
		st, err := os.Stat(m.path(name))
		if err != nil || st.Size() != int64(len(want)) || !st.Mode().IsRegular() || !st.ModTime().Equal(time.Unix(1_800_000_000, 500)) {
			t.Fatalf("%s is %v, %v", name, st, err)
		}
		got, err := os.ReadFile(m.path(name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d other bytes, %v", name, len(got), err)
		}
	}
	f, err := os.Open(m.path("disk 5242881"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() { readAnywhere(t, f, disks["disk 5242881"], uint64(i)) })
	}
	readers.Wait()
}

// readAnywhere holds a file to its bytes.
func readAnywhere(t *testing.T, f io.ReaderAt, want []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		off, p := r.IntN(len(want)), make([]byte, r.IntN(300_000))
		n, err := f.ReadAt(p, int64(off))
		if wantN := min(len(p), len(want)-off); n != wantN || (err != nil) != (n < len(p)) || !bytes.Equal(p[:n], want[off:off+n]) {
			t.Errorf("%d bytes from %d: %d, %v, or other bytes", len(p), off, n, err)
			return
		}
	}
}

func TestReadOnly(t *testing.T) {
	m := start(t, t.TempDir(), disk("sda", noise(10_000)))
	_, openErr := os.OpenFile(m.path("sda"), os.O_RDWR, 0)
	for what, err := range map[string]error{
		"open": openErr, "truncate": os.Truncate(m.path("sda"), 5), "remove": os.Remove(m.path("sda")),
		"create": os.WriteFile(m.path("sdb"), nil, 0o600),
		"chmod":  os.Chmod(m.path("sda"), 0o777),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s says %v", what, err)
		}
	}
}

// huge is a disk that nobody could hold: each 8 bytes are their own offset.
type huge struct{ size int64 }

func (h huge) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		at := off + int64(i)
		p[i] = byte(at &^ 7 >> (8 * (at & 7)))
	}
	return len(p), nil
}

func TestHuge(t *testing.T) {
	const size = 60<<40 + 5
	m := start(t, t.TempDir(), imagefs.File{Name: "huge", Size: size, ReaderAt: huge{size}})
	f, err := os.Open(m.path("huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 1 << 32, 1<<40 + 7, size - 4100} {
		got, want := make([]byte, 5000), make([]byte, 5000)
		huge{}.ReadAt(want, off)
		n, err := f.ReadAt(got, off)
		if wantN := min(5000, size-off); int64(n) != wantN || !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("at %d: %d bytes, %v", off, n, err)
		}
	}
}

// broken is a disk with bytes that cannot be read.
type broken struct {
	io.ReaderAt
	from, to int64
	err      error
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= b.from || off >= b.to {
		return b.ReaderAt.ReadAt(p, off)
	}
	n := max(0, b.from-off)
	b.ReaderAt.ReadAt(p[:n], off)
	return int(n), b.err
}

// TestErrors: bytes that cannot be read are an error, and cost no others.
func TestErrors(t *testing.T) {
	const from, to = 1_000_000, 1_100_000 // on pages from 999_424 to 1_101_824
	want := noise(3 << 20)
	for name, err := range map[string]error{"damaged": errors.New("chunk 1234 is damaged"), "short": nil, "ends": io.EOF} {
		t.Run(name, func(t *testing.T) {
			m := start(t, t.TempDir(), imagefs.File{Name: "sda", Size: 3 << 20, ReaderAt: broken{bytes.NewReader(want), from, to, err}})
			f, openErr := os.Open(m.path("sda"))
			if openErr != nil {
				t.Fatal(openErr)
			}
			defer f.Close()
			for off := int64(0); off < 3<<20; off += 4096 {
				p := make([]byte, 4096)
				n, err := f.ReadAt(p, off)
				if bad := off+4096 > from && off < to; bad && (!errors.Is(err, syscall.EIO) || n != 0) {
					t.Errorf("the bad page at %d reads %d, %v", off, n, err)
				} else if !bad && (err != nil || !bytes.Equal(p, want[off:off+4096])) {
					t.Errorf("the good page at %d reads %v", off, err)
				}
			}
			if st, err := f.Stat(); err != nil || st.Size() != 3<<20 {
				t.Errorf("then the file is %v, %v", st, err)
			}
			log := m.logged()
			if len(log) == 0 || len(log) > 5 || !strings.Contains(log[0], "sda.raw") {
				t.Errorf("the log has %d lines: %q", len(log), log)
			}
			if err != nil && err != io.EOF && !strings.Contains(log[0], err.Error()) {
				t.Errorf("the log does not say why: %q", log)
			}
		})
	}
}

// TestAllBad: a disk of which nothing can be read does not fill the log.
func TestAllBad(t *testing.T) {
	m := start(t, t.TempDir(), imagefs.File{Name: "sda", Size: 1 << 30, ReaderAt: broken{bytes.NewReader(nil), 0, 1 << 30, errors.New("bad")}})
	f, err := os.Open(m.path("sda"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 300 {
		if _, err := f.ReadAt(make([]byte, 1), int64(i*7919%300)*1_000_000); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	if log := m.logged(); len(log) != 101 || !strings.Contains(log[100], "not logged") {
		t.Errorf("the log has %d lines", len(log))
	}
}

// TestCache: what was read is not asked for again, not even by another who
// opens the file.
func TestCache(t *testing.T) {
	var asked atomic.Int64
	data := noise(1 << 20)
	m := start(t, t.TempDir(), imagefs.File{Name: "sda", Size: 1 << 20, ReaderAt: readerAt(func(p []byte, off int64) (int, error) {
		asked.Add(int64(len(p)))
		return bytes.NewReader(data).ReadAt(p, off)
	})})
	for range 3 {
		if got, err := os.ReadFile(m.path("sda")); err != nil || !bytes.Equal(got, data) {
			t.Fatal("other bytes", err)
		}
	}
	if n := asked.Load(); n != 1<<20 {
		t.Errorf("the disk was asked for %d bytes", n)
	}
}

type readerAt func([]byte, int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }

// TestInUse: the end waits for who has a file open, and serves until then.
func TestInUse(t *testing.T) {
	want := noise(4 << 20)
	m := start(t, t.TempDir(), disk("sda", want))
	f, err := os.Open(m.path("sda"))
	if err != nil {
		t.Fatal(err)
	}
	m.end()
	for deadline := time.Now().Add(time.Minute); len(m.logged()) == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if log := m.logged(); len(log) != 1 || !strings.Contains(log[0], "ends by itself as soon as nothing uses it") {
		t.Errorf("the log has %q", log)
	}
	readAnywhere(t, f, want, 1)
	f.Close()
	m.wantEnd(t)
}

// TestUnmountedByHand: umount ends it too.
func TestUnmountedByHand(t *testing.T) {
	m := start(t, t.TempDir(), disk("sda", noise(1000)))
	if err := syscall.Unmount(m.dir, 0); err != nil {
		t.Fatal(err)
	}
	m.wantEnd(t)
}

// TestTwice: a folder with a mount is not mounted on again.
func TestTwice(t *testing.T) {
	m := start(t, t.TempDir(), disk("sda", noise(1000)))
	if _, err := imagefs.New(m.dir, nil, nil); err == nil || !strings.Contains(err.Error(), "umount") {
		t.Errorf("a second mount says %v", err)
	}
}

// TestDeadMount: what a process leaves that was killed is in nobody's way.
func TestDeadMount(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), "a folder")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "IMAGEFS_TEST_DIE="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	said := make([]byte, 100)
	n, _ := out.Read(said)
	if string(said[:n]) != "<nil>\n" {
		t.Fatalf("the mount says %q", said[:n])
	}
	if _, err := os.Stat(filepath.Join(dir, "sda.raw")); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("the folder is not a dead mount: %v", err)
	}
	want := noise(100_000)
	m := start(t, dir, disk("sdb", want))
	if got, err := os.ReadFile(m.path("sdb")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("over a dead mount: other bytes, %v", err)
	}
}

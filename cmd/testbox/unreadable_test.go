package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/imagefs"
	"testbox-imaging/internal/testenv"
)

// worn is a disk of which some bytes cannot be read.
type worn struct {
	io.ReaderAt
	bad [][2]int64 // from, to
}

func (w worn) ReadAt(p []byte, off int64) (int, error) {
	for _, b := range w.bad {
		if off < b[1] && off+int64(len(p)) > b[0] {
			return 0, syscall.EIO
		}
	}
	return w.ReaderAt.ReadAt(p, off)
}

// wornFile is a file of a worn disk.
func (s *shell) wornFile(name string, disk []byte, bad ...[2]int64) string {
	s.t.Helper()
	at := s.path(name)
	if err := os.Mkdir(at, 0o755); err != nil {
		s.t.Fatal(err)
	}
	r := worn{strings.NewReader(string(disk)), bad}
	m, err := imagefs.New(at, []imagefs.File{{Name: "sda", Size: int64(len(disk)), ReaderAt: r}}, s.t.Logf)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { m.Wait(s.ctx) }) // which has ended by then
	return filepath.Join(at, "sda.raw")
}

// TestUnreadableSectors: whatever uses an image with zeros for sectors that
// could not be read names them and ends with 4.
func TestUnreadableSectors(t *testing.T) {
	testenv.Root(t)
	s := newShell(t)
	disk := conform.Disks(5 << 20)["noise"]
	bad := s.wornFile("worn", disk, [2]int64{2 << 20, 2<<20 + 4096})
	const places, zeros = "sda: bytes 2097152 to 2101247 ", "the image has zeros there"
	s.run(0, "store", "init")
	s.run(0, "image", "create", "box", "sda="+s.write("whole.img", disk))
	s.run(4, "image", "create", "box", "sda="+bad)
	want := append([]byte{}, disk...)
	clear(want[2<<20 : 2<<20+4096])
	for _, args := range [][]string{
		{"verify", "box"}, {"restore", "-y", "box", s.path("new.img")},
		{"export", "box", s.path("out.raw")}, {"export", "box", s.path("out.raw.gz")}, {"export", "box", s.path("out.qcow2")},
		{"export", "--format", "raw", "box", "-"}, {"export", "--format", "raw.gz", "box", "-"},
	} {
		out := s.run(4, append([]string{"image"}, args...)...)
		if !strings.Contains(out, places) || !strings.Contains(out, zeros) {
			t.Errorf("%v says %.2000q", args, out)
		}
		if warns := strings.Contains(out, "its last whole image is in box@"); !warns && args[0] != "verify" {
			t.Errorf("%v does not name a whole image", args)
		}
	}
	s.same(s.path("new.img"), want)
	s.same(s.path("out.raw"), want)
	// Of a disk that cannot be read it is not said that an image has zeros.
	out := s.run(6, "image", "verify", "box@latest~1", "sda="+bad)
	if !strings.Contains(out, places+bad+" cannot be read there") || strings.Contains(out, zeros) {
		t.Errorf("compared with a whole image: %s", out)
	}
	at := s.path("mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	out = s.cancelled("an interrupt ends it", 0, "image", "mount", "--foreground", "box", at)
	if !strings.Contains(out, places) || !strings.Contains(out, "its last whole image is in box@") {
		t.Errorf("the mount says %s", out)
	}
}

// TestFailingFile: of a file whose partition table cannot be read a backup is
// made only by who says so.
func TestFailingFile(t *testing.T) {
	testenv.Root(t)
	s := newShell(t)
	disk := conform.Disks(5 << 20)["noise"]
	bad := s.wornFile("failing", disk, [2]int64{0, 4096})
	s.run(0, "store", "init")
	for _, verb := range []string{"create", "import"} {
		if out := s.run(3, "image", verb, "box", "sda="+bad); !strings.Contains(out, "the disk is failing") {
			t.Errorf("%s: %s", verb, out)
		}
		if out := s.run(4, "image", verb, "--accept-failing", "box", "sda="+bad); !strings.Contains(out, "sda: bytes 0 to 4095 cannot be read") {
			t.Errorf("%s: %s", verb, out)
		}
	}
	s.run(0, "disk", "map", bad)
	s.run(4, "image", "restore", "-y", "box", s.path("new.img"))
	clear(disk[:4096])
	s.same(s.path("new.img"), disk)
}

// TestStoreOnWornDisk: sectors of the store's own disk that cannot be read are
// damage like other damage.
func TestStoreOnWornDisk(t *testing.T) {
	testenv.Root(t)
	s := newShell(t)
	disk := conform.Disks(5 << 20)["noise"]
	s.run(0, "store", "init")
	img := s.write("a.img", disk)
	s.run(0, "image", "create", "box", "sda="+img)
	s.run(0, "image", "create", "other", "sda="+s.write("b.img", conform.Disks(3 << 20)["mixed"]))
	pack := s.path("store/packs/data-00000001")
	text, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(pack); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.wornFile("worn", text, [2]int64{1 << 20, 1<<20 + 4096}), pack); err != nil {
		t.Fatal(err)
	}
	if out := s.run(0, "store", "stats"); !strings.Contains(out, "all files: 6.") {
		t.Errorf("what is behind a link is not counted: %s", out)
	}
	if out := s.run(1, "image", "verify", "box"); !strings.Contains(out, "sda is damaged") {
		t.Error(out)
	}
	if out := s.run(0, "image", "list"); strings.Count(out, " D\n") != 1 {
		t.Error(out)
	}
	s.run(0, "image", "verify", "other")
	s.run(1, "image", "restore", "-y", "box", s.path("new.img"))
	s.run(1, "store", "scrub")
	for _, end := range []int64{4096, int64(len(text))} { // the pack's header, and its table
		if err := os.Remove(pack); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(s.wornFile(fmt.Sprint("worn", end), text, [2]int64{end - 4096, end}), pack); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.path("store/index")); err != nil {
			t.Fatal(err)
		}
		if out := s.run(0, "image", "create", "box", "sda="+img); !strings.Contains(out, "what is whole in it is used") {
			t.Error(out)
		}
		s.run(0, "image", "verify", "box")
		s.run(0, "image", "verify", "other")
	}
	s.run(0, "store", "gc", "--yes")
	s.run(0, "image", "restore", "-y", "box@latest~1", s.path("new.img"))
	s.same(s.path("new.img"), disk)
}

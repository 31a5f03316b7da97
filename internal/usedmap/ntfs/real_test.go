package ntfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// kind is realfs.NTFS with a sector size that can be chosen, larger writes by
// FUSE, and with the checker that compares the map with all of the files.
var kind = realfs.Kind{
	Name:      "ntfs",
	Mkfs:      []string{"mkfs.ntfs", "-q", "-Q", "-F", "-p", "2048", "-H", "255", "-S", "63", "IMG"},
	Mount:     []string{"ntfs-3g", "-o", "big_writes,compression,streams_interface=windows", "IMG", "DIR"},
	Check:     []string{"ntfsresize", "--info", "--force", "--no-progress-bar", "IMG"},
	Partclone: "partclone.ntfs",
}

// prove proves the map, and that it is no larger than partclone's by more than
// a cluster, the copies of the boot sector, and beyond, which are bytes behind
// the end of the file system.
func prove(t *testing.T, img string, beyond int64) {
	t.Helper()
	found, surplus := kind.Prove(t, img, Read)
	info := realfs.Run(t, "ntfsresize", "--info", "--force", "--no-progress-bar", img)
	cluster := int64(0)
	_, after, _ := strings.Cut(info, "Cluster size")
	fmt.Sscanf(strings.TrimLeft(after, " :"), "%d", &cluster)
	if surplus < 0 || surplus > cluster+2*4096+beyond || cluster == 0 {
		t.Errorf("%d bytes more than partclone are used, clusters have %d", surplus, cluster)
	}
	if found.FS != "ntfs" || found.UUID != strings.TrimSpace(realfs.Run(t, "blkid", "-p", "-o", "value", "-s", "UUID", img)) {
		t.Errorf("%+v", found)
	}
}

func TestReal(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		name string
		size int64
		args []string
	}{
		{"default", 160 << 20, []string{"-s", "512"}},
		{"clusters of 512", 64 << 20, []string{"-s", "512", "-c", "512"}},
		{"clusters of 1K, not indexed", 64 << 20, []string{"-s", "512", "-c", "1024", "-I"}},
		{"clusters of 2K", 64 << 20, []string{"-s", "512", "-c", "2048", "--with-uuid"}},
		{"clusters of 8K", 64 << 20, []string{"-s", "512", "-c", "8192"}},
		{"clusters of 64K", 96 << 20, []string{"-s", "512", "-c", "65536", "-L", "a label"}},
		{"clusters of 128K", 160 << 20, []string{"-s", "512", "-c", "131072"}},
		{"clusters of 2M", 2 << 30, []string{"-s", "512", "-c", "2097152"}},
		{"sectors of 4K", 96 << 20, []string{"-s", "4096"}},
		{"sectors of 4K, clusters of 64K", 96 << 20, []string{"-s", "4096", "-c", "65536"}},
		{"sectors of 2K", 64 << 20, []string{"-s", "2048"}},
		{"sectors of 256", 64 << 20, []string{"-s", "256", "-c", "1024"}},
		{"an odd size, a large zone for the MFT", 67<<20 + 3*512, []string{"-s", "512", "-z", "4"}},
		{"compressed throughout", 64 << 20, []string{"-s", "512", "-C"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := kind.Make(t, c.size, c.args...)
			if c.size > 1<<30 { // ntfs-3g is very slow with such clusters
				kind.Mounted(t, img, func(dir string) { few(t, dir) })
			} else {
				kind.Fill(t, img, 1, 8<<20)
			}
			prove(t, img, 0)
		})
	}
}

// few writes some files and removes some.
func few(t *testing.T, dir string) {
	for n := range 15 {
		name := filepath.Join(dir, fmt.Sprint("file-", n%10))
		if n == 8 || n == 9 {
			name = filepath.Join(dir, "file-3")
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(n + 1)}, n*7_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "file-1")), os.Truncate(filepath.Join(dir, "file-5"), 9<<20)); err != nil {
		t.Fatal(err)
	}
}

// crowd fills a mounted volume to its last cluster, gives half of it back in
// pieces and writes again, so that the MFT, the index of the root and the files
// are in pieces; among them compressed ones, sparse ones and streams.
func crowd(t *testing.T, dir string) {
	at := func(format string, args ...any) string { return filepath.Join(dir, fmt.Sprintf(format, args...)) }
	must := func(err error) {
		t.Helper()
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(at("packed"), 0o755))
	must(unix.Setxattr(at("packed"), "system.ntfs_attrib_be", []byte{0, 0, 8, 0}, 0))
	for n := range 20 {
		must(os.WriteFile(at("packed/%d", n), bytes.Repeat([]byte(fmt.Sprintf("line %d\n", n)), 9000*n), 0o644))
	}
	must(os.WriteFile(at("streams"), []byte("main"), 0o644))
	must(os.WriteFile(at("streams:small"), []byte("second"), 0o644))
	must(os.WriteFile(at("streams:large"), bytes.Repeat([]byte("third"), 50_000), 0o644))
	must(os.WriteFile(at("sparse"), []byte("start"), 0o644))
	must(os.Truncate(at("sparse"), 5<<20))
	full := false
	for n := 0; !full && n < 20_000; n++ {
		err := os.WriteFile(at("filler-with-a-longish-name-%d", n), bytes.Repeat([]byte{byte(n)}, 1000+n%7*5000), 0o644)
		must(err)
		full = err != nil
	}
	if !full {
		t.Fatal("the volume is not full")
	}
	names, err := filepath.Glob(at("filler-*"))
	must(err)
	for n, name := range names {
		if n%2 == 0 {
			must(os.Remove(name))
		}
	}
	for n := range 800 { // into what is left
		must(os.WriteFile(at("late-%d", n), bytes.Repeat([]byte("late"), n%5*400), 0o644))
	}
}

func TestCrowded(t *testing.T) {
	testenv.Root(t)
	for _, cluster := range []string{"512", "4096"} {
		img := kind.Make(t, 20<<20, "-s", "512", "-c", cluster)
		kind.Mounted(t, img, func(dir string) { crowd(t, dir) })
		i := openFile(t, img)
		runs, blocks := len(i.mft.runs), int64(0)
		if s, err := i.stream(fileRoot, typeIndexBlocks, i30); err == nil {
			blocks = s.size / 4096
		}
		if runs < 3 || blocks < 20 {
			t.Errorf("clusters of %s: the MFT is in %d pieces, the root has %d blocks", cluster, runs, blocks)
		}
		prove(t, img, 0)
	}
}

func openFile(t *testing.T, path string) *fileSystem {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return (&img{t, b}).open()
}

// ntfsresize leaves a volume that is to be checked, and no copy of the boot
// sector where it is expected.
func TestResizedAndCloned(t *testing.T) {
	testenv.Root(t)
	img := kind.Make(t, 64<<20, "-s", "512")
	kind.Fill(t, img, 5, 10<<20)
	for _, size := range []int64{40e6, 55e6} {
		realfs.Run(t, "sh", "-c", fmt.Sprintf("yes | ntfsresize --force --force --no-progress-bar --size %d %s", size, img))
		if _, err := realfs.Map(t, img, Read); err == nil || !strings.Contains(err.Error(), "dirty") {
			t.Errorf("resized to %d bytes: %v", size, err)
		}
		realfs.Run(t, "ntfsfix", "-d", img)
		prove(t, img, 64<<20-size)
	}
	clone := realfs.File(t, 64<<20)
	realfs.Run(t, "ntfsclone", "--quiet", "--force", "--overwrite", clone, img)
	prove(t, clone, 64<<20-55e6)
}

// A volume that is cut off between two writes of ntfs-3g: there may be a
// doubt; where there is none, all that can be read of the cut volume can be
// read without what is free.
func TestCutOff(t *testing.T) {
	testenv.Root(t)
	img := kind.Make(t, 32<<20, "-s", "512")
	var cuts []string
	kind.Mounted(t, img, func(dir string) {
		for n := range 8 {
			if err := churn(dir, n); err != nil {
				t.Fatal(err)
			}
			cuts = append(cuts, realfs.Copy(t, img))
		}
	})
	doubts := 0
	for n, cut := range cuts {
		found, err := realfs.Map(t, cut, Read)
		if err != nil {
			t.Logf("cut %d: %v", n, err)
			doubts++
			continue
		}
		want := readable(t, realfs.Copy(t, cut))
		realfs.Noise(t, cut, found.Free.Ranges())
		if got := readable(t, cut); want != got || len(want) < 1000 {
			t.Errorf("cut %d was\n%s\nand becomes\n%s", n, want, got)
		}
	}
	if doubts == len(cuts) {
		t.Error("each cut made a doubt: this proves nothing")
	}
	if _, err := realfs.Map(t, img, Read); err != nil {
		t.Error(err)
	}
}

// readable is what can be read of the root directory, as text. A volume that
// was cut off has files that cannot be.
func readable(t *testing.T, path string) string {
	t.Helper()
	var lines strings.Builder
	kind.Mounted(t, path, func(dir string) {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(dir, name.Name()))
			fmt.Fprintf(&lines, "%s %d %x %t\n", name.Name(), len(data), sha256.Sum256(data), err == nil)
		}
	})
	return lines.String()
}

// churn writes and removes files.
func churn(dir string, seed int) error {
	for n := range 120 {
		name := filepath.Join(dir, fmt.Sprint("churn-", (n*7+seed)%60))
		if n%3 == 0 {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte(name), n*(seed+1)%300*10), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// A disk of a TiB takes seconds.
func TestLarge(t *testing.T) {
	testenv.Root(t)
	img := kind.Make(t, 1<<40, "-s", "512")
	kind.Fill(t, img, 9, 10<<20)
	start := time.Now()
	found, err := realfs.Map(t, img, Read)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("it took %v", d)
	}
	if n := found.Free.Bytes(); n < 1<<40-1<<30 {
		t.Errorf("%d bytes are free", n)
	}
}

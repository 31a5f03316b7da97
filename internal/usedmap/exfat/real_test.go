package exfat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// proved makes sure that the map is right, and as good as partclone's.
func proved(t *testing.T, img string, k realfs.Kind) {
	t.Helper()
	found, surplus := k.Prove(t, img, Read)
	t.Logf("%q %s: %d of %d bytes are free, surplus %d", found.Label, found.UUID, found.Free.Bytes(), found.Size, surplus)
	if surplus < 0 && k.Partclone != "" {
		t.Errorf("surplus over partclone: %d bytes", surplus)
	}
	if free := statfsFree(t, img); free != found.Free.Bytes() {
		t.Errorf("%d bytes are free, %d when mounted", found.Free.Bytes(), free)
	}
}

// statfsFree is what exfat-fuse says is free.
func statfsFree(t *testing.T, img string) int64 {
	t.Helper()
	free := int64(0)
	realfs.ExFAT.Mounted(t, realfs.Copy(t, img), func(dir string) {
		words := strings.Fields(realfs.Run(t, "stat", "-f", "-c", "%f %S", dir))
		var n, size int64
		fmt.Sscan(strings.Join(words, " "), &n, &size)
		free = n * size
	})
	return free
}

// Everything that mkfs.exfat can be told, aged.
func TestMkfs(t *testing.T) {
	testenv.Root(t)
	for i, c := range []struct {
		size int64
		args string
	}{
		{8 << 20, ""},
		{40 << 20, "-c 512 -L LITTLE"},
		{64 << 20, "-c 4096 -b 4K"},
		{120<<20 + 512*7, "-L LABEL"},
		{120 << 20, "-c 32K --pack-bitmap"},
		{200 << 20, "-c 1M"},
		{100 << 20, "-b 16M -c 64K -f"},
	} {
		t.Run(fmt.Sprintf("%d,%s", c.size, c.args), func(t *testing.T) {
			t.Parallel()
			img := realfs.ExFAT.Make(t, c.size, strings.Fields(c.args)...)
			realfs.ExFAT.Fill(t, img, uint64(i), min(c.size/2, 40<<20))
			proved(t, img, realfs.ExFAT)
		})
	}
}

// Folders of many clusters, in pieces, deep ones, and files that grew in turns.
func TestFolders(t *testing.T) {
	testenv.Root(t)
	img := realfs.ExFAT.Make(t, 64<<20, "-c", "512")
	realfs.ExFAT.Mounted(t, img, func(dir string) {
		deep := dir
		for i := range 20 {
			deep = filepath.Join(deep, fmt.Sprintf("folder %d", i))
			if err := os.Mkdir(deep, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 600 {
			for _, d := range []string{dir, deep} {
				name := filepath.Join(d, fmt.Sprintf("%d %s", i, strings.Repeat("name", i%50)))
				if err := os.WriteFile(name, make([]byte, i%3*700), 0o644); err != nil {
					t.Fatal(err)
				}
				if i%5 == 0 {
					os.Remove(name)
				}
			}
		}
	})
	proved(t, img, realfs.ExFAT)
}

// Sectors of 4096 bytes, as mkfs.exfat takes them over from the disk.
func TestSectors(t *testing.T) {
	testenv.Root(t)
	img := realfs.File(t, 100<<20)
	loop := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", "--sector-size", "4096", img))
	defer realfs.Run(t, "losetup", "-d", loop)
	realfs.Run(t, "mkfs.exfat", loop)
	realfs.Run(t, "blockdev", "--flushbufs", loop)
	realfs.ExFAT.Fill(t, img, 1, 10<<20)
	proved(t, img, realfs.ExFAT)
}

// The largest clusters there are.
func TestLargeClusters(t *testing.T) {
	testenv.Root(t)
	img := realfs.ExFAT.Make(t, 300<<20, "-c", "32M")
	realfs.ExFAT.Edit(t, img, func(tr realfs.Tree) {
		for _, name := range []string{"a", "b", "c"} { // exfat-fuse writes whole clusters
			tr.Write(name, []byte(name))
		}
		tr.Remove("a")
	})
	k := realfs.ExFAT
	k.Partclone = "" // 0.3.23 takes a cluster for used whose bit is clear, and that exfat-fuse and dump.exfat count as free
	proved(t, img, k)
}

// While it is mounted, and after it was not unmounted, it is in doubt.
func TestMounted(t *testing.T) {
	testenv.Root(t)
	img := realfs.ExFAT.Make(t, 64<<20)
	realfs.ExFAT.Mounted(t, img, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("data"), 0o644); err != nil {
			t.Fatal(err)
		}
		realfs.Run(t, "sync", "-f", dir)
		if _, err := realfs.Map(t, img, Read); err == nil || !strings.Contains(err.Error(), "unmounted") {
			t.Errorf("while mounted: %v", err)
		}
	})
	if _, err := realfs.Map(t, img, Read); err != nil {
		t.Errorf("after unmounting: %v", err)
	}
}

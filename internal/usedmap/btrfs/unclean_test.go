package btrfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// A file system whose power is cut. The bench:
//
//	XFS in a file, mounted: disk.img <- loop device <- Btrfs, mounted and busy
//	                           | cp --reflink: all of it at one moment
//	                        cut-N.img -> the map, noise -> mounted: the log is replayed
//	                           | copy ----------------> mounted  -> the same files?
func TestCut(t *testing.T) {
	for _, c := range []struct{ name, mkfs, mount, also string }{
		{"quota", "-R quota", "", "sync"},
		{"compressed", "-M -n 4096 --csum xxhash", "compress=zstd", "true"},
		{"relocated", "-m single -R ^free-space-tree -O ^no-holes", "space_cache=v1,commit=1",
			"btrfs balance start -d -m . ; btrfs filesystem resize -8M ."},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Root(t)
			k := kind(c.mount)
			logs := 0
			for _, cut := range cuts(t, k, c.mkfs, c.also, 3) {
				found, err := realfs.Map(t, cut, Read)
				if err != nil {
					t.Fatalf("%s: the reader is in doubt: %v", cut, err)
				}
				if strings.Contains(fmt.Sprint(found.Notes), "not cleanly unmounted") {
					logs++
				}
				k.MustSurvive(t, cut, found.Free.Ranges())
				t.Logf("%s: %d KiB are used, %v", filepath.Base(cut), (found.Size-found.Free.Bytes())>>10, found.Notes)
			}
			if logs < 1 {
				t.Errorf("only %d cuts have a log", logs)
			}
		})
	}
}

// cuts gives copies of a busy file system, each as the disk was at one moment.
func cuts(t testing.TB, k realfs.Kind, mkfs, also string, n int) []string {
	xfs := realfs.XFS.Make(t, 1<<30)
	var out []string
	dir := t.TempDir()
	realfs.XFS.Mounted(t, xfs, func(host string) {
		img := filepath.Join(host, "disk.img")
		realfs.Run(t, "truncate", "-s", "300M", img)
		k.Format(t, img, strings.Fields(mkfs)...)
		k.Fill(t, img, 5, 20<<20)
		k.Mounted(t, img, func(dir string) {
			stop := busy(t, dir, also)
			defer stop()
			for i := range n {
				time.Sleep(time.Duration(100+rand.IntN(500)) * time.Millisecond)
				realfs.Run(t, "cp", "--reflink=always", img, filepath.Join(host, fmt.Sprintf("cut-%d.img", i)))
			}
		})
		for i := range n {
			cut := filepath.Join(dir, fmt.Sprintf("cut-%d.img", i))
			realfs.Run(t, "cp", "--sparse=always", filepath.Join(host, filepath.Base(cut)), cut)
			out = append(out, cut)
		}
	})
	return out
}

// busy works on a file system until it is stopped: files are written with and
// without fsync, over old data and anew, renamed, linked and deleted; subvolumes
// come and go. also is a command that is run now and then.
func busy(t testing.TB, dir string, also string) (stop func()) {
	in(t, dir, "btrfs subvolume create work; cp -r a work")
	var wg sync.WaitGroup
	done := make(chan struct{})
	var failed error
	for w := range 3 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond):
				}
				if err := work(filepath.Join(dir, fmt.Sprintf("work/busy-%d-%d", w, i%20)), rnd, i); err != nil {
					failed = err
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(400 * time.Millisecond):
			}
			in(t, dir, fmt.Sprintf("btrfs subvolume snapshot work s%d", i)+"; "+also)
			if i > 1 {
				in(t, dir, fmt.Sprintf("btrfs subvolume delete s%d", i-2))
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		if failed != nil {
			t.Fatal(failed)
		}
	}
}

// work changes one file, often to the disk.
func work(path string, rnd *rand.Rand, i int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, rnd.IntN(200_000))
	for j := range data {
		data[j] = byte(rnd.Uint32())
	}
	if _, err := f.WriteAt(data, int64(rnd.IntN(3)*100_000)); err != nil {
		return err
	}
	switch i % 8 {
	case 0:
		return os.Remove(path)
	case 1:
		return os.Rename(path, path+"x")
	case 2:
		return f.Truncate(int64(len(data) / 2))
	}
	return f.Sync()
}

package xfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// mounting is XFS with options of mount.
func mounting(options string) realfs.Kind {
	k := realfs.XFS
	k.Mount = []string{"mount", "-o", "loop," + options, "IMG", "DIR"}
	return k
}

// logClean is what xfs_logprint says of the log. It says that first and prints
// the records after it, in which it may fail or crash where they were torn:
// a copy of a busy file system has such. So what it ends with does not count,
// and it must not keep its words in a buffer.
func logClean(t testing.TB, img string) bool {
	t.Helper()
	out, err := realfs.Try(t, "stdbuf", "-oL", "xfs_logprint", "-t", img)
	clean, dirty := strings.Contains(out, "state: <CLEAN>"), strings.Contains(out, "state: <DIRTY>")
	if clean == dirty {
		t.Fatalf("xfs_logprint (%v) says neither clean nor dirty: %.2000s", err, out)
	}
	if err != nil {
		t.Logf("xfs_logprint, of the records: %v: %s", err, out[max(0, len(out)-300):])
	}
	return clean
}

// churn changes the tree in dir: about n operations, most of metadata.
func churn(dir string, rnd *rand.Rand, n int) {
	for range n {
		name := filepath.Join(dir, fmt.Sprintf("d%d", rnd.IntN(5)), fmt.Sprintf("f%d", rnd.IntN(300)))
		switch rnd.IntN(8) {
		case 0, 1, 2, 3:
			os.MkdirAll(filepath.Dir(name), 0o755)
			os.WriteFile(name, make([]byte, rnd.IntN(20000)), 0o644)
		case 4, 5:
			os.Remove(name)
		case 6:
			os.Rename(name, name+strings.Repeat("x", rnd.IntN(100)))
		case 7:
			if f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0); err == nil {
				f.Write(make([]byte, 3000))
				f.Sync()
				f.Close()
			}
		}
	}
}

// Whatever was done before, and wherever in the log it ends: a file system
// that was unmounted is no doubt. The logs are small, so that they go round.
func TestUnmountedIsClean(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct{ mkfs, mount string }{
		{"-m reflink=0 -l size=1368b", "logbsize=32k"},
		{"-m rmapbt=1", "logbsize=256k"},
		{"-m reflink=0 -l su=256k", "logbsize=256k,wsync"},
		{"-m reflink=0 -l su=4k", "logbsize=64k,wsync"},
		{"-s size=4096", "logbsize=16k,wsync"},
		{"-b size=1024 -m reflink=0", "logbsize=128k"},
	} {
		t.Run(c.mkfs, func(t *testing.T) {
			t.Parallel() // most of it is waiting for the disk
			img := realfs.XFS.Make(t, 64<<20, strings.Fields(c.mkfs)...)
			rnd := rand.New(rand.NewPCG(1, 2))
			for i := range unmounts() {
				mounting(c.mount).Mounted(t, img, func(dir string) { churn(dir, rnd, rnd.IntN(400)) })
				if _, err := realfs.Map(t, img, Read); err != nil || !logClean(t, img) {
					t.Fatalf("after %d unmounts: %v; for xfs_logprint it is clean: %v", i+1, err, logClean(t, img))
				}
			}
			round := logCycles(t, img) - 1
			t.Logf("the log went round %d times", round)
			if round == 0 && strings.Contains(c.mkfs, "su=256k") {
				t.Error("the log never went round")
			}
			realfs.XFS.Prove(t, img, Read)
		})
	}
}

// logCycles is in which cycle the first block of the log is.
func logCycles(t testing.TB, img string) (cycle uint32) {
	realfs.Map(t, img, func(v *volume.Volume) (*volume.Found, error) {
		first, err := readSuperblock(v)
		if err != nil {
			t.Fatal(err)
		}
		no, at := first.locate(first.LogStart)
		log := v.Part(first.groupOffset(no)+int64(at)*int64(first.BlockSize), int64(first.LogBlocks)*int64(first.BlockSize))
		cycle, err = newJournal(first.superblock, log).cycle(0)
		return nil, err
	})
	return cycle
}

func unmounts() int {
	if n := 0; os.Getenv("XFS_UNMOUNTS") != "" {
		fmt.Sscan(os.Getenv("XFS_UNMOUNTS"), &n)
		return n
	}
	return 12
}

// A copy made while it is mounted and busy is in doubt, but where the log
// happens to be clean: before the first write, or since an idle time.
func TestBusyIsDoubt(t *testing.T) {
	testenv.Root(t)
	outer := realfs.XFS.Make(t, 400<<20)
	realfs.XFS.Mounted(t, outer, func(outerDir string) {
		img := filepath.Join(outerDir, "disk.img")
		realfs.Run(t, "truncate", "-s", "64M", img)
		realfs.XFS.Format(t, img, "-m", "reflink=0")
		dirty, n := 0, snapshots()
		mounting("logbsize=64k").Mounted(t, img, func(dir string) {
			var stop atomic.Bool
			done := make(chan bool)
			go func() {
				defer close(done)
				for rnd := rand.New(rand.NewPCG(3, 4)); !stop.Load(); {
					churn(dir, rnd, 20)
				}
			}()
			defer func() { stop.Store(true); <-done }()
			for i := range n {
				time.Sleep(time.Duration(i%7) * 11 * time.Millisecond)
				snap := filepath.Join(outerDir, "snap.img")
				realfs.Run(t, "cp", "--reflink=always", img, snap)
				clean := logClean(t, snap)
				if !clean {
					dirty++
				}
				if _, err := realfs.Map(t, snap, Read); (err == nil) != clean {
					t.Errorf("snapshot %d: %v; for xfs_logprint it is clean: %v", i, err, clean)
				}
				if i%5 == 0 { // what a power cut leaves is clean again after a mount
					mounting("nouuid").Mounted(t, snap, func(string) {})
					if _, err := realfs.Map(t, snap, Read); err != nil || !logClean(t, snap) {
						t.Errorf("snapshot %d, recovered: %v", i, err)
					}
				}
				os.Remove(snap)
			}
		})
		if dirty < n*3/4 {
			t.Errorf("only %d of %d snapshots were of a busy file system", dirty, n)
		}
	})
}

func snapshots() int {
	if n := 0; os.Getenv("XFS_SNAPSHOTS") != "" {
		fmt.Sscan(os.Getenv("XFS_SNAPSHOTS"), &n)
		return n
	}
	return 15
}

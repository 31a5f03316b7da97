package ext

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"testbox-imaging/internal/realfs"
)

// cached is a disk with a cache of its own that a power cut loses: of what was
// written since the last flush, any part may have got to the disk, in any
// order. It is a file of a FUSE file system, below a loop device.
type cached struct {
	fs.Inode

	mu      sync.Mutex // guards all below
	seen    []byte
	durable []byte
	pending []write
}

type write struct {
	off  int64
	data []byte
}

func (c *cached) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (c *cached) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(len(c.durable))
	return 0
}

func (c *cached) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return c.Getattr(ctx, f, out)
}

func (c *cached) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(dest, c.seen[min(off, int64(len(c.seen))):])
	return fuse.ReadResultData(dest[:n]), 0
}

func (c *cached) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(c.seen[min(off, int64(len(c.seen))):], data)
	c.pending = append(c.pending, write{off, bytes.Clone(data[:n])})
	return uint32(n), 0
}

func (c *cached) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.pending {
		copy(c.durable[w.off:], w.data)
	}
	c.pending = nil
	return 0
}

// cut is the disk after a power cut; each unit of bytes is written or not.
func (c *cached) cut(unit int, share float64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	disk := bytes.Clone(c.durable)
	for _, w := range c.pending {
		for i := 0; i < len(w.data); i += unit {
			if rand.Float64() < share {
				copy(disk[int(w.off)+i:], w.data[i:min(i+unit, len(w.data))])
			}
		}
	}
	return disk
}

// serve mounts a folder with the disk as its only file.
func (c *cached) serve(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	root := &fs.Inode{}
	opt := &fs.Options{OnAdd: func(ctx context.Context) {
		root.AddChild("disk", root.NewPersistentInode(ctx, c, fs.StableAttr{}), true)
	}}
	opt.MaxWrite, opt.DirectMountStrict = 1<<20, true
	server, err := fs.Mount(dir, root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := 0; i < 1500 && server.Unmount() != nil; i++ {
			time.Sleep(20 * time.Millisecond)
		}
	})
	return filepath.Join(dir, "disk")
}

// Power cuts of a disk that loses its cache, in sectors and in whole blocks:
// blocks are torn, checkpoints and the log written in part.
func TestTornWrites(t *testing.T) {
	dir := reflinks(t)
	for i, k := range busyKinds {
		t.Run(strings.ReplaceAll(k.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			kind := realfs.Ext
			kind.Mount = []string{"mount", "-o", strings.TrimSuffix("loop,"+k.mount, ","), "IMG", "DIR"}
			s := &score{}
			n := batches(t, rounds(4), func(t *testing.T, from int) {
				img := realfs.Ext.Make(t, 48*mib, strings.Fields(k.mkfs)...)
				data, err := os.ReadFile(img)
				if err != nil {
					t.Fatal(err)
				}
				c := &cached{seen: data, durable: bytes.Clone(data)}
				var cuts []string
				kind.Mounted(t, c.serve(t), func(mnt string) {
					stop := keepBusy(mnt, 4)
					defer stop()
					begin(mnt)
					for n := from; n < from+batch; n++ {
						time.Sleep(time.Duration(10+rand.IntN(120)) * time.Millisecond)
						to := filepath.Join(dir, fmt.Sprint("torn-", i, "-", n))
						if err := os.WriteFile(to, c.cut([]int{512, 4096}[n%2], []float64{0.5, 0.9, 0.1}[n/2%3]), 0o600); err != nil {
							t.Fatal(err)
						}
						cuts = append(cuts, to)
					}
				})
				for n, cut := range cuts {
					s.survive(t, cut, n < 2)
					os.Remove(cut)
				}
			})
			t.Logf("%d cuts: %d in doubt (%v), %d with a log, %d bytes more than after a replay", n, len(s.doubts), s.doubts, s.replayed, s.surplus)
			// With async_commit a torn transaction looks like a damaged one, and
			// the kernel refuses to mount it.
			if may := strings.HasPrefix(k.name, "async") || k.name == "fast_commit"; !may && (s.replayed == 0 || len(s.doubts) > max(1, n/4)) {
				t.Errorf("%d journals were replayed, in doubt: %v", s.replayed, s.doubts)
			}
		})
	}
}

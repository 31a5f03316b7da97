package imagefs_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/imagefs"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// ext4 is a disk with a file system that holds one large file of noise.
func ext4(t *testing.T) (disk, content []byte) {
	t.Helper()
	testenv.Tools(t, "mkfs.ext4")
	path, tree := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	content = noise(6<<20 + 77)
	err := errors.Join(os.WriteFile(filepath.Join(tree, "noise"), content, 0o600), os.WriteFile(path, nil, 0o600), os.Truncate(path, 32<<20))
	if err != nil {
		t.Fatal(err)
	}
	realfs.Run(t, "mkfs.ext4", "-q", "-d", tree, path)
	disk, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return disk, content
}

// image is the image of a disk, to be shown.
func image(t *testing.T, g chunk.Getter, root object.Name) imagefs.File {
	t.Helper()
	im, err := chunk.OpenImage(t.Context(), g, root)
	if err != nil {
		t.Fatal(err)
	}
	r := im.ReaderAt(context.Background(), 0)
	t.Cleanup(func() { r.Close() })
	return imagefs.File{Name: "sda", Size: r.Size(), ModTime: time.Now(), ReaderAt: r}
}

// TestLoop mounts the file system that is in an image, as a person would.
func TestLoop(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "losetup", "mount", "umount", "cmp")
	original, content := ext4(t)
	st := new(conform.MemStore)
	root := conform.SaveImage(t, st, original)
	m := start(t, t.TempDir(), image(t, st.Getter(root), root))

	copied := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(copied, original, 0o600); err != nil {
		t.Fatal(err)
	}
	realfs.Run(t, "cmp", copied, m.path("sda"))

	dev := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", "--read-only", m.path("sda")))
	defer realfs.Run(t, "losetup", "-d", dev)
	at := t.TempDir()
	realfs.Run(t, "mount", "-o", "ro", dev, at)
	defer realfs.Run(t, "umount", at)
	if got, err := os.ReadFile(filepath.Join(at, "noise")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("in the mounted file system are %d other bytes, %v", len(got), err)
	}
}

// damaging is a store in which a chunk goes bad.
type damaging struct {
	chunk.Getter
	gets, bad atomic.Int64 // the bad-th Get of a chunk, and all later ones of it
	key       atomic.Pointer[object.Key]
}

func (d *damaging) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	key := at.Key()
	o, err := d.Getter.Get(ctx, at, buf)
	if err != nil || key.Kind != object.Chunk {
		return o, err
	}
	if d.gets.Add(1) == d.bad.Load() {
		d.key.Store(&key)
	}
	if k := d.key.Load(); k != nil && *k == key {
		o.Data[len(o.Data)/2] ^= 1
	}
	return o, nil
}

// TestDamagedChunk: a flipped bit in the store is an error where it lies, and
// the name of the chunk is in the log.
func TestDamagedChunk(t *testing.T) {
	want := noise(20 << 20)
	st := new(conform.MemStore)
	root := conform.SaveImage(t, st, want)
	d := &damaging{Getter: st.Getter(root)}
	d.bad.Store(20)
	m := start(t, t.TempDir(), image(t, d, root))
	f, err := os.Open(m.path("sda"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lost := 0
	for off := int64(0); off < int64(len(want)); off += 4096 {
		p := make([]byte, 4096)
		switch _, err := f.ReadAt(p, off); {
		case errors.Is(err, syscall.EIO):
			lost += 4096
		case err != nil || !bytes.Equal(p, want[off:off+4096]):
			t.Fatalf("at %d are other bytes, %v", off, err)
		}
	}
	if lost == 0 || lost > object.MaxChunk {
		t.Errorf("%d bytes are lost with one chunk", lost)
	}
	if log := strings.Join(m.logged(), "\n"); !strings.Contains(log, d.key.Load().Name.String()) {
		t.Errorf("the log does not have the chunk %v: %s", d.key.Load(), log)
	}
}

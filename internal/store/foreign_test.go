package store_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/testenv"
)

// foreignDisk has data in two regions, over the border of both, and unused
// bytes with something in them.
func foreignDisk() (disk []byte, unused image.Range) {
	disk = make([]byte, chunk.RegionSize+1<<20+512)
	r := rand.NewChaCha8([32]byte{1})
	for _, at := range []int{0, 50 << 20, chunk.RegionSize - 300<<10, len(disk) - 4096} {
		part := disk[at:min(len(disk), at+200<<10)]
		copy(part, bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), 5000))
		r.Read(part[:len(part)/3])
		clear(part[len(part)/2:][:min(8192, len(part)/4)])
	}
	return disk, image.Range{Off: 50<<20 + 40<<10, Len: 12 << 10}
}

// foreignStore makes a store of a folder with two backups of the disk, which
// changes in between, and gives the second.
func foreignStore(t *testing.T, path string, disk []byte, unused image.Range) (last *image.Record) {
	t.Helper()
	blobs, err := dir.New(durable.OS{}, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Init(t.Context(), blobs); err != nil {
		t.Fatal(err)
	}
	st, err := store.OpenDir(t.Context(), path, nil, false, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if i > 0 {
			copy(disk[len(disk)/2:], "changed")
		}
		s := st.Begin()
		root := conform.SaveImage(t, s, disk, unused)
		last = &image.Record{Box: "10.0.0.7", Disks: []image.RecordedDisk{{Name: "sda", Root: root,
			Disk: image.Identity{Size: int64(len(disk)), SectorSize: 512}, Data: int64(len(disk))}}}
		if err := s.Commit(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return last
}

func restoreByPython(t *testing.T, path string, r *image.Record) ([]byte, error) {
	out := filepath.Join(t.TempDir(), "sda")
	msg, err := exec.Command("python3", "-B", "testdata/restore.py", path, r.Box, r.ID, "sda", out).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, msg)
	}
	return os.ReadFile(out)
}

// TestForeignReader: docs/format.md is exact enough to write another reader.
// This one is in Python.
func TestForeignReader(t *testing.T) {
	testenv.Tools(t, "python3", "zstd")
	path := t.TempDir()
	disk, unused := foreignDisk()
	got, err := restoreByPython(t, path, foreignStore(t, path, disk, unused))
	if err != nil {
		t.Fatal(err)
	}
	clear(disk[unused.Off:][:unused.Len])
	if !bytes.Equal(got, disk) {
		t.Errorf("a disk of %d bytes came back wrong, as %d", len(disk), len(got))
	}
}

// TestForeignReaderDamage flips a bit of each file: what the document says is
// enough to see it, or it does not matter.
func TestForeignReaderDamage(t *testing.T) {
	testenv.Tools(t, "python3", "zstd")
	path := t.TempDir()
	disk := bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), 3000)[:128<<10]
	r := foreignStore(t, path, disk, image.Range{})
	files, err := filepath.Glob(filepath.Join(path, "packs", "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("there are the packs %v, %v", files, err)
	}
	files = append(files, filepath.Join(path, "store"), filepath.Join(path, "records", r.Box, r.ID))
	seen := 0
	for i, file := range files {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(whole)
		flipped[len(flipped)*(i+1)/(len(files)+2)] ^= 1
		os.WriteFile(file, flipped, 0o600)
		got, err := restoreByPython(t, path, r)
		if err != nil {
			seen++
		} else if !bytes.Equal(got, disk) {
			t.Errorf("%s: wrong bytes without an error", file)
		}
		os.WriteFile(file, whole, 0o600)
	}
	if seen == 0 {
		t.Error("no damage was seen")
	}
}

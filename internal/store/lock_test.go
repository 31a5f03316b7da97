package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/object"
)

// folder is a store in a folder.
func folder(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	blobs, err := dir.New(durable.OS{}, path)
	must(t, err)
	must(t, Init(t.Context(), blobs))
	return path
}

func openDir(t testing.TB, path string, readOnly bool) *Locked {
	t.Helper()
	s, err := OpenDir(t.Context(), path, nil, readOnly, t.Logf)
	must(t, err)
	return s
}

func TestLocks(t *testing.T) {
	path := folder(t)
	w := openDir(t, path, false)
	if _, err := OpenDir(t.Context(), path, nil, false, nil); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Fatalf("a second writer: %v", err)
	}
	r1, r2 := openDir(t, path, true), openDir(t, path, true)
	plan, err := w.PlanGC(t.Context())
	must(t, err)
	if _, err := w.GC(t.Context(), plan); !errors.Is(err, ErrLocked) ||
		!strings.Contains(err.Error(), fmt.Sprintf("process %d:", os.Getpid())) {
		t.Fatalf("packs are removed under readers: %v", err)
	}
	must(t, errors.Join(r1.Close(), r2.Close()))
	plan, err = w.PlanGC(t.Context())
	must(t, err)
	_, err = w.GC(t.Context(), plan)
	must(t, errors.Join(err, w.Close()))
	must(t, openDir(t, path, false).Close())
}

func TestReadOnlyWritesNothing(t *testing.T) {
	path := folder(t)
	w := openDir(t, path, false)
	r := commit(t, w.Store, "x", 0)
	must(t, w.Close())
	must(t, os.Remove(filepath.Join(path, indexName)))
	before := listing(t, path)
	s := openDir(t, path, true)
	b := s.Begin()
	raw := []byte("new")
	key := object.Key{Kind: object.Chunk, Name: object.NameOf(raw)}
	for what, err := range map[string]error{
		"put": b.Put(t.Context(), object.Encode(key, raw, nil)), "commit": b.Commit(t.Context(), r), "delete": s.Delete(t.Context(), r),
		"pin": s.SetPinned(t.Context(), "x", r.ID, true), "baseline": s.SetBaseline(t.Context(), "x", r.ID, true),
		"rebuild": s.RebuildIndex(t.Context()),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, s.Close())
	if after := strings.ReplaceAll(listing(t, path), "readers 0\n", ""); after != before {
		t.Errorf("the folder became\n%s, it was\n%s", after, before)
	}
}

// TestReadOnlyFolder: a store where nothing can be written, not even a lock, is
// read.
func TestReadOnlyFolder(t *testing.T) {
	path := folder(t)
	w := openDir(t, path, false)
	d := newDisk(seeds(1, 3))
	r := mustBackup(t, w.Store, "x", day(1), d)
	must(t, w.Close())
	readOnlyDir(t, path)
	s := openDir(t, path, true)
	mustRestore(t, s.Store, r, d)
	must(t, s.Close())
	if _, err := OpenDir(t.Context(), path, nil, false, nil); err == nil {
		t.Error("it can be opened for writing")
	}
}

// readOnlyDir makes a folder read-only; root minds nothing less than a mount.
func readOnlyDir(t testing.TB, path string) {
	t.Helper()
	if os.Getuid() != 0 {
		must(t, os.Chmod(path, 0o500))
		t.Cleanup(func() { os.Chmod(path, 0o700) })
		return
	}
	must(t, unix.Mount(path, path, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	must(t, unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
}

// listing is the files of a folder, with their lengths.
func listing(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			fmt.Fprintf(&b, "%s %d\n", strings.TrimPrefix(p, path+"/"), st.Size())
		}
		return err
	}))
	return b.String()
}

func TestOpenRefused(t *testing.T) {
	if _, err := OpenDir(t.Context(), filepath.Join(t.TempDir(), "no"), nil, true, nil); !errors.Is(err, ErrNoStore) {
		t.Errorf("no folder: %v", err)
	}
	empty := t.TempDir()
	for _, readOnly := range []bool{false, true} {
		if _, err := OpenDir(t.Context(), empty, nil, readOnly, nil); !errors.Is(err, ErrNoStore) || listing(t, empty) != "" {
			t.Errorf("an empty folder: %v; then it has %q", err, listing(t, empty))
		}
	}
	path := folder(t)
	blobs, err := dir.Open(durable.OS{}, path)
	must(t, err)
	if err := Init(t.Context(), blobs); !errors.Is(err, ErrExists) {
		t.Errorf("a second Init: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(path, "store"), []byte("testbox-store 1 00\n{}"), 0o600))
	if _, err := OpenDir(t.Context(), path, nil, true, nil); err == nil {
		t.Error("a damaged store file is taken")
	}
}

// Package conform has one suite of tests for each interface with several
// implementations. It is for tests only.
package conform

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/durable"
)

// DurableFS tests a durable.FS. open returns one, with an empty folder that the
// test may fill.
func DurableFS(t *testing.T, open func(t *testing.T) (fsys durable.FS, folder string)) {
	tests := []struct {
		name string
		run  func(*testing.T, durableCase)
	}{
		{"create", testCreate}, {"read", testRead}, {"missing", testMissing}, {"folders", testFolders},
		{"rename", testRename}, {"rename-new", testRenameNew}, {"remove", testRemove}, {"readers-keep-their-file", testReadersKeep},
		{"closed-file", testClosed}, {"write-file", testWriteFile}, {"pending", testPending}, {"at-once", testAtOnce},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys, folder := open(t)
			test.run(t, durableCase{fsys, folder})
		})
	}
}

// durableCase is an FS and a folder in it, with helpers for the tests.
type durableCase struct {
	durable.FS
	dir string
}

func (c durableCase) path(name string) string { return filepath.Join(c.dir, name) }

func (c durableCase) put(t *testing.T, name, text string) {
	t.Helper()
	f, err := c.Create(c.path(name), 0o644)
	must(t, err)
	_, err = io.WriteString(f, text)
	must(t, errors.Join(err, f.Sync(), f.Close(), c.SyncDir(c.dir)))
}

func (c durableCase) want(t *testing.T, name, text string) {
	t.Helper()
	got, err := durable.ReadFile(c, c.path(name), 1<<20)
	must(t, err)
	if string(got) != text {
		t.Errorf("%s has %q, want %q", name, got, text)
	}
}

func (c durableCase) wantNames(t *testing.T, names ...string) {
	t.Helper()
	got, err := c.ReadDir(c.dir)
	must(t, err)
	if !slices.Equal(got, names) {
		t.Errorf("folder has %q, want %q", got, names)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func testCreate(t *testing.T, c durableCase) {
	c.put(t, "a", "one")
	c.want(t, "a", "one")
	_, err := c.Create(c.path("a"), 0o644)
	wantErr(t, "create of a file that exists", err, fs.ErrExist)
	c.want(t, "a", "one")
	c.put(t, "empty", "")
	c.want(t, "empty", "")
	c.wantNames(t, "a", "empty")
}

func testRead(t *testing.T, c durableCase) {
	before := time.Now()
	c.put(t, "a", "0123456789")
	r, err := c.Open(c.path("a"))
	must(t, err)
	defer r.Close()
	if r.Size() != 10 {
		t.Errorf("size %d, want 10", r.Size())
	}
	if d := r.ModTime().Sub(before); d < -2*time.Second || d > time.Minute {
		t.Errorf("a file just made is %v old", -d)
	}
	b := make([]byte, 4)
	if n, err := r.ReadAt(b, 3); n != 4 || err != nil || string(b) != "3456" {
		t.Errorf("read %d %q %v", n, b, err)
	}
	if n, err := r.ReadAt(b, 8); n != 2 || err != io.EOF {
		t.Errorf("read over the end: %d %v", n, err)
	}
	if n, err := r.ReadAt(b, 10); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d %v", n, err)
	}
	if _, err := r.ReadAt(b, -1); err == nil {
		t.Error("read at -1 is no error")
	}
}

func testMissing(t *testing.T, c durableCase) {
	gone := c.path("gone")
	_, err := c.Open(gone)
	wantErr(t, "open", err, fs.ErrNotExist)
	_, err = durable.Size(c, gone)
	wantErr(t, "size", err, fs.ErrNotExist)
	_, err = c.ReadDir(gone)
	wantErr(t, "read folder", err, fs.ErrNotExist)
	_, err = c.Create(filepath.Join(gone, "a"), 0o644)
	wantErr(t, "create in a missing folder", err, fs.ErrNotExist)
	wantErr(t, "rename", c.Rename(gone, c.path("b")), fs.ErrNotExist)
	wantErr(t, "remove", c.Remove(gone), fs.ErrNotExist)
	wantErr(t, "sync folder", c.SyncDir(gone), fs.ErrNotExist)
	must(t, durable.Remove(c, gone))
	c.wantNames(t)
}

func testFolders(t *testing.T, c durableCase) {
	must(t, c.MkdirAll(c.path("d/e/f"), 0o755))
	must(t, c.MkdirAll(c.path("d/e"), 0o755))
	must(t, c.MkdirAll(c.dir, 0o755))
	c.put(t, "a", "a")
	c.put(t, "z", "z")
	c.wantNames(t, "a", "d", "z")
	if _, err := c.Open(c.path("d")); err == nil {
		t.Error("a folder opens as a file")
	}
	if err := c.MkdirAll(c.path("a/b"), 0o755); err == nil {
		t.Error("a folder is made in a file")
	}
	if err := c.MkdirAll(c.path("a"), 0o755); err == nil {
		t.Error("a folder is made in the place of a file")
	}
	if err := c.Rename(c.path("a"), c.path("d")); err == nil {
		t.Error("a file replaces a folder")
	}
	if err := c.Remove(c.path("d")); err == nil {
		t.Error("a folder that is not empty is removed")
	}
	must(t, c.Remove(c.path("d/e/f")))
	_, err := c.ReadDir(c.path("d/e/f"))
	wantErr(t, "read a removed folder", err, fs.ErrNotExist)
	c.want(t, "a", "a")
}

func testRename(t *testing.T, c durableCase) {
	c.put(t, "a", "one")
	c.put(t, "b", "two")
	must(t, c.Rename(c.path("a"), c.path("b")))
	c.wantNames(t, "b")
	c.want(t, "b", "one")
	must(t, c.Rename(c.path("b"), c.path("b")))
	c.want(t, "b", "one")
	must(t, c.MkdirAll(c.path("d"), 0o755))
	must(t, c.Rename(c.path("b"), c.path("d/b")))
	c.wantNames(t, "d")
	c.want(t, "d/b", "one")
	wantErr(t, "rename into a missing folder", c.Rename(c.path("d/b"), c.path("e/b")), fs.ErrNotExist)
	c.want(t, "d/b", "one")
}

func testRenameNew(t *testing.T, c durableCase) {
	c.put(t, "a", "one")
	c.put(t, "b", "two")
	wantErr(t, "a new name that is there", c.RenameNew(c.path("a"), c.path("b")), fs.ErrExist)
	c.wantNames(t, "a", "b")
	c.want(t, "b", "two")
	must(t, c.RenameNew(c.path("a"), c.path("c")))
	c.wantNames(t, "b", "c")
	c.want(t, "c", "one")
	wantErr(t, "a new name in a missing folder", c.RenameNew(c.path("c"), c.path("e/c")), fs.ErrNotExist)
	wantErr(t, "a new name for nothing", c.RenameNew(c.path("a"), c.path("d")), fs.ErrNotExist)
	const n = 8
	for i := range n {
		c.put(t, fmt.Sprint("from", i), fmt.Sprint(i))
	}
	var won sync.Map
	parallel(n, n, func(i int) {
		switch err := c.RenameNew(c.path(fmt.Sprint("from", i)), c.path("to")); {
		case err == nil:
			won.Store(i, true)
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	})
	winners := 0
	won.Range(func(i, _ any) bool {
		winners++
		c.want(t, "to", fmt.Sprint(i))
		return true
	})
	if winners != 1 {
		t.Errorf("%d files have one new name", winners)
	}
}

func testRemove(t *testing.T, c durableCase) {
	c.put(t, "a", "one")
	must(t, c.Remove(c.path("a")))
	c.wantNames(t)
	c.put(t, "a", "two")
	c.want(t, "a", "two")
}

func testReadersKeep(t *testing.T, c durableCase) {
	c.put(t, "a", "one")
	c.put(t, "b", "two")
	ra, err := c.Open(c.path("a"))
	must(t, err)
	defer ra.Close()
	rb, err := c.Open(c.path("b"))
	must(t, err)
	defer rb.Close()
	must(t, c.Rename(c.path("a"), c.path("b")))
	must(t, c.Remove(c.path("b")))
	for want, r := range map[string]durable.Readable{"one": ra, "two": rb} {
		b := make([]byte, 3)
		if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF || string(b) != want {
			t.Errorf("reader of a replaced or removed file has %q, %v; want %q", b, err, want)
		}
	}
}

func testClosed(t *testing.T, c durableCase) {
	f, err := c.Create(c.path("a"), 0o644)
	must(t, err)
	must(t, f.Close())
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("write to a closed file is no error")
	}
	if f.Sync() == nil {
		t.Error("sync of a closed file is no error")
	}
	if f.Close() == nil {
		t.Error("closing twice is no error")
	}
}

func testWriteFile(t *testing.T, c durableCase) {
	must(t, durable.WriteFile(c, c.path("a"), []byte("one"), 0o644))
	must(t, durable.WriteFile(c, c.path("a"), []byte("second"), 0o644))
	c.want(t, "a", "second")
	c.wantNames(t, "a")
	if _, err := durable.ReadFile(c, c.path("a"), 5); err == nil {
		t.Error("a file over the limit is read")
	}
	must(t, durable.Remove(c, c.path("a")))
	c.wantNames(t)
}

func testPending(t *testing.T, c durableCase) {
	c.put(t, "a", "old")
	c.put(t, "a.tmp", "left over")
	p, err := durable.Create(c, c.path("a"), 0o644)
	must(t, err)
	_, err = io.WriteString(p, "new")
	must(t, err)
	c.want(t, "a", "old")
	p.Abort()
	p.Abort()
	c.wantNames(t, "a")
	if p.Commit() == nil {
		t.Error("commit after abort is no error")
	}
	p, err = durable.Create(c, c.path("a"), 0o644)
	must(t, err)
	_, err = io.WriteString(p, "new")
	must(t, errors.Join(err, p.Commit()))
	p.Abort()
	c.want(t, "a", "new")
	c.wantNames(t, "a")
}

func testAtOnce(t *testing.T, c durableCase) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			for range 10 {
				path := c.path(fmt.Sprint("file", i))
				errs[i] = errors.Join(errs[i], durable.WriteFile(c, path, []byte(path), 0o644))
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	for i := range errs {
		name := fmt.Sprint("file", i)
		c.want(t, name, c.path(name))
	}
}

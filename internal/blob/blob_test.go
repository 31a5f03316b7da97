package blob_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
)

// TestReadAllShrinks: a blob replaced by a shorter one after its size was
// asked is not taken for whole.
func TestReadAllShrinks(t *testing.T) {
	s := &shrinking{Store: new(mem.Store)}
	if err := blob.WriteAll(t.Context(), s, "a", []byte("a long text")); err != nil {
		t.Fatal(err)
	}
	if b, err := blob.ReadAll(t.Context(), s, "a", 100); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v", b, err)
	}
}

// shrinking is a store whose blobs become shorter before they are read.
type shrinking struct{ blob.Store }

func (s *shrinking) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := blob.WriteAll(ctx, s.Store, name, []byte("short")); err != nil {
		return 0, err
	}
	return s.Store.ReadAt(ctx, name, p, off)
}

// FuzzValidName: a valid name is a path that stays in its folder, and no
// unfinished file's.
func FuzzValidName(f *testing.F) {
	for _, name := range []string{"packs/data-00000001", "records/10.0.0.7/20261127-1004", "../a", "a/.", "a.tmp", "a//b", "/a", "a\x00"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !blob.ValidName(name) {
			return
		}
		if !fs.ValidPath(name) || name == "." || filepath.Clean(name) != name || strings.Contains(name+"/", ".tmp/") {
			t.Errorf("%q is valid", name)
		}
	})
}

// TestProbe: stores that do not keep conditions, or only while one writes at a
// time, are found.
func TestProbe(t *testing.T) {
	sound := new(mem.Store)
	if err := blob.Probe(t.Context(), sound); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]blob.Store{
		"blind":      &careless{Store: new(mem.Store), blind: true},
		"racy":       &careless{Store: new(mem.Store)},
		"no version": &careless{Store: new(mem.Store), forgets: true},
	} {
		if err := blob.Probe(t.Context(), s); !errors.Is(err, blob.ErrNoConditions) {
			t.Errorf("%s: %v", name, err)
		}
		if infos, err := s.List(t.Context(), ""); err != nil || len(infos) > 0 {
			t.Errorf("%s leaves %v, %v", name, infos, err)
		}
	}
}

// careless looks at conditions before it writes, and not while; or not at all.
type careless struct {
	blob.Store
	blind   bool // no condition counts
	forgets bool // that of a version does not
}

func (c *careless) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	v, err := c.Store.Version(ctx, name)
	switch {
	case c.blind, c.forgets && over != blob.None:
	case c.forgets:
		return c.Store.Create(ctx, name, over)
	case err == nil && over == blob.None:
		return nil, fs.ErrExist
	case over != blob.None && v != over:
		return nil, blob.ErrChanged
	}
	time.Sleep(10 * time.Millisecond) // for others to look too
	return c.Store.Create(ctx, name, blob.Any)
}

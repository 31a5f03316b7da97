package chunk_test

import (
	stdcontext "context"
	"errors"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

func context(t testing.TB) stdcontext.Context { return t.Context() }

func put(t testing.TB, st chunk.Session, kind object.Kind, raw []byte) object.Name {
	t.Helper()
	k := object.Key{Kind: kind, Name: object.NameOf(raw)}
	if err := st.Put(context(t), object.Encode(k, raw, nil)); err != nil {
		t.Fatal(err)
	}
	return k.Name
}

func TestOpenImage(t *testing.T) {
	var st conform.MemStore
	name := conform.SaveImage(t, &st, diskOf(1<<20, 1))
	if im := open(t, &st, name); im.Name != name || im.Root.Size != 1<<20 || len(im.Root.Pages) != 1 {
		t.Errorf("opened %v %+v", im.Name, im.Root)
	}
	if _, err := chunk.OpenImage(context(t), st.Getter(object.Name{1}), object.Name{1}); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("an image that is not there: %v", err)
	}
	page := open(t, &st, name).Root.Pages[0]
	if _, err := chunk.OpenImage(context(t), st.Getter(page), page); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("a page is taken for a root: %v", err)
	}
	st.Flip(object.Key{Kind: object.Root, Name: name}, 100)
	if _, err := chunk.OpenImage(context(t), st.Getter(name), name); !errors.Is(err, object.ErrDamaged) {
		t.Errorf("a damaged root: %v", err)
	}
}

// TestLyingPages: a page must not make anybody read or write outside of its
// region or its chunks, nor read for ever.
func TestLyingPages(t *testing.T) {
	var st conform.MemStore
	data := diskOf(128<<10, 1)
	data[0] = 1
	name := put(t, &st, object.Chunk, data)
	whole := chunk.Ref{Name: name, Len: len(data)}
	tests := map[string]*chunk.Page{
		"longer than the region": {Extents: []chunk.Extent{{Content: image.Data, Len: 128 << 10}, {Content: image.Zero, Len: 4096}},
			Chunks: []chunk.Ref{whole}},
		"shorter than the region": {Extents: []chunk.Extent{{Content: image.Zero, Len: 4096}}},
		"half of a chunk": {Extents: []chunk.Extent{{Content: image.Data, Len: 64 << 10}, {Content: image.Zero, Len: 64 << 10}},
			Chunks: []chunk.Ref{{Name: name, Len: 64 << 10}}},
		"half a chunk, then all": {Extents: []chunk.Extent{{Content: image.Data, Len: 128 << 10}},
			Chunks: []chunk.Ref{{Name: name, Len: 64 << 10}, {Name: name, Len: 64 << 10}}},
	}
	for what, p := range tests {
		root := chunk.Root{Size: 128 << 10, SectorSize: 512, Pages: []object.Name{put(t, &st, object.Page, p.Marshal())}}
		im := open(t, &st, put(t, &st, object.Root, root.Marshal()))
		r, done := reader(t, im, 0), make(chan error, 1)
		go func() {
			_, err := r.ReadAt(make([]byte, 128<<10), 0)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: it was read", what)
			}
		case <-time.After(time.Minute): // it takes microseconds
			t.Errorf("%s: the read does not end", what)
			r.Close() // ends it
		}
		if _, err := im.Page(context(t), 0); err == nil && p.Len() != 128<<10 {
			t.Errorf("%s: the page is given", what)
		}
	}
}

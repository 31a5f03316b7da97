package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// ChunkStoreUnderTest is an empty store, with what the tests need of it.
type ChunkStoreUnderTest struct {
	// Begin begins a backup.
	Begin func() chunk.Session
	// Images opens committed images.
	Images chunk.Images
	// Records returns the committed records.
	Records func() ([]*image.Record, error)
	// Get reads an object of any image directly from where it is stored. If the
	// object is missing, the error must match chunk.ErrMissing.
	Get func(ctx context.Context, key object.Key, buf []byte) (object.Object, error)
	// Remove deletes a backup, unless the store refuses, and collects what is
	// not needed any more. It is nil for a store that never deletes.
	Remove func(ctx context.Context, r *image.Record) error
}

// ChunkStore tests the chunk.Session and the chunk.Images of a store. open
// returns an empty store each time.
func ChunkStore(t *testing.T, open func(t *testing.T) ChunkStoreUnderTest) {
	tests := []struct {
		name string
		run  func(*testing.T, chunkCase)
	}{
		{"put-get", testPutGet}, {"refuses", testRefuses}, {"kinds-apart", testKindsApart}, {"twice", testPutTwice},
		{"missing", testMissingOrder}, {"page-needs-chunks", testPageNeedsChunks}, {"commit", testCommit},
		{"commit-incomplete", testCommitIncomplete}, {"commit-lies", testCommitLies}, {"ids", testIDs},
		{"sessions", testSessions}, {"chunks-at-once", testChunksAtOnce}, {"cancelled", testCancelled},
		{"closed", testClosedSession}, {"open-image", testOpenImage}, {"own-image-only", testOwnImageOnly}, {"closed-image", testClosedImage},
		{"held", testHeld},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			c := chunkCase{s.Begin(), s}
			defer func() { must(t, c.Close()) }()
			test.run(t, c)
		})
	}
}

// chunkCase is a store and a backup in it, with helpers for the tests.
type chunkCase struct {
	chunk.Session
	under ChunkStoreUnderTest
}

// raw returns the bytes of an object, checked against its name.
func (c chunkCase) raw(ctx context.Context, key object.Key) ([]byte, error) {
	o, err := c.under.Get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	if o.Key != key {
		return nil, fmt.Errorf("asked for %v, got %v", key, o.Key)
	}
	return o.Decode(nil)
}

// blocks is content of a disk. Half of it can be compressed.
func blocks(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), n/44+1)[:n]
	r.Read(b[:n/2])
	return b
}

func objectOf(kind object.Kind, raw []byte) object.Object {
	return object.Encode(object.Key{Kind: kind, Name: object.NameOf(raw)}, raw, nil)
}

func (c chunkCase) put(t *testing.T, kind object.Kind, raw []byte) object.Key {
	t.Helper()
	o := objectOf(kind, raw)
	must(t, c.Put(t.Context(), o))
	return o.Key
}

func (c chunkCase) wantMissing(t *testing.T, want []object.Key, ask ...object.Key) {
	t.Helper()
	got, err := c.Missing(t.Context(), ask)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("missing are %v, want %v", got, want)
	}
}

func (c chunkCase) wantRecords(t *testing.T, want int) []*image.Record {
	t.Helper()
	got, err := c.under.Records()
	must(t, err)
	if len(got) != want {
		t.Errorf("there are %d records, want %d", len(got), want)
	}
	return got
}

// record makes the record of a backup with these images.
func record(roots map[object.Name]int64) *image.Record {
	r := &image.Record{Format: image.RecordFormat, Box: "10.0.0.7", Host: "seven", Time: time.Date(2026, 11, 27, 10, 4, 5, 0, time.UTC)}
	for root, size := range roots {
		r.Disks = append(r.Disks, image.RecordedDisk{Name: "sd" + string('a'+rune(len(r.Disks))),
			Disk: image.Identity{Size: size, SectorSize: 512}, Root: root, Data: size})
	}
	return r
}

func testPutGet(t *testing.T, c chunkCase) {
	raws := map[string][]byte{"a byte": {7}, "noise": blocks(1, 100_000)[:50_000], "text": blocks(2, 100_000)[50_000:],
		"largest": blocks(3, object.MaxChunk)}
	for name, raw := range raws {
		for _, kind := range []object.Kind{object.Chunk, object.Page, object.Root} {
			o := objectOf(kind, raw)
			o.Data = slices.Clone(o.Data)
			must(t, c.Put(t.Context(), o))
			spoil(o.Data)
			got, err := c.raw(t.Context(), o.Key)
			if err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%s as %v came back as %d bytes, %v", name, kind, len(got), err)
			}
		}
	}
	key := c.put(t, object.Chunk, blocks(4, 70_000))
	buf := make([]byte, 1<<20)
	o, err := c.under.Get(t.Context(), key, buf[:0])
	if err != nil || o.Check() != nil || o.Key != key || o.RawLen != 70_000 {
		t.Errorf("got %v of %d, %v", o.Key, o.RawLen, err)
	}
	spoil(o.Data)
	if _, err := c.raw(t.Context(), key); err != nil {
		t.Errorf("what Get gave is the store's own memory: %v", err)
	}
	_, err = c.under.Get(t.Context(), object.Key{Kind: object.Chunk}, nil)
	wantErr(t, "get of what is not there", err, chunk.ErrMissing)
}

// testRefuses tests that Put refuses an object that does not match its name.
// Otherwise another backup could rely on it.
func testRefuses(t *testing.T, c chunkCase) {
	good := objectOf(object.Chunk, blocks(1, 100_000))
	for what, spoilt := range map[string]func(*object.Object){
		"another name":    func(o *object.Object) { o.Name[5]++ },
		"a flipped bit":   func(o *object.Object) { o.Data[len(o.Data)/3] ^= 4 },
		"another length":  func(o *object.Object) { o.RawLen-- },
		"cut off":         func(o *object.Object) { o.Data = o.Data[:len(o.Data)-1] },
		"another codec":   func(o *object.Object) { o.Codec = object.Raw },
		"an unknown one":  func(o *object.Object) { o.Codec = 7 },
		"no such kind":    func(o *object.Object) { o.Kind = 9 },
		"empty":           func(o *object.Object) { o.Data, o.RawLen, o.Codec = nil, 0, object.Raw },
		"larger than may": func(o *object.Object) { *o = objectOf(object.Chunk, make([]byte, object.MaxChunk+1)) },
	} {
		o := good
		o.Data = slices.Clone(o.Data)
		spoilt(&o)
		if c.Put(t.Context(), o) == nil {
			t.Errorf("%s: it was taken", what)
		}
		if o.Kind.Max() > 0 {
			c.wantMissing(t, []object.Key{o.Key}, o.Key)
		}
	}
	must(t, c.Put(t.Context(), good))
	c.wantMissing(t, nil, good.Key)
}

func testKindsApart(t *testing.T, c chunkCase) {
	p := new(chunk.Page)
	p.Append(image.Zero, 4096)
	as := func(k object.Kind) object.Key { return object.Key{Kind: k, Name: object.NameOf(p.Marshal())} }
	c.put(t, object.Chunk, p.Marshal())
	c.wantMissing(t, []object.Key{as(object.Page), as(object.Root)}, as(object.Page), as(object.Chunk), as(object.Root))
	_, err := c.under.Get(t.Context(), as(object.Page), nil)
	wantErr(t, "a chunk taken for a page", err, chunk.ErrMissing)
	c.put(t, object.Page, p.Marshal())
	c.wantMissing(t, []object.Key{as(object.Root)}, as(object.Page), as(object.Chunk), as(object.Root))
}

func testPutTwice(t *testing.T, c chunkCase) {
	raw := blocks(1, 100_000)
	key := c.put(t, object.Chunk, raw)
	c.put(t, object.Chunk, raw)
	must(t, c.Put(t.Context(), object.Object{Key: key, Codec: object.Raw, RawLen: len(raw), Data: raw}))
	got, err := c.raw(t.Context(), key)
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("wrong bytes, %v", err)
	}
}

func testMissingOrder(t *testing.T, c chunkCase) {
	var all, odd []object.Key
	for i := range 20 {
		o := objectOf(object.Chunk, blocks(uint64(i), 5000))
		all = append(all, o.Key)
		if i%2 == 0 {
			must(t, c.Put(t.Context(), o))
		} else {
			odd = append(odd, o.Key)
		}
	}
	c.wantMissing(t, odd, all...)
	c.wantMissing(t, nil)
}

// pageOf makes a page of some chunks, and does not put the chunks.
func pageOf(raws ...[]byte) *chunk.Page {
	p := new(chunk.Page)
	for _, raw := range raws {
		p.Append(image.Data, int64(len(raw)))
		p.Chunks = append(p.Chunks, chunk.Ref{Name: object.NameOf(raw), Len: len(raw)})
	}
	return p
}

func testPageNeedsChunks(t *testing.T, c chunkCase) {
	a, b := blocks(1, 65536), blocks(2, 65536)
	page := objectOf(object.Page, pageOf(a, b).Marshal())
	c.put(t, object.Chunk, a)
	c.wantMissing(t, []object.Key{page.Key}, page.Key)
	must(t, c.Put(t.Context(), page))
	c.wantMissing(t, []object.Key{page.Key}, page.Key)
	c.put(t, object.Page, b)
	c.wantMissing(t, []object.Key{page.Key}, page.Key)
	c.put(t, object.Chunk, b)
	c.wantMissing(t, nil, page.Key)
	broken := c.put(t, object.Page, []byte("no page at all"))
	c.wantMissing(t, []object.Key{broken}, broken)
}

func testCommit(t *testing.T, c chunkCase) {
	disk := Disks(6 << 20)["mixed"]
	root := SaveImage(t, c, disk)
	second := SaveImage(t, c, disk[:1<<20])
	r := record(map[object.Name]int64{root: int64(len(disk)), second: 1 << 20})
	must(t, c.Commit(t.Context(), r))
	got := c.wantRecords(t, 1)[0]
	if r.ID == "" || got.ID != r.ID || got.Box != r.Box || len(got.Disks) != 2 || got.Disks[0].Root != r.Disks[0].Root {
		t.Errorf("committed %+v, there is %+v", r, got)
	}
	for _, d := range got.Disks {
		want := disk
		if d.Root == second {
			want = disk[:1<<20]
		}
		im, err := c.under.Images.OpenImage(t.Context(), got, d.Name)
		must(t, err)
		rd := im.ReaderAt(t.Context(), 0)
		back := make([]byte, len(want))
		if _, err := rd.ReadAt(back, 0); err != nil || !bytes.Equal(back, want) {
			t.Errorf("the disk came back wrong: %v", err)
		}
		must(t, errors.Join(rd.Close(), im.Close()))
	}
}

// testCommitIncomplete commits while objects are missing, one fewer each time.
func testCommitIncomplete(t *testing.T, c chunkCase) {
	a, b := blocks(1, 65536), blocks(2, 65536)
	page := pageOf(a, b).Marshal()
	root := (&chunk.Root{Size: 131072, SectorSize: 512, Pages: []object.Name{object.NameOf(page)}}).Marshal()
	r := record(map[object.Name]int64{object.NameOf(root): 131072})
	for _, o := range []object.Object{objectOf(object.Root, root), objectOf(object.Page, page),
		objectOf(object.Chunk, a), objectOf(object.Chunk, b)} {
		wantErr(t, "commit without "+o.Key.String(), c.Commit(t.Context(), r), chunk.ErrMissing)
		c.wantRecords(t, 0)
		must(t, c.Put(t.Context(), o))
	}
	must(t, c.Commit(t.Context(), r))
	c.wantRecords(t, 1)
}

// testCommitLies commits records whose image could not be restored, although
// all objects are there.
func testCommitLies(t *testing.T, c chunkCase) {
	a := blocks(1, 65536)
	ref := c.put(t, object.Chunk, a)
	page := c.put(t, object.Page, pageOf(a).Marshal()).Name
	rootOf := func(page []byte) object.Name {
		name := c.put(t, object.Page, page).Name
		return c.put(t, object.Root, (&chunk.Root{Size: 65536, SectorSize: 512, Pages: []object.Name{name}}).Marshal()).Name
	}
	root := func(r chunk.Root) object.Name { r.SectorSize = 512; return c.put(t, object.Root, r.Marshal()).Name }
	good := root(chunk.Root{Size: 65536, Pages: []object.Name{page}})
	longer := pageOf(a)
	longer.Append(image.Zero, 4096)
	// The chunks are as long together as the page says, and each has another length.
	swapped := pageOf(a[:32768], blocks(2, 32768))
	c.put(t, object.Chunk, a[:32768])
	c.put(t, object.Chunk, blocks(2, 32768))
	swapped.Chunks[0].Len, swapped.Chunks[1].Len = 32768+512, 32768-512
	for what, r := range map[string]*image.Record{
		"a box that cannot be":   {Format: image.RecordFormat, Box: "../x", Disks: record(map[object.Name]int64{good: 65536}).Disks},
		"no disk":                record(nil),
		"another size":           record(map[object.Name]int64{good: 65536 + 512}),
		"a chunk as the root":    record(map[object.Name]int64{ref.Name: 65536}),
		"a page of other length": record(map[object.Name]int64{rootOf(longer.Marshal()): 65536}),
		"a root that is none":    record(map[object.Name]int64{c.put(t, object.Root, []byte("no root")).Name: 65536}),
		"wrong lengths":          record(map[object.Name]int64{rootOf(swapped.Marshal()): 65536}),
		"a page that is none":    record(map[object.Name]int64{rootOf([]byte("no page")): 65536}),
	} {
		missing := what == "a chunk as the root"
		if err := c.Commit(t.Context(), r); err == nil || errors.Is(err, chunk.ErrMissing) != missing {
			t.Errorf("%s: %v", what, err)
		}
	}
	c.wantRecords(t, 0)
}

func testIDs(t *testing.T, c chunkCase) {
	root := SaveImage(t, c, blocks(1, 65536))
	seen := map[string]bool{}
	for i := range 3 {
		r := record(map[object.Name]int64{root: 65536})
		must(t, c.Commit(t.Context(), r))
		if !image.ValidID(r.ID) || seen[r.ID] {
			t.Errorf("backup %d has the id %q", i, r.ID)
		}
		seen[r.ID] = true
	}
	c.wantRecords(t, 3)
}

// testSessions tests that the next backup finds what an earlier one committed.
func testSessions(t *testing.T, c chunkCase) {
	disk := Disks(3 << 20)["noise"]
	root := SaveImage(t, c, disk)
	r := record(map[object.Name]int64{root: 3 << 20})
	must(t, c.Commit(t.Context(), r))
	next := chunkCase{c.under.Begin(), c.under}
	defer func() { must(t, next.Close()) }()
	im, err := c.under.Images.OpenImage(t.Context(), r, "sda")
	must(t, err)
	defer func() { must(t, im.Close()) }()
	page, err := im.Page(t.Context(), 0)
	must(t, err)
	keys := []object.Key{{Kind: object.Page, Name: im.Root.Pages[0]}}
	for _, ref := range page.Chunks {
		keys = append(keys, object.Key{Kind: object.Chunk, Name: ref.Name})
	}
	next.wantMissing(t, nil, keys...)
	must(t, next.Commit(t.Context(), record(map[object.Name]int64{root: 3 << 20})))
	c.wantRecords(t, 2)
}

func testChunksAtOnce(t *testing.T, c chunkCase) {
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for g := range errs {
		wg.Go(func() { errs[g] = c.hammer(t.Context(), uint64(g)) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
}

// hammer puts and reads objects that other goroutines put and read too.
func (c chunkCase) hammer(ctx context.Context, g uint64) error {
	for i := range uint64(40) {
		raw := blocks((i*7+g)%30, 20_000)
		o := objectOf(object.Chunk, raw)
		if err := c.Put(ctx, o); err != nil {
			return err
		}
		if missing, err := c.Missing(ctx, []object.Key{o.Key}); err != nil || len(missing) > 0 {
			return fmt.Errorf("missing after Put: %v, %w", missing, err)
		}
		if got, err := c.raw(ctx, o.Key); err != nil || !bytes.Equal(got, raw) {
			return fmt.Errorf("wrong bytes: %w", err)
		}
	}
	return nil
}

func testCancelled(t *testing.T, c chunkCase) {
	root := SaveImage(t, c, blocks(1, 65536))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Commit(ctx, record(map[object.Name]int64{root: 65536})); err != nil {
		c.wantRecords(t, 0)
	}
	must(t, c.Commit(t.Context(), record(map[object.Name]int64{root: 65536})))
}

// testClosedSession tests that a closed session refuses all calls, and that its
// committed backup remains.
func testClosedSession(t *testing.T, c chunkCase) {
	other := c.under.Begin()
	root := SaveImage(t, other, blocks(1, 65536))
	r := record(map[object.Name]int64{root: 65536})
	must(t, other.Commit(t.Context(), r))
	must(t, errors.Join(other.Close(), other.Close()))
	_, err := other.Missing(t.Context(), []object.Key{{Kind: object.Root, Name: root}})
	wantErr(t, "missing of a closed session", err, chunk.ErrClosed)
	wantErr(t, "put of a closed session", other.Put(t.Context(), objectOf(object.Chunk, blocks(2, 5000))), chunk.ErrClosed)
	wantErr(t, "commit of a closed session", other.Commit(t.Context(), record(map[object.Name]int64{root: 65536})), chunk.ErrClosed)
	c.wantRecords(t, 1)
	c.wantMissing(t, nil, object.Key{Kind: object.Root, Name: root})
}

// testOpenImage tests that OpenImage finds an image by backup and disk name,
// and nothing for a record that the store does not have.
func testOpenImage(t *testing.T, c chunkCase) {
	root := SaveImage(t, c, blocks(1, 65536))
	r := record(map[object.Name]int64{root: 65536})
	must(t, c.Commit(t.Context(), r))
	im, err := c.under.Images.OpenImage(t.Context(), r, "sda")
	must(t, err)
	if im.Name != root || im.Root.Size != 65536 {
		t.Errorf("opened %v %+v", im.Name, im.Root)
	}
	must(t, im.Close())
	for what, spoil := range map[string]func(*image.Record){
		"another id":   func(r *image.Record) { r.ID += "-2" },
		"another box":  func(r *image.Record) { r.Box = "10.0.0.8" },
		"another disk": func(r *image.Record) { r.Disks[0].Name = "sdb" },
	} {
		other := *r
		other.Disks = slices.Clone(r.Disks)
		spoil(&other)
		_, err := c.under.Images.OpenImage(t.Context(), &other, other.Disks[0].Name)
		wantErr(t, what, err, fs.ErrNotExist)
	}
}

// testOwnImageOnly tests that the getter of one image returns no object of
// another, even for a place in that other image.
func testOwnImageOnly(t *testing.T, c chunkCase) {
	ctx := t.Context()
	roots := map[object.Name]int64{SaveImage(t, c, blocks(1, 65536)): 65536, SaveImage(t, c, blocks(2, 65536)): 65536}
	r := record(roots)
	must(t, c.Commit(ctx, r))
	open := func(disk string) (*chunk.Image, *traced) {
		im, err := c.under.Images.OpenImage(ctx, r, disk)
		must(t, err)
		g := &traced{Getter: im.Getter()}
		again, err := chunk.OpenImage(ctx, g, im.Name)
		must(t, err)
		return again, g
	}
	a, ofA := open("sda")
	b, ofB := open("sdb")
	for _, im := range []*chunk.Image{a, b} {
		must(t, im.Check(ctx, 1, nil))
	}
	if len(ofA.places) < 3 || len(ofB.places) < 3 {
		t.Fatalf("%d and %d objects were read", len(ofA.places), len(ofB.places))
	}
	for _, at := range ofB.places {
		_, err := ofA.Get(ctx, at, nil)
		wantErr(t, "an object of another image", err, chunk.ErrMissing)
	}
	must(t, errors.Join(a.Close(), b.Close()))
}

// traced is a chunk.Getter that records the places of all reads.
type traced struct {
	chunk.Getter
	mu     sync.Mutex // guards places
	places []chunk.Place
}

func (g *traced) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	o, err := g.Getter.Get(ctx, at, buf)
	if err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.places = append(g.places, at)
	}
	return o, err
}

func testClosedImage(t *testing.T, c chunkCase) {
	r := record(map[object.Name]int64{SaveImage(t, c, blocks(1, 65536)): 65536})
	must(t, c.Commit(t.Context(), r))
	im, err := c.under.Images.OpenImage(t.Context(), r, "sda")
	must(t, err)
	must(t, errors.Join(im.Close(), im.Close()))
	_, err = im.Page(t.Context(), 0)
	wantErr(t, "a page of a closed image", err, chunk.ErrClosed)
}

// testHeld tests that an open image stays complete while its backup is deleted
// and collected, and that it is collected once nobody reads it.
func testHeld(t *testing.T, c chunkCase) {
	if c.under.Remove == nil {
		return
	}
	disk := Disks(3 << 20)["mixed"]
	saver := c.under.Begin()
	r := record(map[object.Name]int64{SaveImage(t, saver, disk): int64(len(disk))})
	must(t, saver.Commit(t.Context(), r))
	must(t, saver.Close())
	must(t, c.Close()) // an open session would keep what it has put
	im, err := c.under.Images.OpenImage(t.Context(), r, "sda")
	must(t, err)
	_ = c.under.Remove(t.Context(), r) // may be refused
	rd := im.ReaderAt(t.Context(), 0)
	back := make([]byte, len(disk))
	if _, err := rd.ReadAt(back, 0); err != nil || !bytes.Equal(back, disk) {
		t.Errorf("what is read was collected: %v", err)
	}
	must(t, errors.Join(rd.Close(), im.Close()))
	must(t, c.under.Remove(t.Context(), r))
	_, err = c.under.Images.OpenImage(t.Context(), r, "sda")
	wantErr(t, "an image that was deleted", err, fs.ErrNotExist)
	_, err = c.raw(t.Context(), object.Key{Kind: object.Root, Name: im.Name})
	wantErr(t, "the root of an image that was collected", err, chunk.ErrMissing)
}

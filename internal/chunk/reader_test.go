package chunk_test

import (
	"bytes"
	stdcontext "context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// restore writes all pieces of an image over old, from many goroutines, and
// holds them to the contract.
func restore(r image.Reader, old []byte) error {
	var wg sync.WaitGroup
	var errs [64]error
	cover := cover{size: int64(len(old))}
	for i := 0; ; i++ {
		p, err := r.Next()
		if err == io.EOF {
			wg.Wait()
			return errors.Join(append(errs[:], cover.end())...)
		}
		if err == nil {
			err = cover.add(p)
		}
		if err != nil {
			wg.Wait()
			return err
		}
		wg.Go(func() {
			if err := write(p, old); err != nil {
				errs[i%len(errs)] = err
			}
		})
		if i%len(errs) == len(errs)-1 {
			wg.Wait()
		}
	}
}

func write(p image.Piece, disk []byte) error {
	switch p.Content {
	case image.Unused:
		return nil
	case image.Zero:
		// Memory that was never touched is zero and costs nothing.
		if run := disk[p.Ranges[0].Off:][:p.Ranges[0].Len]; !image.IsZero(run) {
			clear(run)
		}
		return nil
	}
	data := make([]byte, p.Len)
	if err := p.Decode(data); err != nil {
		return err
	}
	if object.NameOf(data) != p.Sum {
		return errors.New("another sum")
	}
	for _, r := range p.Ranges {
		data = data[copy(disk[r.Off:][:r.Len], data):]
	}
	return nil
}

// cover sees that pieces come in order and leave nothing out.
type cover struct {
	size int64
	next int64 // the first byte that no piece had
	had  []image.Range
}

func (c *cover) add(p image.Piece) error {
	var n, end int64
	for i, r := range p.Ranges {
		if r.Len < 1 || i > 0 && r.Off <= end || r.End() > c.size {
			return fmt.Errorf("a piece with the ranges %v", p.Ranges)
		}
		n, end = n+r.Len, r.End()
	}
	switch {
	case n != p.Len || len(p.Ranges) > 1 && p.Content != image.Data || (p.Decode != nil) != (p.Content == image.Data):
		return fmt.Errorf("a piece that cannot be: %+v", p)
	case p.Ranges[0].Off != c.next:
		return fmt.Errorf("a piece at %d, not at %d", p.Ranges[0].Off, c.next)
	}
	c.had = append(c.had, p.Ranges...)
	slices.SortFunc(c.had, func(a, b image.Range) int { return int(a.Off - b.Off) })
	for len(c.had) > 0 && c.had[0].Off == c.next {
		c.next += c.had[0].Len
		c.had = c.had[1:]
	}
	return nil
}

func (c *cover) end() error {
	if c.next != c.size || len(c.had) > 0 {
		return fmt.Errorf("%d of %d bytes were covered", c.next, c.size)
	}
	return nil
}

func TestReaderRestores(t *testing.T) {
	var st conform.MemStore
	rapid.Check(t, func(rt *rapid.T) {
		disk := diskOf(512*rapid.IntRange(1, 6<<11).Draw(rt, "sectors"), rapid.Uint64().Draw(rt, "seed"))
		unused := image.Range{Off: 4096 * rapid.Int64Range(0, int64(len(disk)/4096)).Draw(rt, "unused")}
		unused.Len = rapid.Int64Range(0, (int64(len(disk))-unused.Off)/4096).Draw(rt, "length") * 4096
		old := bytes.Repeat([]byte{0xa5}, len(disk))
		want := bytes.Clone(disk)
		copy(want[unused.Off:][:unused.Len], old)
		im := open(t, &st, conform.SaveImage(t, &st, disk, unused))
		if err := restore(im.Reader(context(t)), old); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(old, want) {
			rt.Fatal("wrong bytes")
		}
	})
}

func TestReaderRegions(t *testing.T) {
	disk := make([]byte, 3*chunk.RegionSize+5<<20)
	copy(disk[chunk.RegionSize-2<<20:], diskOf(4<<20, 1))
	copy(disk[3*chunk.RegionSize:], diskOf(5<<20, 2))
	var st conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, disk))
	before := st.Gets()
	got := make([]byte, len(disk))
	if err := restore(im.Reader(context(t)), got); err != nil || !bytes.Equal(got, disk) {
		t.Fatalf("wrong bytes or %v", err)
	}
	if n, want := st.Gets()-before, len(st.Keys(object.Chunk))+len(st.Keys(object.Page)); n != want {
		t.Errorf("%d objects were fetched, there are %d", n, want)
	}
}

// TestReaderFrom: an order that begins with any region has the same pieces, and
// wraps round once. Each piece of data tells its place.
func TestReaderFrom(t *testing.T) {
	disk := make([]byte, 3*chunk.RegionSize+5<<20)
	for i := range 4 {
		copy(disk[i*chunk.RegionSize+1<<20:], diskOf(3<<20, uint64(i)))
	}
	copy(disk[2*chunk.RegionSize:], disk[chunk.RegionSize:2*chunk.RegionSize]) // neighbours with the same page
	var st conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, disk, image.Range{Off: 100 << 20, Len: 10 << 20}))
	all := allPieces(t, im.Reader(context(t)))
	for from := range im.Root.Pages {
		i := slices.IndexFunc(all, func(p image.Piece) bool { return p.Ranges[0].Off >= int64(from)*chunk.RegionSize })
		before := st.Gets()
		got := allPieces(t, im.ReaderFrom(context(t), from))
		if !samePieces(got, slices.Concat(all[i:], all[:i])) {
			t.Errorf("the pieces from region %d on are not those of the image", from)
		}
		if n := st.Gets() - before; n != 3 && n != 4 { // the same page of neighbours is fetched once, unless they are the first and the last
			t.Errorf("from region %d on, %d pages were fetched", from, n)
		}
		region := got[:slices.IndexFunc(got, func(p image.Piece) bool { return p.Ranges[0].Off/chunk.RegionSize != int64(from) })]
		places, err := im.Region(context(t), from)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range region {
			if p.Content != image.Data {
				continue
			}
			want, err := places.Place(n)
			if at, ok := chunk.PlaceOf(p.Stored); err != nil || !ok || at != want {
				t.Errorf("chunk %d of region %d is at %v, not at %v, %v", n, from, at, want, err)
			}
			n++
		}
		if n != places.Len() || n == 0 {
			t.Errorf("region %d has %d pieces of data and %d chunks", from, n, places.Len())
		}
	}
	for _, from := range []int{-1, 4} {
		if _, err := im.ReaderFrom(context(t), from).Next(); !errors.Is(err, chunk.ErrMissing) {
			t.Errorf("region %d: %v", from, err)
		}
	}
	if _, ok := chunk.PlaceOf(nil); ok {
		t.Error("no piece has a place")
	}
}

func allPieces(t *testing.T, r image.Reader) (all []image.Piece) {
	for {
		p, err := r.Next()
		if err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func samePieces(a, b []image.Piece) bool {
	return slices.EqualFunc(a, b, func(a, b image.Piece) bool {
		at, isData := chunk.PlaceOf(a.Stored)
		other, _ := chunk.PlaceOf(b.Stored)
		return a.Content == b.Content && a.Len == b.Len && a.Sum == b.Sum && slices.Equal(a.Ranges, b.Ranges) && at == other &&
			isData == (a.Content == image.Data)
	})
}

// TestWith: the same image comes from another getter, and only that is closed.
func TestWith(t *testing.T) {
	disk := diskOf(2<<20, 1)
	var st, other conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, disk))
	conform.SaveImage(t, &other, disk)
	before := st.Gets()
	with := im.With(other.Getter(im.Name))
	got := make([]byte, len(disk))
	if err := restore(with.Reader(context(t)), got); err != nil || !bytes.Equal(got, disk) || st.Gets() != before || other.Gets() == 0 {
		t.Errorf("%v; %d objects came from the first getter", err, st.Gets()-before)
	}
	if err := with.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := with.Page(context(t), 0); !errors.Is(err, chunk.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := im.Page(context(t), 0); err != nil {
		t.Errorf("the first image: %v", err)
	}
}

// TestReaderDamaged: whatever is damaged or gone, the restore says so.
func TestReaderDamaged(t *testing.T) {
	disk := diskOf(3<<20, 1)
	var st conform.MemStore
	root := conform.SaveImage(t, &st, disk)
	for i, k := range append(st.Keys(object.Chunk), st.Keys(object.Page)...) {
		o, _ := st.Get(context(t), k, nil)
		im := open(t, &st, root)
		want := chunk.ErrMissing
		if i%2 == 0 {
			st.Lose(k)
		} else {
			st.Flip(k, i*7919)
			want = object.ErrDamaged
		}
		if err := restore(im.Reader(context(t)), make([]byte, len(disk))); !errors.Is(err, want) {
			t.Errorf("%v: %v", k, err)
		}
		st.Set(o)
	}
}

func TestReaderCancelled(t *testing.T) {
	var st conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, diskOf(2<<20, 1)))
	ctx, cancel := stdcontext.WithCancel(context(t))
	r := im.Reader(ctx)
	p, err := r.Next()
	for err == nil && p.Decode == nil {
		p, err = r.Next()
	}
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Decode(make([]byte, p.Len)); !errors.Is(err, stdcontext.Canceled) {
		t.Errorf("decoded with %v", err)
	}
	if err := restore(im.Reader(ctx), nil); !errors.Is(err, stdcontext.Canceled) {
		t.Errorf("a cancelled reader: %v", err)
	}
}

// TestDecodeAllocates next to nothing for a chunk.
func TestDecodeAllocates(t *testing.T) {
	var st conform.MemStore
	im := open(t, &st, conform.SaveImage(t, &st, diskOf(4<<20, 1)))
	var ps []image.Piece
	for r := im.Reader(context(t)); ; {
		p, err := r.Next()
		if err != nil {
			break
		}
		if p.Decode != nil {
			ps = append(ps, p)
		}
	}
	dst := make([]byte, image.PieceSize)
	n := testing.AllocsPerRun(20, func() {
		for _, p := range ps {
			if err := p.Decode(dst[:p.Len]); err != nil {
				t.Fatal(err)
			}
		}
	})
	if each := n / float64(len(ps)); each > 1 {
		t.Errorf("%.1f allocations a chunk", each)
	}
}

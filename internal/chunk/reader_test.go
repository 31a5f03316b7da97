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

package copier

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// pieced is an image of any pieces.
type pieced struct {
	disk   []byte
	pieces []image.Piece // without functions
}

func (p *pieced) Size() int64                                { return int64(len(p.disk)) }
func (p *pieced) SectorSize() int                            { return 0 }
func (p *pieced) PiecesProved() bool                         { return true }
func (p *pieced) Prove(string, *image.Receipt) error         { return nil }
func (p *pieced) used(i int) bool                            { return p.pieces[i].Content != image.Unused }
func (p *pieced) Open(context.Context) (image.Reader, error) { return &piecedReader{p: p}, nil }

type piecedReader struct {
	p  *pieced
	at int
}

func (r *piecedReader) Next() (image.Piece, error) {
	if r.at == len(r.p.pieces) {
		return image.Piece{}, io.EOF
	}
	p := r.p.pieces[r.at]
	r.at++
	if p.Content != image.Data {
		return p, nil
	}
	var data []byte
	for _, at := range p.Ranges {
		data = append(data, r.p.disk[at.Off:at.End()]...)
	}
	p.Sum = object.NameOf(data)
	s := spoiler(data)
	p.Decode, p.Stored = s.decode, s
	return p, nil
}

// spoiler is the data of a piece. It spoils what is behind.
type spoiler []byte

func (s spoiler) decode(dst []byte) error {
	n := copy(dst, s)
	copy(dst[n:], "it may spoil what is behind")
	return nil
}

func (s spoiler) Bring(pieces []image.Stored, into func(i int) ([]byte, bool)) error {
	for i, p := range pieces {
		dst, _ := into(i)
		p.(spoiler).decode(dst)
	}
	return nil
}

func (s spoiler) Check([]image.Stored) error { return nil }

// drawPieces cuts a disk into pieces. Those of data have parts between those of
// others. What is zeros is so on the disk.
func drawPieces(rt *rapid.T, disk []byte) *pieced {
	out := &pieced{disk: disk}
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed of pieces"), 1))
	longest := rapid.SampledFrom([]int{7, 3000, 50_000, 3 * mib}).Draw(rt, "longest run")
	unit := rapid.SampledFrom([]int{1, 512}).Draw(rt, "unit")
	open := rapid.IntRange(1, 4).Draw(rt, "pieces beside each other")
	full := rapid.SampledFrom([]int64{9000, 200_000, pieceSize}).Draw(rt, "longest piece")
	var last []int // pieces of data that can go on
	for at := 0; at < len(disk); {
		n := min(len(disk)-at, unit*(1+rnd.IntN((longest+unit-1)/unit)))
		if longest == 7 && rnd.IntN(2000) > 0 && at < len(disk)-20_000 { // else there were too many
			n = min(len(disk)-at, unit*(1+rnd.IntN(100_000/unit)))
		}
		r := image.Range{Off: int64(at), Len: int64(n)}
		kind := rnd.IntN(6)
		if kind < 2 {
			content := image.Content([]image.Content{image.Zero, image.Unused}[kind])
			if content == image.Zero {
				clear(disk[at : at+n])
			}
			out.pieces = append(out.pieces, image.Piece{Content: content, Ranges: []image.Range{r}, Len: r.Len})
			at += n
			continue
		}
		i := -1
		if len(last) > 0 && rnd.IntN(3) > 0 {
			i = last[rnd.IntN(len(last))]
			p := &out.pieces[i]
			r.Len = min(r.Len, full-p.Len)
			if r.Len <= 0 || p.Ranges[len(p.Ranges)-1].End() == r.Off {
				i = -1
			}
		}
		if i < 0 {
			r.Len = min(int64(n), full)
			out.pieces = append(out.pieces, image.Piece{Content: image.Data})
			i = len(out.pieces) - 1
			if last = append(last, i); len(last) > open {
				last = slices.Delete(last, 0, 1)
			}
		}
		p := &out.pieces[i]
		p.Ranges, p.Len = append(p.Ranges, r), p.Len+r.Len
		at += int(r.Len)
	}
	return out
}

// TestPieces restores images of any pieces that a page can describe.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		disk := randomDisk(rt, rapid.OneOf(rapid.IntRange(1, 3*mib), rapid.IntRange(2*mib, 4*mib)).Draw(rt, "size"))
		im := drawPieces(rt, disk)
		unused := Unused(rapid.IntRange(0, 2).Draw(rt, "unused"))
		var used []image.Range
		for i, p := range im.pieces {
			if im.used(i) || unused == UnusedZero {
				used = append(used, p.Ranges...)
			}
			if !im.used(i) && unused == UnusedZero {
				clear(disk[p.Ranges[0].Off:p.Ranges[0].End()])
			}
		}
		used = inOrder(used)
		before := old(len(disk))
		if rapid.Bool().Draw(rt, "near") {
			before = bytes.Clone(disk)
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				before[rapid.IntRange(0, len(disk)-1).Draw(rt, "at")] ^= 1
			}
		}
		opt := RestoreOptions{
			Options: Options{Workers: rapid.IntRange(1, 3).Draw(rt, "workers")},
			Full:    rapid.Bool().Draw(rt, "full"),
			Verify:  ReadBack(rapid.IntRange(0, 2).Draw(rt, "verify")),
			Unused:  unused,
			sample:  rapid.SampledFrom([]int64{0, mib}).Draw(rt, "sample"),
			flush:   rapid.SampledFrom([]int64{0, 1, mib}).Draw(rt, "flush"),
		}
		d := faults.NewDisk(before)
		job := Job{Name: "sda", Image: im, Target: &able{Target: d, disk: d, sparse: rapid.Bool().Draw(rt, "sparse")}}
		wrong := len(im.pieces) > 1 && rapid.IntRange(0, 3).Draw(rt, "wrong") == 0
		if wrong {
			i := rapid.IntRange(1, len(im.pieces)-1).Draw(rt, "piece")
			p := &im.pieces[i]
			p.Ranges = slices.Clone(p.Ranges)
			last := &p.Ranges[len(p.Ranges)-1]
			if by := rapid.SampledFrom([]int64{-1, 1}).Draw(rt, "by"); rapid.Bool().Draw(rt, "place") {
				last.Off += by
			} else {
				last.Len += by
				p.Len += by
			}
			if last.End() > int64(len(disk)) { // the reader cannot make it
				return
			}
		}
		rs, err := Restore(t.Context(), []Job{job}, opt)
		got := d.Bytes()
		if wrong {
			if err == nil {
				rt.Fatal("pieces that do not fit make an image")
			}
			if !bytes.Equal(got, before) && !image.IsZero(got[:min(len(got), bootArea)]) {
				rt.Fatalf("failed (%v), and a mixture has a beginning", err)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		for _, r := range used {
			if !bytes.Equal(got[r.Off:r.End()], disk[r.Off:r.End()]) {
				rt.Fatalf("the bytes %d+%d are not the image's", r.Off, r.Len)
			}
		}
		if r := rs[0]; r.Written+r.Skipped+r.Unused != int64(len(disk)) {
			rt.Fatalf("receipt %+v", r)
		}
		if unused != UnusedDiscard && rs[0].Written > 0 && !bytes.Equal(got, expected(disk, before, used)) {
			rt.Fatal("what is not used is not as it should be")
		}
		v, err := Verify(t.Context(), job, Options{}, nil)
		if unused != UnusedZero && (err != nil || len(v.Differ) > 0 || v.Verified != total(used)) {
			rt.Fatalf("verify: %+v, %v", v, err)
		}
	})
}

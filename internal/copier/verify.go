package copier

import (
	"bytes"
	"context"
	"time"

	"testbox-imaging/internal/image"
)

// maxDiffer is how many differing ranges a receipt lists.
const maxDiffer = 1000

// Verify compares a disk with an image, as Restore would have written it, and
// writes nothing. A disk that differs is no error: the receipt lists the first
// differing ranges, in sectors, and its Verified is less than its Read.
// Unreadable sectors are in Bad and count as different. The stage in Progress
// is "compare".
func Verify(ctx context.Context, job Job, opt Options) (image.Receipt, error) {
	opt = opt.withDefaults()
	if err := job.check(); err != nil {
		return image.Receipt{}, err
	}
	v := &verify{disk: newDisk(&job, opt), opt: opt, bad: badList{diskSize: job.Target.Size()}}
	start := time.Now()
	err := v.err(v.run(ctx))
	v.stage("compare", start)
	v.receipt.Bad = v.bad.ranges
	return v.receipt, err
}

type verify struct {
	*disk
	opt Options
	bad badList
}

func (v *verify) run(ctx context.Context) error {
	st, err := openStream(v.Job, false)
	if err != nil {
		return err
	}
	defer st.close()
	slots := newRing(v.opt, readers)
	for _, s := range slots {
		s.aux = v.opt.Alloc(image.PieceSize)
	}
	compare := func(s *slot) error { return v.compare(st, s) }
	err = slots.run(ctx, st.produce, []stage{{readers, v.read}, {v.opt.Workers, compare}}, func(s *slot) error {
		st.hash(s)
		return v.collect(s)
	})
	if err != nil {
		return err
	}
	if v.receipt.BLAKE3, err = st.finish(); err != nil {
		return err
	}
	return v.edges()
}

// read reads the disk's side of a piece.
func (v *verify) read(s *slot) (err error) {
	off, n := v.body(s)
	if n > 0 {
		s.bad, err = readPiece(v.Target, s.aux[:n], off, v.opt)
	}
	return err
}

// compare decodes the image's side.
func (v *verify) compare(st *stream, s *slot) error {
	if err := st.decode(s); err != nil {
		return err
	}
	s.diff = nil
	if off, n := v.body(s); n > 0 {
		want := zeros[:n]
		if !s.zero {
			want = s.raw[off-s.off:][:n]
		}
		s.diff = differ(want, s.aux[:n], off, s.bad, v.opt.SectorSize)
	}
	return nil
}

func (v *verify) collect(s *slot) error {
	_, n := v.body(s)
	v.keep(s)
	if s.zero {
		v.receipt.Zero += s.n
	}
	v.opt.Progress("compare", s.off+s.n, v.RawSize)
	if err := v.count(n, s.bad, s.diff); err != nil {
		return err
	}
	v.receipt.Differ = v.receipt.Differ[:min(len(v.receipt.Differ), maxDiffer)]
	return nil
}

// count puts a compared run of n bytes into the receipt.
func (v *verify) count(n int64, bad, diff []image.Range) error {
	v.receipt.Read += n
	v.receipt.Verified += n
	for _, r := range diff {
		v.receipt.Verified -= r.Len
		v.receipt.Differ = appendRange(v.receipt.Differ, r)
	}
	return v.bad.add(bad)
}

// edges compares what a restore writes last.
func (v *verify) edges() error {
	if err := v.fit(); err != nil {
		return err
	}
	for _, e := range append(v.begin(), v.ends()...) {
		b := make([]byte, len(e.Data))
		bad, err := readPiece(v.Target, b, e.Off, v.opt)
		if err != nil {
			return err
		}
		if err := v.count(int64(len(b)), bad, differ(e.Data, b, e.Off, bad, v.opt.SectorSize)); err != nil {
			return err
		}
	}
	v.bad.ranges = inOrder(v.bad.ranges)
	v.receipt.Differ = inOrder(v.receipt.Differ)
	v.receipt.Differ = v.receipt.Differ[:min(len(v.receipt.Differ), maxDiffer)]
	return nil
}

// differ lists where got, read from off, is not want, by sectors. It spoils
// got.
func differ(want, got []byte, off int64, bad []image.Range, sector int) []image.Range {
	for _, r := range bad {
		for i := r.Off - off; i < r.Off-off+r.Len; i++ {
			got[i] = ^want[i]
		}
	}
	if bytes.Equal(want, got) {
		return nil
	}
	var diff []image.Range
	for at := 0; at < len(want); at += sector {
		end := min(at+sector, len(want))
		if !bytes.Equal(want[at:end], got[at:end]) {
			diff = appendRange(diff, image.Range{Off: off + int64(at), Len: int64(end - at)})
		}
	}
	return diff
}

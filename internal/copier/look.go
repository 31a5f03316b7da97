package copier

import (
	"bytes"
	"context"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/parttab"
)

const (
	// maxDiffer is how many differing ranges a receipt lists.
	maxDiffer = 1000
	// lookers is how many reads of a disk are in flight when it is compared
	// with an image in a store, whose pieces are small.
	lookers = 8
	// fetchers is how many pieces of a stored image are fetched and unpacked
	// at once at the least: the store can be far away.
	fetchers = 8
)

// look is a pass that reads what a disk holds and compares it with the image:
// to say where they differ, to find out what a restore need not write, or to
// prove what it wrote.
type look struct {
	*stream
	exact   bool          // say which sectors differ, and go on over bad ones
	held    bool          // head and tail are not on the disk yet
	written bool          // look only at what was written
	found   image.Receipt // Read, Zero, Verified, Differ, Unused
	holes   []image.Range // what of head and tail is not used
	bad     badList
	done    int64 // of the image, bytes
}

func newLook(d *disk) (*look, error) {
	st, err := openStream(d, false)
	if err != nil {
		return nil, err
	}
	known := holesOf(d.Target)
	st.holes = &known
	return &look{stream: st, bad: badList{read: d.RawSize}}, nil
}

// pass goes over the image. The stage in Progress is name.
func (l *look) pass(ctx context.Context, r *ring, name string, collect func(*slot) error) error {
	defer l.close()
	return r.run(ctx, l.produce, func(s *slot) error {
		l.done += s.n
		l.opt.Progress(name, l.done, l.RawSize)
		return collect(s)
	}, each(lookers, l.read), each(l.comparers(), l.compare))
}

// comparers is how many pieces are compared at once. Only to say which sectors
// differ needs more than the piece's sum.
func (l *look) comparers() int {
	if l.exact {
		return l.workers()
	}
	return l.opt.Workers
}

// passes reports whether a slot is not looked at.
func (l *look) passes(s *slot) bool {
	return s.content == image.Unused || l.written && s.skip
}

// read reads the disk's side of a slot, what of it lies in the body.
func (l *look) read(s *slot) error {
	if l.passes(s) || s.hole {
		return nil
	}
	first := int64(-1)
	for at, r := range l.body(s) {
		if first < 0 {
			first = at
		}
		s.win.add(r)
	}
	if first < 0 {
		return nil
	}
	err := s.win.gather(l.Target, s.aux[first:])
	if err == nil || l.held || !l.opt.Medium(err) {
		return err
	}
	if !l.exact {
		s.bad = append(s.bad, s.win.runs...) // what cannot be read differs
		return nil
	}
	for at, r := range l.body(s) {
		bad, err := readPiece(l.Target, s.aux[at:][:r.Len], r.Off, l.opt)
		if err != nil {
			return err
		}
		s.bad = append(s.bad, bad...)
	}
	return nil
}

// compare finds where disk and image differ. Where the image tells a piece's
// sum, its bytes are fetched only if they are needed.
func (l *look) compare(s *slot) error {
	if l.passes(s) || s.hole {
		return nil
	}
	if l.stored() && s.content == image.Data && (l.held || l.bodyLen(s) == s.n) {
		if l.held {
			l.put(s.aux, s)
		}
		if len(s.bad) == 0 && object.NameOf(s.aux[:s.n]) == s.piece.Sum {
			return nil
		}
		if !l.exact {
			s.diff = append(s.diff, s.ranges...)
			return nil
		}
	}
	if err := l.decode(s); err != nil {
		return err
	}
	for at, r := range l.body(s) {
		want := zeros[:r.Len]
		if s.content == image.Data {
			want = s.raw[at:][:r.Len]
		}
		s.diff = differ(s.diff, want, s.aux[at:][:r.Len], r.Off, s.bad, l.opt.SectorSize)
	}
	return nil
}

// collect counts what was found in a slot, and keeps what is needed for edges.
func (l *look) collect(s *slot) error {
	l.hash(s)
	n := l.bodyLen(s)
	switch s.content {
	case image.Unused:
		l.found.Unused += n
		l.holes = appendHole(l.holes, s.one[0].Clip(0, l.bodyOff()))
		l.holes = appendHole(l.holes, s.one[0].Clip(l.tailOff(), l.RawSize))
		return nil
	case image.Zero:
		l.found.Zero += s.n
	}
	if l.bodyLen(s) < s.n {
		l.keep(s)
	}
	err := l.count(n, s.bad, s.diff)
	l.found.Differ = l.found.Differ[:min(len(l.found.Differ), maxDiffer)]
	return err
}

func appendHole(list []image.Range, r image.Range) []image.Range {
	if r.Len == 0 {
		return list
	}
	return appendRange(list, r)
}

// count counts a compared run of n bytes.
func (l *look) count(n int64, bad, diff []image.Range) error {
	r := &l.found
	r.Read += n
	r.Verified += n
	for _, d := range diff {
		r.Verified -= d.Len
		r.Differ = appendRange(r.Differ, d)
		l.opt.Differs(d)
	}
	if l.exact {
		return l.bad.add(bad)
	}
	return nil
}

// compareEdges compares what a restore writes last, after a pass over all of
// the image. What is not used there is not looked at.
func (l *look) compareEdges() error {
	if err := l.fit(); err != nil {
		return err
	}
	holes := without(inOrder(l.holes), l.edges.changed)
	l.found.Unused += total(holes)
	for _, e := range append(l.edges.begin, l.edges.ends...) {
		for _, r := range without([]image.Range{{Off: e.Off, Len: int64(len(e.Data))}}, holes) {
			if err := l.compareRun(parttab.Edit{Off: r.Off, Data: e.Data[r.Off-e.Off:][:r.Len]}); err != nil {
				return err
			}
		}
	}
	l.bad.ranges = inOrder(l.bad.ranges)
	l.found.Differ = inOrder(l.found.Differ)
	l.found.Differ = l.found.Differ[:min(len(l.found.Differ), maxDiffer)]
	return nil
}

func (l *look) compareRun(e parttab.Edit) error {
	b := make([]byte, len(e.Data))
	bad, err := readPiece(l.Target, b, e.Off, l.opt)
	if err != nil {
		return err
	}
	return l.count(int64(len(b)), bad, differ(nil, e.Data, b, e.Off, bad, l.opt.SectorSize))
}

// differ appends to diff where got, read from off, is not want, by sectors. It
// spoils got.
func differ(diff []image.Range, want, got []byte, off int64, bad []image.Range, sector int) []image.Range {
	for _, r := range bad {
		r = r.Clip(off, off+int64(len(got)))
		for i := r.Off - off; i < r.End()-off; i++ {
			got[i] = ^want[i]
		}
	}
	if bytes.Equal(want, got) {
		return diff
	}
	for at := 0; at < len(want); at += sector {
		end := min(at+sector, len(want))
		if !bytes.Equal(want[at:end], got[at:end]) {
			diff = appendRange(diff, image.Range{Off: off + int64(at), Len: int64(end - at)})
		}
	}
	return diff
}

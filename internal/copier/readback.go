package copier

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// readBack proves that the disk holds what was written. Head and tail are not
// on the disk yet. It follows the writing as far as k says.
func (r *restore) readBack(ctx context.Context, d *diskState, k *kept) error {
	again := newSpots()
	var err error
	if d.job.Image.PiecesProved() {
		err = r.readBackByName(ctx, d, k, again)
	} else {
		err = r.readBackBySum(ctx, d, k, again)
	}
	if err != nil {
		return err
	}
	return again.look(ctx, d.job.Target)
}

// readBackByName compares the disk with the sums that the image tells. A piece's
// sum is the name of its chunk in the store. Pieces of an Arriving image that were
// written are compared with what was made of them when they came.
func (r *restore) readBackByName(ctx context.Context, d *diskState, k *kept, again *spots) error {
	c, err := newComparison(ctx, d)
	if err != nil {
		return err
	}
	c.edgesPending, c.onlyWritten, c.kept = true, r.opt.Verify == VerifyWritten, k
	known := int64(0) // the disk told its holes when everything before this place was flushed
	c.stream.gate = func(to int64) (err error) {
		if to > known { // a hole may have been written to since then
			c.stream.holes.forget()
			known, err = k.wait(ctx, to)
			if err == nil && c.stream.cover.begin != d.began { // then known would mean other places
				err = fmt.Errorf("internal check failed: the image was written from byte %d on, and is read back from byte %d on",
					d.began, c.stream.cover.begin)
			}
		}
		return err
	}
	var got arrivals
	if d.written != nil {
		got.sums = sums{group: d.written.group}
	}
	err = c.pass(ctx, r.back, "verify "+d.job.Name, func(s *pieceSlot) error {
		for i := range s.parts {
			p := &s.parts[i]
			if len(p.diff) > 0 {
				return whoseFault(p)
			}
			if d.arrived(p) {
				if err := got.add(p, d.written); err != nil {
					return err
				}
			}
			if c.skips(p) {
				continue
			}
			n := d.bodyLen(p)
			if d.receipt.Verified += n; p.content == image.Data && n == p.n && s.early {
				name := object.Name(p.piece.Sum)
				again.add(p.ranges(), func(b []byte) bool { return object.NameOf(b) == name })
			}
		}
		return nil
	})
	if err == nil && d.written != nil {
		err = got.end(d.written)
	}
	return err
}

// arrived reports whether the read-back compares a part with what an Arriving image
// made of it when it came.
func (d *diskState) arrived(p *part) bool {
	return d.written != nil && d.job.Image.PiecesProved() && p.content == image.Data && !p.onDisk
}

// arrivals are the hashes of such parts, as they were read back.
type arrivals struct {
	sums
	first, length int64 // of the last group of parts: where on the disk its first byte is, and how many bytes it has
}

// add adds a part, and compares the group that ends with it.
func (a *arrivals) add(p *part, want *sums) error {
	if a.n%a.group == 0 {
		a.first, a.length = p.ranges()[0].Off, 0
	}
	a.length += p.n
	a.sums.add(p.sum)
	return a.check(want, false)
}

// end compares the last group, and sees that nothing was left out.
func (a *arrivals) end(want *sums) error { return a.check(want, true) }

func (a *arrivals) check(want *sums, all bool) error {
	if !a.same(want, all) {
		return notKept(a.first, a.length)
	}
	return nil
}

// readBackBySum compares the disk with the sums of what was written.
func (r *restore) readBackBySum(ctx context.Context, d *diskState, k *kept, again *spots) error {
	from, to := d.bodyOff(), d.tailOff()
	at := from
	produce := func(s *pieceSlot) error {
		if at >= to {
			return io.EOF
		}
		r := image.Range{Off: at, Len: min(pieceSize-at%pieceSize, to-at)}
		s.add(part{content: image.Data, n: r.Len, single: [1]image.Range{r}, buffered: true})
		at += s.n
		_, err := k.wait(ctx, at) // such an image is in the order of the disk
		return err
	}
	read := func(s *pieceSlot) error {
		s.early = !k.ended()
		p := &s.parts[0]
		if err := readFull(d.job.Target, s.onDisk(p), p.single[0].Off); err != nil {
			return err
		}
		p.sum = SumOf(s.onDisk(p))
		return nil
	}
	got := newSums(d.imageSize / pieceSize)
	collect := func(s *pieceSlot) error {
		p := &s.parts[0]
		got.add(p.sum)
		if !got.same(d.written, p.end() == to) {
			n := int64(got.group) * pieceSize
			off := (p.single[0].Off / n) * n
			return notKept(off, p.end()-off)
		}
		d.receipt.Verified += p.n
		if k.ended() {
			r.opt.Progress("verify "+d.job.Name, d.receipt.Verified, to-from)
		}
		if sum := p.sum; s.early {
			again.add(p.ranges(), func(b []byte) bool { return SumOf(b) == sum })
		}
		return nil
	}
	return r.back.run(ctx, produce, collect, each(readers, read))
}

const (
	// spotEvery is the least distance of two spots, in bytes that were verified.
	spotEvery = 16 << 20
	// maxSpots bounds how many places are looked at again.
	maxSpots = 4096
)

// spots are places that were read back while others were still written. A disk
// that has less room than it says writes the later bytes over the earlier ones.
// So some of all places are read once more when everything is written. The first
// place is one of them, since such a disk usually begins again at its beginning. So
// are the last place, and the two between which the order goes from the disk's end
// to its beginning, since what is overwritten often begins or ends there.
type spots struct {
	every int64 // bytes from one spot to the next
	since int64 // bytes since the last spot
	list  []spot
	wrap  []spot // the places before and behind the disk's end, in an order that wraps round
	last  spot   // the place that was added last; it has no ranges if there is none
}

type spot struct {
	ranges []image.Range
	right  func([]byte) bool // whether bytes of these ranges are what they must be
}

func newSpots() *spots { return &spots{every: spotEvery, since: spotEvery} }

// add adds a place if it is far enough from the last one.
func (l *spots) add(ranges []image.Range, right func([]byte) bool) {
	if len(l.last.ranges) > 0 && ranges[0].Off < l.last.ranges[0].Off {
		l.wrap = append(l.wrap, l.last, spot{slices.Clone(ranges), right})
		l.last = spot{}
	}
	l.last = spot{append(l.last.ranges[:0], ranges...), right}
	if l.since += total(ranges); l.since < l.every {
		return
	}
	l.since = 0
	l.list = append(l.list, spot{slices.Clone(ranges), right})
	if len(l.list) < maxSpots {
		return
	}
	l.every *= 2
	for i := range maxSpots / 2 {
		l.list[i] = l.list[2*i]
	}
	l.list = slices.Delete(l.list, maxSpots/2, maxSpots)
}

// look reads all places again.
func (l *spots) look(ctx context.Context, target Target) error {
	buf := disk.AlignedBuffer(pieceSize)
	places := slices.Concat(l.list, l.wrap)
	if len(l.last.ranges) > 0 {
		places = append(places, l.last)
	}
	for _, s := range places {
		if err := ctx.Err(); err != nil {
			return err
		}
		var reads []image.Range
		for _, r := range s.ranges {
			reads = addRead(reads, r)
		}
		if err := gather(target, buf, reads, s.ranges); err != nil {
			return err
		}
		if !s.right(buf[:total(s.ranges)]) {
			return fmt.Errorf("the bytes at %d were right when they were first read back, and are not any more: "+
				"either something else wrote to the disk at the same time, or the disk has less room than it says", s.ranges[0].Off)
		}
	}
	return nil
}

// whoseFault says why the disk has other bytes than a piece's sum says. The bytes
// were not compared with the sum when they were written.
func whoseFault(p *part) error {
	if p.content == image.Data {
		if err := p.piece.Decode(make([]byte, pieceSize)); err != nil {
			return err
		}
	}
	off := p.ranges()[0].Off
	return notKept(off, p.end()-off)
}

// notKept says that a disk gave back something else than was written.
func notKept(off, n int64) error {
	return fmt.Errorf("the %d bytes at %d read back otherwise than they were written: "+
		"either something else wrote to the disk at the same time, or the disk or its controller is broken", n, off)
}

// maxSums bounds the memory of sums, at 16 bytes each.
const maxSums = 1 << 20

// sums has hashes of what was written, so that the read-back can be compared with
// them and say which place differs. It has a hash for each piece. Of a large disk it
// has one for each group of pieces.
type sums struct {
	group int // number of pieces in one entry, a power of two

	mu   sync.Mutex // guards the fields below, since the read-back looks while more is written
	n    int        // number of pieces added
	list []xxh3.Uint128
}

// newSums makes room for the hashes of so many pieces.
func newSums(pieces int64) *sums {
	s := &sums{group: 1}
	for pieces/int64(s.group) > maxSums {
		s.group *= 2
	}
	return s
}

// leastPiece is the mean length of the pieces of a stored image, at the least. A page
// has no room for more of them.
const leastPiece = chunk.RegionSize / (object.MaxPage / 32)

// newWritten makes the sums of what will be written, if the read-back needs them.
func (d *diskState) newWritten() *sums {
	if d.opt.Verify == VerifyNone {
		return nil
	}
	if !d.job.Image.PiecesProved() {
		return newSums(d.imageSize / pieceSize)
	}
	if a, ok := d.job.Image.(Arriving); ok && a.Arrives() {
		return newSums(d.imageSize / leastPiece)
	}
	return nil
}

// SumOf is the hash of a piece. The hash of zeros is zero, whatever their length.
func SumOf(b []byte) xxh3.Uint128 {
	if image.IsZero(b) {
		return xxh3.Uint128{}
	}
	return xxh3.Hash128(b)
}

// add adds the hash of the next piece.
func (s *sums) add(h xxh3.Uint128) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n%s.group == 0 {
		s.list = append(s.list, h)
	} else {
		last := &s.list[len(s.list)-1]
		var b [32]byte
		binary.LittleEndian.PutUint64(b[0:], last.Hi)
		binary.LittleEndian.PutUint64(b[8:], last.Lo)
		binary.LittleEndian.PutUint64(b[16:], h.Hi)
		binary.LittleEndian.PutUint64(b[24:], h.Lo)
		*last = xxh3.Hash128(b[:])
	}
	s.n++
}

// same reports whether the last entry equals the entry of want at the same place.
// As long as the entry lacks pieces of its group, same is true. all says that the
// last piece was added to both.
func (s *sums) same(want *sums, all bool) bool {
	want.mu.Lock()
	defer want.mu.Unlock()
	if s.n > want.n || all && s.n != want.n {
		return false
	}
	if s.n == 0 {
		return true
	}
	if s.n%s.group != 0 && !all {
		return true
	}
	return s.list[len(s.list)-1] == want.list[len(s.list)-1]
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// packScrub is the reading of a pack.
type packScrub struct {
	*scrubber
	n     uint32
	info  packInfo
	raw   []byte             // what objects are unpacked to
	good  int                // objects that are whole
	found []*pack.FaultError // in the pack's order
}

// pack reads a pack, and once more if something is wrong: what was spoilt on
// the way is right then.
func (sc *scrubber) pack(ctx context.Context, n uint32, info packInfo) error {
	p := &packScrub{scrubber: sc, n: n, info: info}
	name := packName(info.kind, n)
	r := sc.s.packReader(ctx, name)
	for range 2 {
		if err := p.scan(ctx, r); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if len(p.found) == 0 {
			break
		}
	}
	if len(p.found) > 0 {
		p.faults(r)
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.report.Packs++
	sc.report.Objects += p.good
	sc.report.Bytes += info.size
	sc.now.Bytes += info.size
	sc.tell(sc.now)
	return nil
}

func (p *packScrub) scan(ctx context.Context, r *packReader) error {
	p.good, p.found = 0, nil
	err := pack.Scan(ctx, r, p.info.size, func(e pack.Entry, o object.Object, f *pack.FaultError) error {
		if f == nil {
			f = p.object(e, o)
		}
		if f != nil {
			p.found = append(p.found, f)
		}
		return r.err
	})
	return errors.Join(err, r.err)
}

// object looks at an object that is as it was stored: is it what its name says,
// and does the index know it?
func (p *packScrub) object(e pack.Entry, o object.Object) *pack.FaultError {
	raw, err := o.Decode(p.raw)
	if err != nil {
		return &pack.FaultError{Off: int64(e.Off), Len: e.End() - int64(e.Off), Err: err}
	}
	p.raw = raw
	p.good++
	p.isWhole(e, place{p.n, e.Off})
	return nil
}

// isWhole notes that an object is whole where it is. One that could not be read
// before, or that the index did not know, counts again.
func (sc *scrubber) isWhole(e pack.Entry, at place) {
	s := sc.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bad, at)
	if _, ok := s.index.Get(e.Key); !ok {
		if err := s.index.Add(e.Key, loc(at.pack, e)); err != nil {
			s.cfg.Log("%v", err) // no place of a pack that is in the store
			return
		}
		s.dirty = true
	}
	if s.isAt(e.Key, at) {
		sc.whole.Add(e.Key)
	}
}

// faults notes what was found in a pack. Which objects are lost by it is known
// if the table can be read.
func (p *packScrub) faults(r io.ReaderAt) {
	_, entries, _ := pack.ReadTable(r, p.info.size)
	for _, f := range p.found {
		fault := Fault{File: packName(p.info.kind, p.n), Off: f.Off, Len: f.Len, Err: f.Err, Known: p.wasKnown(f)}
		var lost []pack.Entry
		for _, e := range entries {
			if int64(e.Off) < f.Off+f.Len && f.Off < e.End() {
				lost = append(lost, e)
				fault.Objects = append(fault.Objects, e.Key)
			}
		}
		p.note(p.fault(fault), lost)
	}
}

func (p *packScrub) wasKnown(f *pack.FaultError) bool {
	for at := range p.known {
		if at.pack == p.n && (at.off == 0 || f.Off <= int64(at.off) && int64(at.off) < f.Off+f.Len) {
			return true
		}
	}
	return false
}

// note puts what a fault costs on the list of damaged objects: the pack itself
// if no object of it is known to be lost.
func (p *packScrub) note(fault int, lost []pack.Entry) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if len(lost) == 0 {
		p.s.setBad(object.Key{}, place{p.n, 0})
	}
	for _, e := range lost {
		p.s.setBad(e.Key, place{p.n, e.Off})
		p.mu.Lock()
		p.lost[short(e.Key)] = fault
		p.mu.Unlock()
	}
}

// packReader reads on where a disk cannot: bytes that it says it cannot read
// (EIO) are zeros, which the sums will show. Any other error is not the disk's
// word on its bytes, nor is that if the store is not there as a whole: err keeps
// the first, and nothing may be taken for damaged.
type packReader struct {
	r     io.ReaderAt
	alive func() error
	err   error
}

func (s *site) packReader(ctx context.Context, name string) *packReader {
	return &packReader{r: blob.Reader(ctx, s.cfg.Blobs, name), alive: func() error { return s.stillThere(ctx) }}
}

// unreadable is the part that is given up for one that cannot be read, bytes.
const unreadable = 4096

func (s *packReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.r.ReadAt(b, off)
	if errors.Is(err, syscall.EIO) && s.alive() == nil {
		n, err = s.pieces(b, off)
	}
	if err != nil && err != io.EOF && s.err == nil {
		s.err = err
	}
	return n, err
}

func (s *packReader) pieces(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		part := b[n:min(n+unreadable, len(b))]
		got, err := s.r.ReadAt(part, off+int64(n))
		if errors.Is(err, syscall.EIO) {
			clear(part)
			got, err = len(part), nil
		}
		if n += got; err != nil || got < len(part) {
			return n, err
		}
	}
	return n, nil
}

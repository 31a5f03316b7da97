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

// packScrub reads one pack.
type packScrub struct {
	*scrubber
	n     uint32
	info  packInfo
	raw   []byte             // buffer that objects are unpacked into
	good  int                // number of undamaged objects
	found []*pack.FaultError // in the order of the pack
}

// pack reads a pack. If something is wrong, it reads the pack once more, since
// the bytes may have been spoilt on the way.
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
		if err := pace(ctx); err != nil {
			return err
		}
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

// object checks that an object, which is as it was stored, matches its name. It
// notes in the index that the object is there.
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

// isWhole notes that an object is undamaged at a place. If it could not be read
// before, or was not in the index, it counts as present again.
func (sc *scrubber) isWhole(e pack.Entry, at place) {
	s := sc.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bad, at)
	if _, ok := s.index.Get(e.Key); !ok {
		if err := s.index.Add(e.Key, loc(at.pack, e)); err != nil {
			s.cfg.Log("%v", err) // the place is not one that a pack of this store can have
			return
		}
		s.dirty = true
	}
	if s.isAt(e.Key, at) {
		sc.whole.Add(e.Key)
	}
}

// faults adds the faults of a pack to the report. Which objects are lost is
// known only if the pack's table can be read.
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

// note adds the objects that a fault costs to the list of damaged objects. If
// no lost object is known, it adds the pack itself.
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

// packReader goes on reading where a disk cannot. Bytes for which the disk
// reports EIO become zeros, and the checksums then show the damage. Any other
// error says nothing about the bytes on the disk. The same holds for EIO if the
// whole store is unreachable. In these cases err keeps the first error, and the
// caller must not treat anything as damaged.
type packReader struct {
	r     io.ReaderAt
	alive func() error
	err   error
}

func (s *site) packReader(ctx context.Context, name string) *packReader {
	return &packReader{r: blob.Reader(ctx, s.cfg.Blobs, name), alive: func() error { return s.stillThere(ctx) }}
}

// unreadable is how many bytes become zeros at once where the disk cannot read.
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

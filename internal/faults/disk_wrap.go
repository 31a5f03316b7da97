package faults

import (
	"io"
	"slices"
	"sync/atomic"
)

// Failing is a disk whose operation number K fails with ErrInjected. Operations
// of all kinds are counted from 0. A write that fails does its first half.
type Failing struct {
	Target
	K    int64
	Dead bool // if set, all later operations fail too
	n    atomic.Int64
}

// Ops is how many operations there were.
func (f *Failing) Ops() int64 { return f.n.Load() }

func (f *Failing) fails() bool {
	n := f.n.Add(1) - 1
	return n == f.K || f.Dead && n > f.K
}

// ReadAt implements io.ReaderAt.
func (f *Failing) ReadAt(b []byte, off int64) (int, error) {
	if f.fails() {
		return 0, ErrInjected
	}
	return f.Target.ReadAt(b, off)
}

// WriteAt implements io.WriterAt.
func (f *Failing) WriteAt(b []byte, off int64) (int, error) {
	if f.fails() {
		n, _ := f.Target.WriteAt(b[:len(b)/2], off)
		return n, ErrInjected
	}
	return f.Target.WriteAt(b, off)
}

// ZeroAt implements Target.
func (f *Failing) ZeroAt(off, n int64) error {
	if f.fails() {
		f.Target.ZeroAt(off, n/2)
		return ErrInjected
	}
	return f.Target.ZeroAt(off, n)
}

// Sync implements Target.
func (f *Failing) Sync() error {
	if f.fails() {
		return ErrInjected
	}
	return f.Target.Sync()
}

// Short is a disk whose every N-th read and every N-th write do only half of
// the work and return Err, which may be nil.
type Short struct {
	Target
	N             int64
	Err           error
	reads, writes atomic.Int64
}

// ReadAt implements io.ReaderAt, but for the rule that less is an error.
func (s *Short) ReadAt(b []byte, off int64) (int, error) {
	if s.reads.Add(1)%s.N != 0 {
		return s.Target.ReadAt(b, off)
	}
	n, _ := s.Target.ReadAt(b[:len(b)/2], off)
	return n, s.Err
}

// WriteAt implements io.WriterAt, but for the rule that less is an error.
func (s *Short) WriteAt(b []byte, off int64) (int, error) {
	if s.writes.Add(1)%s.N != 0 {
		return s.Target.WriteAt(b, off)
	}
	n, _ := s.Target.WriteAt(b[:len(b)/2], off)
	return n, s.Err
}

// Dropping is a disk that ignores its every N-th write or zeroing, and returns
// no error.
type Dropping struct {
	Target
	N      int64
	writes atomic.Int64
}

// Dropped is how many writes were lost.
func (d *Dropping) Dropped() int64 { return d.writes.Load() / d.N }

// WriteAt implements io.WriterAt.
func (d *Dropping) WriteAt(b []byte, off int64) (int, error) {
	if d.writes.Add(1)%d.N == 0 {
		return len(b), nil
	}
	return d.Target.WriteAt(b, off)
}

// ZeroAt implements Target.
func (d *Dropping) ZeroAt(off, n int64) error {
	if d.writes.Add(1)%d.N == 0 {
		return nil
	}
	return d.Target.ZeroAt(off, n)
}

// Altering is a disk that changes one byte at the Nth write or zeroing of its
// place, and returns no error. Nth counts from 1.
type Altering struct {
	Target
	At   int64 // offset of the byte
	Nth  int64
	hits atomic.Int64
}

// Hits is how often the place was written.
func (a *Altering) Hits() int64 { return a.hits.Load() }

// WriteAt implements io.WriterAt.
func (a *Altering) WriteAt(b []byte, off int64) (int, error) {
	if a.At >= off && a.At < off+int64(len(b)) && a.hits.Add(1) == a.Nth {
		b = slices.Clone(b)
		b[a.At-off] ^= 1
	}
	return a.Target.WriteAt(b, off)
}

// ZeroAt implements Target.
func (a *Altering) ZeroAt(off, n int64) error {
	if err := a.Target.ZeroAt(off, n); err != nil {
		return err
	}
	if a.At >= off && a.At < off+n && a.hits.Add(1) == a.Nth {
		_, err := a.Target.WriteAt([]byte{1}, a.At)
		return err
	}
	return nil
}

// Bad is a disk with unreadable places. A read that meets one returns the bytes
// before it and Err.
type Bad struct {
	Target
	Places []Op // their Kind is ignored
	Err    error
}

// ReadAt implements io.ReaderAt.
func (d *Bad) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	for _, p := range d.Places {
		if p.Off < end && off < p.End() {
			end = max(off, p.Off)
		}
	}
	if end == off+int64(len(b)) {
		return d.Target.ReadAt(b, off)
	}
	n, _ := d.Target.ReadAt(b[:end-off], off)
	return n, d.Err
}

// Flipped is a file with one bit wrong.
type Flipped struct {
	io.ReaderAt
	Bit int64 // counted from the lowest of byte 0
}

// ReadAt implements io.ReaderAt.
func (f Flipped) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(b, off)
	if at := f.Bit/8 - off; at >= 0 && at < int64(n) {
		b[at] ^= 1 << (f.Bit % 8)
	}
	return n, err
}

// Hooked is a disk that calls Before ahead of every operation. If Before fails,
// the operation is not done and returns that error. Before is called from many
// goroutines at once.
type Hooked struct {
	Target
	Before func(Op) error
}

// ReadAt implements io.ReaderAt.
func (h *Hooked) ReadAt(b []byte, off int64) (int, error) {
	if err := h.Before(Op{"read", off, int64(len(b))}); err != nil {
		return 0, err
	}
	return h.Target.ReadAt(b, off)
}

// WriteAt implements io.WriterAt.
func (h *Hooked) WriteAt(b []byte, off int64) (int, error) {
	if err := h.Before(Op{"write", off, int64(len(b))}); err != nil {
		return 0, err
	}
	return h.Target.WriteAt(b, off)
}

// ZeroAt implements Target.
func (h *Hooked) ZeroAt(off, n int64) error {
	if err := h.Before(Op{"zero", off, n}); err != nil {
		return err
	}
	return h.Target.ZeroAt(off, n)
}

// Sync implements Target.
func (h *Hooked) Sync() error {
	if err := h.Before(Op{Kind: "sync"}); err != nil {
		return err
	}
	return h.Target.Sync()
}

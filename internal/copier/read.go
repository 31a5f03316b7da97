package copier

import (
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// readFull fills b. A short read is an error, even if the reader reports none.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b) && (err == nil || err == io.EOF):
		return nil
	case err == nil || err == io.EOF:
		return fmt.Errorf("read at byte %d: only %d of %d bytes came: %w", off, n, len(b), io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("read at byte %d: %w", off, err)
}

// isMedium reports whether the error of a read says that sectors cannot be read.
func isMedium(err error) bool { return errors.Is(err, disk.ErrMedium) }

// salvageStep is how much is read at a time when a piece has a bad sector. A step
// that fails is read again sector by sector.
const salvageStep = 64 << 10

// salvager reads a disk that may have bad sectors.
type salvager struct {
	src    Source
	sector int // bytes
	alive  func()
}

// read fills b from the disk. Bad sectors become zeros, and read returns their
// ranges. Any other error ends it.
func (v salvager) read(b []byte, off int64) ([]image.Range, error) {
	err := readFull(v.src, b, off)
	if err == nil || !isMedium(err) {
		return nil, err
	}
	var bad []image.Range
	for at := 0; at < len(b); at += salvageStep {
		part := b[at:min(at+salvageStep, len(b))]
		err := readFull(v.src, part, off+int64(at))
		v.alive()
		if err == nil {
			continue
		} else if !isMedium(err) {
			return nil, err
		}
		if bad, err = v.sectors(part, off+int64(at), bad); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

// sectors reads a step that failed sector by sector. It adds bad sectors to bad.
func (v salvager) sectors(b []byte, off int64, bad []image.Range) ([]image.Range, error) {
	for at := 0; at < len(b); at += v.sector {
		sector := b[at:min(at+v.sector, len(b))]
		err := readFull(v.src, sector, off+int64(at))
		v.alive()
		if err == nil {
			continue
		}
		if !isMedium(err) {
			return nil, err
		}
		clear(sector)
		bad = appendRange(bad, image.Range{Off: off + int64(at), Len: int64(len(sector))})
	}
	return bad, nil
}

// readGap bounds the gap between two runs that are brought by one read, since one
// long read is faster than two short ones. The bytes of the gap are dropped.
const readGap = 32 << 10

// addRead adds a run to a list of reads. Runs must come in order. If the gap
// before the run is small, the last read becomes longer. Otherwise the run becomes
// a read of its own.
func addRead(reads []image.Range, r image.Range) []image.Range {
	last := len(reads) - 1
	if last < 0 || r.Off-reads[last].End() >= readGap {
		return append(reads, r)
	}
	reads[last].Len = r.End() - reads[last].Off
	return reads
}

// gather fills b with the bytes of the runs, one run after the other. The reads
// are made of the runs by addRead. What b has behind these bytes may be spoilt.
func gather(src Source, b []byte, reads, runs []image.Range) error {
	for _, read := range reads {
		n := 0
		for n < len(runs) && runs[n].End() <= read.End() {
			n++
		}
		got, err := gatherRead(src, b, read, runs[:n])
		if err != nil {
			return err
		}
		b, runs = b[got:], runs[n:]
	}
	return nil
}

// gatherRead fills b with the runs that lie in one read. If b has no room for the
// gaps between them, or if something there cannot be read, it reads each run by
// itself. The bad sector may lie in a gap, where nobody needs it.
func gatherRead(src Source, b []byte, read image.Range, runs []image.Range) (at int64, err error) {
	joined := read.Len <= int64(len(b))
	if joined {
		err := readFull(src, b[:read.Len], read.Off)
		if err != nil && (len(runs) == 1 || !isMedium(err)) {
			return 0, err
		}
		joined = err == nil
	}
	for _, r := range runs {
		if joined {
			copy(b[at:], b[r.Off-read.Off:][:r.Len])
		} else if err := readFull(src, b[at:][:r.Len], r.Off); err != nil {
			return 0, err
		}
		at += r.Len
	}
	return at, nil
}

// Sparse is a Source that knows where it has zeros without reading them, such as
// the holes of a file, or clusters of a qcow2 that are not allocated.
type Sparse interface {
	// NextData gives the next run at or behind off that may have bytes that are
	// not zero. All bytes from off to that run are zero. If there is no such
	// run, from is the disk's size. The run never begins before off. It is empty
	// only at the disk's end.
	NextData(off int64) (from, to int64)
}

// holes remembers the last answer of a Sparse. The zero value knows no holes.
type holes struct {
	sparse   Sparse // nil means that no hole is known
	size     int64
	at       int64 // all bytes from at to from are zero
	from, to int64 // the run behind these zeros, as NextData gave it
}

func holesOf(src Source) holes {
	h := holes{size: src.Size()}
	h.sparse, _ = src.(Sparse)
	return h
}

// forget makes the next call of end ask the disk.
func (h *holes) forget() { h.at, h.from, h.to = 0, 0, 0 }

// end is the end of the hole that off lies in, or off itself if it lies in none.
func (h *holes) end(off int64) int64 {
	if h.sparse == nil || off >= h.size {
		return off
	}
	if off < h.at || off >= h.to {
		from, to := h.sparse.NextData(off)
		if from < off || from > h.size || to < from || to == from && from < h.size {
			h.sparse = nil // the answer makes no sense, so no other is trusted
			return off
		}
		h.at, h.from, h.to = off, from, to
		if from >= h.size {
			h.from, h.to = h.size, h.size
		}
	}
	return max(off, h.from)
}

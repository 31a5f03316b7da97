package copier

import (
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// readFull fills b. Anything less is an error, whatever the reader says of it.
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

// salvageStep is how much of a piece with a bad sector is read at a time at
// first; what fails again is read sector by sector.
const salvageStep = 64 << 10

// salvager reads a disk that may have bad sectors.
type salvager struct {
	src    Source
	sector int // bytes
	alive  func()
}

// read fills b, and where the disk has bad sectors, with zeros; these it names.
// Any other error is given back.
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

// sectors is the last resort of read.
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

// readGap is how many unused bytes between used ones are read along with them:
// one long read is faster than two short ones. They are not kept.
const readGap = 32 << 10

// addRead adds a run to the reads that bring it, in order. A run behind a small
// gap makes the read before it longer.
func addRead(reads []image.Range, r image.Range) []image.Range {
	last := len(reads) - 1
	if last < 0 || r.Off-reads[last].End() >= readGap {
		return append(reads, r)
	}
	reads[last].Len = r.End() - reads[last].Off
	return reads
}

// gather fills b with what the runs have on a disk, one after the other. The
// reads are those of addRead. The rest of b it may spoil.
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

// gatherRead fills b with the runs that one read has. It reads them one by one
// if there is no room for what is between them.
func gatherRead(src Source, b []byte, read image.Range, runs []image.Range) (at int64, err error) {
	joined := read.Len <= int64(len(b))
	if joined {
		if err := readFull(src, b[:read.Len], read.Off); err != nil {
			return 0, err
		}
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

// Sparse is a Source that knows of zeros without reading them: the holes of a
// file, the clusters that an image has not.
type Sparse interface {
	// NextData gives the next run at or behind off that may hold something
	// else than zeros; from is the disk's size if there is none. All before it
	// is zero. It never gives a run before off, or an empty one but at the
	// disk's end.
	NextData(off int64) (from, to int64)
}

// holes remembers what a Sparse said last; the zero value of it knows none.
type holes struct {
	sparse   Sparse // nil: nothing is known
	size     int64
	at       int64 // from here on, up to from, all is zero
	from, to int64
}

func holesOf(src Source) holes {
	h := holes{size: src.Size()}
	h.sparse, _ = src.(Sparse)
	return h
}

// end is where the zeros end that off lies in; off itself if it lies in none.
func (h *holes) end(off int64) int64 {
	if h.sparse == nil || off >= h.size {
		return off
	}
	if off < h.at || off >= h.to {
		from, to := h.sparse.NextData(off)
		if from < off || from > h.size || to < from || to == from && from < h.size {
			h.sparse = nil // it cannot be trusted
			return off
		}
		h.at, h.from, h.to = off, from, to
		if from >= h.size {
			h.from, h.to = h.size, h.size
		}
	}
	return max(off, h.from)
}

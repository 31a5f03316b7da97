package copier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

// ErrFailing is matched by the error of a backup of a disk that is failing, and
// not merely worn. Its partition table cannot be read, or so much else is lost
// that an image of it would be no backup. With SourceOptions.TakeFailing such a
// disk is accepted.
var ErrFailing = errors.New("the disk is failing")

// How much of a disk may be unreadable. docs/format.md tells these numbers.
const (
	// badShare allows that one byte is unreadable in so many bytes that are
	// read. An image that lacks more is no backup of a system.
	badShare = 100
	// badBytes is the limit in bytes on a large disk. It is 32768 sectors, while
	// a drive has a few thousand in reserve. A drive can spend seconds on each.
	badBytes = 16 << 20
	// badPlaces is how many bad places a disk may have. On a large disk the limit
	// is one place in badEvery bytes that are read. With more bad places hardly a
	// folder would be intact.
	badPlaces = 100
	badEvery  = 16 << 20
	// maxPlaces is how many bad places an image can name. This limit holds with
	// TakeFailing too.
	maxPlaces = 100000
	// probes is how many sectors are tried before the backup begins, spread
	// evenly over what will be read. On a disk that is good enough, more than
	// badProbes of them fail only by bad luck.
	probes    = 128
	badProbes = 5
)

// failing makes an error that matches ErrFailing.
func failing(format string, args ...any) error {
	return fmt.Errorf("%w: %s; replace it", ErrFailing, fmt.Sprintf(format, args...))
}

// Probe finds out in seconds whether a disk is failing, so that a backup of it is
// refused at once and not after hours. It reads the partition table, and sectors
// spread over the bytes that Save would read with the map m. If m is nil, the
// sectors are spread over the whole disk.
func Probe(ctx context.Context, src Source, m *usedmap.Map, opt SourceOptions) error {
	if opt.TakeFailing {
		return nil
	}
	opt = opt.withDefaults()
	if _, err := readTable(src, opt); err != nil {
		return err
	}
	bad := 0
	sector := make([]byte, opt.SectorSize)
	for _, off := range probePlaces(src.Size(), int64(opt.SectorSize), m) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := readFull(src, sector, off)
		opt.Alive()
		if err != nil && !isMedium(err) {
			return err
		} else if err != nil {
			bad++
		}
		if bad > badProbes {
			return failing("of %d places all over it that were tried first, more than %d cannot be read", probes, badProbes)
		}
	}
	return nil
}

// probePlaces gives the places of the sectors to try, spread as evenly as
// possible.
func probePlaces(size, sector int64, m *usedmap.Map) (out []int64) {
	w := newWindows(size, m)
	used := w.bytes()
	at := int64(0) // used bytes before the current run
	for win := (window{}); w.next(&win); {
		for _, r := range win.runs {
			for len(out) < probes {
				next := used/probes*int64(len(out)) + used/probes/2
				if next >= at+r.Len {
					break
				}
				off := r.Off + max(next-at, 0)
				out = append(out, min(off-off%sector, size-sector))
			}
			at += r.Len
		}
	}
	return out
}

// readTable reads a disk's partition table, with both copies of a GPT and all
// extended boot records. It gives the places that were read.
func readTable(src Source, opt SourceOptions) ([]image.Range, error) {
	w := &watchedReader{r: src}
	_, _ = parttab.Read(w, src.Size(), opt.SectorSize) // only the reads matter here, not what the table says
	if w.err != nil {
		return nil, failing("its partition table cannot be read (%v)", w.err)
	}
	return w.places, nil
}

// watchedReader notes which places are read, and the first error of a bad sector.
type watchedReader struct {
	r      io.ReaderAt
	places []image.Range
	err    error
}

func (w *watchedReader) ReadAt(b []byte, off int64) (int, error) {
	w.places = append(w.places, image.Range{Off: off, Len: int64(len(b))})
	n, err := w.r.ReadAt(b, off)
	if err != nil && w.err == nil && isMedium(err) {
		w.err = err
	}
	return n, err
}

// badList collects the bad sectors of a disk, in order.
type badList struct {
	read   int64         // how many bytes of the disk will be read
	table  []image.Range // where the partition table is
	take   bool          // SourceOptions.TakeFailing
	ranges []image.Range
	bytes  int64
}

// newBadList makes the list for a disk of which read bytes will be read. It reads
// the partition table first.
func newBadList(src Source, read int64, opt SourceOptions) (badList, error) {
	l := badList{read: read, take: opt.TakeFailing}
	if l.take {
		return l, nil
	}
	var err error
	l.table, err = readTable(src, opt)
	return l, err
}

// add adds bad sectors, which must come in order. It fails when too much of the
// disk cannot be read.
func (l *badList) add(bad []image.Range) error {
	for _, r := range bad {
		l.ranges = appendRange(l.ranges, r)
		l.bytes += r.Len
		inTable := func(t image.Range) bool { return t.Off < r.End() && r.Off < t.End() }
		if slices.ContainsFunc(l.table, inTable) {
			return failing("bytes %d to %d, of its partition table, cannot be read", r.Off, r.End()-1)
		}
	}
	mayBytes, mayPlaces := min(l.read/badShare, badBytes), max(l.read/badEvery, badPlaces)
	switch {
	case len(l.ranges) > maxPlaces:
		return fmt.Errorf("%w: it has bad sectors in more than %d places, and no image can name so many; replace it", ErrFailing, maxPlaces)
	case !l.take && (l.bytes > mayBytes || int64(len(l.ranges)) > mayPlaces):
		return failing("%s in %s cannot be read so far, and an image may lack %s in %s",
			words.Count(l.bytes, "byte"), words.Count(len(l.ranges), "place"), words.Count(mayBytes, "byte"), words.Count(mayPlaces, "place"))
	}
	return nil
}

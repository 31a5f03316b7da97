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

// ErrFailing is matched by the error of a backup of a disk that is failing
// rather than worn: its partition table cannot be read, or so much else that an
// image of it would be no backup. SourceOptions.TakeFailing takes it all the same.
var ErrFailing = errors.New("the disk is failing")

// What may be unreadable of a disk. docs/format.md tells these numbers.
const (
	// badShare: one byte in so many of those that are read. An image that lacks
	// more is no backup of a system.
	badShare = 100
	// badBytes is the most of a large disk. A drive has some thousand sectors in
	// reserve, these are 32768; and each of them can take it seconds.
	badBytes = 16 << 20
	// badPlaces, and on a large disk one in each badEvery bytes that are read:
	// more holes than these spare hardly a folder.
	badPlaces = 100
	badEvery  = 16 << 20
	// maxPlaces is how many an image can name, whatever was allowed.
	maxPlaces = 100000
	// probes is how many sectors are tried, evenly over all that will be read,
	// before the reading begins; of a disk that is good enough not more than
	// badProbes fail, but for bad luck.
	probes    = 128
	badProbes = 5
)

// failing makes an error that matches ErrFailing.
func failing(format string, args ...any) error {
	return fmt.Errorf("%w: %s; replace it", ErrFailing, fmt.Sprintf(format, args...))
}

// Probe looks whether a disk is failing, in the seconds before a backup of it
// begins and not after hours: at its partition table, and at places all over
// what Save would read with the map, or Backup if that is nil.
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

// probePlaces are sectors that are read, as evenly as may be.
func probePlaces(size, sector int64, m *usedmap.Map) (out []int64) {
	w := newWindows(size, m)
	used := w.bytes()
	at := int64(0) // bytes used before the window
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

// readTable reads a disk's partition table, both copies of a GPT and all
// extended boot records, and gives the places where it was looked for.
func readTable(src Source, opt SourceOptions) ([]image.Range, error) {
	w := &watchedReader{r: src}
	_, _ = parttab.Read(w, src.Size(), opt.SectorSize) // what the table says does not matter here
	if w.err != nil {
		return nil, failing("its partition table cannot be read (%v)", w.err)
	}
	return w.places, nil
}

// watchedReader notes what is read, and the first bad sector.
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

// badList gathers the bad sectors of a disk, in order.
type badList struct {
	read   int64         // bytes that are to be read
	table  []image.Range // where the partition table is
	take   bool          // however much it is
	ranges []image.Range
	bytes  int64
}

// newBadList begins one for a disk of which so many bytes are to be read. It
// reads the partition table first.
func newBadList(src Source, read int64, opt SourceOptions) (badList, error) {
	l := badList{read: read, take: opt.TakeFailing}
	if l.take {
		return l, nil
	}
	var err error
	l.table, err = readTable(src, opt)
	return l, err
}

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

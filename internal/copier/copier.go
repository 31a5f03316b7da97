// Package copier is the one pipeline that reads, writes and compares disks:
// backup into a file (Backup) or a store (Save), restore and verify of either,
// each over small interfaces. Several pieces are in flight at every stage,
// memory is bounded by the number of them, and what is said to be done was
// proved: written bytes are read back, image bytes are hashed, and every short
// read or write is an error.
package copier

import (
	"context"
	"fmt"
	"io"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/parttab"
)

// Source is a disk to read. ReadAt is called from many goroutines at once,
// mostly for whole pieces at multiples of image.PieceSize.
type Source interface {
	io.ReaderAt
	Size() int64 // bytes
}

// Target is a disk to write. All methods are called from many goroutines at
// once, for places that do not overlap.
type Target interface {
	Source // ReadAt must come from the disk, never from a cache of what was written
	io.WriterAt
	// ZeroAt makes n bytes read as zeros. Where that is a command to the
	// disk, a disk that does not obey is found by the read-back.
	ZeroAt(off, n int64) error
	// Sync returns when all that was written is durable.
	Sync() error
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

// Discarder is a Target that can be told of bytes that nobody needs.
type Discarder interface {
	// CanDiscard reports whether Discard does anything.
	CanDiscard() bool
	// Discard lets the disk forget n bytes; they may read as anything.
	Discard(off, n int64) error
}

// Progress is told how many bytes of a stage are done: "read" (Backup, Save),
// "compare NAME", "check NAME", "write NAME" and "verify NAME" (Restore, for each image),
// "compare" (Verify). It is called often, from one goroutine at a time.
type Progress func(stage string, done, total int64)

// Unused is what Restore does with bytes that the image does not have.
type Unused int

// What can be done with unused bytes. In the first and last MiB of a disk that
// is written at all they become zeros in any case: what stood there before
// could make a machine boot.
const (
	UnusedKeep    Unused = iota // leave them as they are
	UnusedDiscard               // tell the disk that nobody needs them, if anything is written at all
	UnusedZero                  // write zeros, and treat them as any
)

// ReadBack is what Restore reads back of what is neither the first nor the last
// MiB of a disk; these always are.
type ReadBack int

// What can be read back.
const (
	VerifyAll     ReadBack = iota // all that the image has
	VerifyWritten                 // what was written
	VerifyNone                    // nothing: the receipt then does not prove the restore
)

// Options are common to all actions; the zero value works.
type Options struct {
	Progress   Progress              // nil: silence
	Workers    int                   // that compress or decompress; 0: one a processor, at most maxWorkers
	SectorSize int                   // of the source, bytes: the smallest read at a bad sector, and the grain of Differ; 0: 512
	Medium     func(error) bool      // says whether an error of ReadAt is a bad sector; nil: none is
	Alive      func()                // called after each read in the salvage of bad sectors, from many goroutines: a worn disk can take minutes for a piece; nil: nobody listens
	Alloc      func(size int) []byte // makes zeroed buffers that suit the disks (O_DIRECT); nil: make

	// Of Verify: told of each run of the disk that differs, from one goroutine
	// at a time. The disk's first and last MiB come last. nil: nobody listens.
	Differs func(image.Range)

	TakeFailing bool // Backup, Save: however much cannot be read, and whatever

	// Of Restore.
	Full   bool // write everything, also what is on the disk already
	Verify ReadBack
	Unused Unused
	Log    func(format string, args ...any) // told which way was taken and why; nil: silence
	sample int64                            // for tests; 0: sampleSize
}

const maxWorkers = 16

func (o Options) withDefaults() Options {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.Workers <= 0 {
		o.Workers = min(cpu.Count(), maxWorkers)
	}
	if o.SectorSize <= 0 {
		o.SectorSize = 512
	}
	if o.Medium == nil {
		o.Medium = func(error) bool { return false }
	}
	if o.Alive == nil {
		o.Alive = func() {}
	}
	if o.Differs == nil {
		o.Differs = func(image.Range) {}
	}
	if o.Alloc == nil {
		o.Alloc = func(size int) []byte { return make([]byte, size) }
	}
	if o.sample == 0 {
		o.sample = sampleSize
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return o
}

// FitFunc says what must be written otherwise because the disk is larger than
// the image: a backup GPT moved to the disk's end. head is the image's first
// MiB, tail its last (less if the image is smaller; they do not overlap, head
// comes first), with zeros where nothing is used; neither may be changed. The edits, which must not overlap each
// other, lie in head, in tail or beyond the image. It is called once a job and
// must give the same for the same arguments, so that a later Verify expects
// what a restore wrote.
type FitFunc func(head, tail []byte, imageSize, targetSize int64) ([]parttab.Edit, error)

// FitGPT makes a GPT fit a larger disk, in sectors of so many bytes. note is
// told what was done, or why nothing was, and warn what nobody should miss.
func FitGPT(sector int, note, warn func(string)) FitFunc {
	return func(head, tail []byte, imageSize, targetSize int64) ([]parttab.Edit, error) {
		f, err := parttab.Fit(sector)(head, tail, imageSize, targetSize)
		for _, n := range f.Notes {
			note(n)
		}
		for _, w := range f.Warnings {
			warn(w)
		}
		return f.Edits, err
	}
}

// Job is one image for one disk.
type Job struct {
	Name       string                       // of the image, for errors and the receipt
	Open       func() (image.Reader, error) // called once; for an image in a store, once for each pass over it. The reader is closed if it is an io.Closer
	RawSize    int64                        // bytes of the disk in the image, known from the check before
	BLAKE3     string                       // of those bytes, 64 hexadecimal digits; "" is unknown
	Root       object.Name                  // of an image in a store, whose pieces all tell their Sum; zero: pieces come in disk order and are proved by BLAKE3
	Target     Target                       // may be larger than RawSize
	Rotational bool                         // the target is slow at anything but reading and writing in order
	Fit        FitFunc                      // called only for a larger target; nil: nothing is fitted
}

// StoredJob is one of an image in a store, which is read with ctx.
func StoredJob(ctx context.Context, name string, im *chunk.Image, t Target) Job {
	open := func() (image.Reader, error) { return im.Reader(ctx), nil }
	return Job{Name: name, Open: open, RawSize: im.Root.Size, Root: im.Name, Target: t}
}

// stored reports whether the image is in a store.
func (j *Job) stored() bool { return j.Root != object.Name{} }

// check refuses what could only fail after the first write.
func (j *Job) check(opt Options) error {
	switch size := j.Target.Size(); {
	case j.RawSize <= 0:
		return fmt.Errorf("%s: the image is empty", j.Name)
	case size < j.RawSize:
		return fmt.Errorf("%s: the disk has %d bytes, the image %d; it needs a disk at least as large", j.Name, size, j.RawSize)
	case opt.Unused == UnusedDiscard && !canDiscard(j.Target):
		return fmt.Errorf("%s: the disk cannot discard; choose to keep what is unused, or to write zeros", j.Name)
	}
	return nil
}

func canDiscard(t Target) bool {
	d, ok := t.(Discarder)
	return ok && d.CanDiscard()
}

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

// writeFull writes b. Anything less is an error, whatever the writer says.
func writeFull(w io.WriterAt, b []byte, off int64) error {
	n, err := w.WriteAt(b, off)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write at byte %d: %w", off, err)
	}
	return nil
}

package copier

import (
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

// Job is one image for one disk.
type Job struct {
	Name   string // of the image, for errors and the receipt
	Image  Image
	Target Target // may be larger than the image
	// SectorSize is that of the target, in bytes. Bad sectors are read, and
	// differences are found, in this unit. 0 is unknown, and 512 is used then.
	SectorSize int
	Rotational bool    // the target is fast only at sequential reads and writes
	Cached     bool    // a read of the target waits until everything that was written is on the disk
	Fit        FitFunc // called only for a target of another size (nil means that nothing is fitted)
	cut        int64   // bytes at the image's end that Shrink has left out
}

// Image is an image that a disk is restored from, or compared with. It may be a
// Gatherer too.
type Image interface {
	// Size is the size in bytes of the disk that the image was made of. Whoever
	// makes the job knows it from an earlier check.
	Size() int64
	// SectorSize is the sector size of that disk in bytes; 0 is unknown.
	SectorSize() int
	// Open begins a pass over the image. The reads use ctx. The reader is
	// closed after the pass if it is an io.Closer. If PiecesProved is true, the
	// pieces may begin with another region than the first (chunk.RegionSize).
	Open(ctx context.Context) (image.Reader, error)
	// PiecesProved reports whether each piece with data tells its Sum. Then the
	// piece can be compared with a disk before it is fetched, and Decode checks
	// the data against the Sum. Images of the other kind have pieces in the
	// order of the disk, and all but the last are image.PieceSize long.
	PiecesProved() bool
	// Prove ends a pass over the whole image. It writes into the receipt what
	// the image is known by. blake3 is the hash of the bytes that were read, in
	// hexadecimal digits, or "" if PiecesProved is true. An error means that
	// these bytes are not the image.
	Prove(blake3 string, r *image.Receipt) error
}

// StoredImage is an image in a store. All its pieces tell their sums.
type StoredImage struct {
	Image *chunk.Image
	From  int // the region with which Open begins
}

// Size implements Image.
func (s StoredImage) Size() int64 { return s.Image.Root.Size }

// SectorSize implements Image.
func (s StoredImage) SectorSize() int { return s.Image.Root.SectorSize }

// Open implements Image.
func (s StoredImage) Open(ctx context.Context) (image.Reader, error) {
	return s.Image.ReaderFrom(ctx, s.From), nil
}

// PiecesProved implements Image.
func (s StoredImage) PiecesProved() bool { return true }

// Prove implements Image.
func (s StoredImage) Prove(_ string, r *image.Receipt) error {
	r.Root = s.Image.Name.String()
	return nil
}

// FileImage is an image in a file of its own. It is proved as a whole, by the
// BLAKE3 of the disk's bytes.
type FileImage struct {
	DiskSize int64                        // bytes
	BLAKE3   string                       // 64 hexadecimal digits ("" is unknown)
	Reader   func() (image.Reader, error) // from the beginning, at each call
}

// Size implements Image.
func (f FileImage) Size() int64 { return f.DiskSize }

// SectorSize implements Image.
func (f FileImage) SectorSize() int { return 0 }

// Open implements Image.
func (f FileImage) Open(context.Context) (image.Reader, error) { return f.Reader() }

// PiecesProved implements Image.
func (f FileImage) PiecesProved() bool { return false }

// Prove implements Image.
func (f FileImage) Prove(blake3 string, r *image.Receipt) error {
	r.BLAKE3 = blake3
	if f.BLAKE3 != "" && blake3 != f.BLAKE3 {
		return fmt.Errorf("the image's bytes have the BLAKE3 %s, its sidecar says %s", blake3, f.BLAKE3)
	}
	return nil
}

// ErrUnfit is matched by errors of Job.Check, Restore and Verify that say that
// the image cannot go to the target.
var ErrUnfit = errors.New("the image cannot go to this disk")

// Check refuses a job that would fail, or do harm, after the first write. Restore
// calls it before it reads anything. unused is what the restore will do with
// unused bytes.
func (j *Job) Check(unused Unused) error {
	if err := j.checkSize(); err != nil {
		return err
	}
	switch has := j.Image.SectorSize(); {
	case has != 0 && j.SectorSize != 0 && has != j.SectorSize:
		return unfit("the disk has sectors of %d bytes, the image %d: its partition table would mean other places; "+
			"use a disk with %d-byte sectors", j.SectorSize, has, has)
	case unused == UnusedDiscard && !canDiscard(j.Target):
		return unfit("the disk cannot discard; choose to keep what is unused, or to write zeros")
	}
	return nil
}

func (j *Job) checkSize() error {
	switch size := j.Target.Size(); {
	case j.Image.Size() <= 0:
		return unfit("the image is empty")
	case size < j.Image.Size():
		return unfit("the disk has %d bytes, the image %d; it needs a disk at least as large", size, j.Image.Size())
	}
	return nil
}

// unfitError matches ErrUnfit. Its text is only the reason.
type unfitError string

func (e unfitError) Error() string        { return string(e) }
func (e unfitError) Is(target error) bool { return target == ErrUnfit }

func unfit(format string, args ...any) error { return unfitError(fmt.Sprintf(format, args...)) }

func canDiscard(t Target) bool {
	d, ok := t.(Discarder)
	return ok && d.CanDiscard()
}

// FitFunc says which bytes must differ from the image because the disk is larger,
// for instance those of a backup GPT that moves to the disk's end. head is the
// image's first MiB, and tail its last MiB. If the image has less than 2 MiB, head
// takes its full MiB first and tail has the rest. Unused bytes in them are zeros.
// A FitFunc must not change head and tail. The edits lie in head, in tail or
// beyond the image, and do not overlap. A FitFunc is called once for each job. It
// must give the same edits for the same arguments, so that a later Verify expects
// what a restore wrote.
type FitFunc func(head, tail []byte, imageSize, targetSize int64) ([]parttab.Edit, error)

// FitGPT returns a FitFunc that makes a GPT fit a larger disk. sector is the
// sector size in bytes. note is told what was done, or why nothing was done. warn
// is told what nobody should miss.
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

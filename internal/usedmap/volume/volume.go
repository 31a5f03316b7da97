// Package volume has what the readers of file systems share: reads within
// limits, the set of free bytes, and the answer of a reader.
//
// A reader is a function
//
//	func Read(v *volume.Volume) (*volume.Found, error)
//
// It answers with the bytes that the file system surely does not use. It
// returns an error wherever it is in doubt: an unknown feature, a wrong
// checksum, a volume that was not cleanly unmounted, a structure that points
// outside, a sector that cannot be read. All errors have the same effect: all
// of the volume counts as used. The text of the error gives the reason to
// people. Beside an error, Found has what is known of the file system, or is
// nil.
//
// Everything that a reader does not name free counts as used. So a reader need
// not care about the bytes behind the file system's end, or about parts of the
// file system that it does not examine.
package volume

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// MaxRead is the most bytes of one read. A larger structure is read piece by
// piece, so that memory does not grow with the disk.
const MaxRead = 4 << 20

// Volume is the place of one file system: a partition, a logical volume or a
// whole disk.
type Volume struct {
	ctx    context.Context
	r      io.ReaderAt
	size   int64
	sector int
	budget *Budget
}

// Budget is how many bytes of metadata may be read for a whole disk. It bounds
// the time that a maliciously made disk can cost: endless loops and huge trees
// of false metadata end here at the latest.
type Budget struct{ left atomic.Int64 }

// NewBudget is the budget for a disk of so many bytes. The largest real
// metadata relative to the disk are two FATs with clusters of 512 bytes, which
// take a 64th of it. The largest in bytes take 2 GiB: two FATs of 2^28
// clusters, or the bitmaps of 16 TiB in blocks of 1 KiB. The budget is twice
// that (a 32nd, at most 4 GiB), since folders are read too, and a short read
// counts as 512 bytes.
func NewBudget(disk int64) *Budget {
	b := &Budget{}
	b.left.Store(min(256<<20+disk/32, 4<<30))
	return b
}

// New is the volume of size bytes at the start of r, on a disk with logical
// sectors of sector bytes. With a nil budget it gets that of its size.
func New(ctx context.Context, r io.ReaderAt, size int64, sector int, budget *Budget) *Volume {
	if budget == nil {
		budget = NewBudget(size)
	}
	return &Volume{ctx, r, size, sector, budget}
}

// Part makes a part of the volume a volume of its own, with the same budget.
func (v *Volume) Part(off, n int64) *Volume {
	return v.Over(io.NewSectionReader(v.r, off, n), n)
}

// Over is a volume of size bytes whose content r computes from the same disk,
// for example a logical volume. It has the same budget, so r must read the disk
// through v.
func (v *Volume) Over(r io.ReaderAt, size int64) *Volume {
	return &Volume{v.ctx, r, size, v.sector, v.budget}
}

// Left is how many bytes of the budget are left.
func (v *Volume) Left() int64 { return v.budget.left.Load() }

// Size is the volume's length in bytes.
func (v *Volume) Size() int64 { return v.size }

// Sector is the logical sector of the disk in bytes.
func (v *Volume) Sector() int { return v.sector }

// Bytes reads n bytes (at most MaxRead) into new memory.
func (v *Volume) Bytes(off int64, n int) ([]byte, error) {
	if n < 0 || n > MaxRead {
		return nil, fmt.Errorf("a structure says that it has %d bytes", n)
	}
	if off < 0 || off > v.size-int64(n) {
		return nil, outside(off, n, v.size) // before memory is allocated
	}
	b := make([]byte, n)
	return b, v.Fill(b, off)
}

// Fill reads all of b. It fails outside of the volume, when the budget is used
// up, when the context is done, and where the disk cannot be read.
func (v *Volume) Fill(b []byte, off int64) error {
	if off < 0 || off > v.size-int64(len(b)) {
		return outside(off, len(b), v.size)
	}
	if err := v.ctx.Err(); err != nil {
		return err
	}
	// Even the shortest read costs time.
	if v.budget.left.Add(-max(int64(len(b)), 512)) < 0 {
		return fmt.Errorf("its metadata is more than a disk of this size can have")
	}
	if n, err := v.r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("read %d bytes at byte %d: %w", len(b), off, err)
	}
	return nil
}

// ReadAt is Fill, for an io.ReaderAt of this volume.
func (v *Volume) ReadAt(b []byte, off int64) (int, error) {
	if err := v.Fill(b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func outside(off int64, n int, size int64) error {
	return fmt.Errorf("something points outside: %d bytes at byte %d of %d", n, off, size)
}

// Found is what a reader found out about a volume.
type Found struct {
	FS    string // "ext4", "ntfs", "fat32", ...
	Label string // as on the disk, so not to be trusted
	UUID  string // as blkid spells it
	Size  int64  // bytes of the file system, from the volume's start
	Free  *Free  // nil when Read fails
	Notes []string
	// Suspended is set beside an error if a hibernated system is here. When it
	// wakes it goes on with its old knowledge of all file systems of the
	// machine.
	Suspended bool
}

// UUID formats 16 bytes as blkid does. It is "" if all are zero.
func UUID(b []byte) string {
	if bytes.Equal(b, make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Note adds a sentence for people.
func (f *Found) Note(format string, args ...any) {
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}

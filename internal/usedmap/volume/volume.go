// Package volume is what the readers of file systems share: bytes that are
// read with limits, the set of what was found free, and what a reader answers.
//
// A reader is a function
//
//	func Read(v *volume.Volume) (*volume.Found, error)
//
// It answers with what the file system surely does not use, and with an error
// wherever it is in doubt: a feature that it does not know, a checksum that is
// wrong, a volume that was not cleanly unmounted, a structure that points
// outside, a sector that cannot be read. All errors mean the same, that all of
// the volume counts as used; their text is the reason, for people. Beside an
// error, Found says what is known of the file system, or is nil.
//
// Whatever a reader does not name free is used. So nothing has to be done for
// what lies beyond the file system's end, or for parts of it that the reader
// does not care about.
package volume

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// MaxRead is the most bytes of one read: a structure of a file system that is
// larger is read piece by piece, so that memory does not grow with the disk.
const MaxRead = 4 << 20

// Volume is the room of one file system: a partition, a logical volume or a
// whole disk.
type Volume struct {
	ctx    context.Context
	r      io.ReaderAt
	size   int64
	sector int
	budget *Budget
}

// Budget is how many bytes of metadata may be read for a whole disk. It bounds
// the time that a disk made for harm can cost: loops and trees of lies end
// here, if nowhere before.
type Budget struct{ left atomic.Int64 }

// NewBudget is the budget for a disk of so many bytes. The dearest metadata
// that is real is a FAT of 512-byte clusters, twice: a 64th of the volume. The
// most is 2 GiB: two FATs of 2^28 clusters, or 16 TiB in blocks of 1 KiB.
func NewBudget(disk int64) *Budget {
	b := &Budget{}
	b.left.Store(min(256<<20+disk/32, 4<<30))
	return b
}

// New is the volume of size bytes that r has from its start, on a disk with
// logical sectors of so many bytes. budget may be nil: that of the size.
func New(ctx context.Context, r io.ReaderAt, size int64, sector int, budget *Budget) *Volume {
	if budget == nil {
		budget = NewBudget(size)
	}
	return &Volume{ctx, r, size, sector, budget}
}

// Part is a part of the volume as a volume of its own, with the same budget.
func (v *Volume) Part(off, n int64) *Volume {
	return v.Over(io.NewSectionReader(v.r, off, n), n)
}

// Over is the volume of size bytes that r shows of the same disk, with the
// same budget; r must read what it shows by v.Bytes, v.Fill or v itself.
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
		return nil, outside(off, n, v.size) // before memory is taken
	}
	b := make([]byte, n)
	return b, v.Fill(b, off)
}

// Fill reads all of b. It fails outside of the volume, when the budget is used
// up, when the context ends, and where the disk cannot be read.
func (v *Volume) Fill(b []byte, off int64) error {
	if off < 0 || off > v.size-int64(len(b)) {
		return outside(off, len(b), v.size)
	}
	if err := v.ctx.Err(); err != nil {
		return err
	}
	// A read costs something however short it is.
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

// Found is what a reader made of a volume.
type Found struct {
	FS    string // "ext4", "ntfs", "fat32", ...
	Label string // as it stands there: not to be trusted
	UUID  string // as blkid spells it
	Size  int64  // bytes that the file system has, from the volume's start
	Free  *Free  // nil beside an error
	Notes []string
	// Suspended says, beside an error, that a system sleeps here: when it
	// wakes it goes on with what it knew of all file systems.
	Suspended bool
}

// UUID spells 16 bytes as blkid does; "" if all are zero.
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

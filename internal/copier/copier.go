// Package copier is the one pipeline that reads, writes and compares disks.
// Backup makes an image in a file, Save makes one in a store. Restore and Verify
// work with images of both kinds. Several pieces are in flight at every stage,
// and their number bounds the memory. Success is reported only with a proof. For
// this, written bytes are read back, bytes of images are hashed, and every short
// read or write is an error.
package copier

import (
	"io"

	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/disk"
)

// Source is a disk to read. ReadAt is called from many goroutines at once,
// mostly for whole pieces at multiples of image.PieceSize. Its error matches
// disk.ErrMedium if sectors cannot be read.
type Source interface {
	io.ReaderAt
	Size() int64 // bytes
}

// Target is a disk to write. All methods are called from many goroutines at
// once, for places that do not overlap.
type Target interface {
	Source // ReadAt must come from the disk, never from a cache of what was written
	io.WriterAt
	// ZeroAt makes n bytes read as zeros. It may do so by a command to the
	// disk. The read-back finds a disk that does not obey the command.
	ZeroAt(off, n int64) error
	// Sync returns when everything that was written is durable.
	Sync() error
}

// Discarder is a Target that can be told which bytes nobody needs.
type Discarder interface {
	// CanDiscard reports whether Discard does anything.
	CanDiscard() bool
	// Discard lets the disk forget n bytes. Afterwards they may read as
	// anything.
	Discard(off, n int64) error
}

// Progress is told how many bytes of a stage are done. Backup and Save have the
// stage "read". Restore has the stages "compare NAME", "check NAME", "write NAME"
// and "verify NAME" for each image. Verify has the stage "compare". Progress is
// called often, from one goroutine at a time.
type Progress func(stage string, done, total int64)

// Options are common to all actions. The zero value is valid.
type Options struct {
	Progress Progress // nil means no progress is reported
	Workers  int      // goroutines that compress or decompress (0 means one per processor, at most maxWorkers)
	// Alive is called after each read while bad sectors are salvaged, since a
	// worn disk can take minutes for one piece. The calls come from many
	// goroutines. nil means no call.
	Alive func()
	alloc func(size int) []byte // makes zeroed buffers (nil means disk.AlignedBuffer)
}

const maxWorkers = 16

func (o Options) withDefaults() Options {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.Workers <= 0 {
		o.Workers = min(cpu.Count(), maxWorkers)
	}
	if o.Alive == nil {
		o.Alive = func() {}
	}
	if o.alloc == nil {
		o.alloc = disk.AlignedBuffer
	}
	return o
}

// SourceOptions are the options of Probe, Backup and Save, which read a disk to
// make an image of it.
type SourceOptions struct {
	Options
	SectorSize  int  // of the disk, in bytes, which is also the smallest read at a bad sector (0 means 512)
	TakeFailing bool // accept a disk no matter how much of it, or which part, cannot be read
}

func (o SourceOptions) withDefaults() SourceOptions {
	o.Options = o.Options.withDefaults()
	if o.SectorSize <= 0 {
		o.SectorSize = defaultSector
	}
	return o
}

func (o SourceOptions) salvager(src Source) salvager {
	return salvager{src: src, sector: o.SectorSize, alive: o.Alive}
}

const defaultSector = 512

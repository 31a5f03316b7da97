// Package copier is the one pipeline that reads, writes and compares disks:
// backup into a file (Backup) or a store (Save), restore and verify of either,
// each over small interfaces. Several pieces are in flight at every stage,
// memory is bounded by the number of them, and what is said to be done was
// proved: written bytes are read back, image bytes are hashed, and every short
// read or write is an error.
package copier

import (
	"io"

	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/disk"
)

// Source is a disk to read. ReadAt is called from many goroutines at once,
// mostly for whole pieces at multiples of image.PieceSize. An error of it that
// matches disk.ErrMedium says that sectors cannot be read.
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

// Options are common to all actions; the zero value works.
type Options struct {
	Progress Progress // nil: silence
	Workers  int      // that compress or decompress; 0: one a processor, at most maxWorkers
	// Alive is called after each read in the salvage of bad sectors, from many
	// goroutines: a worn disk can take minutes for a piece. nil: nobody listens.
	Alive func()
	alloc func(size int) []byte // makes zeroed buffers; nil: disk.AlignedBuffer
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

// SourceOptions are those of Probe, Backup and Save, which read a disk to make
// an image of it.
type SourceOptions struct {
	Options
	SectorSize  int  // of the disk, bytes: the smallest read at a bad sector; 0: 512
	TakeFailing bool // take a disk however much of it cannot be read, and whatever
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

package faults

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// Target is a disk with the methods that package copier needs.
type Target interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
	ZeroAt(off, n int64) error
	Sync() error
}

// Op is an operation on a disk.
type Op struct {
	Kind   string // "read", "write", "zero", "sync"
	Off, N int64  // bytes
}

func (o Op) String() string { return fmt.Sprintf("%s %d+%d", o.Kind, o.Off, o.N) }

// End is the first byte after the operation's.
func (o Op) End() int64 { return o.Off + o.N }

// Disk is a disk in memory with a volatile cache. Reads return what was
// written. A crash loses any part of what was not synced.
type Disk struct {
	mu      sync.Mutex  // guards the fields below
	data    []byte      // what reads return
	stable  []byte      // content at the last sync
	pending []diskWrite // writes since the last sync
	log     []Op
}

// diskWrite is a write or zeroing that is not synced yet.
type diskWrite struct {
	off  int64
	data []byte
}

// NewDisk makes a disk that holds data.
func NewDisk(data []byte) *Disk {
	return &Disk{data: slices.Clone(data), stable: slices.Clone(data)}
}

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return int64(len(d.data)) }

// Bytes is a copy of what reads return.
func (d *Disk) Bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.data)
}

// Log is the operations so far, in the order in which they ended.
func (d *Disk) Log() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Crash is the content after a power cut. It calls keep for each unsynced
// write, in their order, and loses those for which keep returns false.
func (d *Disk) Crash(keep func() bool) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := slices.Clone(d.stable)
	for _, w := range d.pending {
		if keep() {
			copy(b[w.off:], w.data)
		}
	}
	return b
}

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(b []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, Op{"read", off, int64(len(b))})
	if off < 0 || off > int64(len(d.data)) {
		return 0, fmt.Errorf("read at %d outside the disk", off)
	}
	if n := copy(b, d.data[off:]); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}

// WriteAt implements io.WriterAt.
func (d *Disk) WriteAt(b []byte, off int64) (int, error) {
	if err := d.put("write", slices.Clone(b), off); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ZeroAt makes n bytes zero.
func (d *Disk) ZeroAt(off, n int64) error {
	if n < 0 || n > d.Size() {
		return fmt.Errorf("zero %d bytes", n)
	}
	return d.put("zero", make([]byte, n), off)
}

func (d *Disk) put(kind string, b []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, Op{kind, off, int64(len(b))})
	if off < 0 || off+int64(len(b)) > int64(len(d.data)) {
		return fmt.Errorf("%s of %d bytes at %d outside the disk", kind, len(b), off)
	}
	copy(d.data[off:], b)
	d.pending = append(d.pending, diskWrite{off, b})
	return nil
}

// Sync makes all writes safe.
func (d *Disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, Op{Kind: "sync"})
	for _, w := range d.pending {
		copy(d.stable[w.off:], w.data)
	}
	d.pending = nil
	return nil
}

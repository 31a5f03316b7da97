package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"testbox-imaging/internal/image"
)

const (
	pieceSize = 1 << 20 // bytes
	poolSize  = 64      // pieces
)

// readPool reads pieces with files of this machine, each file at a block.
func readPool() ([]byte, error) {
	pool := make([]byte, 0, poolSize*pieceSize)
	err := filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read is left out
		}
		if len(pool) == cap(pool) {
			return fs.SkipAll
		}
		if data, err := os.ReadFile(path); err == nil {
			pool = append(pool, data[:min(len(data), cap(pool)-len(pool))]...)
			pool = pool[:min(cap(pool), (len(pool)+4095)/4096*4096)]
		}
		return nil
	})
	if err == nil && len(pool) < cap(pool) {
		err = fmt.Errorf("/usr has fewer than %d bytes of files", cap(pool))
	}
	return pool, err
}

// disk is what a box has on its disk. It is made anew for each read: a piece of the
// pool, in which all bytes are replaced by others. So it packs as well as the files do.
type disk struct {
	pool []byte
	salt []uint32 // of each piece; pieces with the same number and salt are the same
}

// newDisk makes a disk whose even pieces are those of all boxes.
func newDisk(pool []byte, pieces int) *disk { return &disk{pool, make([]uint32, pieces)} }

// Size implements copier.Source.
func (d *disk) Size() int64 { return int64(len(d.salt)) * pieceSize }

// ReadAt implements io.ReaderAt.
func (d *disk) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		piece, from := int(off/pieceSize), int(off%pieceSize)
		part := d.pool[piece%poolSize*pieceSize:][from:pieceSize]
		k := min(len(part), len(b)-n)
		d.fill(b[n:][:k], part[:k], d.salt[piece])
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// fill replaces each byte by another one, which depends on the salt.
func (d *disk) fill(to, from []byte, salt uint32) {
	if salt == 0 {
		copy(to, from)
		return
	}
	var table [256]byte
	for i := range table {
		table[i] = byte(i)*byte(salt<<1|1) + byte(salt>>7)
	}
	for i, c := range from {
		to[i] = table[c]
	}
}

// memoryDisk is a disk that is restored.
type memoryDisk []byte

func (m memoryDisk) Size() int64                              { return int64(len(m)) }
func (m memoryDisk) ReadAt(b []byte, off int64) (int, error)  { return copy(b, m[off:]), nil }
func (m memoryDisk) WriteAt(b []byte, off int64) (int, error) { return copy(m[off:], b), nil }
func (m memoryDisk) ZeroAt(off, n int64) error                { clear(m[off:][:n]); return nil }
func (m memoryDisk) Sync() error                              { return nil }

// readOnly is a disk that is backed up.
type readOnly struct{ *disk }

var errReadOnly = fmt.Errorf("a backup writes to its disk: %w", os.ErrPermission)

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (readOnly) ZeroAt(int64, int64) error          { return errReadOnly }
func (readOnly) Sync() error                        { return errReadOnly }

func identity(size int64) image.Identity {
	return image.Identity{Size: size, SectorSize: 512, Serial: "BENCH"}
}

// salts gives salts that no disk has had.
type salts struct {
	mu   sync.Mutex
	last uint32
}

func (s *salts) next() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last
}

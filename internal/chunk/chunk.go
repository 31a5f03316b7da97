// Package chunk turns a disk into objects and back: blocks are cut into chunks
// by their content, pages say where the chunks of a region belong, and a root
// lists the pages. docs/format.md has the bytes.
package chunk

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// What is measured in docs/performance.md.
const (
	// BlockSize is the grain of a disk, in bytes: zero or not, used or not, and
	// where cuts can be. File systems put file data at multiples of it.
	BlockSize = 4096
	// MinSize and MaxSize bound a chunk, in bytes; the last of a region may be
	// shorter.
	MinSize = 32 << 10
	MaxSize = object.MaxChunk
	// fileEnd bytes of zeros at a block's end are most often what is left of a
	// file's last block.
	fileEnd = 64
	// boundaryBits of another block's hash are zero where a chunk may end.
	boundaryBits = 7
	// RegionSize is what a page describes, in bytes of disk address.
	RegionSize = 256 << 20
)

// Boundary reports whether a chunk may end after this block, which is not zero:
// where a file ends, so that the next begins a chunk wherever it lies, and
// within large files where their content says so.
func Boundary(block []byte) bool {
	if rest := len(block) - fileEnd; rest >= 0 && image.IsZero(block[rest:]) {
		return true
	}
	return xxh3.Hash(block)&(1<<boundaryBits-1) == 0
}

// Cutter decides where chunks end. Its input are the blocks of a region that
// are used and not zero, in disk order; others do not interrupt a chunk. The
// zero value is at a region's start.
type Cutter struct{ n int }

// Add says whether the chunk ends after a block of n bytes (1 to BlockSize).
func (c *Cutter) Add(n int, boundary bool) bool {
	c.n += n
	if boundary && c.n >= MinSize || c.n > MaxSize-BlockSize {
		c.n = 0
		return true
	}
	return false
}

// Reset begins a region.
func (c *Cutter) Reset() { c.n = 0 }

// Store is where a backup goes to, and where images come from. Its methods may
// be called from many goroutines at once. package store has it on a disk or in
// object storage; a client has it at the other end of a connection.
type Store interface {
	Getter
	// Missing gives those of the keys that must be Put, in their order. A page
	// counts as there only if all its chunks are: so a page that is there
	// answers for its region. What is not missing stays until the backup that
	// asked is committed or given up.
	Missing(ctx context.Context, keys []object.Key) ([]object.Key, error)
	// Put stores an object. It is durable after Commit, not before. An object
	// that is there already is left as it is, without an error. The caller may
	// use o.Data again after the return.
	Put(ctx context.Context, o object.Object) error
	// Commit makes a backup an image that can be restored, durably: it checks
	// that all that the record's roots reach is there and whole as far as
	// known, and writes the record last. r.ID is set. If something
	// is not there any more, the error matches ErrMissing, and nothing was
	// committed: the backup must be sent again.
	Commit(ctx context.Context, r *image.Record) error
}

// Getter gives objects.
type Getter interface {
	// Get gives an object in its stored form, in buf's memory if that is large
	// enough. The object may be damaged: Decode finds out. An object that is
	// not there is an error that matches ErrMissing.
	Get(ctx context.Context, key object.Key, buf []byte) (object.Object, error)
}

// ErrMissing is matched by errors that say that an object is not in the store.
var ErrMissing = errors.New("not in the store")

// GetRaw gives the bytes of an object, checked against its name.
func GetRaw(ctx context.Context, g Getter, key object.Key) ([]byte, error) {
	return getRaw(ctx, g, key, nil, nil)
}

// getRaw is GetRaw with memory for the stored form and for the result.
func getRaw(ctx context.Context, g Getter, key object.Key, stored, dst []byte) ([]byte, error) {
	o, err := g.Get(ctx, key, stored)
	if err != nil {
		return nil, err
	}
	if o.Key != key {
		return nil, fmt.Errorf("asked for %v, got %v: %w", key, o.Key, object.ErrDamaged)
	}
	return o.Decode(dst)
}

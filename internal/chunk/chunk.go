// Package chunk turns a disk into objects and back: blocks are cut into chunks
// by their content, pages say where the chunks of a region belong, and a root
// lists the pages. docs/format.md has the bytes.
//
// Boundary and Cutter decide where a chunk ends. Which blocks they are given,
// and from where blocks are counted, is decided in package copier (window.go,
// cut.go). Session, Images and Getter are what a store is used by.
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

// Session is a backup in progress. Its methods may be called from many
// goroutines at once. Package store has it on a disk or in object storage; a
// client has it at the other end of a connection. It can add a backup, and can
// neither read others nor change what is there.
type Session interface {
	// Missing gives those of the keys that must be Put, in their order. A page
	// counts as there only if all its chunks are: so a page that is there
	// answers for its region. What is not missing stays until Close.
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
	// Close ends the session. What was put and not committed is given up, and
	// nothing counts on it any more. All other methods fail with ErrClosed from
	// then on. To close it again does nothing.
	Close() error
}

// Images are the images of backups, to be read.
type Images interface {
	// OpenImage opens the image of a disk of a backup, by the name that the
	// disk has in the record, and holds it to the record. Until the image is
	// closed, all of it stays: deletion and collection pass it by. A backup
	// that is not there, or not as the record says, is an error that matches
	// fs.ErrNotExist. A root that is not there is one that matches ErrMissing.
	OpenImage(ctx context.Context, r *image.Record, disk string) (*Image, error)
}

// Getter gives the objects of the one image that it was opened for. It reaches
// nothing else. Its methods may be called from many goroutines at once.
type Getter interface {
	// Get gives an object in its stored form, in buf's memory if that is large
	// enough. The object may be damaged: Decode finds out. An object that is
	// not there is an error that matches ErrMissing, and so is a place of
	// another image.
	Get(ctx context.Context, at Place, buf []byte) (object.Object, error)
	// Close lets go of the image. Get fails with ErrClosed from then on. To
	// close it again does nothing.
	Close() error
}

// Place is where an object is in an image. Only an Image makes places, from the
// tree that it has read, and each level of a tree has the hashes of the next.
// So a Getter that is given a place of its image knows that the object belongs
// to it. A client sends the two numbers, and the server finds the key in the
// image that it has open for this client: a key from elsewhere reaches nothing.
type Place struct {
	Region int // of a page and of a chunk: number of the region
	Chunk  int // of a chunk: which one of its page's
	image  object.Name
	key    object.Key
}

// Image is the name of the image's root.
func (p Place) Image() object.Name { return p.image }

// Key is what the image has at the place.
func (p Place) Key() object.Key { return p.key }

// ErrMissing is matched by errors that say that an object is not in the store.
var ErrMissing = errors.New("not in the store")

// ErrClosed is matched by errors of a session or an image that was closed.
var ErrClosed = errors.New("it is closed")

// getRaw gives the bytes of an object, checked against its name, with memory
// for the stored form and for the result.
func getRaw(ctx context.Context, g Getter, at Place, stored, dst []byte) ([]byte, error) {
	o, err := g.Get(ctx, at, stored)
	if err != nil {
		return nil, err
	}
	if o.Key != at.key {
		return nil, fmt.Errorf("asked for %v, got %v: %w", at.key, o.Key, object.ErrDamaged)
	}
	return o.Decode(dst)
}

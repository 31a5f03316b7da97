// Package chunk turns a disk into objects and back. Blocks are grouped into
// chunks by their content, a page says where the chunks of a region belong, and
// a root lists the pages. docs/format.md describes the bytes.
//
// Boundary and Cutter decide where a chunk ends. Package copier (window.go,
// cut.go) decides which blocks they are given, and from where blocks are
// counted. Session, Images and Getter are the interfaces of a store.
package chunk

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// docs/performance.md has the measurements behind these numbers.
const (
	// BlockSize is the unit of a disk, in bytes. A block is zero or not, and used
	// or not, and a chunk can end only at a block's end. File systems store file
	// data at multiples of it.
	BlockSize = 4096
	// MinSize and MaxSize limit the size of a chunk, in bytes. The last chunk of a
	// region may be shorter.
	MinSize = 32 << 10
	MaxSize = object.MaxChunk
	// fileEnd is a number of zero bytes. If a block ends with so many, it is most
	// likely the last block of a file.
	fileEnd = 64
	// boundaryBits is how many low bits of a block's hash must be zero for a chunk
	// to end after a block that is not the last of a file.
	boundaryBits = 7
	// RegionSize is how many bytes of disk address a page describes.
	RegionSize = 256 << 20
)

// Boundary reports whether a chunk may end after this block, which is not zero.
// It may end where a file ends, so that the next file begins a chunk wherever
// it lies. Within large files it may end where the content says so.
func Boundary(block []byte) bool {
	if rest := len(block) - fileEnd; rest >= 0 && image.IsZero(block[rest:]) {
		return true
	}
	return xxh3.Hash(block)&(1<<boundaryBits-1) == 0
}

// Cutter decides where chunks end. Its input are the blocks of a region that
// are used and not zero, in disk order. Other blocks are left out and do not
// end a chunk. The zero value is ready for the start of a region.
type Cutter struct{ n int }

// Add reports whether the chunk ends after a block of n bytes (1 to BlockSize).
func (c *Cutter) Add(n int, boundary bool) bool {
	c.n += n
	if boundary && c.n >= MinSize || c.n > MaxSize-BlockSize {
		c.n = 0
		return true
	}
	return false
}

// Reset prepares for the start of a region.
func (c *Cutter) Reset() { c.n = 0 }

// Session is a backup in progress. Its methods may be called from many
// goroutines at once. Package store implements it for a disk or object storage.
// Package remote implements it over a connection. A session can add a backup. It
// can neither read other backups nor change them.
type Session interface {
	// Missing returns those of the keys that must be Put, in the same order. A
	// page counts as present only if all its chunks are. So if a page is present,
	// its whole region is. Objects that are not missing stay until Close.
	Missing(ctx context.Context, keys []object.Key) ([]object.Key, error)
	// Put stores an object. It is durable after Commit, not before. If the object
	// exists already, Put does nothing and returns no error. The caller may reuse
	// o.Data after the return.
	Put(ctx context.Context, o object.Object) error
	// Commit durably makes the backup one that can be restored. It checks that all
	// objects that the record's roots reach exist, and are undamaged as far as is
	// known. It writes the record last, and sets r.ID. If an object does not exist
	// any more, the error matches ErrMissing and nothing was committed. The backup
	// must then be sent again. If the record, or a root or a page, says what cannot
	// be true, such as a wrong length of a chunk, the error is another one, and it
	// is no use to send the same again.
	Commit(ctx context.Context, r *image.Record) error
	// Close ends the session. Objects that were put and not committed are no
	// longer protected, and nothing may rely on them. All other methods fail with
	// ErrClosed from then on. Closing twice is allowed.
	Close() error
}

// Images gives access to the images of backups.
type Images interface {
	// OpenImage opens the image of a disk of a backup, by the name that the disk
	// has in the record, and checks it against the record. Until the image is
	// closed, none of its objects is deleted or collected. If the backup does not
	// exist, or is not as the record says, the error matches fs.ErrNotExist. If
	// the root does not exist, the error matches ErrMissing.
	OpenImage(ctx context.Context, r *image.Record, disk string) (*Image, error)
}

// Getter reads the objects of the one image that it was opened for. It cannot
// reach others. Its methods may be called from many goroutines at once.
type Getter interface {
	// Get returns an object in its stored form, in buf's memory if that is large
	// enough. The object may be damaged, which Decode detects. If the object does
	// not exist, or the place is of another image, the error matches ErrMissing.
	Get(ctx context.Context, at Place, buf []byte) (object.Object, error)
	// Check compares an object's stored bytes with the sum that was made when
	// they were stored, and does not unpack them. So it finds what rotted or was
	// cut off at the speed of the store's disk. The comparison is made where the
	// store is, and buf is memory for it. An object that is damaged gives an error
	// that matches object.ErrDamaged. Otherwise the errors are those of Get.
	Check(ctx context.Context, at Place, buf []byte) error
	// Close releases the image. Get and Check fail with ErrClosed from then on. Closing
	// twice is allowed.
	Close() error
}

// Aware is a Getter that knows without reading which objects are lost.
type Aware interface {
	// Lacks returns an error if an object is known to be missing or damaged, as far as
	// that can be told without reading it. The error is one that Check would return.
	Lacks(at Place) error
}

// Place is where an object is in an image. Only an Image makes places, from the
// tree that it has read, and each level of a tree has the hashes of the next.
// So a Getter that is given a place of its image knows that the object belongs
// to the image. Package remote sends only the two numbers. The server then finds
// the key by Image.Region, in the image that it has opened for this client, so a
// key from elsewhere is of no use.
type Place struct {
	Region int // number of the region, for a page or a chunk
	Chunk  int // number of the chunk in its page, for a chunk
	image  object.Name
	key    object.Key
}

// Image returns the name of the image's root.
func (p Place) Image() object.Name { return p.image }

// Key returns the key of the object at the place.
func (p Place) Key() object.Key { return p.key }

// ErrMissing is matched by errors that say that an object is not in the store.
var ErrMissing = errors.New("not in the store")

// ErrWrong is matched by errors that say that a record, a root or a page was
// made wrongly. Whoever made it is to blame, and not the store.
var ErrWrong = errors.New("says what cannot be true")

// ErrClosed is matched by errors of a closed session or image.
var ErrClosed = errors.New("it is closed")

// bringFunc is object.Object.Decode, or Unpack if the caller compares the bytes
// with their name later.
type bringFunc func(o object.Object, dst []byte) ([]byte, error)

// getRaw returns the bytes of an object. stored and dst are memory for its stored
// form and for the result.
func getRaw(ctx context.Context, g Getter, at Place, stored, dst []byte) ([]byte, error) {
	o, err := g.Get(ctx, at, stored)
	if err != nil {
		return nil, err
	}
	return bring(o, at, dst, object.Object.Decode)
}

// bring returns the bytes that how makes of the object that came for a place.
func bring(o object.Object, at Place, dst []byte, how bringFunc) ([]byte, error) {
	if o.Key != at.key {
		return nil, fmt.Errorf("asked for %v, got %v: %w", at.key, o.Key, object.ErrDamaged)
	}
	return how(o, dst)
}

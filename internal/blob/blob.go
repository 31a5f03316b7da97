// Package blob defines where a store keeps its files. A blob is a named run of
// bytes that is written once, as a whole, and read in parts. Packages below it
// keep blobs in a folder, in memory and in S3-compatible object storage.
package blob

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Store keeps blobs. A name has one or more parts of letters, digits and any of
// "-_.", joined by "/", as ValidName says. No blob's name may be the folder of
// another. Methods may be called from many goroutines at once. If a blob does
// not exist, the error matches fs.ErrNotExist.
type Store interface {
	// Create begins a blob that replaces the version over. It is not visible
	// before Commit.
	Create(ctx context.Context, name string, over Version) (Writer, error)
	// Version returns the version of a blob. It is for small blobs, since it may
	// read all of the blob.
	Version(ctx context.Context, name string) (Version, error)
	// ReadAt fills p with the bytes from off, as io.ReaderAt does. If there are
	// fewer, it also returns an error, io.EOF at the blob's end. The bytes of one
	// call are of one state of the blob. If the blob is replaced or removed
	// between two calls, the second call sees the new state.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
	// Size returns a blob's length in bytes.
	Size(ctx context.Context, name string) (int64, error)
	// List returns all blobs whose names begin with prefix, sorted by name. It has
	// all blobs that were committed before the call and not removed.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Remove deletes a blob durably. It is no error if the blob does not exist.
	Remove(ctx context.Context, name string) error
}

// Version identifies a state of a blob. States with different bytes have
// different versions. To change a blob without losing another process's change,
// get the version, then read the blob, then write over that version.
type Version string

const (
	// None is the version where there is no blob. If several processes create a
	// blob over None at once, one succeeds. Commit of the others returns an error
	// that matches fs.ErrExist.
	None Version = ""
	// Any stands for every version, and for no blob.
	Any Version = "*"
)

// Settler is a Store in which a killed process can leave a Commit or a Remove
// that is visible, but not durable.
type Settler interface {
	// Settle makes the present state of all names with this prefix durable. Blobs
	// that List shows stay, and blobs that it does not show do not come back.
	Settle(ctx context.Context, prefix string) error
}

// Settle calls the store's Settle, if it is a Settler.
func Settle(ctx context.Context, s Store, prefix string) error {
	if s, ok := s.(Settler); ok {
		return s.Settle(ctx, prefix)
	}
	return nil
}

// Info is a blob in a list.
type Info struct {
	Name string
	Size int64 // bytes
}

// Writer is a blob being written. The caller ends it by either Commit or Abort.
// Abort after Commit does nothing, so it can be deferred.
type Writer interface {
	io.Writer
	// Commit makes the blob durable under its name, and replaces an earlier blob
	// atomically. If the present blob is not the version to be replaced, nothing
	// changes, and the error matches fs.ErrExist (over None) or ErrChanged. After
	// any other error, the name has either the former blob or the complete new
	// one.
	Commit() error
	// Abort drops the blob.
	Abort()
}

// ValidName reports whether a blob can have this name. Parts that begin with a
// dot or end with ".tmp" are reserved for implementations of Store.
func ValidName(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || len(part) > 100 || part[0] == '.' || strings.HasSuffix(part, ".tmp") {
			return false
		}
		for _, c := range []byte(part) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
				return false
			}
		}
	}
	return len(name) <= 500
}

// ReadAll reads a blob of at most limit bytes.
func ReadAll(ctx context.Context, s Store, name string, limit int64) ([]byte, error) {
	n, err := s.Size(ctx, name)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, &TooLargeError{name, n, limit}
	}
	b := make([]byte, n)
	if got, err := s.ReadAt(ctx, name, b, 0); int64(got) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// WriteAll writes a blob over any version.
func WriteAll(ctx context.Context, s Store, name string, data []byte) error {
	return WriteOver(ctx, s, name, Any, data)
}

// WriteOver writes a blob over one version.
func WriteOver(ctx context.Context, s Store, name string, over Version, data []byte) error {
	w, err := s.Create(ctx, name, over)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit()
}

// CheckName returns an error for a name that no blob can have.
func CheckName(name string) error {
	if !ValidName(name) {
		return fmt.Errorf("%q cannot be the name of a blob", name)
	}
	return nil
}

// Reader returns a blob as an io.ReaderAt.
func Reader(ctx context.Context, s Store, name string) io.ReaderAt { return reader{ctx, s, name} }

type reader struct {
	ctx  context.Context
	s    Store
	name string
}

func (r reader) ReadAt(p []byte, off int64) (int, error) { return r.s.ReadAt(r.ctx, r.name, p, off) }

// Package blob is where a store keeps its files: named runs of bytes that are
// written whole, once, and read in parts. Packages below it have them in a
// folder, in memory and in S3-compatible object storage.
package blob

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Store keeps blobs. A name is one or more parts of letters, digits and any of
// "-_.", joined by "/", as ValidName says. No blob has another's name as its
// folder. Methods may be called from many goroutines at once. A blob that is
// not there is an error that matches fs.ErrNotExist.
type Store interface {
	// Create begins a blob that takes the place of what over says. It is seen
	// by nobody before Commit.
	Create(ctx context.Context, name string, over Version) (Writer, error)
	// Version is the state that a blob is in. It is for small blobs: it may
	// read all of it.
	Version(ctx context.Context, name string) (Version, error)
	// ReadAt fills p with the bytes from off, as io.ReaderAt does: fewer come
	// with an error, io.EOF at the blob's end. What was opened to read does
	// not change when the blob is replaced or removed between two calls, but
	// the second call then sees the new state.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
	// Size is a blob's length in bytes.
	Size(ctx context.Context, name string) (int64, error)
	// List gives all blobs whose names begin with a prefix, sorted by name. It
	// shows all that was committed before the call and not removed.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Remove deletes a blob, durably. One that is not there is removed.
	Remove(ctx context.Context, name string) error
}

// Version is a state of a blob: states with other bytes are other versions. To
// change a blob and lose no change of another process, ask for the version,
// then read, then write over that version.
type Version string

const (
	// None is where no blob is. Of several processes that create one blob over
	// None at once, one succeeds; the others' Commit gives an error that
	// matches fs.ErrExist.
	None Version = ""
	// Any is whatever there is.
	Any Version = "*"
)

// Settler is a Store of which a process that was killed can leave a Commit or a
// Remove half done: seen, but not durable.
type Settler interface {
	// Settle makes durable what List shows of a prefix, and that what it does
	// not show does not come back.
	Settle(ctx context.Context, prefix string) error
}

// Settle settles a store, if that needs it.
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

// Writer is a blob being written. Exactly one of Commit and Abort ends it;
// Abort after Commit does nothing, so it can be deferred.
type Writer interface {
	io.Writer
	// Commit makes the blob durable under its name, in place of an earlier one
	// at once. If the earlier one is not what the blob was to take the place
	// of, nothing is changed, and the error matches fs.ErrExist (over None) or
	// ErrChanged. After another error the name holds what it held before, or
	// the new blob whole.
	Commit() error
	// Abort gives the blob up.
	Abort()
}

// ValidName reports whether a blob can have this name. Parts that begin with a
// dot or end with ".tmp" are left to those who keep the blobs.
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

// WriteAll writes a blob over whatever there is.
func WriteAll(ctx context.Context, s Store, name string, data []byte) error {
	return WriteOver(ctx, s, name, Any, data)
}

// WriteOver writes a blob over one of its versions.
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

// CheckName gives the error for a name that no blob can have.
func CheckName(name string) error {
	if !ValidName(name) {
		return fmt.Errorf("%q cannot be the name of a blob", name)
	}
	return nil
}

// Reader is a blob as an io.ReaderAt.
func Reader(ctx context.Context, s Store, name string) io.ReaderAt { return reader{ctx, s, name} }

type reader struct {
	ctx  context.Context
	s    Store
	name string
}

func (r reader) ReadAt(p []byte, off int64) (int, error) { return r.s.ReadAt(r.ctx, r.name, p, off) }

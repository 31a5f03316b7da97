package rawgz

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/words"
)

// ErrTrailer is matched by the error of a file in which something follows the
// image.
var ErrTrailer = errors.New("something follows the image")

// trailerError says that something follows the compressed image in a file.
type trailerError struct {
	at, len int64 // place and length in the file of what follows, in bytes
	zeros   int64 // how many zeros it begins with
	disk    int64 // how many bytes of the disk come before it
}

func (e *trailerError) Is(err error) bool { return err == ErrTrailer }

func (e *trailerError) Error() string {
	what := "that " + words.Verb(e.len, "is", "are") + " no gzip"
	if e.zeros > 0 {
		what = fmt.Sprintf("(%s, and from byte %d on something that is no gzip)", words.Count(e.zeros, "zero"), e.at+e.zeros)
	}
	return fmt.Sprintf("%d bytes of a disk end at byte %d of the file, and %s %s %s; "+
		"if the disk is whole with that, `head -c %d` makes a file without what follows",
		e.disk, e.at, words.Count(e.len, "byte"), words.Verb(e.len, "follows", "follow"), what, e.at)
}

// notZero gives the place of the first byte of a file that is not zero, from at on.
// If there is none, it gives the end of the file.
func notZero(r io.ReaderAt, at, size int64) (int64, error) {
	b := make([]byte, 64<<10)
	for at < size {
		part := b[:min(int64(len(b)), size-at)]
		if n, err := r.ReadAt(part, at); n < len(part) {
			return 0, fmt.Errorf("read the image at byte %d: %w", at, notEOF(err))
		}
		if !image.IsZero(part) {
			return at + int64(bytes.IndexFunc(part, func(r rune) bool { return r != 0 })), nil
		}
		at += int64(len(part))
	}
	return size, nil
}

// beforeZeros gives the place where the zeros at the end of a file begin.
func beforeZeros(r io.ReaderAt, size int64) (int64, error) {
	b := make([]byte, 64<<10)
	for size > 0 {
		part := b[:min(int64(len(b)), size)]
		if n, err := r.ReadAt(part, size-int64(len(part))); n < len(part) {
			return 0, fmt.Errorf("read the image's end: %w", notEOF(err))
		}
		if left := len(bytes.TrimRight(part, "\x00")); left > 0 {
			return size - int64(len(part)-left), nil
		}
		size -= int64(len(part))
	}
	return 0, nil
}

// findEnd looks for an end member that is not at the end of the file. It gives the
// place where the end member ends. If only zeros follow the end member, they are
// padding. If anything else follows, that is an error.
func findEnd(r io.ReaderAt, size int64) (*end, int64, error) {
	last, err := beforeZeros(r, size)
	if err != nil {
		return nil, 0, err
	}
	last += int64(len(endBody)) - 1 + trailerLen // the end member's own last bytes are zeros
	if e, err := readEnd(r, min(last, size)); err == nil {
		return e, last, nil
	}
	b := make([]byte, min(size, 1<<20))
	if n, err := r.ReadAt(b, size-int64(len(b))); n < len(b) {
		return nil, 0, fmt.Errorf("read the image's end: %w", notEOF(err))
	}
	at := bytes.LastIndex(b, []byte(endHeader))
	if at < 0 || at+endLen > len(b) {
		return nil, 0, errCut
	}
	e, ok := parseEnd(b[at : at+endLen])
	if !ok {
		return nil, 0, errCut
	}
	from := size - int64(len(b)-at-endLen)
	zeros, err := notZero(r, from, size)
	if err != nil {
		return nil, 0, err
	}
	return nil, 0, &trailerError{at: from, len: size - from, zeros: zeros - from, disk: e.rawSize}
}

package rawgz

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/image"
)

// Reader reads an image file, ours or any other gzip file. It implements
// image.Reader. The members of our files are decoded side by side; other files
// have no lengths in them and are decoded one byte after the other by Next.
type Reader struct {
	in   *source
	next func() (image.Piece, error)
	end  *end  // nil: not one of our files
	off  int64 // of the disk, where the next piece begins
	err  error // what ended the reading
}

// NewReader looks at the beginning and the end of a file of the given size,
// in bytes. A file of ours that was cut is an error here already.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	z := &Reader{in: newSource(r, size)}
	head, err := z.in.buf.Peek(headerLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	if _, _, err := parseHeader(head); err != nil && !isEndHeader(head) {
		f, err := newForeign(z.in)
		if err != nil {
			return nil, err
		}
		z.next = f.next
		return z, nil
	}
	if z.end, err = readEnd(r, size); errors.Is(err, errCut) {
		if z.end, z.in.size, err = findEnd(r, size); err == nil {
			z.in.padding = size - z.in.size
		}
	}
	if err != nil {
		return nil, err
	}
	z.next = z.nextMember
	return z, nil
}

// readEnd reads the end member.
func readEnd(r io.ReaderAt, size int64) (*end, error) {
	var b [endLen]byte
	if size < endLen {
		return nil, errCut
	}
	if n, err := r.ReadAt(b[:], size-endLen); n < len(b) {
		return nil, fmt.Errorf("read the image's end: %w", notEOF(err))
	}
	e, ok := parseEnd(b[:])
	if !ok {
		return nil, errCut
	}
	return &e, nil
}

var errCut = errors.New("the image is cut short or has something after its end; it cannot be used")

// Padding is how many zeros follow the image in its file, as far as it was
// read.
func (z *Reader) Padding() int64 { return z.in.padding }

// notEOF makes io.ErrUnexpectedEOF of the end of a file, in a place where the
// image must go on. Other errors stay as they are.
func notEOF(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// damaged says where the image has the error, if there is one.
func damaged(off int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the image is damaged at byte %d of the disk: %w", off, err)
}

// RawSize is the length of the disk in bytes; -1 is unknown before the end.
func (z *Reader) RawSize() int64 {
	if z.end == nil {
		return -1
	}
	return z.end.rawSize
}

// BLAKE3 is the hash of the disk that the file itself gives, 64 hexadecimal
// digits; "" is unknown.
func (z *Reader) BLAKE3() string {
	if z.end == nil {
		return ""
	}
	return hex.EncodeToString(z.end.blake3[:])
}

// Next implements image.Reader. Each piece has one range, at a multiple of
// image.PieceSize; all but the last have that length.
func (z *Reader) Next() (image.Piece, error) {
	if z.err != nil {
		return image.Piece{}, z.err
	}
	p, err := z.next()
	if err == nil && z.off%image.PieceSize != 0 {
		err = errors.New("something follows the last piece")
	}
	if err != nil {
		if err != io.EOF && !errors.Is(err, ErrTrailer) {
			err = damaged(z.off, err)
		}
		z.err = err
		return image.Piece{}, err
	}
	p.Ranges = []image.Range{{Off: z.off, Len: p.Len}}
	z.off += p.Len
	return p, nil
}

// source reads a file from its beginning and counts, so that the end of a file
// that shrank below us is not taken for the end of the image.
type source struct {
	buf     *bufio.Reader
	sec     *io.SectionReader
	r       io.ReaderAt
	size    int64 // without padding, where that is known
	padding int64 // zeros that follow
}

func newSource(r io.ReaderAt, size int64) *source {
	s := &source{sec: io.NewSectionReader(r, 0, size), r: r, size: size}
	s.buf = bufio.NewReaderSize(s.sec, 1<<20)
	return s
}

// pos is how many bytes of the file were given out.
func (s *source) pos() int64 {
	n, _ := s.sec.Seek(0, io.SeekCurrent) // never fails
	return n - int64(s.buf.Buffered())
}

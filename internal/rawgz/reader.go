package rawgz

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/image"
)

// Reader reads an image file of this program, or any other gzip file. It
// implements image.Reader. Several members of our files can be decoded at the same
// time. Other files do not have the lengths of their members in them, so Next
// itself decodes them in order.
type Reader struct {
	in   *source
	next func() (image.Piece, error)
	end  *end  // nil if the file is not one of ours
	off  int64 // place on the disk where the next piece begins
	err  error // what ended the reading
}

// NewReader reads the beginning and the end of a file. size is its size in bytes.
// If one of our files was cut off, NewReader gives the error already.
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

// Padding is how many zeros follow the image in its file, as far as the file was
// read.
func (z *Reader) Padding() int64 { return z.in.padding }

// notEOF turns the end of a file into io.ErrUnexpectedEOF. It is called where the
// image must go on. Other errors stay as they are.
func notEOF(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// damaged adds to an error where the image is damaged. It returns nil for nil.
func damaged(off int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the image is damaged at byte %d of the disk: %w", off, err)
}

// RawSize is the length of the disk in bytes. It is -1 if the file does not say it.
func (z *Reader) RawSize() int64 {
	if z.end == nil {
		return -1
	}
	return z.end.rawSize
}

// BLAKE3 is the hash of the disk that is in the file itself, as 64 hexadecimal
// digits. It is "" if the file has none.
func (z *Reader) BLAKE3() string {
	if z.end == nil {
		return ""
	}
	return hex.EncodeToString(z.end.blake3[:])
}

// Next implements image.Reader. Each piece has one range, which begins at a
// multiple of image.PieceSize. All pieces but the last have that length.
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

// source reads a file from its beginning, and counts the bytes. So if the file
// shrinks meanwhile, its end is not taken for the end of the image.
type source struct {
	buf     *bufio.Reader
	sec     *io.SectionReader
	r       io.ReaderAt
	size    int64 // of the file, without padding if that is known
	padding int64 // how many zeros follow the image
}

func newSource(r io.ReaderAt, size int64) *source {
	s := &source{sec: io.NewSectionReader(r, 0, size), r: r, size: size}
	s.buf = bufio.NewReaderSize(s.sec, 1<<20)
	return s
}

// pos is how many bytes of the file were read by users of buf.
func (s *source) pos() int64 {
	n, _ := s.sec.Seek(0, io.SeekCurrent) // never fails
	return n - int64(s.buf.Buffered())
}

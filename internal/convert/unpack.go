package convert

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/image"
)

// Unpack writes the disk of an image to a file, with holes for zeros. It serves
// images that can only be read in order. It gives the length of the disk in bytes,
// and refuses a disk of more than limit bytes.
func Unpack(ctx context.Context, r image.Reader, dst Sink, limit int64) (size int64, err error) {
	buf := make([]byte, image.PieceSize)
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		p, err := r.Next()
		if err == io.EOF {
			return size, dst.Truncate(size)
		} else if err != nil {
			return size, err
		}
		if size += p.Len; size > limit {
			return size, fmt.Errorf("it unpacks to more than %d bytes, for which there is no room", limit)
		}
		if p.Content != image.Data {
			continue
		}
		if err := p.Decode(buf[:p.Len]); err != nil {
			return size, err
		}
		if err := write(dst, buf[:p.Len], p.Ranges); err != nil {
			return size, err
		}
	}
}

// write writes data to the given ranges, and leaves out zeros.
func write(dst Sink, b []byte, ranges []image.Range) error {
	for _, r := range ranges {
		part := b[:r.Len]
		b = b[r.Len:]
		for i := 0; i < len(part); i += grain {
			cell := part[i:min(i+grain, len(part))]
			if image.IsZero(cell) {
				continue
			}
			if _, err := dst.WriteAt(cell, r.Off+int64(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxWindow bounds the window of a zstd stream, in bytes. The window is how far back
// the stream may refer to bytes that were unpacked before, so it must be in memory.
const maxWindow = 256 << 20

// ErrForm is matched by errors of a stream that is not damaged, but that this
// program cannot read. The error says what to do.
var ErrForm = errors.New("the stream cannot be taken")

// formError is an error that matches ErrForm, and has a text of its own.
type formError struct{ text string }

func (e formError) Error() string        { return e.text }
func (e formError) Is(target error) bool { return target == ErrForm }

// explain adds to an error of the decoder what to do about it. off is how many bytes
// of the disk were unpacked.
func explain(err error, off int64) error {
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return formError{fmt.Sprintf("it was compressed with a window of more than %d MiB; `unzstd --long=31 -c` makes a raw file of it, "+
			"on a machine with 2 GiB of free memory", maxWindow>>20)}
	case errors.Is(err, zstd.ErrMagicMismatch):
		return formError{fmt.Sprintf("%d bytes of a disk were unpacked, and what follows in the file is no zstd", off)}
	}
	return err
}

// NewZstdReader reads zstd frames (RFC 8878) with the raw bytes of a disk as an
// image.
func NewZstdReader(r io.Reader) (image.Reader, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return &streamReader{r: d.IOReadCloser()}, nil
}

// streamReader cuts a stream into pieces.
type streamReader struct {
	r   io.ReadCloser
	off int64
	end error
}

// Next implements image.Reader.
func (s *streamReader) Next() (image.Piece, error) {
	if s.end != nil {
		return image.Piece{}, s.end
	}
	b := make([]byte, image.PieceSize)
	n, err := io.ReadFull(s.r, b)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		// ReadFull gives these errors at the end of the stream. The decoder
		// gives the same error for a frame that was cut off. Another read
		// tells the two cases apart.
		if _, again := s.r.Read(make([]byte, 1)); again != io.EOF {
			err = fmt.Errorf("the stream was cut off: %w", io.ErrUnexpectedEOF)
			s.end = err
			return image.Piece{}, err
		}
		s.end = io.EOF
		s.r.Close()
	} else if err != nil {
		s.end = explain(err, s.off+int64(n))
		return image.Piece{}, s.end
	}
	if n == 0 {
		return image.Piece{}, s.end
	}
	p := image.Piece{Len: int64(n), Ranges: []image.Range{{Off: s.off, Len: int64(n)}}}
	s.off += int64(n)
	p.Decode = func(dst []byte) error {
		copy(dst, b[:n])
		return nil
	}
	return p, nil
}

// Close frees the decoder.
func (s *streamReader) Close() error { return s.r.Close() }

package rawgz

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"testbox-imaging/internal/image"
)

// foreign reads a gzip file of another program, which has any number of members of
// any length. If the file was cut between two members, foreign cannot see that.
// Only a caller that knows the size of the disk can.
type foreign struct {
	in   *source
	gz   *gzip.Reader
	raw  int64 // how many bytes of the disk were read
	done bool
}

func newForeign(in *source) (*foreign, error) {
	gz, err := gzip.NewReader(in.buf)
	if err != nil {
		return nil, fmt.Errorf("the image is not a gzip file: %w", notEOF(err))
	}
	gz.Multistream(false)
	return &foreign{in: in, gz: gz}, nil
}

// next gives the next piece, which is decoded already. Decode only copies it.
func (f *foreign) next() (image.Piece, error) {
	if f.done {
		return image.Piece{}, io.EOF
	}
	b := getBuffer(image.PieceSize)
	n, err := f.fill(*b)
	if err != nil {
		return image.Piece{}, err
	}
	if image.IsZero((*b)[:n]) {
		buffers.Put(b)
		if n == 0 {
			return image.Piece{}, io.EOF
		}
		return image.Piece{Content: image.Zero, Len: int64(n)}, nil
	}
	return image.Piece{Len: int64(n), Decode: func(dst []byte) error {
		copy(dst[:n], *b)
		buffers.Put(b)
		return nil
	}}, nil
}

// fill reads until b is full or the file ends. io.ReadFull cannot be used, since
// its io.ErrUnexpectedEOF can mean the end of the file, or a file that was cut.
func (f *foreign) fill(b []byte) (n int, err error) {
	for n < len(b) && !f.done {
		k, err := f.gz.Read(b[n:])
		n, f.raw = n+k, f.raw+int64(k)
		if err == io.EOF {
			err = f.nextMember()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// nextMember goes on behind a member's end. The file ends there if nothing follows,
// or only padding. The library's own way to read several members is not used, since
// it takes some headers that were cut off for the end.
func (f *foreign) nextMember() error {
	at := f.in.pos()
	if at == f.in.size {
		f.done = true
		return nil
	}
	if next, err := f.in.buf.Peek(2); err != nil || string(next) != "\x1f\x8b" {
		f.done = true
		return f.padding(at)
	}
	name := f.gz.Name
	if err := f.gz.Reset(f.in.buf); err != nil {
		return fmt.Errorf("what follows the member that ends at byte %d of the file is not another: %w", at, notEOF(err))
	}
	f.gz.Multistream(false)
	if name != "" && f.gz.Name != "" && name != f.gz.Name {
		return fmt.Errorf("it holds two files: at byte %d %q follows %q; give each its own", at, f.gz.Name, name)
	}
	if f.gz.Name == "" {
		f.gz.Name = name
	}
	return nil
}

// padding accepts zeros up to the end of the file, since files on tapes and block
// devices are padded with zeros. Any other bytes are an error, since the rest may
// be half of an image.
func (f *foreign) padding(at int64) error {
	rest, err := notZero(f.in.r, at, f.in.size)
	if err != nil {
		return err
	}
	if rest < f.in.size {
		return &trailerError{at: at, len: f.in.size - at, zeros: rest - at, disk: f.raw}
	}
	f.in.padding = f.in.size - at
	return nil
}

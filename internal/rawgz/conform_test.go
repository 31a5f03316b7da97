package rawgz_test

import (
	"bytes"
	"io"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/rawgz"
)

// stored is an image file in memory.
type stored struct {
	r    io.ReaderAt
	size int64
}

func (s stored) Open() (image.Reader, error) { return rawgz.NewReader(s.r, s.size) }

const step = 127 // of the damages: each bit of every step-th byte, each length that is a multiple

func (s stored) Damages() int { return int(s.size)/step*9 + 2 }

func (s stored) Damaged(n int) conform.StoredImage {
	at := int64(n/9) * step
	switch {
	case n == s.Damages()-1:
		return stored{s.r, s.size - 1}
	case n == s.Damages()-2: // something after the end
		return stored{io.NewSectionReader(doubled{s}, 0, s.size+1), s.size + 1}
	case n%9 == 8:
		return stored{s.r, at}
	}
	return stored{faults.Flipped{ReaderAt: s.r, Bit: at*8 + int64(n%9)}, s.size}
}

// doubled is a file with its own bytes after its end once more.
type doubled struct{ stored }

func (d doubled) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		at := (off + int64(n)) % d.size
		k, err = d.r.ReadAt(b[n:min(len(b), n+int(d.size-at))], at)
		n += k
	}
	return n, err
}

func begin(testing.TB) (image.Writer, func() (conform.StoredImage, error)) {
	var file bytes.Buffer
	w := rawgz.NewWriter(&file)
	return w, func() (conform.StoredImage, error) {
		_, err := w.Close()
		return stored{bytes.NewReader(file.Bytes()), int64(file.Len())}, err
	}
}

func TestImages(t *testing.T) { conform.Images(t, begin) }

package rawgz

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/zeebo/blake3"

	"testbox-imaging/internal/form"
	"testbox-imaging/internal/image"
)

// level is a level of the library klauspost/compress. docs/performance.md says what
// the other levels cost and save.
const level = 3

// Sums are the sizes and hashes of a complete image file.
type Sums struct {
	RawSize  int64  // of the disk, bytes
	FileSize int64  // of the file, bytes
	BLAKE3   string // of the disk's bytes, 64 hexadecimal digits
	SHA256   string // of the file, 64 hexadecimal digits ("" after Check without facts)

	// Only Check without facts sets these.
	Padding int64      // zeros that follow the image in the file
	Ends    *form.Ends // the beginning of the disk and its end
}

// Writer writes an image file. It implements image.Writer. The file is complete
// only after Close. A Writer that is given up needs no Close.
type Writer struct {
	out      *bufio.Writer
	raw      *blake3.Hasher
	file     hash.Hash
	rawSize  int64
	fileSize int64
	short    bool  // the last piece was shorter than image.PieceSize, so none may follow
	err      error // of an earlier call, after which the file is of no use
}

// NewWriter makes a Writer. The caller must make w durable.
func NewWriter(w io.Writer) *Writer {
	return &Writer{out: bufio.NewWriterSize(w, 256<<10), raw: blake3.New(), file: sha256.New()}
}

// Encode implements image.Writer. It makes the member of a piece.
func (w *Writer) Encode(dst, piece []byte) ([]byte, error) {
	if len(piece) == 0 || len(piece) > image.PieceSize {
		return nil, fmt.Errorf("a piece of %d bytes", len(piece))
	}
	if image.IsZero(piece) {
		if len(piece) == image.PieceSize {
			return append(dst, zeroPiece()...), nil
		}
		return append(dst, zeroMember(len(piece))...), nil
	}
	at := len(dst)
	dst = append(dst, fixedHeader+"\x00\x00\x00\x00\x00\x00\x00\x00"...)
	dst, err := deflate(dst, piece)
	if err != nil {
		return nil, err
	}
	dst = appendTrailer(dst, piece)
	if n := len(dst) - at; n > maxMember {
		return nil, fmt.Errorf("a piece of %d bytes has a member of %d bytes, which is too long", len(piece), n)
	}
	putLengths(dst[at:], len(piece))
	return dst, nil
}

// deflater is a compressor and the slice it appends to.
type deflater struct {
	fw  *flate.Writer
	dst []byte
}

func (d *deflater) Write(p []byte) (int, error) {
	d.dst = append(d.dst, p...)
	return len(p), nil
}

// deflaters are reused, since each has tables of a megabyte.
var deflaters = sync.Pool{New: func() any {
	d := new(deflater)
	d.fw, _ = flate.NewWriter(d, level) // only an unknown level is an error
	return d
}}

// deflate appends the compressed form of b to dst.
func deflate(dst, b []byte) ([]byte, error) {
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.dst = dst
	d.fw.Reset(d)
	_, err := d.fw.Write(b)
	if err == nil {
		err = d.fw.Close()
	}
	dst, d.dst = d.dst, nil
	return dst, err
}

// Append implements image.Writer. It computes the two hashes at the same time.
func (w *Writer) Append(piece, encoded []byte) error {
	switch member, raw, err := parseHeader(encoded); {
	case w.err != nil:
		return w.err
	case w.short:
		w.err = errors.New("a piece after the last one")
	case err != nil || member != len(encoded) || raw != len(piece):
		w.err = fmt.Errorf("a piece of %d bytes came with the stored form of another", len(piece))
	default:
		w.append(piece, encoded)
	}
	return w.err
}

func (w *Writer) append(piece, encoded []byte) {
	var wg sync.WaitGroup
	wg.Go(func() { w.raw.Write(piece) })
	w.put(encoded)
	wg.Wait()
	w.rawSize += int64(len(piece))
	w.short = len(piece) < image.PieceSize
}

// put adds bytes to the file and to its hash.
func (w *Writer) put(b []byte) {
	w.file.Write(b)
	if _, err := w.out.Write(b); err != nil {
		w.err = fmt.Errorf("write the image: %w", err)
	}
	w.fileSize += int64(len(b))
}

// Close writes the end of the file and gives the sums. It does not close or sync
// the writer that NewWriter got.
func (w *Writer) Close() (Sums, error) {
	if w.err != nil {
		return Sums{}, w.err
	}
	e := end{rawSize: w.rawSize}
	w.raw.Sum(e.blake3[:0])
	w.put(e.marshal())
	if err := w.out.Flush(); err != nil && w.err == nil {
		w.err = fmt.Errorf("write the image: %w", err)
	}
	if w.err != nil {
		return Sums{}, w.err
	}
	w.err = errors.New("the image is closed")
	return Sums{RawSize: w.rawSize, FileSize: w.fileSize, BLAKE3: hex.EncodeToString(e.blake3[:]),
		SHA256: hex.EncodeToString(w.file.Sum(nil))}, nil
}

package rawgz

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/form"
	"testbox-imaging/internal/image"
)

// Check looks at a whole image file of the given size in bytes, before it is
// allowed to change a disk. With the facts of its sidecar the file's SHA-256
// must be theirs; without (facts nil) all of it is decoded, its checksums are
// compared, and the disk's bytes counted and hashed. progress (nil is silence) is told
// bytes of the file. The error says what is wrong, the caller says of which
// file.
func Check(ctx context.Context, r io.ReaderAt, size int64, facts *image.Facts, progress func(done, total int64)) (Sums, error) {
	if progress == nil {
		progress = func(done, total int64) {}
	}
	if facts != nil {
		return checkSums(ctx, r, size, facts, progress)
	}
	return checkDecode(ctx, r, size, progress)
}

func checkSums(ctx context.Context, r io.ReaderAt, size int64, facts *image.Facts, progress func(done, total int64)) (Sums, error) {
	if size != facts.FileSize {
		return Sums{}, fmt.Errorf("the image file has %d bytes, its sidecar says %d; it was cut or replaced", size, facts.FileSize)
	}
	z, err := NewReader(r, size)
	if err != nil {
		return Sums{}, err
	}
	if n := z.RawSize(); n >= 0 && (n != facts.Disk.Size || z.BLAKE3() != facts.BLAKE3) {
		return Sums{}, errors.New("image and sidecar are of different disks or backups")
	}
	sum, err := hashFile(ctx, r, size, progress)
	if err != nil {
		return Sums{}, err
	}
	if sum != facts.SHA256 {
		return Sums{}, errors.New("the image file is damaged: its SHA-256 is not the one in its sidecar")
	}
	return Sums{RawSize: facts.Disk.Size, FileSize: size, BLAKE3: facts.BLAKE3, SHA256: sum}, nil
}

// hashFile is the SHA-256 of a file.
func hashFile(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (string, error) {
	h := sha256.New()
	b := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n := int(min(int64(len(b)), size-off))
		if k, err := r.ReadAt(b[:n], off); k < n {
			return "", fmt.Errorf("read the image at byte %d: %w", off, notEOF(err))
		}
		h.Write(b[:n])
		off += int64(n)
		progress(off, size)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checkDecode decodes everything, some pieces at a time, and hashes the disk's
// bytes: a restore then compares what it writes with what was checked.
func checkDecode(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (Sums, error) {
	z, err := NewReader(r, size)
	if err != nil {
		return Sums{}, err
	}
	b := newBatch(2 * min(cpu.Count(), 16))
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return Sums{}, err
		}
		if more, err = b.fill(z); err != nil {
			return Sums{}, err
		}
		if err := b.decode(); err != nil {
			return Sums{}, err
		}
		progress(z.in.pos(), size)
	}
	sum := hex.EncodeToString(b.sum.Sum(nil))
	if want := z.BLAKE3(); want != "" && sum != want {
		return Sums{}, errors.New("the image is damaged: the disk's BLAKE3 is not the one at its end")
	}
	b.ends.Size = z.off
	return Sums{RawSize: z.off, FileSize: size, BLAKE3: sum, Padding: z.Padding(), Ends: &b.ends}, nil
}

// batch is some pieces that are decoded side by side.
type batch struct {
	pieces []image.Piece
	bytes  [][]byte // a piece long each, the first for zeros
	sum    *blake3.Hasher
	ends   form.Ends
}

func newBatch(n int) *batch {
	b := &batch{sum: blake3.New()}
	for range n + 1 {
		b.bytes = append(b.bytes, make([]byte, image.PieceSize))
	}
	return b
}

// fill gets the next pieces; false is the end.
func (b *batch) fill(z *Reader) (bool, error) {
	b.pieces = b.pieces[:0]
	for len(b.pieces) < len(b.bytes)-1 {
		p, err := z.Next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		b.pieces = append(b.pieces, p)
	}
	return true, nil
}

// decode decodes and hashes the pieces.
func (b *batch) decode() error {
	var g errgroup.Group
	for i, p := range b.pieces {
		if p.Content == image.Data {
			g.Go(func() error { return p.Decode(b.bytes[i+1][:p.Len]) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, p := range b.pieces {
		data := b.bytes[0]
		if p.Content == image.Data {
			data = b.bytes[i+1]
		}
		b.sum.Write(data[:p.Len])
		b.keep(data[:p.Len])
	}
	return nil
}

// keptTail is how much of a disk's end a Check keeps, bytes: a backup GPT and
// what stands behind it.
const keptTail = 256 << 10

// keep keeps the first piece and the last bytes.
func (b *batch) keep(data []byte) {
	if b.ends.Head == nil {
		b.ends.Head = bytes.Clone(data)
	}
	t := append(b.ends.Tail, data[max(len(data)-keptTail, 0):]...)
	b.ends.Tail = append(t[:0], t[max(len(t)-keptTail, 0):]...)
}

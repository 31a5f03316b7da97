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

// Check checks a complete image file before it is written to a disk. size is the
// file's size in bytes. With the facts of a sidecar, the file's SHA-256 must be the
// one in the facts. If facts is nil, the whole file is decoded, its checksums are
// checked, and the disk's bytes are counted and hashed. progress is told how many
// bytes of the file are done, and may be nil. The error says what is wrong, but the
// caller must say with which file.
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

// checkDecode decodes the whole file, several pieces at a time, and hashes the
// disk's bytes. A restore then compares what it writes with this hash.
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

// batch has several pieces that are decoded at the same time.
type batch struct {
	pieces []image.Piece
	bytes  [][]byte // buffers of one piece each, of which the first one is zeros
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

// fill gets the next pieces. It returns false at the end of the image.
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

// keptTail is how many bytes of a disk's end Check keeps. That is enough for a
// backup GPT and for what may follow it.
const keptTail = 256 << 10

// keep saves the first piece and the last keptTail bytes in ends.
func (b *batch) keep(data []byte) {
	if b.ends.Head == nil {
		b.ends.Head = bytes.Clone(data)
	}
	t := append(b.ends.Tail, data[max(len(data)-keptTail, 0):]...)
	b.ends.Tail = append(t[:0], t[max(len(t)-keptTail, 0):]...)
}

package rawgz

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

// Check looks at a whole image file of the given size in bytes, before it is
// allowed to change a disk. With the facts of its sidecar the file's SHA-256
// must be theirs; without (facts nil) all of it is decoded, its checksums are
// compared and the disk's bytes counted. progress (nil is silence) is told
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
	return Sums{facts.Disk.Size, size, facts.BLAKE3, sum}, nil
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

// checkDecode decodes everything, some pieces at a time.
func checkDecode(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (Sums, error) {
	z, err := NewReader(r, size)
	if err != nil {
		return Sums{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 16))
	for gctx.Err() == nil {
		p, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		progress(z.in.pos(), size)
		if !p.Zero {
			g.Go(func() error { return tryDecode(p) })
		}
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return Sums{}, err
	}
	return Sums{RawSize: z.off, FileSize: size, BLAKE3: z.BLAKE3()}, nil
}

func tryDecode(p image.Piece) error {
	b := getBuffer(p.Len)
	defer buffers.Put(b)
	return p.Decode(*b)
}

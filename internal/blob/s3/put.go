package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"

	"github.com/minio/minio-go/v7"

	"testbox-imaging/internal/blob"
)

// maxSize is the largest number of bytes in one request.
const maxSize = 5 << 30

// writer writes a blob into a local file without a name.
type writer struct {
	s    *Store
	ctx  context.Context
	name string
	over blob.Version
	file *os.File
	size int64
	sum  hash.Hash // SHA-256 of the bytes written so far
	err  error     // of the first Write that failed, or fs.ErrClosed
}

// Create implements blob.Store.
func (s *Store) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	if err := errors.Join(blob.CheckName(name), ctx.Err()); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.spool, "testbox-upload-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &writer{s: s, ctx: ctx, name: name, over: over, file: f, sum: sha256.New()}, nil
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.file.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	if w.err = err; err == nil && w.size > maxSize {
		w.err = fmt.Errorf("%s has more than the %d bytes that an object may have", w.name, int64(maxSize))
	}
	return n, w.err
}

// Abort implements blob.Writer.
func (w *writer) Abort() {
	w.file.Close()
	w.err = fs.ErrClosed
}

// Commit uploads the file. The server checks the bytes against their SHA-256
// before they become the blob. Commit then asks the server what it has.
func (w *writer) Commit() error {
	if w.err != nil {
		return w.s.failed("write", w.name, w.err)
	}
	defer w.Abort()
	sum := w.sum.Sum(nil)
	etag, err := w.put(sum)
	if err != nil {
		return w.s.failed("write", w.name, err)
	}
	info, err := w.s.stat(w.ctx, w.name)
	if err == nil {
		err = w.check(info, etag, base64.StdEncoding.EncodeToString(sum))
	}
	return w.s.failed("check", w.name, err)
}

func (w *writer) put(sum []byte) (etag string, err error) {
	opts := minio.PutObjectOptions{
		ContentType:          "application/octet-stream",
		DisableContentSha256: true, // checksum of each part; there is one of the whole blob
		UserMetadata:         map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(sum)},
	}
	switch {
	case w.over == blob.Any:
	case w.s.cfg.OnlyWriter:
		if err := w.lookFirst(); err != nil {
			return "", err
		}
	case w.over == blob.None:
		opts.SetMatchETagExcept("*")
	default:
		opts.SetMatchETag(string(w.over))
	}
	again := false
	err = w.s.try(w.ctx, w.size, func(ctx context.Context) error {
		// Each attempt has its own reader, since an earlier attempt may still be
		// reading.
		body := io.NewSectionReader(w.file, 0, w.size)
		info, err := w.s.client.PutObject(ctx, w.s.cfg.Bucket, w.s.key(w.name), body, w.size, "", hex.EncodeToString(sum), opts)
		if etag = info.ETag; !w.missed(err) {
			again = true
			return err
		}
		if again { // an earlier attempt may have succeeded, with its answer lost
			etag, err = w.isOurs(ctx, sum)
			return err
		}
		return w.conflict()
	})
	if err != nil && status(err) == 0 && !errors.As(err, new(final)) && w.isTaken() {
		return w.isOurs(w.ctx, sum)
	}
	return etag, err
}

// isTaken is called when no answer came. It reports whether the present blob is
// not the version to be replaced any more. A server that refuses a large blob
// before it has read all of it can close the connection, and its answer is lost
// then.
func (w *writer) isTaken() bool {
	if w.over == blob.Any || w.s.cfg.OnlyWriter {
		return false
	}
	now, err := w.s.Version(w.ctx, w.name)
	return err == nil && now != w.over || errors.Is(err, fs.ErrNotExist) && w.over != blob.None
}

// missed reports whether the server says that the present blob is not the
// version to be replaced.
func (w *writer) missed(err error) bool {
	code := status(err)
	return code == http.StatusPreconditionFailed || code == http.StatusNotFound && w.over != blob.None && w.over != blob.Any &&
		minio.ToErrorResponse(err).Code == minio.NoSuchKey
}

func (w *writer) conflict() error {
	if w.over == blob.None {
		return final{fs.ErrExist}
	}
	return final{blob.ErrChanged}
}

// isOurs compares the length and SHA-256 of the server's blob with those that
// were to be written. If they are the same, it returns the blob's ETag.
func (w *writer) isOurs(ctx context.Context, sum []byte) (etag string, err error) {
	body, info, _, err := w.s.client.GetObject(ctx, w.s.cfg.Bucket, w.s.key(w.name), minio.GetObjectOptions{})
	if err != nil && minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return "", w.conflict()
	} else if err != nil {
		return "", err
	}
	defer body.Close()
	if info.Size != w.size {
		return "", w.conflict()
	}
	has := sha256.New()
	if _, err := io.Copy(has, body); err != nil {
		return "", err
	}
	if !bytes.Equal(has.Sum(nil), sum) {
		return "", w.conflict()
	}
	return info.ETag, nil
}

// lookFirst checks the version instead of the server. That is enough if nobody
// else writes.
func (w *writer) lookFirst() error {
	now, err := w.s.Version(w.ctx, w.name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && w.over == blob.None, err == nil && now == w.over:
		return nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return w.conflict()
	}
	return err
}

// check compares what the server has with what was written. Not every server
// has checksums.
func (w *writer) check(has minio.ObjectInfo, etag, sum string) error {
	switch {
	case has.Size != w.size:
		return fmt.Errorf("the server has %d bytes of the %d that were sent", has.Size, w.size)
	case has.ETag != etag:
		return fmt.Errorf("the server has the ETag %q, not the %q that it told: %w", has.ETag, etag, blob.ErrOverwritten)
	case has.ChecksumSHA256 != "" && has.ChecksumSHA256 != sum:
		return fmt.Errorf("the server has bytes with the SHA-256 %s, not the %s that were sent", has.ChecksumSHA256, sum)
	}
	return nil
}

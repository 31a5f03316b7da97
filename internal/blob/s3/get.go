package s3

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"

	"github.com/minio/minio-go/v7"

	"testbox-imaging/internal/blob"
)

// ReadAt implements blob.Store. The server sends no checksum for a part of a
// blob. Without TLS, damage on the way can only be detected by sums inside the
// blob.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := blob.CheckName(name); err != nil {
		return 0, err
	}
	if off < 0 || off > math.MaxInt64-int64(len(p)) {
		return 0, fmt.Errorf("read %s at %d", name, off)
	}
	if len(p) == 0 { // a range cannot be empty
		_, err := s.Size(ctx, name)
		return 0, err
	}
	var n int
	err := s.try(ctx, int64(len(p)), func(ctx context.Context) (err error) {
		n, err = s.get(ctx, name, p, off)
		return err
	})
	switch {
	case status(err) == http.StatusRequestedRangeNotSatisfiable:
		return 0, io.EOF
	case err == nil && n < len(p):
		return n, io.EOF
	}
	return n, s.failed("read", name, err)
}

// get reads as much of a range as the blob has. After an error nothing counts
// as read.
func (s *Store) get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	var opts minio.GetObjectOptions
	if err := opts.SetRange(off, off+int64(len(p))-1); err != nil {
		return 0, final{err}
	}
	body, _, header, err := s.client.GetObject(ctx, s.cfg.Bucket, s.key(name), opts)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := answered(header.Get("Content-Range"), off, len(p))
	if err != nil {
		return 0, final{err}
	}
	if got, err := io.ReadFull(body, p[:n]); err != nil {
		return 0, fmt.Errorf("the answer broke off after %d of %d bytes: %w", got, n, err)
	}
	return n, nil
}

// answered returns how many bytes the answer has. It must be as many as were
// asked for, or all from off to the blob's end.
func answered(contentRange string, off int64, asked int) (int, error) {
	var first, last, size int64
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &size); err != nil {
		return 0, fmt.Errorf("the server does not give ranges: its Content-Range is %q", contentRange)
	}
	if n := min(int64(asked), size-off); n > 0 && first == off && last == off+n-1 {
		return int(n), nil
	}
	return 0, fmt.Errorf("the server gives the range %q, asked for %d bytes from %d", contentRange, asked, off)
}

// Package s3 keeps blobs in S3-compatible object storage. A blob being written
// is in a local file until Commit.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"testbox-imaging/internal/blob"
)

// Store is a blob.Store in a bucket. A blob's key is the prefix and the blob's
// name. Store relies on what S3 promises since 2020, that a read or list after
// a write sees the write.
type Store struct {
	client    minio.Core
	cfg       Config
	spool     string
	accessKey string // for messages
}

// Open returns the store of a bucket, which must exist. The keys come from the
// AWS_* environment variables or ~/.aws/credentials. Blobs being written are
// files in the folder spool, or in the system's temporary folder if it is "".
// The files have no names there, so that a crash leaves none behind.
func Open(ctx context.Context, cfg Config, spool string) (*Store, error) {
	keys := credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}})
	value, err := keys.GetWithContext(nil)
	if err != nil {
		return nil, fmt.Errorf("the keys for s3://%s cannot be read; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (the error was: %w)",
			cfg.Bucket, err)
	}
	if value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return nil, fmt.Errorf("there are no keys for s3://%s; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", cfg.Bucket)
	}
	if err := s3utils.CheckValidBucketName(cfg.Bucket); err != nil {
		return nil, fmt.Errorf("no bucket can be called %q; correct the name (the error was: %w)", cfg.Bucket, err)
	}
	if cfg.Endpoint == "" {
		cfg.Endpoint = amazon
	}
	// This package does its own retries. The client's retries would read one body
	// from two goroutines.
	transport, err := minio.DefaultTransport(!cfg.Insecure)
	if err != nil {
		return nil, err
	}
	client, err := minio.NewCore(cfg.Endpoint, &minio.Options{Creds: keys, Secure: !cfg.Insecure, Region: cfg.Region, MaxRetries: 1,
		Transport: noPages{transport}})
	if err != nil {
		return nil, err
	}
	s := &Store{client: *client, cfg: cfg, spool: spool, accessKey: value.AccessKeyID}
	if err := s.try(ctx, 0, s.look); err != nil {
		return nil, fmt.Errorf("s3://%s at %s: %w", cfg.Bucket, cfg.Endpoint, s.explain(err))
	}
	return s, nil
}

// look asks for a list, because the answer to a HEAD has no body that explains
// an error.
func (s *Store) look(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.key(""), Recursive: true, MaxKeys: 1}) {
		return o.Err
	}
	return ctx.Err()
}

// key returns the key of a blob in the bucket, or the prefix of keys for a
// prefix of names.
func (s *Store) key(name string) string {
	if s.cfg.Prefix == "" {
		return name
	}
	return s.cfg.Prefix + "/" + name
}

// failed adds the blob's name to an error, and makes the error for a missing
// blob match fs.ErrNotExist.
func (s *Store) failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		err = fs.ErrNotExist
	}
	return &fs.PathError{Op: op, Path: fmt.Sprintf("s3://%s/%s", s.cfg.Bucket, s.key(name)), Err: s.explain(err)}
}

// Size implements blob.Store.
func (s *Store) Size(ctx context.Context, name string) (size int64, err error) {
	if err := blob.CheckName(name); err != nil {
		return 0, err
	}
	info, err := s.stat(ctx, name)
	return info.Size, s.failed("size", name, err)
}

func (s *Store) stat(ctx context.Context, name string) (info minio.ObjectInfo, err error) {
	err = s.try(ctx, 0, func(ctx context.Context) (err error) {
		info, err = s.client.StatObject(ctx, s.cfg.Bucket, s.key(name), minio.StatObjectOptions{Checksum: true})
		return err
	})
	return info, err
}

// Version implements blob.Store. A version is the ETag.
func (s *Store) Version(ctx context.Context, name string) (blob.Version, error) {
	if err := blob.CheckName(name); err != nil {
		return blob.None, err
	}
	info, err := s.stat(ctx, name)
	if err == nil && (info.ETag == "" || info.ETag == string(blob.Any)) {
		err = fmt.Errorf("the server gives the ETag %q, which does not identify a version", info.ETag)
	}
	return blob.Version(info.ETag), s.failed("version", name, err)
}

// Remove implements blob.Store.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	err := s.failed("remove", name, s.try(ctx, 0, func(ctx context.Context) error {
		return s.client.RemoveObject(ctx, s.cfg.Bucket, s.key(name), minio.RemoveObjectOptions{})
	}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List implements blob.Store. It ignores objects whose names are not valid for
// a blob.
func (s *Store) List(ctx context.Context, prefix string) (out []blob.Info, err error) {
	err = s.try(ctx, 0, func(ctx context.Context) error {
		out, err = s.list(ctx, prefix)
		return err
	})
	return out, s.failed("list", prefix, err)
}

// list also checks the order, since a server that sends the same page again and
// again would make it run forever.
func (s *Store) list(ctx context.Context, prefix string) (out []blob.Info, err error) {
	last := ""
	for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true}) {
		if o.Err != nil {
			return nil, o.Err
		}
		if o.Key <= last {
			return nil, final{fmt.Errorf("the server lists %q after %q", o.Key, last)}
		}
		last = o.Key
		name, ours := strings.CutPrefix(o.Key, s.key(""))
		if ours && strings.HasPrefix(name, prefix) && blob.ValidName(name) {
			out = append(out, blob.Info{Name: name, Size: o.Size})
		}
	}
	return out, ctx.Err() // the client ends a cancelled list without an error
}

// status returns the HTTP status of an error, or 0 if there was no answer.
func status(err error) int { return minio.ToErrorResponse(err).StatusCode }

// damaged reports whether the server found that the bytes it received are not
// those that were sent.
func damaged(err error) bool {
	switch minio.ToErrorResponse(err).Code {
	case "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "InvalidDigest", "RequestTimeout":
		return status(err) == http.StatusBadRequest
	}
	return false
}

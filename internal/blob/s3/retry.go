package s3

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

// pauses are the times to wait before a failed call is tried again.
var pauses = []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// A call that moves bytes is ended when it is slower than slowest, since then
// the server or the network hangs.
const (
	patience = time.Minute
	slowest  = 100 << 10 // bytes a second
)

// final is an error that another attempt would not avoid.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// try makes a call that moves so many bytes. It repeats the call while the
// error may be temporary.
func (s *Store) try(ctx context.Context, bytes int64, call func(context.Context) error) error {
	limit := patience + time.Duration(bytes)*time.Second/slowest
	for i := 0; ; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		attempt, cancel := context.WithTimeout(ctx, limit)
		err := call(attempt)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case i == len(pauses) || !passing(err):
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pauses[i]/2 + rand.N(pauses[i]/2+1)):
		}
	}
}

// passing reports whether an error may be temporary. It may be if there was no
// answer, if the server has a problem or asks to slow down, or if bytes arrived
// damaged.
func passing(err error) bool {
	code := status(err)
	switch {
	case errors.As(err, new(final)):
		return false
	case code == 0 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return true
	case code == http.StatusConflict: // AWS says that one of two concurrent requests may get this and should try again
		return minio.ToErrorResponse(err).Code == "ConditionalRequestConflict"
	}
	return code >= 500 && code != http.StatusNotImplemented || damaged(err)
}

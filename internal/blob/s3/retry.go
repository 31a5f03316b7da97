package s3

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

// pauses are how long a call that failed waits before it is made again.
var pauses = []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// A call that moves bytes is given up when it is slower than slowest: the
// server hangs, or the network does.
const (
	patience = time.Minute
	slowest  = 100 << 10 // bytes a second
)

// final is an error that another attempt does not mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// try makes a call that moves so many bytes, and makes it again while its
// error may pass.
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

// passing reports whether another attempt may do better: there was no answer,
// the server is in trouble or asks to slow down, or the bytes came damaged.
func passing(err error) bool {
	code := status(err)
	switch {
	case errors.As(err, new(final)):
		return false
	case code == 0 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return true
	case code == http.StatusConflict: // of two requests at once, says AWS: try again
		return minio.ToErrorResponse(err).Code == "ConditionalRequestConflict"
	}
	return code >= 500 && code != http.StatusNotImplemented || damaged(err)
}

// Package remote uses a store through a server, for the agent of a box. It is the
// other side of package boxapi. docs/protocol.md describes the protocol, and package
// wire has its messages. Everything that the server answers is checked, and every
// request can be repeated, so the agent rides out a server that is away for a while.
package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/wire"
)

// Config says which server is used, and how.
type Config struct {
	HTTP  *http.Client // as from NewHTTP
	Base  string       // "https://10.1.2.3:8444"
	Token string       // of the session; the agent draws it, and says it in its hello
	// Log is told when the server is away, and when it is back. nil means no log.
	Log func(format string, args ...any)
	// Alive is told at each try of a request while the server is away, and whenever the
	// server says that it still works on a commit. So a watchdog of the caller sees that
	// waiting is no standstill. It must not block. It may be nil.
	Alive func()
	// Away is how long the server may be away (0 means wire.AwayWait).
	Away time.Duration

	// Tests set this. 0 means the limit of package wire.
	Quiet time.Duration
}

// Client uses a store through a server. Its methods may be called from many
// goroutines at once.
type Client struct {
	cfg      Config
	sessions atomic.Uint64 // numbers given to sessions
	images   atomic.Uint64 // numbers given to images
	away     atomic.Bool   // the log was told that the server is away
	width    width         // of requests with objects
}

var _ chunk.Images = (*Client)(nil)

// New makes a client. It does not speak to the server yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("%q is no address of a server, as https://10.1.2.3:8444 is one", cfg.Base)
	}
	if !wire.ValidToken(cfg.Token) {
		return nil, errors.New("the session token has a form that no server gives")
	}
	cfg.Base = u.Scheme + "://" + u.Host
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	if cfg.Alive == nil {
		cfg.Alive = func() {}
	}
	if cfg.Away <= 0 {
		cfg.Away = wire.AwayWait
	}
	if cfg.Quiet <= 0 {
		cfg.Quiet = wire.QuietWait
	}
	return &Client{cfg: cfg}, nil
}

// connections is how many connections to the server there are at most.
const connections = 16

// NewHTTP makes an HTTP client that speaks only to a server with this key. The dates
// and names in the server's certificate do not matter.
func NewHTTP(key wire.Fingerprint) *http.Client {
	t := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // VerifyConnection compares the key instead
			VerifyConnection:   wire.Pinned("the server", key),
		},
		TLSHandshakeTimeout:    15 * time.Second,
		MaxIdleConnsPerHost:    connections,
		MaxConnsPerHost:        connections,
		IdleConnTimeout:        wire.QuietWait,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true,
		WriteBufferSize:        64 << 10,
		ReadBufferSize:         64 << 10,
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// AwayError says that the server was away for longer than the client waits.
type AwayError struct {
	For time.Duration
	Err error // of the last try
}

func (e *AwayError) Error() string {
	return fmt.Sprintf("the server has not answered for %v: %v", e.For.Round(time.Second), e.Err)
}

func (e *AwayError) Unwrap() error { return e.Err }

// try calls once until it succeeds, fails for good, or the server was away for too
// long. once says whether it came further, in which case the time begins anew.
func (c *Client) try(ctx context.Context, once func(ctx context.Context) (further bool, err error)) error {
	var since time.Time
	for n := 0; ; n++ {
		further, err := once(ctx)
		if err == nil {
			if c.away.CompareAndSwap(true, false) {
				c.cfg.Log("The server answers again.")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var away *awayError
		if !errors.As(err, &away) {
			return err
		}
		c.cfg.Alive()
		if further || since.IsZero() {
			since, n = time.Now(), 0
		}
		gone := time.Since(since)
		if gone >= c.cfg.Away {
			return &AwayError{gone, away.err}
		}
		if n == 2 && c.away.CompareAndSwap(false, true) {
			c.cfg.Log("The server does not answer (%v). Trying again for %v.", wire.Clean(away.err.Error()), c.cfg.Away)
		}
		if err := pause.For(ctx, min(wait(n), c.cfg.Away-gone)); err != nil {
			return err
		}
		c.cfg.Alive()
	}
}

// tryWhile is try for as long as a session or an image is open.
func (c *Client) tryWhile(ctx, open context.Context, once func(ctx context.Context) (further bool, err error)) error {
	if err := context.Cause(open); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(open, cancel)()
	err := c.try(inner, once)
	if closed := context.Cause(open); err != nil && closed != nil {
		return closed
	}
	return err
}

// wait returns how long to wait before try n+1. The waits grow from a tenth of a
// second to 15 seconds. They differ, so that boxes do not come all at once.
func wait(n int) time.Duration {
	w := min(100*time.Millisecond<<min(n, 10), 15*time.Second)
	return w*3/4 + time.Duration(time.Now().UnixNano()%int64(w/2))
}

// awayError is an error after which the same request is sent again.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

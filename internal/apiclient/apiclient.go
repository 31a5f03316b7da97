// Package apiclient speaks with the admin API of a server, over its Unix socket or
// over HTTPS. A server that does not answer is asked again for a while, which does no
// harm: a request that asks for jobs has a key, and all others say what is to be.
package apiclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/wire"
)

// Socket is where a server on this machine listens.
const Socket = "/run/testbox/testbox.sock"

// Config says which server is asked, and as whom.
type Config struct {
	// Server is the path of a Unix socket, or "https://server:8443".
	Server string
	Key    wire.Fingerprint // of the server, for HTTPS
	Token  string           // for HTTPS
	Run    string           // which run of a program asks; "" is none
	// Away is how long a server may not answer before a request fails (0 means a
	// minute).
	Away time.Duration
}

// Client speaks with a server.
type Client struct {
	cfg  Config
	base string
	http *http.Client
	sudo string // who called sudo, for the server's audit log
}

// answerWait is how long a server may take to begin its answer.
const answerWait = 2 * time.Minute

// ErrLost is matched by the error for a server that does not answer any more.
var ErrLost = errors.New("the connection to the server is lost")

// New makes a client. It does not speak to the server yet.
func New(cfg Config) (*Client, error) {
	if cfg.Away <= 0 {
		cfg.Away = time.Minute
	}
	if strings.HasPrefix(cfg.Server, "/") {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 15 * time.Second}).DialContext(ctx, "unix", cfg.Server)
		}
		t := &http.Transport{DialContext: dial, DisableCompression: true, ResponseHeaderTimeout: answerWait}
		return &Client{cfg: cfg, base: "http://testbox", http: &http.Client{Transport: t}, sudo: sudoUser()}, nil
	}
	base, err := BaseOf(cfg.Server)
	if err != nil {
		return nil, err
	}
	if !wire.ValidToken(cfg.Token) {
		return nil, errors.New("the token has characters that no token has")
	}
	h := remote.NewHTTP(cfg.Key)
	h.Transport.(*http.Transport).ResponseHeaderTimeout = answerWait
	return &Client{cfg: cfg, base: base, http: h}, nil
}

// sudoUser is who called sudo, if this is root by sudo.
func sudoUser() string {
	if os.Geteuid() != 0 {
		return ""
	}
	return os.Getenv("SUDO_USER")
}

// BaseOf checks and cleans the URL of a server.
func BaseOf(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("%.200q names no server; give the path of its socket, or a URL such as https://server:8443", server)
	}
	return "https://" + u.Host, nil
}

// KeyOf asks a server for the fingerprint of its key. Nobody vouches for the answer.
func KeyOf(ctx context.Context, server string) (wire.Fingerprint, error) {
	base, err := BaseOf(server)
	if err != nil {
		return wire.Fingerprint{}, err
	}
	host := strings.TrimPrefix(base, "https://")
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "443")
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 15 * time.Second},
		Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}} // the key is shown to a person
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return wire.Fingerprint{}, err
	}
	defer c.Close()
	certs := c.(*tls.Conn).ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return wire.Fingerprint{}, errors.New("the server shows no key")
	}
	return wire.FingerprintOf(certs[0]), nil
}

// Speaks returns an error if there is no admin API at a server with this key. Nothing
// secret is sent.
func Speaks(ctx context.Context, server string, key wire.Fingerprint) error {
	base, err := BaseOf(server)
	if err != nil {
		return err
	}
	c := &Client{cfg: Config{Key: key}, base: base, http: remote.NewHTTP(key)}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, Path("me"), nil, nil)
	if err == nil {
		resp.Body.Close()
		return nil
	}
	if p := (*api.Problem)(nil); errors.As(err, &p) && p.Code == api.CodeUnauthorized {
		return nil // it wants a token
	}
	return err
}

// Clock asks for the time of the server, which has seconds.
func (c *Client) Clock(ctx context.Context) (time.Time, error) {
	resp, err := c.send(ctx, http.MethodGet, "/healthz", nil, nil)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}

// Server is the server that is asked, as Config has it.
func (c *Client) Server() string { return c.cfg.Server }

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// maxAnswer is how many bytes of an answer are read.
const maxAnswer = 64 << 20

// Do makes a request. body is sent as JSON unless it is nil, and the answer is read into
// answer unless that is nil. The errors of package api and of package problem say what
// the server did not do.
func (c *Client) Do(ctx context.Context, method, path string, body, answer any) error {
	return c.try(ctx, func() error { return c.call(ctx, method, path, body, answer) })
}

// Once makes a request that must not be repeated, as one that cuts the power of a box. If it is not known
// whether it was done, the error matches ErrLost.
func (c *Client) Once(ctx context.Context, method, path string, body, answer any) error {
	err := c.call(ctx, method, path, body, answer)
	var away *awayError
	if !errors.As(err, &away) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return lost(0, away.err)
}

// call makes a request once. Its error is an awayError if the server may answer later.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	resp, err := c.send(ctx, method, path, data, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &awayError{err}
	case len(b) > maxAnswer:
		return errors.New("the server's answer has no end")
	case answer == nil || len(b) == 0:
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("the server's answer cannot be understood; is it of another version? %w", err)
	}
	return nil
}

// awayError is an error after which the same request is sent again.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// try calls once until it succeeds, fails for good, or the server was away for too long.
func (c *Client) try(ctx context.Context, once func() error) error {
	since := time.Now()
	for n := 0; ; n++ {
		err := once()
		var away *awayError
		if err == nil || !errors.As(err, &away) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		gone := time.Since(since)
		if gone >= c.cfg.Away || never(err) && gone >= notYet || errors.Is(err, fs.ErrPermission) {
			return lost(gone, away.err)
		}
		if err := pause.For(ctx, min(100*time.Millisecond<<min(n, 6), 5*time.Second)); err != nil {
			return err
		}
	}
}

// lost returns the error for a server that was away for too long. One that said that it
// was busy did answer.
func lost(gone time.Duration, last error) error {
	var p *api.Problem
	if errors.As(last, &p) {
		return &busyError{gone, p}
	}
	return fmt.Errorf("%w: %w", ErrLost, last)
}

// busyError says that a server has asked for patience all the time. It matches ErrLost,
// since a try before may have been begun.
type busyError struct {
	gone time.Duration
	said *api.Problem
}

func (e *busyError) Error() string {
	return fmt.Sprintf("the server has not come to it within %v: %v", e.gone.Round(time.Second), e.said)
}

func (e *busyError) Is(target error) bool { return target == ErrLost }
func (e *busyError) Unwrap() error        { return e.said }

// notYet is how long it is tried to reach a server that nobody listens for. It may be
// about to be started again.
const notYet = 2 * time.Second

// never reports whether nobody listens where the server should.
func never(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// send makes one request once. Its error is an awayError if the server may answer later.
func (c *Client) send(ctx context.Context, method, path string, body []byte, head http.Header) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range head {
		q.Header[name] = values
	}
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	if c.sudo != "" {
		q.Header.Set(api.SudoHeader, c.sudo)
	}
	if c.cfg.Run != "" {
		q.Header.Set(api.RunHeader, c.cfg.Run)
	}
	if c.cfg.Token != "" {
		q.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	resp, err := c.http.Do(q)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL says nothing to a user
		}
		if errors.Is(err, wire.ErrKey) {
			return nil, fmt.Errorf("the server shows another key than it did at `testbox login`: %w. "+
				"If it was set up anew, log in again; else somebody may be in between", err)
		}
		return nil, &awayError{err}
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &api.Problem{}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, p) != nil || p.Code == "" || p.Detail == "" {
		err := fmt.Errorf("the server answers %s; is it a Testbox server?", resp.Status)
		if resp.StatusCode >= 502 && resp.StatusCode <= 504 {
			return nil, &awayError{err} // a proxy before it
		}
		return nil, err
	}
	p.Clean()
	if p.Code == api.CodeBusy {
		return nil, &awayError{p}
	}
	return nil, p
}

// Get reads a file, such as a log or an inventory, from the server. If the connection breaks
// in the middle of it, the error matches ErrLost.
func (c *Client) Get(ctx context.Context, path string, to io.Writer) error {
	var resp *http.Response
	err := c.try(ctx, func() (err error) {
		resp, err = c.send(ctx, http.MethodGet, path, nil, nil)
		return err
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := &counter{to: to}
	if _, err = io.Copy(out, resp.Body); err != nil && out.err == nil && ctx.Err() == nil {
		return fmt.Errorf("%w in the middle of its answer: %w", ErrLost, err)
	}
	return err
}

// Sender makes a client that sends the backup of an upload, with the token of that. log
// is told when the server is away.
func (c *Client) Sender(token string, log func(format string, args ...any)) (*remote.Client, error) {
	return remote.New(remote.Config{HTTP: c.http, Base: c.base, Token: token, Away: c.cfg.Away, Log: log})
}

// Path joins parts into a path below the API's prefix. Each part is escaped.
func Path(parts ...string) string {
	var b strings.Builder
	b.WriteString(api.Prefix)
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

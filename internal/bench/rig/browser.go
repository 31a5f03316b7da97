package rig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/box"
)

// Browser is somebody who has logged in to the page of a server. It has a connection of its own, with HTTP/2 over TLS, as a
// browser has.
type Browser struct {
	http   *http.Client
	base   string
	cookie *http.Cookie
	read   atomic.Int64
}

// NewBrowser logs in to the page by a token, from an address of the network.
func (s *Site) NewBrowser(ctx context.Context, token string, from box.Addr) (*Browser, error) {
	b := &Browser{base: "https://" + s.API}
	dial := func(ctx context.Context, network, to string) (net.Conn, error) {
		d := net.Dialer{Timeout: startLimit, LocalAddr: &net.TCPAddr{IP: net.IP(from.IP().AsSlice())}}
		c, err := d.DialContext(ctx, network, to)
		return counted{c, &b.read}, err
	}
	b.http = &http.Client{
		Transport: &http.Transport{DialContext: dial, ForceAttemptHTTP2: true, TLSHandshakeTimeout: startLimit, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // the certificate was made a moment ago, on this machine
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, b.base+"/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r, err := b.http.Do(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	for _, c := range r.Cookies() {
		if c.Value != "" {
			b.cookie = c
		}
	}
	if r.StatusCode != http.StatusSeeOther || b.cookie == nil {
		return nil, fmt.Errorf("the login is answered by %s, without a cookie", r.Status)
	}
	return b, nil
}

// counted counts what comes over a connection.
type counted struct {
	net.Conn
	n *atomic.Int64
}

// Read implements net.Conn.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Received is how many bytes have come over the connections of the browser, with what TLS adds.
func (b *Browser) Received() int64 { return b.read.Load() }

// Close closes the connections of the browser.
func (b *Browser) Close() { b.http.CloseIdleConnections() }

// Open asks for a path, and returns the answer, which has the status 200 and HTTP/2. The caller closes its body.
func (b *Browser) Open(ctx context.Context, path string) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+path, nil)
	if err != nil {
		return nil, err
	}
	q.AddCookie(b.cookie)
	r, err := b.http.Do(q)
	if err != nil {
		return nil, err
	}
	if r.StatusCode != http.StatusOK || r.ProtoMajor != 2 {
		text, err := io.ReadAll(io.LimitReader(r.Body, 2000))
		return nil, errors.Join(fmt.Errorf("%s: %s by %s: %s", path, r.Status, r.Proto, text), err, r.Body.Close())
	}
	return r, nil
}

// Get reads a page.
func (b *Browser) Get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := b.Open(ctx, path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

package api_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/ledger"
)

// TestManyPagesOfABrowser: a browser has one connection of HTTP/2 for all its pages, of which each follows events. With
// HTTP/1.1 the seventh page would wait for ever. The address of a page can name 1000 boxes.
func TestManyPagesOfABrowser(t *testing.T) {
	r := newRig(t)
	token := r.token(ledger.Token{Name: "browser", Role: ledger.Viewer})
	var dials atomic.Int32
	h := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, to)
		}}}
	defer h.CloseIdleConnections()
	get := func(status int, path string) *http.Response {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
		must(t, err)
		q.Header.Set("Authorization", "Bearer "+token)
		a, err := h.Do(q)
		must(t, err)
		if a.ProtoMajor != 2 || a.StatusCode != status {
			t.Fatalf("%.60s: %s by %s", path, a.Status, a.Proto)
		}
		return a
	}
	get(200, "/api/v1/me").Body.Close()
	for range 50 {
		defer get(200, "/api/v1/events").Body.Close()
	}
	get(200, "/api/v1/me").Body.Close()
	// There is no such parameter, but the server has understood the address.
	get(400, "/api/v1/me?"+strings.Repeat("box=10.100.100.100&", 1000)).Body.Close()
	if n := dials.Load(); n != 1 {
		t.Errorf("the browser has opened %d connections", n)
	}
}

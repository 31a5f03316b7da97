package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/wire"
)

// openStore makes the store of a configuration.
func openStore(t *testing.T, cfg *Config) *store.Locked {
	t.Helper()
	must(t, store.InitDir(t.Context(), cfg.StoreDir()))
	s, err := store.OpenDir(t.Context(), cfg.StoreDir(), nil, false, t.Logf)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// newParts are the parts of a server with a state folder of its own.
func newParts(t *testing.T) Parts {
	t.Helper()
	b := newBoots(t)
	cfg := DefaultConfig()
	cfg.State = filepath.Dir(b.place.Boot.TFTP())
	cfg.Socket, cfg.Agents, cfg.API = filepath.Join(cfg.State, "socket"), "127.0.0.1:0", "127.0.0.1:0"
	cfg.TFTP, cfg.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	must(t, os.Mkdir(cfg.BoxesDir(), 0o755))
	must(t, os.WriteFile(filepath.Join(cfg.BoxesDir(), sharedir.Marker), nil, 0o644))
	return Parts{Config: &cfg, Place: b.place, Store: openStore(t, &cfg), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// run runs a server until stop is called, which returns its error.
func run(t *testing.T, p Parts) (at Addresses, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	p.Ready = func(a Addresses) { ready <- a }
	go func() { ended <- Run(ctx, p) }()
	stop = func() error { cancel(); return <-ended }
	select {
	case at = <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("the server is not ready")
	}
	return at, stop
}

func TestRun(t *testing.T) {
	p := newParts(t)
	var key wire.Fingerprint
	for start := range 2 {
		at, stop := run(t, p)
		if start > 0 && at.Key != key {
			t.Error("after a new start the server has another key")
		}
		key = at.Key
		checkListeners(t, at)
		second := p
		if err := Run(t.Context(), second); !errors.As(err, new(*problem.Error)) || !strings.Contains(err.Error(), "another server") {
			t.Errorf("a second server of this state folder: %v", err)
		}
		if err := stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if _, err := net.DialTimeout("tcp", at.Agents.String(), time.Second); err == nil {
			t.Error("a server that has ended takes agents")
		}
	}
}

// checkListeners speaks to each socket of a server.
func checkListeners(t *testing.T, at Addresses) {
	t.Helper()
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", at.Socket)
	}}}
	defer local.CloseIdleConnections()
	far := remote.NewHTTP(at.APIKey)
	defer far.CloseIdleConnections()
	for _, from := range []struct {
		client *http.Client
		url    string
	}{{local, "http://server/healthz"}, {far, "https://" + at.API.String() + "/healthz"}} {
		resp, err := from.client.Get(from.url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", from.url, resp.Status)
		}
	}
	// Somebody logs in at the port for boxes.
	must(t, apiclient.Speaks(t.Context(), "https://"+at.API.String(), at.APIKey))
	_, port, err := net.SplitHostPort(at.API.String())
	must(t, err)
	err = apiclient.Speaks(t.Context(), "https://"+at.Agents.String(), at.Key)
	if want := "this is the port for boxes, and not for the admin API; it is at port " + port; err == nil || err.Error() != want {
		t.Errorf("the API at the port for boxes: %v", err)
	}
	token := strings.Repeat("t", wire.MinToken)
	agents := remote.NewHTTP(at.Key)
	defer agents.CloseIdleConnections()
	c, err := remote.New(remote.Config{HTTP: agents, Base: "https://" + at.Agents.String(), Token: token, Away: 10 * time.Second})
	must(t, err)
	hello := &wire.Hello{
		Protocol: wire.Version, Box: addr(t, "10.0.0.7"), Arming: box.NewArming(), Secret: "1-0123", Token: token,
	}
	w, err := c.Hello(t.Context(), hello)
	if err == nil && w.Word != job.Refuse {
		t.Errorf("an agent that nobody armed is told %q", w.Word)
	}
	var p *wire.Problem
	if err != nil && !errors.As(err, &p) {
		t.Error(err)
	}
}

// TestTokensOfUploads: the token of an upload counts at the admin API alone, and that
// of a box does not count there.
func TestTokensOfUploads(t *testing.T) {
	p := newParts(t)
	at, stop := run(t, p)
	defer stop()
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", at.Socket)
	}}}
	defer local.CloseIdleConnections()
	resp, err := local.Post("http://server/api/v1/backups/web-1/uploads", "application/json", strings.NewReader("{}"))
	must(t, err)
	defer resp.Body.Close()
	var up struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&up); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("the upload begins with %s, %v", resp.Status, err)
	}
	agents := remote.NewHTTP(at.Key)
	defer agents.CloseIdleConnections()
	for _, from := range []struct {
		what, base, token string
		client            *http.Client
		counts            bool
	}{
		{"an upload at the API", "http://server", up.Token, local, true},
		{"an upload at the agents' listener", "https://" + at.Agents.String(), up.Token, agents, false},
		{"another token at the API", "http://server", strings.Repeat("t", wire.MinToken), local, false},
	} {
		c, err := remote.New(remote.Config{HTTP: from.client, Base: from.base, Token: from.token, Away: 10 * time.Second})
		must(t, err)
		_, err = c.Begin().Missing(t.Context(), []object.Key{{Kind: object.Chunk}})
		if from.counts && err != nil || !from.counts && !errors.Is(err, wire.ErrToken) {
			t.Errorf("%s: %v", from.what, err)
		}
	}
}

package boxapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conns"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/testenv/testkey"
	"testbox-imaging/internal/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want one that is %q", what, err, want)
	}
}

func newKey(t testing.TB) (tls.Certificate, wire.Fingerprint) {
	t.Helper()
	cert, key, err := testkey.New()
	must(t, err)
	return cert, key
}

// rig is a server over a store, which can be killed and started again.
type rig struct {
	t     testing.TB
	blobs blob.Store
	cert  tls.Certificate
	key   wire.Fingerprint
	addr  string
	tune  func(*boxapi.Config)

	mu       sync.Mutex // guards the fields below
	grants   map[string]boxapi.Grant
	store    *store.Store
	api      *boxapi.Server
	http     *http.Server
	listener net.Listener
}

const theBox = "10.0.0.7"

func newRig(t testing.TB, blobs blob.Store, tune func(*boxapi.Config)) *rig {
	t.Helper()
	r := &rig{t: t, blobs: blobs, addr: "127.0.0.1:0", tune: tune, grants: map[string]boxapi.Grant{}}
	r.cert, r.key = newKey(t)
	if blobs == nil {
		r.blobs = &mem.Store{}
	}
	if err := store.Init(t.Context(), r.blobs); err != nil && err != store.ErrExists {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(r.kill)
	return r
}

// start starts the server, as a new process would.
func (r *rig) start() {
	r.t.Helper()
	s, err := store.Open(context.Background(), store.Config{Blobs: r.blobs, PackSize: 4 << 20})
	must(r.t, err)
	cfg := boxapi.Config{
		Grants: r, Begin: func() chunk.Session { return s.Begin() }, Images: s,
		Committed: func(ctx context.Context, of string, arming box.Arming) (*image.Record, error) {
			records, _, err := s.Records(ctx)
			for _, rec := range records {
				if rec.Box == of && rec.Arming == arming {
					return rec, err
				}
			}
			return nil, err
		},
		Log: func(format string, args ...any) {},
	}
	if r.tune != nil {
		r.tune(&cfg)
	}
	api := boxapi.New(cfg)
	mux := http.NewServeMux()
	api.Routes(mux)
	l, err := net.Listen("tcp", r.addr)
	for range 100 { // a connection may have taken the port for a moment
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
		l, err = net.Listen("tcp", r.addr)
	}
	must(r.t, err)
	srv := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{r.cert}}}
	boxapi.Limit(srv)
	r.mu.Lock()
	r.addr, r.store, r.api, r.http = l.Addr().String(), s, api, srv
	r.listener = l
	r.mu.Unlock()
	go srv.ServeTLS(conns.Limit(l, 200, 100), "", "")
}

// kill ends the server without a word, as far as clients can see.
func (r *rig) kill() {
	r.mu.Lock()
	srv, api, l := r.http, r.api, r.listener
	r.http = nil
	r.mu.Unlock()
	if srv != nil {
		l.Close() // Serve may not have begun yet
		srv.Close()
		api.Close()
	}
}

// Grant implements boxapi.Authority.
func (r *rig) Grant(_ context.Context, token string, from netip.Addr) (boxapi.Grant, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g, ok := r.grants[token]
	if !ok || !from.IsLoopback() {
		return g, fs.ErrNotExist
	}
	return g, nil
}

// let makes a token for a grant.
func (r *rig) let(g boxapi.Grant) (token string) {
	token = rand.Text()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grants[token] = g
	return token
}

func anything(string, string, string) bool { return true }

// all is a grant for everything.
var all = boxapi.Grant{Box: theBox, Backup: true, MayRead: anything}

// client makes a client with a token for a grant.
func (r *rig) client(g boxapi.Grant) *remote.Client { return r.clientOf(r.let(g), nil) }

func (r *rig) clientOf(token string, tune func(*remote.Config)) *remote.Client {
	cfg := remote.Config{HTTP: remote.NewHTTP(r.key), Base: "https://" + r.addr, Token: token, Log: r.t.Logf}
	if tune != nil {
		tune(&cfg)
	}
	c, err := remote.New(cfg)
	must(r.t, err)
	r.t.Cleanup(cfg.HTTP.CloseIdleConnections)
	return c
}

func (r *rig) records() []*image.Record {
	r.t.Helper()
	records, damaged, err := r.store.Records(context.Background())
	if err != nil || len(damaged) > 0 {
		r.t.Fatal(err, damaged)
	}
	return records
}

func memory(t testing.TB) *rig { return newRig(t, nil, nil) }

// object1 makes a chunk.
func object1(seed byte) object.Object {
	raw := bytes.Repeat([]byte{seed, 'x', seed ^ 0x55, 'y'}, 10_000)
	return object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf(raw)}, raw, nil)
}

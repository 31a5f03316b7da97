package store

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/wire"
)

// everything grants everything to each token.
type everything struct{}

func (everything) Grant(_ context.Context, token string, _ netip.Addr) (boxapi.Grant, error) {
	if token == "" {
		return boxapi.Grant{}, fs.ErrNotExist
	}
	return boxapi.Grant{Box: "10.0.0.7", Backup: true, MayRead: func(string, string, string) bool { return true }}, nil
}

// away is how long a request is tried. The server is always there, and what hangs must
// say so before the test runs out of time.
const away = 10 * time.Second

// TestConformRemote runs the suite over HTTPS, as the agent of a box uses a store.
func TestConformRemote(t *testing.T) {
	conform.ChunkStore(t, func(t *testing.T) conform.ChunkStoreUnderTest {
		s := open(t, &mem.Store{})
		under := underTestOf(s, t)
		api := boxapi.New(boxapi.Config{Grants: everything{}, Begin: under.Begin, Images: s})
		mux := http.NewServeMux()
		api.Routes(mux)
		srv := httptest.NewUnstartedServer(mux)
		boxapi.Limit(srv.Config)
		srv.StartTLS()
		t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); api.Close() })
		var tokens atomic.Int64
		client := func() *remote.Client {
			http := remote.NewHTTP(wire.FingerprintOf(srv.Certificate()))
			c, err := remote.New(remote.Config{HTTP: http, Base: srv.URL, Token: fmt.Sprint(tokens.Add(1)), Log: t.Logf,
				Away: away, Quiet: away})
			must(t, err)
			return c
		}
		under.Begin = func() chunk.Session { return client().Begin() }
		under.Images = client()
		return under
	})
}

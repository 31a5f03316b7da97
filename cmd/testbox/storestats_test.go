package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/forecast"
)

// TestForetold: beside a server that has the store open, `store stats` says when it will be full. Of
// another store, or without a server, it says nothing of that, and no error.
func TestForetold(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	text, err := os.ReadFile(s.path("store/store"))
	if err != nil {
		t.Fatal(err)
	}
	socket := s.path("socket")
	t.Setenv(serverEnv, socket)
	const says = "The server of this machine says of this store: "
	if out := s.run(0, "store", "stats"); !strings.HasPrefix(out, "0 backups") || strings.Contains(out, says) {
		t.Error(out)
	}
	var has api.Store
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2031, 2, 3, 0, 0, 0, 0, time.UTC)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/store":
			json.NewEncoder(w).Encode(has)
		case "/api/v1/store/history":
			json.NewEncoder(w).Encode(api.StoreHistory{Forecast: api.StoreForecast{State: forecast.Full, Day: &day, PerDay: 1 << 30}})
		default:
			http.NotFound(w, r)
		}
	})}
	go srv.Serve(l)
	defer srv.Close()
	has.ID = "another"
	if out := s.run(0, "store", "stats"); strings.Contains(out, says) {
		t.Errorf("of another store: %s", out)
	}
	_, text, _ = bytes.Cut(text, []byte("\n")) // its checksum
	var is struct{ UUID string }
	if err := json.Unmarshal(text, &is); err != nil || is.UUID == "" {
		t.Fatalf("%v in %s", err, text)
	}
	has.ID = is.UUID
	if out := s.run(0, "store", "stats"); !strings.Contains(out, says+"It will be full on 2031-02-03, if it goes on") {
		t.Error(out)
	}
	if out := s.run(0, "store", "stats", "--json"); !json.Valid([]byte(out)) {
		t.Errorf("no JSON: %s", out)
	}
}

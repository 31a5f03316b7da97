package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	sending "testbox-imaging/internal/remote"
	"testbox-imaging/internal/wire"
)

// uploadServer answers questions for objects. commit answers commits.
type uploadServer struct {
	asked  atomic.Int64
	commit func(w http.ResponseWriter, r *http.Request)
}

func (s *uploadServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/missing"):
		s.asked.Add(1)
		w.Write([]byte{1})
	case strings.Contains(r.URL.Path, "/commits/"):
		s.commit(w, r)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func newUpload(t *testing.T, s *uploadServer, every time.Duration) *uploadSession {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c, err := sending.New(sending.Config{HTTP: srv.Client(), Base: srv.URL, Token: "upload-a", Away: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	u := newUploadSession(c, every)
	t.Cleanup(func() { u.Close() })
	return u
}

func refuse(code wire.Code) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		p := &wire.Problem{Code: code, Text: "no"}
		w.Header().Set("Content-Type", wire.ProblemType)
		w.WriteHeader(p.Status())
		w.Write(p.Marshal())
	}
}

// TestUploadStays: a server is asked again and again while nothing is sent, or it would
// end the session.
func TestUploadStays(t *testing.T) {
	s := &uploadServer{}
	u := newUpload(t, s, time.Millisecond)
	for end := time.Now().Add(10 * time.Second); s.asked.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the server was asked %d times", s.asked.Load())
		}
	}
	u.Close()
	for end := time.Now().Add(10 * time.Second); ; { // what was on the way may arrive a moment later
		n := s.asked.Load()
		if time.Sleep(50 * time.Millisecond); s.asked.Load() == n {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server is asked after the end")
		}
	}
}

// TestUploadEnds says of each end of an upload whether there is a backup, as far as that
// is known.
func TestUploadEnds(t *testing.T) {
	record := func() *image.Record {
		return &image.Record{Format: image.RecordFormat, Box: "web-1", Arming: "0123456789abcdef", Disks: []image.RecordedDisk{{
			Name: "sda", Disk: image.Identity{Size: 512, SectorSize: 512}, Root: object.Name{1}, Data: 512,
		}}}
	}
	for _, c := range []struct {
		what   string
		commit func(http.ResponseWriter, *http.Request)
		code   int
	}{
		{"the server knows the session no more", refuse(wire.CodeToken), exitLost},
		{"the server is away", refuse(wire.CodeBusy), exitLost},
		{"an object is missing", refuse(wire.CodeMissing), exitFailed},
		{"the server refuses", refuse(wire.CodeRefused), exitFailed},
	} {
		err := newUpload(t, &uploadServer{commit: c.commit}, time.Hour).Commit(t.Context(), record())
		unknown := err != nil && strings.Contains(err.Error(), "it is not known whether the backup was made")
		if code := exitCode(err, true); code != c.code || unknown != (code == exitLost) {
			t.Errorf("%s: %d, %v", c.what, code, err)
		}
	}

	// Who is interrupted while the server works waits for it a little.
	ctx, cancel := context.WithCancel(t.Context())
	u := newUpload(t, &uploadServer{commit: func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		time.Sleep(50 * time.Millisecond)
		w.Write([]byte(`{"id":"20261127-004616","time":"2026-11-27T00:46:16Z"}`))
	}}, time.Hour)
	if r := record(); u.Commit(ctx, r) != nil || r.ID != "20261127-004616" || r.Arming == "" {
		t.Errorf("interrupted in the commit: %+v", r)
	}

	// Before the commit there is no backup.
	away := httptest.NewServer(http.HandlerFunc(refuse(wire.CodeToken)))
	defer away.Close()
	c, err := sending.New(sending.Config{HTTP: away.Client(), Base: away.URL, Token: "upload-a"})
	if err != nil {
		t.Fatal(err)
	}
	u = newUploadSession(c, time.Hour)
	defer u.Close()
	_, err = u.Missing(t.Context(), []object.Key{{Kind: object.Chunk}})
	if err == nil || !strings.Contains(err.Error(), "no backup was made") || errors.Is(err, wire.ErrToken) {
		t.Errorf("before the commit: %v", err)
	}
}

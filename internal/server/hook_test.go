package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/problem"
)

// receiver is a web server that is told of jobs. It refuses the first requests.
type receiver struct {
	secret string
	refuse int

	mu   sync.Mutex // guards the fields below
	ids  []string
	jobs []api.Job
	errs []error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	check, keyErr := standardwebhooks.NewWebhook(r.secret)
	err = errors.Join(err, keyErr)
	if err == nil {
		err = check.Verify(body, req.Header)
	}
	var m struct {
		Type string
		Data api.Job
	}
	if err = errors.Join(err, json.Unmarshal(body, &m)); err != nil || m.Type != "job.ended" {
		r.errs = append(r.errs, err)
	}
	r.ids = append(r.ids, req.Header.Get("webhook-id"))
	if len(r.ids) <= r.refuse {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	r.jobs = append(r.jobs, m.Data)
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// TestHook has a receiver that refuses two requests. It must get the message in the
// end, with the same id each time, and with signatures that the standard's own
// library accepts.
func TestHook(t *testing.T) {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", 32)))
	r := &receiver{secret: secret, refuse: 2}
	srv := httptest.NewServer(r)
	defer srv.Close()
	h, err := newHooks([]Hook{{srv.URL, secretFile(t, secret+"\n")}}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	must(t, err)
	h.pauses = []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { h.run(ctx) })
	m, err := messageOf(api.Job{ID: "j7", Box: "10.0.0.7", Outcome: "done"})
	must(t, err)
	h.tell(m)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		got := len(r.jobs)
		r.mu.Unlock()
		if got > 0 || time.Now().After(end) {
			break
		}
	}
	stop()
	running.Wait()
	if len(r.jobs) != 1 || r.jobs[0].ID != "j7" || r.jobs[0].Outcome != "done" || len(r.errs) > 0 {
		t.Errorf("the receiver got %+v, %v", r.jobs, r.errs)
	}
	for _, id := range r.ids {
		if id != m.id || len(r.ids) != 3 {
			t.Errorf("the requests had the ids %q", r.ids)
		}
	}
}

// TestHookGivesUp has a receiver that never takes anything. Others must not wait.
func TestHookGivesUp(t *testing.T) {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", 24)))
	r := &receiver{secret: secret, refuse: 1000}
	srv := httptest.NewServer(r)
	defer srv.Close()
	var said strings.Builder
	h, err := newHooks([]Hook{{srv.URL, secretFile(t, secret)}}, slog.New(slog.NewTextHandler(&said, nil)))
	must(t, err)
	h.pauses = []time.Duration{time.Millisecond}
	h.deliver(t.Context(), h.all[0], message{"job-1", []byte("{}")})
	if len(r.ids) != 2 || !strings.Contains(said.String(), "did not take a message") {
		t.Errorf("after %d tries the log says %q", len(r.ids), &said)
	}
	for range hookQueue + 1 { // nobody takes them
		h.tell(message{"job-2", nil})
	}
	if !strings.Contains(said.String(), "misses one") {
		t.Errorf("the log says %q", &said)
	}
}

func TestHookSecretRefused(t *testing.T) {
	for _, text := range []string{
		"", "whsec_", "whsec_%%%", "whsec_c2hvcnQ=", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", strings.Repeat("x", 2000),
	} {
		_, err := newHooks([]Hook{{"https://x", secretFile(t, text)}}, nil)
		if err == nil || len(text) < 1000 && !errors.As(err, new(*problem.Error)) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

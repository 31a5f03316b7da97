package server

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/problem"
)

// Hook is who is told of each job that has ended, by a request in the form of
// Standard Webhooks 1.0 (standardwebhooks.com).
type Hook struct {
	URL string `toml:"url"`
	// SecretFile has the secret that signs the requests: "whsec_" and 24 to 64 bytes in
	// base64.
	SecretFile string `toml:"secret-file"`
}

func (h *Hook) check() error {
	u, err := url.Parse(h.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return fmt.Errorf("hooks: %.80q is no URL of a web server", h.URL)
	}
	if !strings.HasPrefix(h.SecretFile, "/") {
		return fmt.Errorf("hooks: secret-file of %s is no absolute path", h.URL)
	}
	return nil
}

// readSecret reads the key that signs the requests.
func (h *Hook) readSecret() ([]byte, error) {
	text, err := durable.ReadFile(durable.OS{}, h.SecretFile, 1024)
	if err != nil {
		return nil, err
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, problem.Wrongf("%s has no secret of a web hook: whsec_ and 24 to 64 bytes in base64", h.SecretFile)
	}
	return key, nil
}

// These bound what is done for a hook that does not answer. What it has not taken by
// then, or when the server ends, it is never told; the API has all jobs.
const (
	hookQueue = 1000 // messages that wait
	hookWait  = 20 * time.Second
)

// hookPauses are how long is waited after each try that failed.
var hookPauses = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute}

// message is what hooks are told.
type message struct {
	id   string
	body []byte
}

// hooks tells all hooks of jobs that have ended.
type hooks struct {
	log    *slog.Logger
	client *http.Client
	pauses []time.Duration
	now    func() time.Time
	all    []*hook
}

type hook struct {
	Hook
	key   []byte
	queue chan message
}

func newHooks(all []Hook, log *slog.Logger) (*hooks, error) {
	h := &hooks{log: log, pauses: hookPauses, now: time.Now, client: &http.Client{
		Timeout:       hookWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, one := range all {
		key, err := one.readSecret()
		if err != nil {
			return nil, err
		}
		h.all = append(h.all, &hook{one, key, make(chan message, hookQueue)})
	}
	return h, nil
}

// messageOf makes the message of a job that has ended. Its id is the same however
// often it is sent, so that a receiver knows a repetition.
func messageOf(j api.Job) (message, error) {
	body, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      api.Job   `json:"data"`
	}{"job.ended", j.Since, j})
	return message{"job-" + j.ID, body}, err
}

// tell puts a message into the queues of all hooks. It waits for none.
func (h *hooks) tell(m message) {
	for _, one := range h.all {
		select {
		case one.queue <- m:
		default:
			h.log.Error("A web hook has too many messages waiting, and misses one.", "url", one.URL, "message", m.id)
		}
	}
}

// run sends messages until ctx ends.
func (h *hooks) run(ctx context.Context) {
	var wait sync.WaitGroup
	for _, one := range h.all {
		wait.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case m := <-one.queue:
					h.deliver(ctx, one, m)
				}
			}
		})
	}
	wait.Wait()
}

// deliver sends a message until it is taken.
func (h *hooks) deliver(ctx context.Context, to *hook, m message) {
	for try := 0; ; try++ {
		err := h.send(ctx, to, m)
		switch {
		case err == nil, ctx.Err() != nil:
			return
		case try == len(h.pauses):
			h.log.Error("A web hook did not take a message.", "url", to.URL, "message", m.id, "tries", try+1, "error", err)
			return
		}
		if pause.For(ctx, h.pauses[try]) != nil {
			return
		}
	}
}

func (h *hooks) send(ctx context.Context, to *hook, m message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(m.body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(h.now().Unix(), 10)
	mac := hmac.New(sha256.New, to.key)
	fmt.Fprintf(mac, "%s.%s.%s", m.id, at, m.body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("webhook-id", m.id)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return errors.New("it answers " + resp.Status)
	}
	return nil
}

package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// Hook is who is told of each job that has ended, by a request in the form of
// Standard Webhooks 1.0 (standardwebhooks.com).
type Hook struct {
	URL string `toml:"url"`
	// SecretFile has the secret that signs the requests: "whsec_" and 24 to 64 bytes in
	// base64. While a secret is changed, it has both, each in a line of its own.
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

// readSecrets reads the keys that sign the requests.
func (h *Hook) readSecrets() (keys [][]byte, err error) {
	text, err := durable.ReadFile(durable.OS{}, h.SecretFile, 1024)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Fields(string(text)) {
		encoded, ok := strings.CutPrefix(line, "whsec_")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			keys = nil
			break
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > maxSecrets {
		return nil, problem.Wrongf("%s has no secret of a web hook, or more than %d: whsec_ and 24 to 64 bytes in base64",
			h.SecretFile, maxSecrets)
	}
	return keys, nil
}

const maxSecrets = 4

// These bound what is done for a hook that does not answer. What it has not taken by
// then it is never told; the API has all jobs.
const (
	hookQueue  = 1000             // messages that wait
	hookWait   = 20 * time.Second // for an answer
	hookLonger = time.Hour        // the longest Retry-After that is heeded
	// What ended earlier is not told after a start of the server.
	hookDay = 24 * time.Hour
	// A job that ended may be told of so much later.
	hookLate = 10 * time.Minute
	hookTold = 5000 // ids that are remembered
)

// hookPauses are how long is waited after each try that failed: 21 hours in all, so that a
// receiver that is off for a night is told in the morning.
var hookPauses = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	2 * time.Hour, 6 * time.Hour, 12 * time.Hour}

// message is what hooks are told.
type message struct {
	id    string
	ended time.Time // the job
	body  []byte
}

// messageOf makes the message of a job that has ended. Its id is the same however
// often it is sent, so that a receiver knows a repetition.
func messageOf(j api.Job) (message, error) {
	body, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      api.Job   `json:"data"`
	}{"job.ended", j.Since, j})
	return message{"job-" + j.ID, j.Since, body}, err
}

// bootMessageOf makes the message of a boot test that has failed.
func bootMessageOf(e api.BootTestEvent) (message, error) {
	body, err := json.Marshal(struct {
		Type      string            `json:"type"`
		Timestamp time.Time         `json:"timestamp"`
		Data      api.BootTestEvent `json:"data"`
	}{"boot-test.failed", e.Boot.Time, e})
	of := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", e.Box, e.Backup, e.Boot.Time.Unix()))
	return message{fmt.Sprintf("boot-test-%x", of[:16]), e.Boot.Time, body}, err
}

// hooks tells all hooks of jobs that have ended. What they were told is in a file, so that
// a server that was ended goes on with what it has not told.
type hooks struct {
	log    *slog.Logger
	file   string
	client *http.Client
	pauses []time.Duration
	now    func() time.Time
	all    []*hook
	caught atomic.Bool // what ended before this start of the server is in the queues
}

// hook is one receiver.
type hook struct {
	Hook
	keys [][]byte
	news chan struct{} // holds one value if there are new messages

	mu      sync.Mutex // guards the fields below
	pending []*pending
	told    map[string]time.Time // messages that it was told, or that were given up, with when their jobs ended
	since   time.Time            // what ended before that is told or given up
	gone    bool                 // it wants to be told no more
	changed bool                 // the file is behind
}

// pending is a message that was not taken yet.
type pending struct {
	message
	tries int
	at    time.Time // when it is sent next
}

// hookMark is what the file has of a hook.
type hookMark struct {
	Since time.Time            `json:"since"`
	Told  map[string]time.Time `json:"told"`
}

func newHooks(all []Hook, file string, log *slog.Logger) (*hooks, error) {
	h := &hooks{log: log, file: file, pauses: hookPauses, now: time.Now, client: &http.Client{
		Timeout:       hookWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if len(all) == 0 {
		return h, nil
	}
	marks := map[string]hookMark{}
	switch text, err := durable.ReadFile(durable.OS{}, file, 64<<20); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(text, &marks); err != nil {
			log.Error("It is not known what web hooks were told; they are told of what ends from now on.", "file", file, "error", err)
		}
	}
	now := h.now()
	for _, one := range all {
		keys, err := one.readSecrets()
		if err != nil {
			return nil, problem.Wrongf("the secret of the web hook %s, which the server's user must be able to read: %w", one.URL, err)
		}
		to := &hook{Hook: one, keys: keys, news: make(chan struct{}, 1), told: map[string]time.Time{}, since: now, changed: true}
		if m, known := marks[one.URL]; known && m.Since.Before(now) {
			if to.since = m.Since; m.Since.Before(now.Add(-hookDay)) {
				to.since = now.Add(-hookDay)
			}
			if m.Told != nil {
				to.told = m.Told
			}
		}
		h.all = append(h.all, to)
	}
	return h, nil
}

// missed is the time from which on ended jobs may not have been told of. It is zero if
// there are no hooks.
func (h *hooks) missed() (since time.Time) {
	for _, one := range h.all {
		one.mu.Lock()
		if since.IsZero() || one.since.Before(since) {
			since = one.since
		}
		one.mu.Unlock()
	}
	return since
}

// tell puts a message into the queues of all hooks that do not know it. It waits for none.
func (h *hooks) tell(m message) { h.add(m, false) }

// tellAgain is tell for a job of which hooks may have been told before this server was
// started. A hook that is new is not told of it.
func (h *hooks) tellAgain(m message) { h.add(m, true) }

func (h *hooks) add(m message, again bool) {
	for _, one := range h.all {
		one.mu.Lock()
		_, known := one.told[m.id]
		known = known || slices.ContainsFunc(one.pending, func(p *pending) bool { return p.id == m.id })
		full := len(one.pending) >= hookQueue
		ok := !known && !one.gone && !(again && m.ended.Before(one.since))
		if ok && !full {
			one.pending = append(one.pending, &pending{message: m})
			one.changed = true
		}
		one.mu.Unlock()
		switch {
		case ok && full:
			h.log.Error("A web hook has too many messages waiting, and misses one.", "url", one.URL, "message", m.id)
		case ok:
			select {
			case one.news <- struct{}{}:
			default:
			}
		}
	}
}

// run sends messages until ctx ends.
func (h *hooks) run(ctx context.Context) {
	if len(h.all) == 0 {
		return
	}
	var wait sync.WaitGroup
	for _, one := range h.all {
		wait.Go(func() { h.serve(ctx, one) })
	}
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for end := false; ; {
		if err := h.save(); err != nil {
			h.log.Error("What web hooks were told cannot be stored; after a start of the server some are told again.", "error", err)
		}
		if end {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			wait.Wait()
			end = true
		}
	}
}

// save writes down what all hooks were told.
func (h *hooks) save() error {
	marks, changed := map[string]hookMark{}, false
	for _, one := range h.all {
		m, c := one.mark(h.now(), h.caught.Load())
		marks[one.URL] = m
		changed = changed || c
	}
	if !changed {
		return nil
	}
	text, err := json.Marshal(marks)
	if err == nil {
		err = durable.WriteFile(durable.OS{}, h.file, text, 0o600)
	}
	for _, one := range h.all {
		if err != nil {
			one.mu.Lock()
			one.changed = true
			one.mu.Unlock()
		}
	}
	return err
}

// mark is what the file has of the hook, and forgets what is too old to be told again.
// caught says that what ended before this start of the server is in the queue.
func (t *hook) mark(now time.Time, caught bool) (hookMark, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if late := now.Add(-hookLate); caught && late.After(t.since) {
		t.since = late
	}
	for _, p := range t.pending {
		if p.ended.Before(t.since) {
			t.since = p.ended
		}
	}
	ids := slices.SortedFunc(maps.Keys(t.told), func(a, b string) int {
		return cmp.Or(t.told[a].Compare(t.told[b]), strings.Compare(a, b))
	})
	for i, id := range ids {
		if t.told[id].Before(t.since) || i < len(ids)-hookTold {
			delete(t.told, id)
		}
	}
	changed := t.changed
	t.changed = false
	return hookMark{t.since, maps.Clone(t.told)}, changed
}

// serve sends a hook its messages, one at a time. One that it refuses holds up no other.
func (h *hooks) serve(ctx context.Context, to *hook) {
	var rest time.Time // the receiver is left alone until then
	for silent := 0; ; {
		p := to.next()
		var timer <-chan time.Time
		if p != nil {
			at := p.at
			if rest.After(at) {
				at = rest
			}
			timer = time.After(at.Sub(h.now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-to.news:
			continue
		case <-timer:
		}
		var refusal *hookRefusal
		err := h.send(ctx, to, p.message)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.As(err, &refusal) && !refusal.busy:
			silent, rest = 0, time.Time{}
		default: // it is away, so the next one would not get there either
			silent++
			rest = h.now().Add(min(time.Duration(silent)*h.pauses[0], time.Minute))
		}
		h.settle(to, p, err)
	}
}

// next is the message that is sent next.
func (t *hook) next() *pending {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 {
		return nil
	}
	return slices.MinFunc(t.pending, func(a, b *pending) int { return a.at.Compare(b.at) })
}

// settle notes how a try has ended.
func (h *hooks) settle(to *hook, p *pending, err error) {
	to.mu.Lock()
	defer to.mu.Unlock()
	var refusal *hookRefusal
	gone := errors.As(err, &refusal) && refusal.status == http.StatusGone
	p.tries++
	switch {
	case err == nil:
	case gone:
		h.log.Error("A web hook wants no more messages (410 Gone); it gets none until the server is started again.", "url", to.URL)
		to.gone, to.pending = true, nil
	case p.tries > len(h.pauses):
		h.log.Error("A web hook did not take a message.", "url", to.URL, "message", p.id, "tries", p.tries, "error", err)
	default:
		wait := h.pauses[p.tries-1]
		wait += rand.N(wait/10 + 1) // so that many messages do not come at once
		if refusal != nil {
			wait = max(wait, refusal.after)
		}
		p.at = h.now().Add(wait)
		return
	}
	to.pending = slices.DeleteFunc(to.pending, func(other *pending) bool { return other == p })
	to.told[p.id], to.changed = p.ended, true
}

// hookRefusal is an answer of a receiver that did not take a message.
type hookRefusal struct {
	status int
	text   string
	busy   bool          // it takes none at all now
	after  time.Duration // it asks to be left alone for so long
}

func (e *hookRefusal) Error() string { return "it answers " + e.text }

func (h *hooks) send(ctx context.Context, to *hook, m message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(m.body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(h.now().Unix(), 10)
	var signatures []string
	for _, key := range to.keys {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", m.id, at, m.body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("webhook-id", m.id)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", strings.Join(signatures, " "))
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return nil
	}
	seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	return &hookRefusal{resp.StatusCode, resp.Status, resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests,
		min(time.Duration(seconds)*time.Second, hookLonger)}
}

package page_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
)

// foreign is a text as somebody else may have chosen it.
const foreign = "<script>alert(1)</script>\"'{{.}}<img src=x onerror=alert(1)>"

// has fails the test for each text that a page does not have.
func has(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("the page has no %q: %s", text, page)
		}
	}
}

// hasNone fails the test for each text that a page has.
func hasNone(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(page, text) {
			t.Errorf("the page has %q: %s", text, page)
		}
	}
}

// asks makes a job, and returns its id.
func (r *rig) asks(a string, what box.Action, by, key string) string {
	r.t.Helper()
	all, err := r.lab.Dispatch.Add(r.t.Context(), dispatch.Request{Boxes: []box.Addr{addr(r.t, a)}, Action: what, By: by, Key: key})
	must(r.t, err)
	return all[0].ID
}

// until waits until a page has a text.
func (b *browser) until(path, text string) string {
	b.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		page := b.shows(path)
		if strings.Contains(page, text) {
			return page
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s has never had %q: %s", path, text, page)
		}
	}
}

// TestQueue shows what is under way, what waits and why, and what has ended, and offers to cancel to those who may.
func TestQueue(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.103"), Name: "slow-box"})
	armed := r.asks("10.0.0.103", box.Backup, "token of ann", "")
	waits := r.asks("10.0.0.103", box.Verify, "token of bob", "")
	r.done(addr(t, "10.0.0.1"), box.Backup)
	v := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	text := v.until("/jobs", "backup: armed")
	has(t, text, `href="/jobs/`+armed, `href="/jobs/`+waits, "slow-box", "token of ann", "Under way <small>1</small>", "Waiting <small>1</small>",
		`id="queue" data-again`, "s-done", "It ends by itself in", `aria-current="page">Queue`)
	hasNone(t, text, "/act/cancel")
	o := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	has(t, o.shows("/jobs"), "/act/cancel?job="+armed, "/act/cancel?job="+waits)

	text = v.shows("/jobs?box=slow-box")
	has(t, text, armed, waits)
	hasNone(t, text, "10.0.0.1<")
	text = v.shows("/jobs?by=token+of+bob")
	has(t, text, waits)
	hasNone(t, text, "/jobs/"+armed)
	text = v.shows("/jobs?state=queued")
	has(t, text, waits)
	hasNone(t, text, "/jobs/"+armed, "Ended</h2>")
	text = v.shows("/jobs?state=ended")
	has(t, text, "10.0.0.1<")
	hasNone(t, text, "/jobs/"+armed, "/jobs/"+waits)
	has(t, v.shows("/jobs?box=nobody"), `role="alert"`, "nobody", "All jobs")
	has(t, v.shows("/jobs?after="+url.QueryEscape(foreign)), `role="alert"`)
	has(t, v.shows("/jobs?state="+url.QueryEscape(foreign)), `role="alert"`)
	for _, path := range []string{"/jobs?box=", "/jobs?by=", "/jobs?key=", "/jobs?state=", "/jobs?after=", "/jobs?from="} {
		_, text := v.get(path + url.QueryEscape("\u202e"+foreign))
		hasNone(t, text, "<script>alert", "<img", "\u202e")
	}
}

// TestQueueOfKey is where a request for many boxes leads: it says how many of them have done what was asked for.
func TestQueueOfKey(t *testing.T) {
	r := newRig(t)
	r.asks("10.0.0.1", box.Backup, "token of ann", "k1")
	r.asks("10.0.0.101", box.Backup, "token of ann", "k1")
	r.asks("10.0.0.103", box.Backup, "token of ann", "k1")
	other := r.asks("10.0.0.4", box.Backup, "token of ann", "k2")
	v := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	text := v.until("/jobs?key=k1", "3 in all: 1 done; 1 refused; 1 not ended.")
	hasNone(t, text, other)
	if strings.Index(text, "s-refused") > strings.Index(text, "s-done") {
		t.Error("the job that was refused is behind the one that is done")
	}
}

// TestQueuePages goes through a long list of jobs, and meets each once.
func TestQueuePages(t *testing.T) {
	r := newRig(t)
	r.done(addr(t, "10.0.0.9"), box.Backup)
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		all, _, err := tx.Jobs(ledger.JobFilter{}, ledger.Page{})
		if err != nil {
			return err
		}
		for i := range 250 {
			j := all[0]
			j.ID = fmt.Sprintf("old-%03d", i)
			j.Created = time.Date(2026, 1, 1, 0, 0, i/2, 0, time.UTC)
			j.Doc = json.RawMessage(strings.ReplaceAll(string(j.Doc), all[0].ID, j.ID))
			if err := tx.AddJob(j); err != nil {
				return err
			}
		}
		return nil
	}))
	v := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	met := map[string]bool{}
	path, n := "/jobs", 0
	for ; path != ""; n++ {
		text := v.shows(path)
		for _, m := range regexp.MustCompile(`href="/jobs/(old-\d+)"`).FindAllStringSubmatch(text, -1) {
			if met[m[1]] {
				t.Errorf("%s is there twice", m[1])
			}
			met[m[1]] = true
		}
		next := regexp.MustCompile(`href="([^"]+)">Older jobs`).FindStringSubmatch(text)
		if path = ""; next != nil {
			path = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	if len(met) != 250 || n != 3 {
		t.Errorf("%d jobs on %d pages", len(met), n)
	}
}

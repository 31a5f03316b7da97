package page_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sight"
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
	has(t, text, `href="/jobs/`+armed, `href="/jobs/`+waits, "slow-box", "token of ann", "Under way <small>1</small>",
		"Waiting <small>1</small>",
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

// TestQueueOfRoom: of boxes that restore the same backup the queue says how they go on together, and each job from where its
// chunks come.
func TestQueueOfRoom(t *testing.T) {
	r := newRig(t)
	r.done(addr(t, "10.0.0.1"), box.Backup)
	boxes := []box.Addr{addr(t, "10.0.0.109"), addr(t, "10.0.1.109")}
	all, err := r.lab.Dispatch.Add(t.Context(), dispatch.Request{Boxes: boxes, Action: box.Restore, By: "token of ann", Key: "k",
		Options: dispatch.Options{From: "10.0.0.1"}})
	must(t, err)
	v := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	for _, path := range []string{"/jobs", "/jobs?key=k"} {
		has(t, v.until(path, "Of 2 boxes 2 write."), "Boxes that restore the same backup <small>10.0.0.1@", "All are done in about 1:30",
			"6.00 GiB came from other boxes, 2.00 GiB from the server.", ", 3.00 GiB came from other boxes, 1.00 GiB from the server")
	}
	has(t, v.shows("/jobs/"+all[0].ID), "One of 2 boxes that restore the same backup", "2.00 GiB went to other boxes.")
	hasNone(t, v.shows("/jobs?box=10.0.0.1"), "Boxes that restore")
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

// saw notes what a machine asked for at its start.
func (r *rig) saw(address, mac, asked string) {
	r.lab.Sights.Saw(sight.Identity{Addr: netip.MustParseAddr(address), MAC: mac, Arch: "BIOS"},
		sight.Ask{Time: time.Now(), Over: "tftp", Asked: asked, Given: asked})
}

// sends sends the form of a task, and expects to be led to a page.
func (b *browser) sends(task string, form url.Values, to string) {
	b.t.Helper()
	resp, text := b.post("/do/"+task, form)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != to {
		b.t.Errorf("%s: %d, to %q: %s", task, resp.StatusCode, resp.Header.Get("Location"), text)
	}
}

// TestMachinesPage makes a box of a machine that nobody knew, and gives a box that has moved its new address.
func TestMachinesPage(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1", MACs: []string{"52:54:00:00:00:01"}})
	r.saw("10.0.0.88", "52:54:00:00:00:01", "pxelinux.0")
	r.saw("10.0.0.78", "52:54:00:00:00:78", foreign)
	v, a := r.as(ledger.Token{Name: "v", Role: ledger.Viewer}), r.as(ledger.Token{Name: "a", Role: ledger.Admin})
	text := v.shows("/machines")
	has(t, text, "52:54:00:00:00:77", "pxelinux.cfg/default", "asks from 10.0.0.88", "&lt;script&gt;alert(1)")
	hasNone(t, text, "/do/", "<script>alert", "<img")
	has(t, a.shows("/machines"), "/do/add-box?on=52%3a54%3a00%3a00%3a00%3a77", "/do/readdress?on=10.0.0.1")

	text = a.shows("/do/add-box?on=52%3A54%3A00%3A00%3A00%3A77")
	has(t, text, `value="10.0.0.77"`, "Nothing has been done yet", `method="post" action="/do/add-box"`)
	form := url.Values{"on": {"52:54:00:00:00:77"}, "address": {"10.0.0.77"}, "name": {"new-box"}, "groups": {"nothing-like-it"},
		"why": {"it is new"}}
	resp, text := a.post("/do/add-box", form)
	if resp.StatusCode < 400 || !strings.Contains(text, "It was not done") || !strings.Contains(text, `value="new-box"`) ||
		!strings.Contains(text, `value="it is new"`) {
		t.Errorf("a group that is not there: %d %s", resp.StatusCode, text)
	}
	form.Set("groups", "")
	a.sends("add-box", form, "/boxes/10.0.0.77")
	has(t, a.shows("/boxes/10.0.0.77"), "new-box", "52:54:00:00:00:77")
	if resp, _ := a.get("/do/add-box?on=" + url.QueryEscape(foreign)); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a machine that is not there: %d", resp.StatusCode)
	}
	has(t, a.shows("/do/readdress?on=10.0.0.1"), `value="10.0.0.88"`, "web-1")
	a.sends("accept", url.Values{"on": {"10.0.0.1"}, "macs": {"52:54:00:00:00:aa, 52:54:00:00:00:ab"}}, "/boxes/10.0.0.1")
	has(t, a.shows("/boxes/10.0.0.1"), "52:54:00:00:00:ab")
}

// TestCalendarPage shows the next starts, and pauses, resumes and runs a schedule.
func TestCalendarPage(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Labels: []string{"nightly"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Labels: []string{"nightly"}, Health: ledger.Retired, Reason: "old"})
	v, o := r.as(ledger.Token{Name: "v", Role: ledger.Viewer}), r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	text := v.shows("/calendar")
	hasNone(t, text, "/do/")
	if n := strings.Count(text, "<strong>02:30</strong>"); n != 14 {
		t.Errorf("%d starts in two weeks: %s", n, text)
	}
	has(t, o.shows("/calendar"), "/do/pause?on=nightly", "/do/run?on=nightly")
	has(t, o.shows("/do/pause?on=nightly"), "Pause a schedule: nightly", "Nothing has been done yet")
	o.sends("pause", url.Values{"on": {"nightly"}, "why": {foreign}}, "/calendar")
	text = o.shows("/calendar")
	has(t, text, "Paused by token o", "&lt;script&gt;alert(1)", "/do/resume?on=nightly")
	hasNone(t, text, "02:30</strong>", "/do/pause", "<script>alert")
	o.sends("resume", url.Values{"on": {"nightly"}}, "/calendar")
	hasNone(t, o.shows("/calendar"), "Paused by")
	for range 2 { // a form that is sent twice makes one job
		o.sends("run", url.Values{"on": {"nightly"}, "key": {"k1"}}, "/jobs?key=k1")
	}
	if n := r.jobs(); n != 1 {
		t.Errorf("%d jobs", n)
	}
	resp, text := o.post("/do/run", url.Values{"on": {"nightly"}, "key": {""}})
	if resp.StatusCode != http.StatusBadRequest || r.jobs() != 1 {
		t.Errorf("without a key: %d %s", resp.StatusCode, text)
	}
	resp, text = o.post("/do/run", url.Values{"on": {foreign}, "key": {"k2"}})
	if resp.StatusCode < 400 || strings.Contains(text, "<script>alert") {
		t.Errorf("a schedule that is not there: %d %s", resp.StatusCode, text)
	}
}

// TestAccessPage makes users, groups and tokens and deletes them. The secret of a token is shown once.
func TestAccessPage(t *testing.T) {
	r := newRig(t)
	a := r.as(ledger.Token{Name: "boss", Role: ledger.Admin})
	a.sends("set-user", url.Values{"name": {"ann"}, "role": {"viewer"}}, "/access")
	a.sends("set-user", url.Values{"on": {"ann"}, "role": {"operator"}}, "/access")
	has(t, a.shows("/do/set-user?on=ann"), "<option selected>operator")
	a.sends("set-group", url.Values{"name": {"rack-1"}, "most": {"3"}, "keep": {"last=3"}}, "/access")
	has(t, a.shows("/access"), "at most 3", "last=3")
	has(t, a.shows("/do/set-group?on=rack-1"), `value="last=3"`, `value="3"`)
	if resp, text := a.post("/do/set-group", url.Values{"name": {"rack-1"}}); resp.StatusCode != http.StatusConflict {
		t.Errorf("a group that is there is made anew: %d %s", resp.StatusCode, text)
	}
	a.sends("set-group", url.Values{"on": {"rack-1"}, "most": {"0"}}, "/access")
	has(t, a.shows("/access"), "none, it is closed")

	form := url.Values{"name": {foreign[:20]}, "role": {"operator"}, "user": {"ann"}, "group": {"rack-1"}, "expires": {"2020-01-01"}}
	if resp, text := a.post("/do/add-token", form); resp.StatusCode < 400 || !strings.Contains(text, "It was not done") {
		t.Errorf("a token that has ended: %d %s", resp.StatusCode, text)
	}
	form.Set("expires", time.Now().Add(100*24*time.Hour).Format(time.DateOnly))
	resp, text := a.post("/do/add-token", form)
	secret := regexp.MustCompile(`<code id="secret">([^<]+)</code>`).FindStringSubmatch(text)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "no-store" || secret == nil || strings.Contains(text,
		"<script>alert") {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	if resp, text := r.browser().post("/login", url.Values{"token": {secret[1]}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the new token does not open the page: %d %s", resp.StatusCode, text)
	}
	text = a.shows("/access")
	hasNone(t, text, secret[1], "<script>alert")
	has(t, text, "group rack-1", "&lt;script&gt;alert(1)")
	id := ""
	for _, m := range regexp.MustCompile(`/do/delete-token\?on=([0-9a-f]+)">Delete<span class="hidden"> the token ([^<]*)<`).FindAllStringSubmatch(text, -1) {
		if m[2] != "boss" {
			id = m[1]
		}
	}
	has(t, a.shows("/do/delete-token?on="+id), "ann", "rack-1", "Nothing has been done yet")
	if resp, text := a.post("/do/delete-group", url.Values{"on": {"rack-1"}}); resp.StatusCode != http.StatusConflict {
		t.Errorf("a group that a token has is deleted: %d %s", resp.StatusCode, text)
	}
	a.sends("delete-token", url.Values{"on": {id}}, "/access")
	a.sends("delete-user", url.Values{"on": {"ann"}}, "/access")
	a.sends("delete-group", url.Values{"on": {"rack-1"}}, "/access")
	text = a.shows("/access")
	hasNone(t, text, "rack-1", "/do/delete-user", id)
}

// TestAuditPage filters the audit log, and goes through it by pages.
func TestAuditPage(t *testing.T) {
	r := newRig(t)
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		for i := range 230 {
			e := ledger.Entry{Time: time.Date(2026, 1, 1+i/100, 12, 0, 0, 0, time.UTC), Who: "bob", From: "10.0.0.200", What: "test it",
				On: fmt.Sprintf("thing-%03d-", i), Why: foreign}
			if err := tx.AddAudit(e); err != nil {
				return err
			}
		}
		return nil
	}))
	a := r.as(ledger.Token{Name: "a", Role: ledger.Admin})
	met := map[string]bool{}
	path, n := "/audit?who=bob", 0
	for ; path != ""; n++ {
		text := a.shows(path)
		hasNone(t, text, "<script>alert", "<img")
		for _, m := range regexp.MustCompile(`>(thing-\d+-)<`).FindAllStringSubmatch(text, -1) {
			if met[m[1]] {
				t.Errorf("%s is there twice", m[1])
			}
			met[m[1]] = true
		}
		next := regexp.MustCompile(`href="([^"]+)">Older entries`).FindStringSubmatch(text)
		if path = ""; next != nil {
			path = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	if len(met) != 230 || n != 3 {
		t.Errorf("%d entries on %d pages", len(met), n)
	}
	text := a.shows("/audit?who=bob&since=2026-01-03&until=2026-01-03")
	has(t, text, "thing-200-", "thing-229-")
	hasNone(t, text, "thing-199-")
	has(t, a.shows("/audit?on=thing-005-"), "thing-005-")
	has(t, a.shows("/audit?who=nobody"), "There is no entry like that")
	for _, q := range []string{"since=", "until=", "after=", "who=", "what=", "on="} {
		text := a.shows("/audit?" + q + url.QueryEscape("\u202e"+foreign))
		hasNone(t, text, "<script>alert", "<img", "\u202e")
	}
	has(t, a.shows("/audit?since=yesterday"), "is no date")
}

// TestLabRoles: each page and each task is for those whom the API lets do it, and nobody else is shown a way to it.
func TestLabRoles(t *testing.T) {
	r := newRig(t)
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "rack"}) }))
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	some := map[string]*browser{
		"viewer":   r.as(ledger.Token{Name: "v", Role: ledger.Viewer}),
		"operator": r.as(ledger.Token{Name: "o", Role: ledger.Operator}),
		"admin":    r.as(ledger.Token{Name: "a", Role: ledger.Admin}),
		"group":    r.as(ledger.Token{Name: "g", Role: ledger.Admin, Group: "rack"}),
	}
	for path, who := range map[string]string{"/jobs": "viewer operator admin group", "/machines": "viewer operator admin",
		"/store":    "viewer operator admin",
		"/calendar": "viewer operator admin", "/status": "viewer operator admin", "/audit": "admin", "/access": "admin"} {
		for name, b := range some {
			may := strings.Contains(who, name)
			resp, text := b.get(path)
			if (resp.StatusCode == http.StatusOK) != may || !may && resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s for %s: %d", path, name, resp.StatusCode)
			}
			if strings.Contains(b.shows("/"), `href="`+path+`"`) != may {
				t.Errorf("the list of pages of %s is wrong about %s", name, path)
			}
			if found := regexp.MustCompile(`(?i)<[^>]*\s(style|on[a-z]+)=|<style|<script[^>]*>[^<]`).FindString(text); found != "" {
				t.Errorf("%s has %q", path, found)
			}
		}
	}
	for task, who := range map[string]string{"add-box": "admin", "readdress": "admin", "accept": "admin group", "plan-gc": "admin",
		"gc":    "admin",
		"scrub": "admin", "cancel-upkeep": "admin", "pause": "operator admin", "resume": "operator admin", "run": "operator admin",
		"add-token": "admin", "delete-token": "admin", "set-user": "admin", "delete-user": "admin", "set-group": "admin",
		"delete-group": "admin"} {
		for name, b := range some {
			got, _ := b.get("/do/" + task + "?on=nothing")
			sent, _ := b.post("/do/"+task, url.Values{"on": {"nothing"}})
			if may := strings.Contains(who, name); (got.StatusCode != http.StatusForbidden) != may ||
				(sent.StatusCode != http.StatusForbidden) != may {
				t.Errorf("%s for %s: %d, %d", task, name, got.StatusCode, sent.StatusCode)
			}
		}
	}
	if resp, _ := some["admin"].get("/do/anything"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d", resp.StatusCode)
	}
	has(t, some["viewer"].shows("/store"), "this server has no store")
	has(t, some["viewer"].shows("/status"), "Version")
}

// TestLabelLinks: a label with any characters leads to the boxes that have it.
func TestLabelLinks(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Labels: []string{"a b:c&d"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	v := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	link := regexp.MustCompile(`href="(/\?label=[^"]+)"`).FindStringSubmatch(v.shows("/boxes/10.0.0.1"))
	if link == nil {
		t.Fatal("the page of the box has no link to its label")
	}
	text := v.shows(strings.ReplaceAll(link[1], "&amp;", "&"))
	has(t, text, "box-10-0-0-1")
	hasNone(t, text, "box-10-0-0-2")
}

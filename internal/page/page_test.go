package page_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/page"
	"testbox-imaging/internal/testenv/fakelab"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is the page of a server whose boxes are not there.
type rig struct {
	t    testing.TB
	lab  *fakelab.Lab
	site *page.Site
	url  string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	me, err := user.Current()
	must(t, err)
	g, err := user.LookupGroupId(me.Gid)
	must(t, err)
	lab, err := fakelab.Start(dir, filepath.Join(dir, "s"), g.Name)
	must(t, err)
	t.Cleanup(lab.Close)
	site := page.New(page.Config{API: lab.API})
	srv := httptest.NewTLSServer(site)
	t.Cleanup(srv.Close)
	return &rig{t, lab, site, srv.URL}
}

// token makes a token and returns its secret.
func (r *rig) token(tok ledger.Token) string {
	r.t.Helper()
	secret := "testbox-of-" + tok.Name
	tok.Hash = sha256.Sum256([]byte(secret))
	must(r.t, r.lab.Ledger.Update(r.t.Context(), func(tx *ledger.Tx) error { return tx.PutToken(tok) }))
	return secret
}

func (r *rig) box(b ledger.Box) {
	r.t.Helper()
	if b.Health == "" {
		b.Health = ledger.Good
	}
	must(r.t, r.lab.Ledger.Update(r.t.Context(), func(tx *ledger.Tx) error { return tx.PutBox(b) }))
}

func addr(t testing.TB, s string) box.Addr {
	t.Helper()
	a, err := box.ParseAddr(s)
	must(t, err)
	return a
}

// browser keeps cookies as a browser does, and follows no redirects by itself.
type browser struct {
	t    testing.TB
	c    *http.Client
	base string
}

func (r *rig) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(r.t, err)
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig.InsecureSkipVerify = true
	r.t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Jar: jar, Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &browser{r.t, c, r.url}
}

// as is a browser in which somebody with a role has logged in.
func (r *rig) as(tok ledger.Token) *browser {
	r.t.Helper()
	b := r.browser()
	resp, text := b.post("/login", url.Values{"token": {r.token(tok)}})
	if resp.StatusCode != http.StatusSeeOther {
		r.t.Fatalf("login: %d %s", resp.StatusCode, text)
	}
	return b
}

func (b *browser) do(r *http.Request) (*http.Response, string) {
	b.t.Helper()
	resp, err := b.c.Do(r)
	must(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.t, err)
	return resp, string(text)
}

func (b *browser) get(path string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), "GET", b.base+path, nil)
	must(b.t, err)
	return b.do(r)
}

// post sends a form. One that asks for something has a key of its own, as if it had just been opened.
func (b *browser) post(path string, form url.Values) (*http.Response, string) {
	b.t.Helper()
	if (strings.HasPrefix(path, "/act/") || strings.HasPrefix(path, "/do/")) && !form.Has("key") {
		form = maps.Clone(form)
		form.Set("key", rand.Text())
	}
	r, err := http.NewRequestWithContext(b.t.Context(), "POST", b.base+path, strings.NewReader(form.Encode()))
	must(b.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// shows gets a page that must be there.
func (b *browser) shows(path string) string {
	b.t.Helper()
	resp, text := b.get(path)
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %d %s", path, resp.StatusCode, text)
	}
	return text
}

// done has a box do something, to its end.
func (r *rig) done(a box.Addr, what box.Action) {
	r.t.Helper()
	all, err := r.lab.Dispatch.Add(r.t.Context(), dispatch.Request{Boxes: []box.Addr{a}, Action: what, By: "x"})
	must(r.t, err)
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		st, err := r.lab.Dispatch.Job(r.t.Context(), all[0].ID)
		must(r.t, err)
		if st.State == job.Ended && st.Settled {
			return
		}
		if time.Now().After(until) {
			r.t.Fatalf("%s of %s has not ended: %s", what, a, st.State)
		}
	}
}

// TestLogin: a token opens the page until it ends, and the cookie that has it is kept from scripts and from others.
func TestLogin(t *testing.T) {
	r := newRig(t)
	b := r.browser()
	resp, _ := b.get("/boxes/10.0.0.1?older=x")
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || got != "/login?to=%2Fboxes%2F10.0.0.1%3Folder%3Dx" {
		t.Errorf("a stranger is led to %q", got)
	}
	if text := b.shows("/login?to=%2Fboxes%2F10.0.0.1"); !strings.Contains(text, `name="to" value="/boxes/10.0.0.1"`) {
		t.Errorf("%s", text)
	}
	for _, secret := range []string{"", "wrong", "testbox-" + strings.Repeat("A", 3000), "a\r\nb"} {
		resp, text := b.post("/login", url.Values{"token": {secret}})
		if resp.StatusCode != http.StatusUnauthorized || len(resp.Cookies()) > 0 || !strings.Contains(text, "Nobody has this token") {
			t.Errorf("%.20q: %d", secret, resp.StatusCode)
		}
	}
	secret := r.token(ledger.Token{Name: "ann", Role: ledger.Viewer, Expires: time.Now().Add(time.Hour)})
	resp, _ = b.post("/login", url.Values{"token": {" " + secret + "\n"}, "to": {"/boxes/10.0.0.1"}})
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/boxes/10.0.0.1" || len(resp.Cookies()) != 1 {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" ||
		!strings.HasPrefix(c.Name, "__Host-") || c.MaxAge > 3600 || c.MaxAge < 3000 {
		t.Errorf("%+v", c)
	}
	if text := b.shows("/"); !strings.Contains(text, "token ann") || !strings.Contains(text, "viewer") {
		t.Errorf("%s", text)
	}
	var other string
	for _, to := range []string{"https://evil.example/", "//evil.example/", `/\evil.example`, "/\t/evil.example", "javascript:alert(1)", "x"} {
		resp, _ := r.browser().post("/login", url.Values{"token": {secret}, "to": {to}})
		if other = resp.Header.Get("Location"); other != "/" {
			t.Errorf("after the login %q leads to %q", to, other)
		}
	}
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.DeleteToken(sha256.Sum256([]byte(secret))) }))
	if resp, _ := b.get("/"); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/login" {
		t.Errorf("with a token that was deleted: %d %v", resp.StatusCode, resp.Header)
	}
}

// TestWrongTokens: who tries many tokens has to wait, with a right one too. At other addresses people are let in.
func TestWrongTokens(t *testing.T) {
	r := newRig(t)
	secret := r.token(ledger.Token{Name: "ann", Role: ledger.Viewer})
	b := r.browser()
	var resp *http.Response
	for range 20 {
		resp, _ = b.post("/login", url.Values{"token": {"testbox-wrong"}})
	}
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the twentieth try: %d", resp.StatusCode)
	}
	resp, text := b.post("/login", url.Values{"token": {secret}})
	if resp.StatusCode != http.StatusTooManyRequests || len(resp.Cookies()) > 0 || !strings.Contains(text, "was not looked at") {
		t.Errorf("a right one then: %d %s", resp.StatusCode, text)
	}
	q := httptest.NewRequestWithContext(t.Context(), "POST", "/login", strings.NewReader(url.Values{"token": {secret}}.Encode()))
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.RemoteAddr = "10.0.0.77:1000"
	w := httptest.NewRecorder()
	if r.site.ServeHTTP(w, q); w.Code != http.StatusSeeOther || len(w.Result().Cookies()) != 1 {
		t.Errorf("at another address: %d", w.Code)
	}
}

// TestLinkFromElsewhere: a link of another site leads to the page, although the browser sends no cookie with it at first.
func TestLinkFromElsewhere(t *testing.T) {
	r := newRig(t)
	b := r.as(ledger.Token{Name: "ann", Role: ledger.Viewer})
	stranger := r.browser() // this one has no cookie, as with SameSite=Strict
	for _, path := range []string{"/?q=x%22%3E%3Cscript%3E", "/jobs/j1"} {
		q, err := http.NewRequestWithContext(t.Context(), "GET", b.base+path, nil)
		must(t, err)
		q.Header.Set("Sec-Fetch-Site", "cross-site")
		resp, text := stranger.do(q)
		if resp.StatusCode != http.StatusOK || !strings.Contains(text, `content="0; url=`+path+`"`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
		if resp, _ := stranger.get(path); resp.StatusCode != http.StatusSeeOther { // the page has loaded itself
			t.Errorf("%s again: %d", path, resp.StatusCode)
		}
	}
}

func TestLogout(t *testing.T) {
	r := newRig(t)
	b := r.as(ledger.Token{Name: "ann", Role: ledger.Viewer})
	b.shows("/")
	jar := b.c.Jar.Cookies(&url.URL{Scheme: "https", Host: strings.TrimPrefix(b.base, "https://"), Path: "/"})
	if len(jar) != 1 || strings.Contains(jar[0].Value, "ann") {
		t.Fatalf("%v", jar) // the browser has the secret of a login, and not the token
	}
	if resp, _ := b.post("/logout", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("%d", resp.StatusCode)
	}
	if resp, _ := b.get("/"); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("after the logout: %d", resp.StatusCode)
	}
	q, err := http.NewRequestWithContext(t.Context(), "GET", b.base+"/", nil)
	must(t, err)
	q.AddCookie(jar[0])
	if resp, _ := r.browser().do(q); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("with a copy of the cookie after the logout: %d", resp.StatusCode)
	}
}

// TestHeaders: no page may use anything but files of this server, be shown within another one, or be kept.
func TestHeaders(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	b := r.as(ledger.Token{Name: "ann", Role: ledger.Admin})
	for _, path := range []string{"/", "/login", "/nothing", "/boxes/10.0.0.1", "/boxes/10.0.0.9", "/act/restore?box=10.0.0.1",
		"/act/hold?box=10.0.0.1", "/rows"} {
		resp, text := b.get(path)
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: %q", path, policy)
		}
		if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, resp.Header)
		}
		if found := regexp.MustCompile(`(?i)<[^>]*\s(style|on[a-z]+)=|<style|<script[^>]*>[^<]|(src|href|action)="(https?:)?//`).FindString(text); found != "" {
			t.Errorf("%s has %q", path, found)
		}
	}
	for _, path := range regexp.MustCompile(`/static/[^"]+`).FindAllString(b.shows("/"), -1) {
		resp, text := r.browser().get(path)
		if resp.StatusCode != http.StatusOK || len(text) < 50 || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, %d bytes, %v", path, resp.StatusCode, len(text), resp.Header)
		}
	}
}

// TestOtherSites: a form of another site does nothing, also with the cookie.
func TestOtherSites(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	b := r.as(ledger.Token{Name: "ann", Role: ledger.Admin})
	form := url.Values{"box": {"10.0.0.1"}, "key": {"k"}}.Encode()
	for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		for _, path := range []string{"/act/backup", "/login", "/logout"} {
			q, err := http.NewRequestWithContext(t.Context(), "POST", b.base+path, strings.NewReader(form))
			must(t, err)
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			q.Header.Set(name, value)
			if resp, text := b.do(q); resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "nothing was done") {
				t.Errorf("%s with %s: %d", path, name, resp.StatusCode)
			}
		}
	}
	if n := r.jobs(); n != 0 {
		t.Errorf("there are %d jobs", n)
	}
}

// jobs is how many jobs there are.
func (r *rig) jobs() (n int) {
	r.t.Helper()
	must(r.t, r.lab.Ledger.View(r.t.Context(), func(tx *ledger.Tx) error {
		all, _, err := tx.Jobs(ledger.JobFilter{}, ledger.Page{Limit: 1000})
		n = len(all)
		return err
	}))
	return n
}

// TestRoles: a viewer is shown nothing to do and can do nothing, also by forms made by hand, and a token of a group
// opens only the boxes of the group.
func TestRoles(t *testing.T) {
	r := newRig(t)
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "rack"}) }))
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "secret-box"})
	viewer := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	if text := viewer.shows("/"); strings.Contains(text, "/act/") || strings.Contains(text, "checkbox\" name=\"box") {
		t.Errorf("a viewer is offered actions: %s", text)
	}
	for _, a := range []string{"backup", "restore", "rescue", "cancel", "hold", "health", "power", "release", "finish", "unhold"} {
		if resp, _ := viewer.get("/act/" + a + "?box=10.0.0.1"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("the preview of %s: %d", a, resp.StatusCode)
		}
		resp, _ := viewer.post("/act/"+a, url.Values{"box": {"10.0.0.1"}, "key": {"k"}, "meant": {"10.0.0.1=x"}, "for": {"1h"},
			"health": {"good"}})
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s by a viewer: %d", a, resp.StatusCode)
		}
	}
	if r.jobs() != 0 {
		t.Error("a viewer has made a job")
	}
	few := r.as(ledger.Token{Name: "o", Role: ledger.Operator, Group: "rack"})
	if text := few.shows("/"); strings.Contains(text, "secret-box") || !strings.Contains(text, "10.0.0.1") {
		t.Errorf("%s", text)
	}
	if text := few.shows("/rows?box=10.0.0.2&box=10.0.0.1"); strings.Contains(text, "10.0.0.2") || !strings.Contains(text, "10.0.0.1") {
		t.Errorf("%s", text)
	}
	if resp, _ := few.get("/act/backup?box=10.0.0.2"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the preview of another group's box: %d", resp.StatusCode)
	}
	if resp, _ := few.post("/act/backup", url.Values{"box": {"10.0.0.2"}, "key": {"k"}}); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a job of another group's box: %d", resp.StatusCode)
	}
}

// TestRows: what follows a filtered list learns which boxes are not, or not any more, like the filter.
func TestRows(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Health: ledger.Bad, Reason: "broken"})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	b := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	if text := b.shows("/?needs=1&from=0"); !strings.Contains(text, `data-rows="/rows?needs=1" data-whole`) {
		t.Errorf("%s", text)
	}
	for path, want := range map[string]bool{"/rows?box=10.0.0.1&box=10.0.0.2": true, "/rows?needs=1&box=10.0.0.1&box=10.0.0.2": false} {
		text := b.shows(path)
		if !strings.Contains(text, `id="box-10-0-0-1"`) || strings.Contains(text, `id="box-10-0-0-2"`) != want {
			t.Errorf("%s: %s", path, text)
		}
	}
}

// TestOnce: a form that is sent twice makes one job, and one that was opened anew makes another.
func TestOnce(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	key := regexp.MustCompile(`name="key" value="([^"]+)"`)
	form := func() url.Values {
		return url.Values{"box": {"10.0.0.1"}, "key": {key.FindStringSubmatch(b.shows("/act/backup?box=10.0.0.1"))[1]}}
	}
	one := form()
	first, _ := b.post("/act/backup", one)
	r.site.ForgetForms() // the ledger knows the job, also after a restart of the server
	second, _ := b.post("/act/backup", one)
	if at := first.Header.Get("Location"); at == "" || at != second.Header.Get("Location") || r.jobs() != 1 {
		t.Errorf("%q, %q, %d jobs", at, second.Header.Get("Location"), r.jobs())
	}
	if third, _ := b.post("/act/backup", form()); third.StatusCode != http.StatusSeeOther || r.jobs() != 2 {
		t.Errorf("%d, %d jobs", third.StatusCode, r.jobs())
	}
	resp, _ := b.post("/act/backup", url.Values{"box": {"10.0.0.1"}, "key": {""}})
	if resp.StatusCode != http.StatusBadRequest || r.jobs() != 2 {
		t.Errorf("without a key: %d", resp.StatusCode)
	}
}

// TestOnceOfAll: also what is no job is done once by a form that is sent several times at once, as by a double click, and
// each time the answer says what was done. The browser gives up some of the requests.
func TestOnceOfAll(t *testing.T) {
	r := newRig(t)
	a := r.as(ledger.Token{Name: "a", Role: ledger.Admin})
	key := regexp.MustCompile(`name="key" value="([^"]+)"`)
	form := url.Values{"name": {"for ci"}, "role": {"viewer"}, "key": {key.FindStringSubmatch(a.shows("/do/add-token"))[1]}}
	secrets := make(chan string, 8)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 1 {
				time.AfterFunc(time.Millisecond, cancel)
			}
			q, err := http.NewRequestWithContext(ctx, "POST", a.base+"/do/add-token", strings.NewReader(form.Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			resp, err := a.c.Do(q)
			if err != nil {
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if found := regexp.MustCompile(`<code id="secret">([^<]+)<`).FindStringSubmatch(string(text)); found != nil {
				secrets <- found[1]
			} else if err == nil {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
		})
	}
	all.Wait()
	close(secrets)
	said := map[string]int{}
	for secret := range secrets {
		said[secret]++
	}
	if len(said) != 1 || len(r.tokens()) != 2 {
		t.Errorf("one form has made %d tokens, and the answers have the secrets %v", len(r.tokens())-1, said)
	}

	form.Set("role", "admin")
	if resp, text := a.post("/do/add-token", form); resp.StatusCode != http.StatusConflict ||
		strings.Contains(text, "id=\"secret\"") || !strings.Contains(text, "Nothing was done now") || len(r.tokens()) != 2 {
		t.Errorf("the same form with another role: %d %s", resp.StatusCode, text)
	}
	if resp, text := r.as(ledger.Token{Name: "b", Role: ledger.Admin}).post("/do/add-token", form); resp.StatusCode != http.StatusOK ||
		len(r.tokens()) != 4 {
		t.Errorf("the form of somebody else: %d %s", resp.StatusCode, text)
	}

	// What was not done can be tried again by the same form, and what is deleted twice is gone.
	form = url.Values{"on": {"rack"}, "key": {"k2"}}
	if resp, _ := a.post("/do/delete-group", form); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d", resp.StatusCode)
	}
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "rack"}) }))
	for range 2 {
		if resp, text := a.post("/do/delete-group", form); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	}
}

// tokens are all tokens.
func (r *rig) tokens() (all []ledger.Token) {
	r.t.Helper()
	must(r.t, r.lab.Ledger.View(r.t.Context(), func(tx *ledger.Tx) (err error) {
		all, err = tx.Tokens("")
		return err
	}))
	return all
}

// TestRestore: the page names box, disks and backup before anything is overwritten, and the job uses the backup that was named.
func TestRestore(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1"})
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	text := b.shows("/act/restore?box=10.0.0.1")
	if !strings.Contains(text, "Left out") || strings.Contains(text, "Overwrite and restore</button>") {
		t.Errorf("a restore without a backup is offered: %s", text)
	}
	r.done(addr(t, "10.0.0.1"), box.Backup)
	text = b.shows("/act/restore?box=10.0.0.1")
	image := regexp.MustCompile(`name="meant" value="([^"]+)"`).FindStringSubmatch(text)
	if image == nil || !strings.Contains(text, "web-1") || !strings.Contains(text, "These disks are overwritten") ||
		!strings.Contains(text, "<strong>sda</strong>") {
		t.Fatalf("%s", text)
	}
	id := strings.TrimPrefix(image[1], "10.0.0.1=10.0.0.1@")
	mark := regexp.MustCompile(`name="mark" value="([^"]+)"`).FindStringSubmatch(text)[1]
	if !strings.Contains(text, "<code>"+id+"</code>") {
		t.Errorf("the preview does not name %s: %s", id, text)
	}
	resp, text := b.post("/act/restore", url.Values{"box": {"10.0.0.1"}, "key": {"k3"},
		"meant": {"10.0.0.1=10.0.0.1@20200101-000000"}, "mark": {mark}})
	if resp.StatusCode != http.StatusConflict || !strings.Contains(text, "Not done") || strings.Contains(text, "It has the job") {
		t.Errorf("a backup that is gone: %d %s", resp.StatusCode, text)
	}
	resp, _ = b.post("/act/restore", url.Values{"box": {"10.0.0.1"}, "key": {"k1"}, "meant": {image[1]}, "mark": {mark}})
	at := resp.Header.Get("Location")
	if !strings.HasPrefix(at, "/jobs/") {
		t.Fatalf("%d %q", resp.StatusCode, at)
	}
	st, err := r.lab.Dispatch.Job(t.Context(), strings.TrimPrefix(at, "/jobs/"))
	if err != nil || st.Action != box.Restore || st.Options.Image != "10.0.0.1@"+id {
		t.Errorf("%v, %+v, %v", st.Action, st.Options, err)
	}
	for _, form := range []url.Values{{}, {"meant": {image[1]}}, {"mark": {mark}}} {
		form.Set("box", "10.0.0.1")
		resp, text = b.post("/act/restore", form)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "nothing was done") {
			t.Errorf("a form without a backup or a mark: %d", resp.StatusCode)
		}
	}
}

// TestConfirmed: nothing is overwritten if the box or the backup has become another since the page that was confirmed.
func TestConfirmed(t *testing.T) {
	r := newRig(t)
	box1 := ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1", UUID: "4c4c4544-0000-1000-8000-000000000001"}
	r.box(box1)
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "web-2"})
	r.done(addr(t, "10.0.0.1"), box.Backup)
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	field := regexp.MustCompile(`name="(box|meant|mark|key)" value="([^"]+)"`)
	open := func() url.Values {
		form := url.Values{}
		for _, f := range field.FindAllStringSubmatch(b.shows("/act/restore?box=10.0.0.1"), -1) {
			form.Add(f[1], f[2])
		}
		return form
	}
	jobs := r.jobs()
	refused := func(what string, form url.Values) {
		t.Helper()
		resp, text := b.post("/act/restore", form)
		if resp.StatusCode != http.StatusConflict || !strings.Contains(text, "Not done") || r.jobs() != jobs {
			t.Errorf("%s: %d, %d jobs, %s", what, resp.StatusCode, r.jobs()-jobs, text)
		}
	}
	form := open()
	other := box1
	other.Name = "db-1"
	r.box(other)
	refused("a box that was given another name", form)
	form = open()
	other.UUID = "4c4c4544-0000-1000-8000-000000000002"
	r.box(other)
	refused("another machine", form)
	form = open()
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.DeleteBox(box1.Address) }))
	refused("a box that was forgotten", form)
	r.box(other)
	form = open()
	form.Set("mark", strings.Replace(form.Get("mark"), "10.0.0.1=", "10.0.0.2=", 1))
	form.Set("meant", strings.Replace(form.Get("meant"), "10.0.0.1=", "10.0.0.2=", 1))
	form.Set("box", "10.0.0.2")
	refused("the form of another box", form)
	form = open()
	r.lab.Redo(box1.Address)
	refused("a backup that is another by now", form)
	form = open()
	for range 2 { // what was confirmed is done, and the same form says so again, whatever the box is called by then
		if resp, text := b.post("/act/restore", form); resp.StatusCode != http.StatusSeeOther || r.jobs() != jobs+1 {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
		r.site.ForgetForms()
		r.box(box1)
	}
}

// TestForgotten: a box that was forgotten since its page was opened gets no job, and one that nobody knows yet is said to be new.
func TestForgotten(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	send := func(text string) (*http.Response, string) {
		form := url.Values{}
		for _, f := range regexp.MustCompile(`name="(box|known|key)" value="([^"]+)"`).FindAllStringSubmatch(text, -1) {
			form.Add(f[1], f[2])
		}
		return b.post("/act/rescue", form)
	}
	text := b.shows("/act/rescue?box=10.0.0.1")
	hasNone(t, text, "Nobody knows this box")
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.DeleteBox(addr(t, "10.0.0.1")) }))
	if resp, text := send(text); resp.StatusCode != http.StatusNotFound || r.jobs() != 0 {
		t.Errorf("%d %s, %d jobs", resp.StatusCode, text, r.jobs())
	}
	text = b.shows("/act/rescue?box=10.0.0.1")
	has(t, text, "Nobody knows this box yet")
	if resp, text := send(text); resp.StatusCode != http.StatusSeeOther || r.jobs() != 1 {
		t.Errorf("%d %s, %d jobs", resp.StatusCode, text, r.jobs())
	}
}

// TestCancelNamed: the jobs that the page has named are cancelled, and none that somebody has asked for since.
func TestCancelNamed(t *testing.T) {
	r := newRig(t)
	idle, busy := "10.0.0.4", "10.0.0.103"
	r.box(ledger.Box{Address: addr(t, idle)})
	one, two := r.asks(busy, box.Backup, "token of ann", ""), r.asks(busy, box.Verify, "token of ann", "")
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	text := b.shows("/act/cancel?box=" + busy + "&box=" + idle)
	has(t, text, one, two, "it has no job that could be cancelled")
	form := url.Values{}
	for _, f := range regexp.MustCompile(`name="(box|job|key)" value="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		form.Add(f[1], f[2])
	}
	later := r.asks(busy, box.RefreshInfo, "token of bob", "")
	if resp, text := b.post("/act/cancel", form); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	for id, want := range map[string]bool{one: true, two: true, later: false} {
		st, err := r.lab.Dispatch.Job(t.Context(), id)
		if must(t, err); (st.State == job.Ended) != want {
			t.Errorf("%s of %s is %s", st.Action, id, st.State)
		}
	}
	form.Set("key", "k2")
	resp, text := b.post("/act/cancel", form)
	if resp.StatusCode != http.StatusConflict || !strings.Contains(text, "2 of 2 jobs") || !strings.Contains(text, "has ended") {
		t.Errorf("jobs that have ended: %d %s", resp.StatusCode, text)
	}
	form = url.Values{"box": {busy}, "job": {idle + "=" + later}}
	if resp, text := b.post("/act/cancel", form); resp.StatusCode != http.StatusConflict || !strings.Contains(text, "Not done") {
		t.Errorf("a form that names no job: %d %s", resp.StatusCode, text)
	}
	form = url.Values{"box": {busy}, "job": {"x=y", busy + "=" + later, busy + "=" + one}}
	if resp, text := b.post("/act/cancel", form); resp.StatusCode != http.StatusConflict || !strings.Contains(text, "1 of 2 jobs: "+one) {
		t.Errorf("one of two: %d %s", resp.StatusCode, text)
	}
	if text := b.shows("/act/power?box=" + busy); strings.Contains(text, "goes first") {
		t.Errorf("the power would wait for a job: %s", text)
	}
}

// TestHostile: what a box can say stays text.
func TestHostile(t *testing.T) {
	r := newRig(t)
	evil := "<script>alert(1)</script>\"'{{.}}<img src=x onerror=alert(1)>"
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "", Labels: []string{evil}, Health: ledger.Bad, Reason: evil,
		Holder: ledger.Holder{Name: evil, Reason: evil}})
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	for _, path := range []string{"/", "/rows?box=10.0.0.1", "/?q=" + url.QueryEscape("\u202e"+evil), "/boxes/10.0.0.1",
		"/act/hold?box=" + url.QueryEscape(evil), "/search?q=" + url.QueryEscape(evil), "/login?to=" + url.QueryEscape("/"+evil)} {
		_, text := b.get(path)
		if strings.Contains(text, "<script>alert") || strings.Contains(text, "<img") || strings.Contains(text, "\u202e") {
			t.Errorf("%s has it as it is", path)
		}
	}
	if text := b.shows("/"); !strings.Contains(text, "&lt;script&gt;alert(1)") {
		t.Error("the text is not shown at all")
	}
}

// TestNeeds: boxes that need somebody are first, with the reason.
func TestNeeds(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.box(ledger.Box{Address: addr(t, fmt.Sprintf("10.0.0.%d", i+1))})
	}
	r.box(ledger.Box{Address: addr(t, "10.0.0.5"), Health: ledger.Suspect, Reason: "it fails often"})
	r.box(ledger.Box{Address: addr(t, "10.0.0.4"), Health: ledger.Bad})
	if text := r.as(ledger.Token{Name: "v", Role: ledger.Viewer}).shows("/"); !strings.Contains(text, "It is bad<") {
		t.Errorf("a reason that was left out: %s", text)
	}
	r.box(ledger.Box{Address: addr(t, "10.0.0.4"), Health: ledger.Retired, Reason: "old"})
	r.done(addr(t, "10.0.0.3"), box.Backup)
	b := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	text := b.shows("/")
	ids := regexp.MustCompile(`<tr id="box-10-0-0-(\d)"`).FindAllStringSubmatch(text, -1)
	order := ""
	for _, id := range ids {
		order += id[1]
	}
	if order != "51234" || !strings.Contains(text, "it fails often") || !strings.Contains(text, "<strong>1</strong> of 5 boxes") {
		t.Errorf("%s: %s", order, text)
	}
	// A box whose firmware ignores the boot order needs somebody too.
	folder, err := r.lab.Area.Box(addr(t, "10.0.0.2"))
	must(t, err)
	note := &efi.Note{Format: efi.NoteFormat, State: efi.State{Kind: efi.UEFI}, NetworkFirst: &efi.NetworkFirst{Result: efi.OrderRepaired}}
	for result, needs := range map[efi.Result]bool{efi.OrderRepaired: false, efi.OrderIgnored: true} {
		note.NetworkFirst.Result = result
		must(t, folder.WriteFile(box.FirmwareFile, note.Marshal()))
		if text := b.shows("/?needs=1"); strings.Contains(text, "box-10-0-0-2") != needs || strings.Contains(text, "did not stay") != needs {
			t.Errorf("with the boot order %s: %s", result, text)
		}
	}
	if text := b.shows("/?needs=1"); strings.Contains(text, "box-10-0-0-1") || !strings.Contains(text, "box-10-0-0-5") {
		t.Errorf("%s", text)
	}
	if text := b.shows("/?health=retired"); strings.Contains(text, "box-10-0-0-1") || !strings.Contains(text, "box-10-0-0-4") {
		t.Errorf("%s", text)
	}
}

// TestSearch leads to the one thing that is meant, or to the boxes that have the text.
func TestSearch(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1", MACs: []string{"52:54:00:00:00:01"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "web-2"})
	all, err := r.lab.Dispatch.Add(t.Context(), dispatch.Request{Boxes: []box.Addr{addr(t, "10.0.0.103")}, Action: box.Backup, By: "x"})
	must(t, err)
	b := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	for q, want := range map[string]string{
		"web-1": "/boxes/10.0.0.1", "10.0.0.2": "/boxes/10.0.0.2", "52:54:00:00:00:01": "/boxes/10.0.0.1", "web": "/?q=web", "": "/",
		all[0].ID: "/jobs/" + all[0].ID, "web-1@20261129-080000": "/boxes/10.0.0.1/disks?backup=20261129-080000",
		"a/../b": "/?q=a%2F..%2Fb",
	} {
		if resp, _ := b.get("/search?q=" + url.QueryEscape(q)); resp.Header.Get("Location") != want {
			t.Errorf("%q leads to %q, not %q", q, resp.Header.Get("Location"), want)
		}
	}
	if text := b.shows("/?q=web"); !strings.Contains(text, "web-1") || !strings.Contains(text, "web-2") {
		t.Errorf("%s", text)
	}
}

// TestReserve: a box is reserved and given back, and its health set, by forms.
func TestReserve(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	b, other := r.as(ledger.Token{Name: "ann", Role: ledger.Operator}), r.as(ledger.Token{Name: "bob", Role: ledger.Operator})
	resp, text := b.post("/act/hold", url.Values{"box": {"10.0.0.1"}, "for": {"4h"}, "why": {"a test"}})
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	if text := other.shows("/act/backup?box=10.0.0.1&box=10.0.0.2"); !strings.Contains(text, "1 of 2 boxes would be refused") ||
		strings.Contains(text, `name="box" value="10.0.0.1"`) {
		t.Errorf("%s", text)
	}
	resp, text = other.post("/act/unhold", url.Values{"box": {"10.0.0.1", "10.0.0.2"}})
	if resp.StatusCode != http.StatusConflict || strings.Count(text, "Not done") != 1 || strings.Count(text, ">Done.") != 1 {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	resp, _ = b.post("/act/health", url.Values{"box": {"10.0.0.2"}, "health": {"suspect"}, "why": {"noise"}})
	if resp.StatusCode != http.StatusSeeOther {
		t.Errorf("%d", resp.StatusCode)
	}
	if text := b.shows("/"); !strings.Contains(text, "token ann") || !strings.Contains(text, "noise") {
		t.Errorf("%s", text)
	}
	// Such a form counts once also if it fails: it may have begun something.
	form := url.Values{"box": {"10.0.0.1"}, "key": {"k1"}}
	first, text := other.post("/act/unhold", form)
	b.post("/act/unhold", url.Values{"box": {"10.0.0.1"}})
	if _, again := other.post("/act/unhold", form); first.StatusCode != http.StatusConflict || again != text {
		t.Errorf("%d %s, and again %s", first.StatusCode, text, again)
	}
}

// TestEvents: the page hears of a job by server-sent events.
func TestEvents(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	b := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	q, err := http.NewRequestWithContext(t.Context(), "GET", b.base+"/events", nil)
	must(t, err)
	resp, err := b.c.Do(q)
	must(t, err)
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%v", resp.Header)
	}
	_, err = r.lab.Dispatch.Add(t.Context(), dispatch.Request{Boxes: []box.Addr{addr(t, "10.0.0.1")}, Action: box.Backup, By: "x"})
	must(t, err)
	var text strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(text.String(), "event: job"); {
		n, err := resp.Body.Read(buf)
		text.Write(buf[:n])
		must(t, err)
	}
	stranger, _ := r.browser().get("/events")
	if stranger.StatusCode != http.StatusSeeOther {
		t.Errorf("a stranger: %d", stranger.StatusCode)
	}
}

// TestSeenAtOnce: a page that is opened right after a change has it, also if somebody opened one right before.
func TestSeenAtOnce(t *testing.T) {
	r := newRig(t)
	b := r.as(ledger.Token{Name: "v", Role: ledger.Viewer})
	for i := range 5 {
		b.shows("/")
		name := fmt.Sprintf("web-%d", i)
		r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: name})
		if text := b.shows("/"); !strings.Contains(text, name) {
			t.Errorf("the page does not have %s", name)
		}
	}
}

package labpage

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
)

const foreign = `<script>alert(1)</script>"' onload="x`

// fake is a site whose visitor may do all, with an API whose answers are written down.
type fake struct {
	answers map[string]any
	sent    []string
}

func (f *fake) May(string) bool               { return true }
func (f *fake) Name() string                  { return "token a" }
func (f *fake) Visitor(*http.Request) Visitor { return f }
func (f *fake) Fail(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func (f *fake) ShowAs(w http.ResponseWriter, _ *http.Request, status int, p boxpage.Page) {
	w.WriteHeader(status)
	w.Write([]byte(p.Body))
}

func (f *fake) Ask(_ context.Context, id string, p boxpage.Params, body, to any) error {
	sent, _ := json.Marshal([]any{id, p, body})
	f.sent = append(f.sent, string(sent))
	a, is := f.answers[id]
	if !is {
		return refused(http.StatusNotFound, "there is nothing")
	}
	text, err := json.Marshal(a)
	if err == nil && to != nil {
		err = json.Unmarshal(text, to)
	}
	return err
}

func (f *fake) do(method, path string, form url.Values) (*http.Response, string) {
	mux := http.NewServeMux()
	(&Pages{Site: f}).Routes(mux)
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

// TestStorePage shows what the store has, what is damaged and how work on it stands, and begins and cancels work.
func TestStorePage(t *testing.T) {
	now := time.Now()
	full := now.Add(30 * 24 * time.Hour)
	work := api.Upkeep{ID: "u1", Work: api.Scrub, By: foreign, Begun: now, State: "working", Done: 1 << 30, Total: 4 << 30}
	f := &fake{answers: map[string]any{
		"get-store": api.Store{ID: "the-id", Upkeep: &work, Lacking: 1, Lost: 1,
			Boot: &api.BootTesting{Window: "20:00-06:00", Waiting: 2, Held: "boxes are at work",
				Testing: &api.TestingBackup{Box: "10.0.0.8", Name: "web-8", Backup: "20261130-200000", Begun: now}},
			Last: []api.LastUpkeep{{Work: "gc", Begun: now, Ended: now, Outcome: "failed", Found: foreign}},
			Damage: []api.Lacking{{Box: "10.0.0.1", Name: foreign, Backup: "20261129-080000", Disk: foreign, Bytes: 5 << 20,
				Found: now}},
			Records: []api.LostRecord{{Box: "10.0.0.2", Backup: "b2", Text: foreign}}},
		"get-store-history": api.StoreHistory{Forecast: api.StoreForecast{State: "full", Day: &full, PerDay: 1 << 30},
			Sizes: []api.StoreSize{{Time: now.Add(-time.Hour), Stored: 1 << 30, Data: 2 << 30}, {Time: now, Stored: 2 << 30,
				Data: 9 << 30, Backups: 3}}},
		"add-upkeep": work, "get-upkeep": work, "cancel-upkeep": work,
	}}
	_, text := f.do("GET", "/store", nil)
	for _, want := range []string{"the-id", "It will be full on " + full.Format("2006-01-02"), "<svg", "cannot be restored in full",
		"5.00 MiB", "data-often",
		"1.00 GiB of 4.00 GiB", "/do/cancel-upkeep?on=u1", "/do/scrub", "&lt;script&gt;", "7.00 GiB",
		"The backup 20261130-200000 of", "/boxes/10.0.0.8", "has run in a virtual machine <time",
		"2 latest backups of boxes wait for a boot test: boxes are at work."} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q: %s", want, text)
		}
	}
	if strings.Contains(text, "<script>") {
		t.Error("what somebody else said is not text alone")
	}
	resp, _ := f.do("POST", "/do/scrub", url.Values{"key": {"k"}, "why": {"w"}})
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/store?upkeep=u1" ||
		f.sent[len(f.sent)-1] != `["add-upkeep",null,{"work":"scrub","key":"k","why":"w"}]` {
		t.Errorf("%d %v %v", resp.StatusCode, resp.Header, f.sent)
	}
	resp, _ = f.do("POST", "/do/cancel-upkeep", url.Values{"on": {"u1"}})
	if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(f.sent[len(f.sent)-1], `["cancel-upkeep",{"upkeep":"u1"}`) {
		t.Errorf("%d %v", resp.StatusCode, f.sent)
	}
	work.State, work.Outcome, work.Error = "ended", "damaged", "it is bad"
	f.answers["get-upkeep"], f.answers["get-store"] = work, api.Store{ID: "the-id"}
	if _, text := f.do("GET", "/store?upkeep=u1", nil); !strings.Contains(text, "damaged") || !strings.Contains(text, "it is bad") ||
		strings.Contains(text, "data-often") {
		t.Errorf("%s", text)
	}
}

// TestQueueSaysWhatToDo: a job that is held says how that ends, and one that runs how much of it is done.
func TestQueueSaysWhatToDo(t *testing.T) {
	f := &fake{answers: map[string]any{"list-jobs": api.JobList{Jobs: []api.Job{
		{ID: "j1", Box: "10.0.0.1", Action: "restore", State: "held", Text: foreign},
		{ID: "j2", Box: "10.0.0.2", Action: "rescue", State: "rescue"},
		{ID: "j3", Box: "10.0.0.3", Action: "backup", State: "running", Progress: &api.Progress{Text: foreign, Done: 299, Total: 1000}},
	}}}}
	_, text := f.do("GET", "/jobs?state=", nil)
	for _, want := range []string{"Restore it, or release it", "/act/restore?box=10.0.0.1", "/act/release?box=10.0.0.1",
		"/act/finish?box=10.0.0.2", "29 %</span>", "/act/cancel?job=j3"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q: %s", want, text)
		}
	}
	if strings.Contains(text, "/act/cancel?job=j1") || strings.Contains(text, "/act/cancel?job=j2") || strings.Contains(text, "<script>") {
		t.Error(text)
	}
}

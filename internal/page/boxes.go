package page

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/page/boxpage"
)

const (
	perPage  = 1000  // boxes on a page
	maxBoxes = 20000 // of a lab that a page looks through
	maxRows  = 100   // rows that a browser may ask for anew at once
)

// lab is what is known of all boxes that some visitors may see.
type lab struct {
	at      time.Time
	rows    []*row // those that need somebody first, then by address
	unknown string // why the latest backups are not known
	groups  []string
	labels  []string

	needing, busy int // boxes that need somebody, and that are at work
}

// row is a box in the list.
type row struct {
	api.Box
	Addr     box.Addr
	Needs    []string // why the box needs somebody; none if it does not
	State    string   // what it does, in a word
	Text     string   // the same in a sentence
	Share    string   // how much of it is done; "" if it is not known
	Progress int      // the same in percent
	Job      string

	// The row as HTML, for who may not choose it and for who may. It is made when somebody wants it first.
	shown [2]atomic.Pointer[template.HTML]
}

// ID is the id of the row in the page.
func (r *row) ID() string { return "box-" + strings.ReplaceAll(r.Address, ".", "-") }

// labs keep what was read for a moment, so that many browsers that hear of the same change cause
// one look.
type labs struct {
	mu sync.Mutex        // guards by
	by map[string]*labOf // by the group that a visitor is limited to; "" is all
}

type labOf struct {
	mu  sync.Mutex // held while the ledger is read
	lab *lab
}

// fresh is how old what a browser is told of changed boxes may be. A browser waits for so long after it has
// heard of a change, so the change is in it.
const fresh = time.Second

// lab is what is known of all boxes, as it was at a time or later.
func (s *Site) lab(ctx context.Context, v *api.Visitor, since time.Time) (*lab, error) {
	s.labs.mu.Lock()
	if s.labs.by == nil || len(s.labs.by) > 100 {
		s.labs.by = map[string]*labOf{}
	}
	of := s.labs.by[v.Group()]
	if of == nil {
		of = &labOf{}
		s.labs.by[v.Group()] = of
	}
	s.labs.mu.Unlock()
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.lab != nil && !of.lab.at.Before(since) {
		return of.lab, nil
	}
	l, err := s.readLab(ctx, v)
	if err == nil {
		of.lab = l
	}
	return l, err
}

// readLab reads all boxes and all jobs that have not ended.
func (s *Site) readLab(ctx context.Context, v *api.Visitor) (*lab, error) {
	l := &lab{at: time.Now()}
	open := map[string]*api.Job{}
	for p := (boxpage.Params{"open": "true", "limit": "1000"}); ; {
		var list api.JobList
		if err := v.Ask(ctx, "list-jobs", p, nil, &list); err != nil {
			return nil, err
		}
		for i := range list.Jobs { // the latest first; the one that is at work counts
			j := &list.Jobs[i]
			if old := open[j.Box]; old == nil || old.State == job.Queued {
				open[j.Box] = j
			}
		}
		if p["after"] = list.Next; list.Next == "" || len(open) >= maxBoxes {
			break
		}
	}
	groups, labels := map[string]bool{}, map[string]bool{}
	for p := (boxpage.Params{"limit": strconv.Itoa(perPage)}); ; {
		var list api.BoxList
		if err := v.Ask(ctx, "list-boxes", p, nil, &list); err != nil {
			return nil, err
		}
		l.unknown = cmp.Or(l.unknown, list.Unknown)
		for _, b := range list.Boxes {
			r := rowOf(b, open[b.Address], s.cfg.Now())
			l.rows = append(l.rows, r)
			if len(r.Needs) > 0 {
				l.needing++
			}
			if r.State == string(job.Running) {
				l.busy++
			}
			for _, g := range b.Groups {
				groups[g] = true
			}
			for _, w := range b.Labels {
				labels[w] = true
			}
		}
		if p["after"] = list.Next; list.Next == "" || len(l.rows) >= maxBoxes {
			break
		}
	}
	slices.SortStableFunc(l.rows, func(a, b *row) int { return cmp.Or(rank(a)-rank(b), a.Addr.IP().Compare(b.Addr.IP())) })
	l.groups, l.labels = sorted(groups), sorted(labels)
	return l, nil
}

func rank(r *row) int {
	if len(r.Needs) > 0 {
		return 0
	}
	return 1
}

func sorted(set map[string]bool) (all []string) {
	for w := range set {
		all = append(all, w)
	}
	slices.Sort(all)
	return all
}

// waitsLong is how long a box may be armed until somebody should look whether it starts.
const waitsLong = time.Hour

// rowOf makes the row of a box. j is its job that has not ended, or nil.
func rowOf(b api.Box, j *api.Job, now time.Time) *row {
	r := &row{Box: b, State: "idle"}
	r.Addr, _ = box.ParseAddr(b.Address)
	// The last argument of some sentences is a text that somebody may have left out.
	need := func(format string, args ...any) {
		r.Needs = append(r.Needs, strings.TrimSuffix(fmt.Sprintf(format, args...), ": "))
	}
	switch b.Health {
	case ledger.Suspect, ledger.Bad:
		need("It is %s: %s", b.Health, b.HealthReason)
	}
	if j != nil {
		r.Job, r.State, r.Text = j.ID, string(j.State), string(j.Action)
		switch j.State {
		case job.Queued:
			if j.Wait != nil {
				r.Text += ": " + j.Wait.Text
			}
		case job.Armed:
			if now.Sub(j.Since) > waitsLong && !j.Power {
				need("It is armed for %s since %s, and has not started maintenance. Somebody has to restart it.", j.Action,
					boxpage.Span(now.Sub(j.Since)))
			}
		case job.Running:
			if p := j.Progress; p != nil {
				if r.Text += ": " + string(p.Step); p.Total > 0 {
					r.Share, r.Progress = boxpage.Percent(p.Done, p.Total), int(max(0, min(1, float64(p.Done)/float64(p.Total)))*100)
				}
			}
		case job.Held:
			need("%s", boxpage.HeldText(j.Text))
		case job.Rescue:
			r.Text = "up for people"
		}
	} else if last := b.Last; last != nil {
		r.Job = last.ID
		r.State, r.Text = string(last.Outcome), string(last.Action)
		switch {
		case last.State != job.Ended:
			r.State = string(last.State)
		case last.Outcome != box.Done && last.Outcome != job.Cancelled:
			need("Its last job, %s, ended as %s: %s", last.Action, last.Outcome, last.Text)
		case last.Up == job.UpNo:
			need("Its own system was not seen after the last job, %s.", last.Action)
		}
	}
	switch {
	case b.Lost:
		need("It is lost: it was to start anew after its last action, and has not asked for its boot files since.")
	case !b.SilentSince.IsZero():
		need("It was not seen for longer than is usual for it, since %s.", boxpage.Span(now.Sub(b.LastSeen)))
	}
	if f := b.Firmware; f != nil && f.Needs {
		need("%s", f.BootOrder.Means())
	}
	if b.Moved != nil {
		need("Its machine asks from another address, %s.", b.Moved.Address)
	}
	if b.Shared != nil {
		need("Another machine asks from its address.")
	}
	if b.Health == ledger.Retired || b.Health == ledger.Maintenance {
		r.Needs = nil // somebody knows
	}
	return r
}

// filter is which boxes are wanted.
type filter struct {
	Query, Group, Label, Health, State string
	Needs                              bool
}

func filterOf(q url.Values) filter {
	return filter{strings.TrimSpace(q.Get("q")), q.Get("group"), q.Get("label"), q.Get("health"), q.Get("state"), q.Get("needs") != ""}
}

// Any reports whether boxes are chosen by anything but a text.
func (f filter) Any() bool { return f.Needs || f.Group+f.Label+f.Health+f.State != "" }

func (f filter) has(r *row) bool {
	return (f.Group == "" || slices.Contains(r.Groups, f.Group)) && (f.Label == "" || slices.Contains(r.Labels, f.Label)) &&
		(f.Health == "" || string(r.Health) == f.Health) && (f.State == "" || r.State == f.State) && (!f.Needs || len(r.Needs) > 0) &&
		(f.Query == "" || r.matches(strings.ToLower(f.Query)))
}

// matches reports whether a box has a text somewhere in what it is known by.
func (r *row) matches(lower string) bool {
	for _, w := range slices.Concat([]string{r.Address, r.Name, r.UUID}, r.MACs, r.Labels, r.Groups) {
		if strings.Contains(strings.ToLower(w), lower) {
			return true
		}
	}
	return false
}

// boxesData is what the page of all boxes shows.
type boxesData struct {
	Filter         filter
	Rows           []*row
	Table          template.HTML // of the rows
	All, Found     int
	Needing, Busy  int
	Groups, Labels []string
	Healths        []ledger.Health
	States         []string
	Unknown        string
	Next           string
	Live           string // where the rows of boxes come from that have changed
	Whole          bool   // all boxes that are like the filter are in the list
	May            may
}

// may is what a visitor may do on the page of all boxes.
type may struct{ Jobs, Set bool }

// stateWords are what the states of the list are called.
var stateWords = strings.Fields("queued armed running restarting held rescue done failed refused expired cancelled idle")

func (s *Site) home(w http.ResponseWriter, r *http.Request) {
	v := visitorOf(r)
	l, err := s.lab(r.Context(), v, time.Now())
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	q := r.URL.Query()
	d := boxesData{Filter: filterOf(q), All: len(l.rows), Needing: l.needing, Busy: l.busy,
		Groups: l.groups, Labels: l.labels, Unknown: l.unknown, States: stateWords,
		Healths: []ledger.Health{ledger.Good, ledger.Suspect, ledger.Bad, ledger.Maintenance, ledger.Retired},
		May:     may{v.May("add-jobs"), v.May("set-box")}}
	skip, _ := strconv.Atoi(q.Get("from"))
	for _, row := range l.rows {
		if !d.Filter.has(row) {
			continue
		}
		if d.Found++; d.Found > skip && len(d.Rows) < perPage {
			d.Rows = append(d.Rows, row)
		}
	}
	if last := max(skip, 0) + len(d.Rows); last < d.Found {
		q.Set("from", strconv.Itoa(last))
		d.Next = "/?" + q.Encode()
	}
	d.Whole = len(d.Rows) == d.Found
	q.Del("from")
	d.Live = "/rows?" + q.Encode()
	if d.Table, err = s.table(d.Rows, d.May.Jobs); err != nil {
		s.fault(w, r, err)
		return
	}
	s.page(w, r, http.StatusOK, "Boxes", "boxes.tmpl", d)
}

// table makes the HTML of rows. Many browsers ask for the same rows within the second in which a lab is kept, and all
// who may do the same are shown the same.
func (s *Site) table(rows []*row, pick bool) (template.HTML, error) {
	var text strings.Builder
	which := 0
	if pick {
		which = 1
	}
	for _, r := range rows {
		shown := r.shown[which].Load()
		if shown == nil {
			made, err := s.templates.Render("row.tmpl", struct {
				Row  *row
				Box  *api.Box // a template takes long to find what is embedded
				Pick bool
			}{r, &r.Box, pick})
			if err != nil {
				return "", err
			}
			shown = &made
			r.shown[which].Store(shown)
		}
		text.WriteString(string(*shown))
	}
	return template.HTML(text.String()), nil
}

// rows answers with the rows of some boxes, as they are now, and with the numbers above the list. A box that
// is not, or not any more, like the filter has none.
func (s *Site) rows(w http.ResponseWriter, r *http.Request) {
	v := visitorOf(r)
	l, err := s.lab(r.Context(), v, time.Now().Add(-fresh))
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	wanted := map[string]bool{}
	for _, a := range r.URL.Query()["box"] {
		if len(wanted) < maxRows {
			wanted[a] = true
		}
	}
	d := boxesData{All: len(l.rows), Needing: l.needing, Busy: l.busy, May: may{v.May("add-jobs"), v.May("set-box")}}
	f := filterOf(r.URL.Query())
	for _, row := range l.rows {
		if wanted[row.Address] && f.has(row) {
			d.Rows = append(d.Rows, row)
		}
	}
	if d.Table, err = s.table(d.Rows, d.May.Jobs); err != nil {
		s.fault(w, r, err)
		return
	}
	body, err := s.templates.Render("rows.tmpl", d)
	if err != nil {
		s.fault(w, r, err)
		return
	}
	send(w, body)
}

// send answers with a part of a page.
func send(w http.ResponseWriter, body template.HTML) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(body))
}

// search goes to the one thing that a text names, or shows the boxes that have it.
func (s *Site) search(w http.ResponseWriter, r *http.Request) {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	v := visitorOf(r)
	if q == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	var j api.Job
	if err := v.Ask(r.Context(), "get-job", boxpage.Params{"job": q}, nil, &j); err == nil {
		http.Redirect(w, r, "/jobs/"+url.PathEscape(j.ID), http.StatusSeeOther)
		return
	}
	word, backup, _ := strings.Cut(q, "@") // web-1@20261129-080000 is a backup
	var b api.Box
	if err := v.Ask(r.Context(), "get-box", boxpage.Params{"box": word}, nil, &b); err == nil {
		to := "/boxes/" + url.PathEscape(b.Address)
		if backup != "" {
			to += "/disks?backup=" + url.QueryEscape(backup)
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, "/?q="+url.QueryEscape(q), http.StatusSeeOther)
}

package labpage

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/page/boxpage"
)

const (
	maxOpen    = 5000 // jobs that have not ended of which the queue is made
	shownOpen  = 200  // of them on a page, of each part
	shownEnded = 100
	maxOfKey   = 1000 // jobs that one request of a form can make
	maxLooks   = 20   // at pages of which the visitor may see nothing
)

// queueData is what the page of the queue shows.
type queueData struct {
	Filter  queueFilter
	States  []job.State
	Wrong   string // why there is no list
	Busy    []api.Job
	Waiting []api.Job
	Ended   []api.Job
	// Of the parts that do not fit into the page.
	AllBusy, AllWaiting   int
	MoreBusy, MoreWaiting string
	Older, Newest         string
	Many                  bool // there are more than are looked at
	ShowOpen, ShowEnded   bool
	Sum                   string // how the jobs of a request stand
	Rooms                 []api.RoomSum
	May                   struct{ Cancel bool }
}

// queueFilter says which jobs are shown.
type queueFilter struct{ Box, State, By, Key, After string }

func (f queueFilter) link(set ...string) string {
	q := url.Values{}
	add := func(name, value string) {
		if q.Del(name); value != "" {
			q.Set(name, value)
		}
	}
	add("box", f.Box)
	add("state", f.State)
	add("by", f.By)
	add("key", f.Key)
	for i := 0; i+1 < len(set); i += 2 {
		add(set[i], set[i+1])
	}
	if len(q) == 0 {
		return "/jobs"
	}
	return "/jobs?" + q.Encode()
}

var jobStates = []job.State{job.Queued, job.Armed, job.Running, job.Restarting, job.Held, job.Rescue, job.Ended}

func (p *Pages) queue(r *http.Request, v Visitor) (any, error) {
	q := r.URL.Query()
	f := queueFilter{strings.TrimSpace(q.Get("box")), q.Get("state"), strings.TrimSpace(q.Get("by")), q.Get("key"), q.Get("after")}
	d := &queueData{Filter: f, States: jobStates}
	d.May.Cancel = v.May("cancel-job")
	d.ShowOpen = f.State != string(job.Ended) && f.After == ""
	d.ShowEnded = f.State == "" || f.State == string(job.Ended)
	from, _ := strconv.Atoi(q.Get("from"))
	err := d.read(r, v, max(0, min(from, maxOpen)))
	if said := wrongOf(err); said != "" && (f.After != "" || f.link() != "/jobs") {
		// A box that is not there, or a page that is too old, is no reason to show no form.
		d.Wrong, d.ShowOpen, d.ShowEnded, err = said, false, false, nil
	}
	return d, err
}

func (d *queueData) read(r *http.Request, v Visitor, from int) error {
	f := d.Filter
	ask := boxpage.Params{"box": f.Box, "by": f.By, "key": f.Key}
	if f.Key != "" && f.By == "" {
		// Of the visitor's own keys the ledger has an index.
		own := boxpage.Params{"by": v.Name(), "key": f.Key, "limit": "1"}
		var list api.JobList
		if err := v.Ask(r.Context(), "list-jobs", own, nil, &list); err != nil {
			return err
		}
		if len(list.Jobs) > 0 {
			ask["by"] = v.Name()
		}
	}
	var open []api.Job
	if d.ShowOpen {
		ask["open"], ask["state"], ask["limit"] = "true", f.State, "1000"
		var err error
		if open, err = d.open(r, v, ask); err != nil {
			return err
		}
		d.split(open, from)
		d.Rooms = api.Rooms(open)
	}
	if !d.ShowEnded {
		return nil
	}
	ask["open"], ask["state"], ask["after"], ask["limit"] = "", string(job.Ended), f.After, strconv.Itoa(shownEnded)
	if f.Key != "" {
		ask["limit"] = strconv.Itoa(maxOfKey)
	}
	for range maxLooks {
		var list api.JobList
		if err := v.Ask(r.Context(), "list-jobs", ask, nil, &list); err != nil {
			return err
		}
		d.Ended, ask["after"] = list.Jobs, list.Next
		if len(d.Ended) > 0 || list.Next == "" {
			break
		}
	}
	if ask["after"] != "" {
		d.Older = f.link("state", string(job.Ended), "after", ask["after"])
	}
	if f.After != "" {
		d.Newest = f.link()
	}
	if f.Key != "" {
		slices.SortStableFunc(d.Ended, func(a, b api.Job) int { return cmp.Compare(rank(a), rank(b)) })
		if d.ShowOpen && d.Older == "" && f.State == "" {
			d.Sum = sumOf(d.AllBusy+d.AllWaiting, d.Ended)
			d.Rooms = api.Rooms(slices.Concat(open, d.Ended))
		}
	}
	return nil
}

// rank has the jobs first that did not do what was asked for.
func rank(j api.Job) int {
	if j.Outcome == box.Done && j.Up != job.UpNo {
		return 1
	}
	return 0
}

// open reads the jobs that have not ended.
func (d *queueData) open(r *http.Request, v Visitor, ask boxpage.Params) (open []api.Job, err error) {
	for {
		var list api.JobList
		if err := v.Ask(r.Context(), "list-jobs", ask, nil, &list); err != nil {
			return nil, err
		}
		open = append(open, list.Jobs...)
		if ask["after"] = list.Next; list.Next == "" {
			return open, nil
		}
		if len(open) >= maxOpen {
			d.Many = true
			return open, nil
		}
	}
}

// split takes apart what is under way and what waits.
func (d *queueData) split(open []api.Job, from int) {
	busy, waiting := []api.Job{}, []api.Job{}
	for _, j := range open {
		if j.State == job.Queued {
			waiting = append(waiting, j)
		} else {
			busy = append(busy, j)
		}
	}
	// What needs somebody comes first.
	order := []job.State{job.Held, job.Rescue, job.Running, job.Restarting, job.Armed}
	slices.SortStableFunc(busy, func(a, b api.Job) int { return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)) })
	slices.SortStableFunc(waiting, func(a, b api.Job) int { return cmp.Compare(placeOf(a), placeOf(b)) })
	d.AllBusy, d.AllWaiting = len(busy), len(waiting)
	part := func(all []api.Job, state string) ([]api.Job, string) {
		at := min(from, len(all))
		end := min(at+shownOpen, len(all))
		more := ""
		if end < len(all) {
			more = d.Filter.link("from", strconv.Itoa(end), "state", state)
		}
		return all[at:end], more
	}
	// Without a state, both parts begin anew, so that no job is on none of the pages.
	if d.Filter.State == "" {
		from = 0
	}
	d.Waiting, d.MoreWaiting = part(waiting, string(job.Queued))
	d.Busy, d.MoreBusy = part(busy, d.Filter.State)
	if d.Filter.State == "" && d.MoreBusy != "" {
		d.MoreBusy = d.Filter.link("state", string(busy[len(d.Busy)].State))
	}
}

func placeOf(j api.Job) int {
	if j.Wait == nil {
		return 1 << 30
	}
	return j.Wait.Place
}

// sumOf says how the jobs of one request stand.
func sumOf(open int, ended []api.Job) string {
	count := map[string]int{}
	for _, j := range ended {
		word := string(j.Outcome)
		if j.Outcome == box.Done && j.Up == job.UpNo {
			word = "done, but the box's own system was not seen"
		}
		count[cmp.Or(word, "ended")]++
	}
	var parts []string
	for _, word := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d %s", count[word], word))
	}
	if open > 0 {
		parts = append(parts, fmt.Sprintf("%d not ended", open))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("%d in all: %s.", open+len(ended), strings.Join(parts, "; "))
}

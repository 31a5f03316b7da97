package labpage

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
)

// task is something that a form asks for.
type task struct {
	Name   string // as in paths
	Title  string
	About  string // what it does
	Button string
	Danger bool   // it takes something away
	Back   string // the page that it belongs to
	route  string
	NoWhy  bool // the audit log does not have it
	// fill adds to a form what is known of the thing that it is about. nil means that the form has only a reason.
	fill func(ctx context.Context, v Visitor, f *form) error
	// send does it, and says where to go on. If done is not nil, that is shown in place of another page.
	send func(ctx context.Context, v Visitor, q url.Values) (to string, done *done, err error)
}

// form is the page of a task.
type form struct {
	Task   *task
	On     string // what it is about
	Key    string // makes the form count once, however often it is sent
	Facts  []fact
	Fields []field
	Why    string
	Wrong  string // why it was not done
	query  url.Values
}

type fact struct{ Name, Text string }

type field struct {
	Name, Label, Value, Hint string
	Kind                     string // of an input; "" is text
	Options                  []string
	Required                 bool
	Max                      int
}

// done says what was done, where a list cannot say it.
type done struct {
	Title, Text string
	Secret      string // is shown this once
	Left        []string
	To, Link    string
}

// ask adds a field, with what was typed into it before.
func (f *form) ask(a field) {
	if f.query.Has(a.Name) {
		a.Value = f.query.Get(a.Name)
	}
	if a.Max == 0 {
		a.Max = 300
	}
	f.Fields = append(f.Fields, a)
}

// say adds a fact, unless it is not known.
func (f *form) say(name, text string) {
	if text != "" {
		f.Facts = append(f.Facts, fact{name, text})
	}
}

var tasks []*task

func init() { // the tasks name functions that name tasks
	tasks = slices.Concat(machineTasks, storeTasks, scheduleTasks, accessTasks)
}

func taskOf(name string) *task {
	if i := slices.IndexFunc(tasks, func(t *task) bool { return t.Name == name }); i >= 0 {
		return tasks[i]
	}
	return nil
}

// may finds a task that a visitor may ask for.
func may(r *http.Request, v Visitor) (*task, error) {
	t := taskOf(r.PathValue("task"))
	switch {
	case t == nil:
		return nil, refused(http.StatusNotFound, "there is no such action")
	case !v.May(t.route):
		return nil, refused(http.StatusForbidden, "this is not for your role")
	}
	return t, nil
}

// form shows what a task will do. Nothing is done.
func (p *Pages) form(w http.ResponseWriter, r *http.Request) {
	p.fill(w, r, r.URL.Query(), nil)
}

// fill shows the form of a task. said is why it was not done before.
func (p *Pages) fill(w http.ResponseWriter, r *http.Request, q url.Values, said *api.Problem) {
	v := p.Site.Visitor(r)
	t, err := may(r, v)
	if err != nil {
		p.Site.Fail(w, r, err)
		return
	}
	f := &form{Task: t, On: q.Get("on"), Key: q.Get("key"), Why: q.Get("why"), query: q}
	if f.Key == "" {
		f.Key = "page-" + rand.Text()
	}
	if t.fill != nil {
		err = t.fill(r.Context(), v, f)
	}
	status := http.StatusOK
	if said != nil {
		status, f.Wrong = said.Status, said.Error()
		if err != nil { // what the form is about is gone meanwhile
			err = said
		}
	}
	if err != nil {
		p.Site.Fail(w, r, err)
		return
	}
	p.show(w, r, status, t.Title, "task.tmpl", f)
}

// do does what a form asks for. The answer is made after it was done.
func (p *Pages) do(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.Site.Fail(w, r, refused(http.StatusBadRequest, "the form cannot be read: %v", err))
		return
	}
	v, q := p.Site.Visitor(r), r.PostForm
	t, err := may(r, v)
	if err != nil {
		p.Site.Fail(w, r, err)
		return
	}
	to, made, err := t.send(r.Context(), v, q)
	var said *api.Problem
	switch {
	case errors.As(err, &said) && said.Status < 500 && said.Status != http.StatusUnauthorized:
		p.fill(w, r, q, said)
	case err != nil:
		p.Site.Fail(w, r, err)
	case made != nil:
		p.show(w, r, http.StatusOK, made.Title, "done.tmpl", made)
	default:
		http.Redirect(w, r, to, http.StatusSeeOther)
	}
}

// list takes apart what was typed as a list.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

// day understands the value of a field for a date. A day begins in UTC, in which all pages give times.
func day(text string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, refused(http.StatusBadRequest, "%.40q is no date; a date is written like 2026-11-30", text)
	}
	return t, nil
}

// part is one page of a list that is there as a whole.
func part[T any](all []T, q url.Values, most int, link string) (some []T, next string) {
	from, _ := strconv.Atoi(q.Get("from"))
	from = min(max(0, from), len(all))
	end := min(from+most, len(all))
	if end < len(all) {
		next = link + "?from=" + strconv.Itoa(end)
	}
	return all[from:end], next
}

func boxPath(addr string) string { return "/boxes/" + url.PathEscape(addr) }

func allBoxes(ctx context.Context, v Visitor) (all []api.Box, err error) {
	for p := (boxpage.Params{"limit": "1000"}); len(all) < maxBoxes; {
		var list api.BoxList
		if err := v.Ask(ctx, "list-boxes", p, nil, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Boxes...)
		if p["after"] = list.Next; list.Next == "" {
			break
		}
	}
	return all, nil
}

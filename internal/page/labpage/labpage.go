// Package labpage makes the pages about the lab as a whole: queue, machines, store, calendar,
// audit log, access, and the parts of the server. It asks the admin API for everything, as
// whoever opened the page, so that it shows and does what the role allows and no more. Whatever
// is changed is changed by the form of a task, which says first what will be done.
package labpage

import (
	"embed"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
)

// Visitor makes requests of the admin API for whoever opened a page. It is an *api.Visitor.
type Visitor interface {
	boxpage.API
	May(id string) bool // whether the role allows a request of the API
	Name() string       // as in the audit log
}

// Site is what these pages stand in.
type Site interface {
	// Visitor is who made a request.
	Visitor(r *http.Request) Visitor
	// ShowAs writes a page within its frame, with a status.
	ShowAs(w http.ResponseWriter, r *http.Request, status int, p boxpage.Page)
	// Fail writes the page of an error.
	Fail(w http.ResponseWriter, r *http.Request, err error)
}

// Pages makes pages.
type Pages struct {
	Now  func() time.Time // nil means time.Now
	Site Site

	once      sync.Once // reads the templates
	templates boxpage.Templates
}

//go:embed *.tmpl
var files embed.FS

// Style belongs to the pages of this package. It is a file of the site.
//
//go:embed labpage.css
var Style []byte

// Routes adds the pages to a site. The site itself keeps strangers, and forms of other sites,
// away from them.
func (p *Pages) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /jobs", p.page("Queue", "queue.tmpl", p.queue))
	mux.HandleFunc("GET /machines", p.page("Machines", "machines.tmpl", p.machines))
	mux.HandleFunc("GET /store", p.page("Store", "store.tmpl", p.store))
	mux.HandleFunc("GET /calendar", p.page("Calendar", "calendar.tmpl", p.calendar))
	mux.HandleFunc("GET /audit", p.page("Audit log", "audit.tmpl", p.audit))
	mux.HandleFunc("GET /access", p.page("Access", "access.tmpl", p.access))
	mux.HandleFunc("GET /status", p.page("Server", "status.tmpl", p.status))
	mux.HandleFunc("GET /do/{task}", p.form)
	mux.HandleFunc("POST /do/{task}", p.do)
}

// page answers with a template, for which read reads the data.
func (p *Pages) page(title, name string, read func(r *http.Request, v Visitor) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := read(r, p.Site.Visitor(r))
		if err != nil {
			p.Site.Fail(w, r, err)
			return
		}
		p.show(w, r, http.StatusOK, title, name, data)
	}
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request, status int, title, name string, data any) {
	p.once.Do(func() { p.templates = boxpage.ReadTemplates(files, "*.tmpl", p.Now) })
	body, err := p.templates.Render(name, data)
	if err != nil {
		p.Site.Fail(w, r, err)
		return
	}
	p.Site.ShowAs(w, r, status, boxpage.Page{Title: boxpage.Plain(title), Body: body})
}

func (p *Pages) now() time.Time {
	if p.Now == nil {
		return time.Now()
	}
	return p.Now()
}

// wrongOf is what was wrong with a request, if its visitor can put that right.
func wrongOf(err error) string {
	var said *api.Problem
	if errors.As(err, &said) && said.Status < 500 && said.Status != http.StatusUnauthorized && said.Status != http.StatusForbidden {
		return said.Error()
	}
	return ""
}

// refused is an error as the API gives it.
func refused(status int, format string, args ...any) error {
	code := api.CodeWrong
	switch status {
	case http.StatusNotFound:
		code = api.CodeNotFound
	case http.StatusForbidden:
		code = api.CodeForbidden
	}
	return &api.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: fmt.Sprintf(format, args...)}
}

package boxpage

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Site is what these pages stand in.
type Site interface {
	// API makes requests as the visitor who made this one.
	API(r *http.Request) API
	// Show writes a page within its frame.
	Show(w http.ResponseWriter, r *http.Request, p Page)
	// Fail writes the page of an error.
	Fail(w http.ResponseWriter, r *http.Request, err error)
	// Forward answers with what the API answers to this visitor, as long as it goes on.
	Forward(w http.ResponseWriter, r *http.Request, route string, params Params)
}

// maxForm is how many bytes a form may have.
const maxForm = 16 << 10

// Routes adds the pages to a site. The site itself keeps strangers, and forms of other
// sites, away from them.
func (p *Pages) Routes(mux *http.ServeMux, site Site) {
	page := func(make func(r *http.Request, a API) (Page, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch made, err := make(r, site.API(r)); {
			case err != nil:
				site.Fail(w, r, err)
			case r.URL.Query().Get("part") != "":
				bare(w, made)
			default:
				site.Show(w, r, made)
			}
		}
	}
	mux.Handle("GET /boxes/{box}", page(func(r *http.Request, a API) (Page, error) {
		return p.Box(r.Context(), a, r.PathValue("box"), r.URL.Query().Get("older"))
	}))
	mux.Handle("GET /boxes/{box}/disks", page(func(r *http.Request, a API) (Page, error) {
		q := r.URL.Query()
		return p.Disks(r.Context(), a, r.PathValue("box"), q.Get("backup"), q.Get("part") != "")
	}))
	mux.Handle("GET /jobs/{job}", page(func(r *http.Request, a API) (Page, error) {
		return p.Job(r.Context(), a, r.PathValue("job"))
	}))
	mux.HandleFunc("GET /jobs/{job}/now", func(w http.ResponseWriter, r *http.Request) {
		made, ended, err := p.jobNow(r.Context(), site.API(r), r.PathValue("job"))
		if err != nil {
			site.Fail(w, r, err)
			return
		}
		if ended {
			w.Header().Set(Ended, "1")
		}
		bare(w, made)
	})
	mux.HandleFunc("GET /boxes/{box}/now", func(w http.ResponseWriter, r *http.Request) {
		made, idle, err := p.boxNow(r.Context(), site.API(r), r.PathValue("box"))
		if err != nil {
			site.Fail(w, r, err)
			return
		}
		if idle {
			w.Header().Set(Idle, "1")
		}
		bare(w, made)
	})
	mux.HandleFunc("POST /boxes/{box}/backups/{backup}", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			site.Fail(w, r, wrong("the form cannot be read: %v", err))
			return
		}
		addr := r.PathValue("box")
		if err := Act(r.Context(), site.API(r), addr, r.PathValue("backup"), r.PostForm); err != nil {
			site.Fail(w, r, err)
			return
		}
		http.Redirect(w, r, "/boxes/"+url.PathEscape(addr)+"#backups-h", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /boxes/{box}/log", func(w http.ResponseWriter, r *http.Request) {
		params := Params{"box": r.PathValue("box")}
		if n, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64); err == nil {
			params["offset"] = strconv.FormatInt(n, 10)
		}
		if r.URL.Query().Get("follow") == "true" {
			params["follow"] = "true"
		}
		forward(w, r, site, "get-log", params)
	})
	mux.HandleFunc("GET /boxes/{box}/backups/{backup}/boot.png", func(w http.ResponseWriter, r *http.Request) {
		forward(w, r, site, "get-boot-picture", Params{"owner": r.PathValue("box"), "backup": r.PathValue("backup")})
	})
	mux.HandleFunc("GET /boxes/{box}/inventory", func(w http.ResponseWriter, r *http.Request) {
		forward(w, r, site, "get-inventory", Params{"box": r.PathValue("box"), "form": "text"})
	})
}

// These headers say that the page of a job will not change any more, and that a box has no job,
// so that its page needs to be looked at only now and then.
const (
	Ended = "Testbox-Ended"
	Idle  = "Testbox-Idle"
)

// bare writes a page that is put into another one.
func bare(w http.ResponseWriter, p Page) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, string(p.Body))
}

// forward gives a text of a box out. A browser must not take it for anything else.
func forward(w http.ResponseWriter, r *http.Request, site Site, route string, params Params) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	w.Header().Set("Cache-Control", "no-store")
	site.Forward(w, r, route, params)
}

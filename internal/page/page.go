// Package page is the web page of a server: HTML that the server makes, with files that are
// part of the program. It asks the admin API for everything, as whoever has logged in, so it
// shows and does what the role allows and no more. Packages below it have the pages of single
// things. What a box can say is text here, whatever it says.
package page

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
	"testbox-imaging/internal/page/labpage"
	"testbox-imaging/internal/sparing"
)

// Config says what the page works with.
type Config struct {
	API *api.Server
	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil means no log
}

// Site is the page as a http.Handler. It is served over TLS alone.
type Site struct {
	cfg       Config
	mux       *http.ServeMux
	cross     *http.CrossOriginProtection
	files     map[string]file // by their paths
	assets    assets
	labs      labs
	once      once
	tries     tries
	templates boxpage.Templates
	spare     sparing.Limit
}

// New makes the page of a server.
func New(cfg Config) *Site {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Site{cfg: cfg, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(),
		templates: boxpage.ReadTemplates(templateFiles, "templates/*.tmpl", cfg.Now)}
	s.readFiles()
	s.mux.HandleFunc("GET /{$}", s.home)
	s.mux.HandleFunc("GET /rows", s.rows)
	s.mux.HandleFunc("GET /search", s.search)
	s.mux.HandleFunc("GET /act/{action}", s.preview)
	s.mux.HandleFunc("POST /act/{action}", s.act)
	s.mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		visitorOf(r).Pass(w, r, "get-events", boxpage.Params{"brief": "true"})
	})
	(&boxpage.Pages{Now: cfg.Now}).Routes(s.mux, s)
	(&labpage.Pages{Now: cfg.Now, Site: s}).Routes(s.mux)
	return s
}

// pagePolicy lets a page use nothing but files of this server. There are no scripts and no styles
// within pages.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const (
	maxForm = 256 << 10        // bytes of a form: 1000 boxes can be named in one
	patient = 60 * time.Second // for how long a browser may send or not read
)

type visitorKey struct{}

func visitorOf(r *http.Request) *api.Visitor {
	v, _ := r.Context().Value(visitorKey{}).(*api.Visitor)
	return v
}

// ServeHTTP implements http.Handler.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctl := http.NewResponseController(w)
	ctl.SetWriteDeadline(time.Now().Add(patient))
	if r.ContentLength != 0 {
		ctl.SetReadDeadline(time.Now().Add(patient))
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	}
	defer s.recover(r)
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if f, ok := s.files[r.URL.Path]; ok {
		f.send(w, r)
		return
	}
	if err := s.cross.Check(r); err != nil {
		s.Fail(w, r, refused(http.StatusForbidden, "this form comes from a page of another server, so nothing was done"))
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /login":
		s.loginPage(w, r, "")
		return
	case "POST /login":
		s.login(w, r)
		return
	case "POST /logout":
		s.logout(w, r)
		return
	}
	v, err := s.visitor(r)
	if err != nil {
		s.loginFirst(w, r, err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), visitorKey{}, v))
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.Fail(w, r, refused(http.StatusNotFound, "there is no such page"))
		return
	}
	if r.Method == http.MethodPost && (strings.HasPrefix(r.URL.Path, "/act/") || strings.HasPrefix(r.URL.Path, "/do/")) {
		s.doOnce(w, r, s.mux)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// recover logs a fault. The browser sees that the answer is not whole.
func (s *Site) recover(r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if more, ok := s.spare.Take("fault"); ok && p != http.ErrAbortHandler {
		s.cfg.Log.Error("a page ended by a fault of the server"+more, "path", r.URL.Path, "fault", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
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

//go:embed templates/*.tmpl
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// file is a file that all pages use.
type file struct {
	kind string
	data []byte
}

func (f file) send(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // another content has another path
	if r.Method == http.MethodGet {
		w.Write(f.data)
	}
}

// assets are the paths of the files that a frame names.
type assets struct {
	Styles, Scripts []string
	Icon            string
}

var kinds = map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

// readFiles gives each file a path that changes with its content.
func (s *Site) readFiles() {
	s.files = map[string]file{}
	all := map[string][]byte{"boxpage.css": boxpage.Style, "boxpage.js": boxpage.Script, "labpage.css": labpage.Style}
	names, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		panic(err) // they are part of the program
	}
	for _, e := range names {
		data, err := fs.ReadFile(staticFiles, "static/"+e.Name())
		if err != nil {
			panic(err)
		}
		all[e.Name()] = data
	}
	for name, data := range all {
		base, ext, _ := strings.Cut(name, ".")
		sum := sha256.Sum256(data)
		path := "/static/" + base + "-" + hex.EncodeToString(sum[:6]) + "." + ext
		s.files[path] = file{kinds[ext], data}
		switch ext {
		case "css":
			s.assets.Styles = append(s.assets.Styles, path)
		case "js":
			s.assets.Scripts = append(s.assets.Scripts, path)
		default:
			s.assets.Icon = path
		}
	}
	// style.css has the colours, which the others use.
	sort.Slice(s.assets.Styles, func(i, j int) bool { return s.assets.Styles[i] > s.assets.Styles[j] })
	sort.Strings(s.assets.Scripts)
}

// link is a page in the frame's list of pages.
type link struct {
	Name, Path string
	Here       bool
}

// pages are those of the list, with the request that their visitors must be allowed to make.
var pages = []struct{ name, path, needs string }{
	{"Boxes", "/", "list-boxes"},
	{"Queue", "/jobs", "list-jobs"},
	{"Machines", "/machines", "list-machines"},
	{"Store", "/store", "get-store"},
	{"Calendar", "/calendar", "list-schedules"},
	{"Audit", "/audit", "list-audit"},
	{"Access", "/access", "list-users"},
	{"Server", "/status", "get-status"},
}

// frame is what a template of a whole page has.
type frame struct {
	assets
	Title   string
	Body    template.HTML
	Visitor *api.Visitor // nil if nobody is logged in
	Pages   []link
	Query   string
}

// page shows a template within the frame, or alone if only a part is wanted.
func (s *Site) page(w http.ResponseWriter, r *http.Request, status int, title, name string, data any) {
	body, err := s.templates.Render(name, data)
	if err != nil {
		s.fault(w, r, err)
		return
	}
	s.show(w, r, status, boxpage.Page{Title: title, Body: body})
}

func (s *Site) show(w http.ResponseWriter, r *http.Request, status int, p boxpage.Page) {
	f := frame{assets: s.assets, Title: p.Title, Body: p.Body, Visitor: visitorOf(r), Query: r.URL.Query().Get("q")}
	if f.Visitor != nil {
		for _, l := range pages {
			if f.Visitor.May(l.needs) {
				here := r.URL.Path == l.path || l.path != "/" && strings.HasPrefix(r.URL.Path, l.path+"/")
				f.Pages = append(f.Pages, link{l.name, l.path, here})
			}
		}
	}
	text, err := s.templates.Render("frame.tmpl", f)
	if err != nil {
		s.fault(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text))
}

// fault answers when a page cannot be made. Nothing of it was sent then.
func (s *Site) fault(w http.ResponseWriter, r *http.Request, err error) {
	if more, ok := s.spare.Take("page"); ok {
		s.cfg.Log.Error("a page cannot be made"+more, "path", r.URL.Path, "error", err)
	}
	http.Error(w, "The page cannot be made. The log of the server says why.", http.StatusInternalServerError)
}

// API implements boxpage.Site.
func (s *Site) API(r *http.Request) boxpage.API { return visitorOf(r) }

// Visitor implements labpage.Site.
func (s *Site) Visitor(r *http.Request) labpage.Visitor { return visitorOf(r) }

// ShowAs implements labpage.Site.
func (s *Site) ShowAs(w http.ResponseWriter, r *http.Request, status int, p boxpage.Page) {
	s.show(w, r, status, p)
}

// Show implements boxpage.Site.
func (s *Site) Show(w http.ResponseWriter, r *http.Request, p boxpage.Page) {
	s.show(w, r, http.StatusOK, p)
}

// Forward implements boxpage.Site.
func (s *Site) Forward(w http.ResponseWriter, r *http.Request, route string, params boxpage.Params) {
	visitorOf(r).Pass(w, r, route, params)
}

// Fail implements boxpage.Site. It is the one place where errors become pages.
func (s *Site) Fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		if more, ok := s.spare.Take("fail"); ok {
			s.cfg.Log.Error("a page failed"+more, "path", r.URL.Path, "error", err)
		}
		p = &api.Problem{Title: "The server failed", Status: http.StatusInternalServerError, Detail: "the server's log says why"}
	}
	if p.Status == http.StatusUnauthorized {
		s.loginFirst(w, r, err)
		return
	}
	s.page(w, r, p.Status, "This did not work", "problem.tmpl", p)
}

// local is a path of this server, for going on after a login; else "/".
func local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
		return "/"
	}
	if strings.ContainsAny(to, "\\\r\n\t") { // browsers take some of these for a slash, or leave them out
		return "/"
	}
	return to
}

package page

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/words"
)

// cookieName begins with a prefix by which browsers send the cookie to this server alone, and over
// TLS alone (RFC 6265bis, section 4.1.3.2).
const cookieName = "__Host-testbox"

// cookie has the secret of a login, which opens nothing but the page. No script can read it.
func cookie(secret string, age time.Duration) *http.Cookie {
	c := &http.Cookie{Name: cookieName, Value: secret, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: int(age / time.Second)}
	if c.MaxAge <= 0 { // 0 would mean a cookie without an end
		c.MaxAge = -1
	}
	return c
}

// errNobody means that nobody is logged in.
var errNobody = errors.New("nobody is logged in")

func (s *Site) visitor(r *http.Request) (*api.Visitor, error) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil, errNobody
	}
	return s.cfg.API.Visit(r.Context(), c.Value, r.RemoteAddr)
}

// loginFirst answers somebody who is not, or not any more, logged in.
func (s *Site) loginFirst(w http.ResponseWriter, r *http.Request, err error) {
	var p *api.Problem
	if errors.As(err, &p) && p.Status != http.StatusUnauthorized {
		s.Fail(w, r, err)
		return
	}
	// The cookie does not come along when a link of another site leads here, as in a mail or a chat. It
	// does when the page loads itself once more.
	if errors.Is(err, errNobody) && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		body, err := s.templates.Render("again.tmpl", local(r.URL.RequestURI()))
		if err != nil {
			s.fault(w, r, err)
			return
		}
		send(w, body)
		return
	}
	if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Dest") != "empty" {
		to := "/login"
		if at := r.URL.RequestURI(); at != "/" {
			to += "?to=" + url.QueryEscape(at)
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	if p == nil {
		s.loginPageStatus(w, r, http.StatusUnauthorized, "You are not logged in, so nothing was done.")
		return
	}
	s.loginPageStatus(w, r, http.StatusUnauthorized, "Nothing was done: "+p.Detail+".")
}

// loginData is what the page for logging in shows.
type loginData struct {
	Said string // why it did not work
	To   string
}

func (s *Site) loginPage(w http.ResponseWriter, r *http.Request, said string) {
	s.loginPageStatus(w, r, http.StatusOK, said)
}

func (s *Site) loginPageStatus(w http.ResponseWriter, r *http.Request, status int, said string) {
	to := r.URL.Query().Get("to")
	if r.URL.Path != "/login" {
		to = "/"
	}
	s.page(w, r, status, "Log in", "login.tmpl", loginData{said, local(to)})
}

func (s *Site) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.Fail(w, r, refused(http.StatusBadRequest, "the form cannot be read: %v", err))
		return
	}
	secret := strings.TrimSpace(r.PostForm.Get("token"))
	from := addressOf(r.RemoteAddr)
	if wait := s.tries.begin(from, s.cfg.Now()); wait > 0 {
		seconds := int(wait/time.Second) + 1
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		d := loginData{fmt.Sprintf("Too many wrong tokens came from your address, so this one was not looked at. Try again in %s.",
			words.Count(seconds, "second")), local(r.PostForm.Get("to"))}
		s.page(w, r, http.StatusTooManyRequests, "Log in", "login.tmpl", d)
		return
	}
	login, expires, err := s.cfg.API.Login(r.Context(), secret, r.RemoteAddr)
	var p *api.Problem
	wrong := errors.As(err, &p) && p.Status == http.StatusUnauthorized
	if !wrong {
		s.tries.right(from)
	}
	switch {
	case wrong:
		if more, ok := s.spare.Take("login " + r.RemoteAddr[:strings.LastIndex(r.RemoteAddr, ":")+1]); ok {
			s.cfg.Log.Warn("somebody tried to log in to the page with a wrong token"+more, "from", r.RemoteAddr)
		}
		d := loginData{"Nobody has this token, or it has ended.", local(r.PostForm.Get("to"))}
		s.page(w, r, http.StatusUnauthorized, "Log in", "login.tmpl", d)
		return
	case err != nil:
		s.Fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie(login, expires.Sub(s.cfg.Now())))
	http.Redirect(w, r, local(r.PostForm.Get("to")), http.StatusSeeOther)
}

func (s *Site) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		if err := s.cfg.API.Logout(r.Context(), c.Value, r.RemoteAddr); err != nil {
			s.Fail(w, r, err) // the login is still good, so nobody may be told that it is not
			return
		}
	}
	http.SetCookie(w, cookie("", 0))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"testbox-imaging/internal/ledger"
)

// Visitor is somebody who uses the page of the server. What a visitor asks for takes the same
// way as a request by HTTP: the table of routes says who may, and the same code checks and
// carries it out. Only the answer does not become JSON.
type Visitor struct {
	s *Server
	c *caller
}

// LoginTime is for how long a login lasts at most. It ends sooner with its token.
const LoginTime = 7 * 24 * time.Hour

// Login lets somebody in who has a token. remote is the address of the browser, as a http.Request has it. secret is for the
// browser, and opens nothing but the page. The server keeps a hash of it. The error is a *Problem.
func (s *Server) Login(ctx context.Context, token, remote string) (secret string, expires time.Time, err error) {
	c, err := s.ofToken(ctx, "Bearer "+token, remote)
	if err != nil {
		return "", expires, problemOf(err)
	}
	now := s.cfg.Now()
	expires = now.Add(LoginTime)
	if !c.expires.IsZero() && c.expires.Before(expires) {
		expires = c.expires
	}
	secret = rand.Text()
	ctx = context.WithValue(ctx, callerKey{}, c)
	err = s.change(ctx, "log in to the page", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		return tx.AddLogin(ledger.Login{Hash: hashOf(secret), Token: c.token, Begun: now, Expires: expires})
	})
	if err != nil {
		return "", expires, problemOf(err)
	}
	return secret, expires, nil
}

// Logout ends a login. If there is none, that is no error.
func (s *Server) Logout(ctx context.Context, secret, remote string) error {
	c, err := s.ofLogin(ctx, hashOf(secret), fromOf(remote))
	if err != nil {
		return nil
	}
	ctx = context.WithValue(ctx, callerKey{}, c)
	return s.change(ctx, "log out of the page", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		return tx.DeleteLogin(c.login)
	})
}

// Visit says whose login it is. The error is a *Problem.
func (s *Server) Visit(ctx context.Context, secret, remote string) (*Visitor, error) {
	c, err := s.ofLogin(ctx, hashOf(secret), fromOf(remote))
	if err != nil {
		return nil, problemOf(err)
	}
	return &Visitor{s, c}, nil
}

// ofLogin says who has logged in. It is asked again from time to time by requests that take long.
func (s *Server) ofLogin(ctx context.Context, h ledger.Hash, from string) (*caller, error) {
	var l ledger.Login
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		l, err = tx.Login(h)
		return err
	})
	switch {
	case errors.Is(err, ledger.ErrNotFound) || err == nil && !s.cfg.Now().Before(l.Expires):
		return nil, unauthorized("you are not logged in any more")
	case err != nil:
		return nil, err
	}
	c, err := s.ofHash(ctx, l.Token, from)
	if err != nil {
		return nil, err
	}
	c.login = h
	return c, nil
}

// Name is what the server calls the visitor, as in the audit log.
func (v *Visitor) Name() string { return v.c.name }

// Role is what the visitor may do.
func (v *Visitor) Role() ledger.Role { return v.c.role }

// Group is the only one whose boxes the visitor may see; "" means all boxes.
func (v *Visitor) Group() string { return v.c.group }

// May reports whether the visitor may make a request of the table of routes, by its id.
func (v *Visitor) May(id string) bool { return v.c.allowed(routeByID[id]) == nil }

// Params are what a request has in its path and in its query, by name. What is "" is left out.
type Params = map[string]string

// visit is a request of a visitor on its way.
type visit struct {
	caller *caller
	typed  bool // whether out is wanted, and not what the client would get
	out    any  // the answer of the handler
}

type visitKey struct{}

// Ask makes a request of the table of routes for a visitor. id is the id of the route, and send
// what a client would send as JSON, or nil. What a client would get as JSON is put into answer, which
// is a pointer to the type of the route, or nil. Logs and other answers that are no JSON come by
// Pass. The error is a *Problem.
func (v *Visitor) Ask(ctx context.Context, id string, p Params, send, answer any) error {
	at := &visit{caller: v.c, typed: true}
	r, err := v.request(ctx, at, id, p, send)
	if err != nil {
		return err
	}
	w := &reply{head: http.Header{}}
	v.s.mux.ServeHTTP(w, r)
	if w.status >= 300 {
		said := &Problem{}
		if err := json.Unmarshal(w.text.Bytes(), said); err != nil || said.Status == 0 {
			return problemOf(fmt.Errorf("the request %s has failed with the status %d", id, w.status))
		}
		return said
	}
	if answer == nil {
		return nil
	}
	to := reflect.ValueOf(answer).Elem()
	from := reflect.Indirect(reflect.ValueOf(at.out))
	if from.Kind() != reflect.Struct || !from.FieldByName("Body").IsValid() || from.FieldByName("Body").Type() != to.Type() {
		return problemOf(fmt.Errorf("the answer of the request %s is no %s", id, to.Type()))
	}
	to.Set(from.FieldByName("Body"))
	return nil
}

// Pass makes a request of the table of routes for a visitor, and gives its answer to the
// browser as it is. It is for logs, inventories and events. header has what is passed on of
// the browser's own request.
func (v *Visitor) Pass(w http.ResponseWriter, browser *http.Request, id string, p Params) {
	r, err := v.request(browser.Context(), &visit{caller: v.c}, id, p, nil)
	if err != nil {
		problemOf(err).send(w)
		return
	}
	if last := browser.Header.Get("Last-Event-ID"); last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	v.s.mux.ServeHTTP(w, r)
}

// request makes a request as a client would.
func (v *Visitor) request(ctx context.Context, at *visit, id string, p Params, send any) (*http.Request, error) {
	rt := routeByID[id]
	if rt == nil {
		return nil, problemOf(fmt.Errorf("there is no request %q", id))
	}
	path, query := rt.path, url.Values{}
	for name, value := range p {
		if part := "{" + name + "}"; strings.Contains(path, part) {
			path = strings.Replace(path, part, url.PathEscape(value), 1)
		} else if value != "" {
			query.Set(name, value)
		}
	}
	var text io.Reader
	if send != nil {
		b, err := json.Marshal(send)
		if err != nil {
			return nil, problemOf(err)
		}
		text = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, visitKey{}, at), rt.method, "http://page"+path, text)
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, CodeWrong, "the request has a part that cannot be in an address")
	}
	if send != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.URL.RawQuery = query.Encode()
	if _, pattern := v.s.mux.Handler(r); pattern != rt.method+" "+rt.path { // a part of the path is "" or ".."
		return nil, notFound("there is no such thing")
	}
	return r, nil
}

// reply keeps a short answer.
type reply struct {
	head   http.Header
	status int
	text   bytes.Buffer
}

func (k *reply) Header() http.Header { return k.head }

func (k *reply) WriteHeader(status int) { k.status = status }

func (k *reply) Write(b []byte) (int, error) {
	if k.text.Len()+len(b) > 64<<10 {
		return 0, errors.New("the answer is too long for a problem")
	}
	return k.text.Write(b)
}

// The answer has no connection of its own, so it has no time limits.
func (k *reply) SetReadDeadline(time.Time) error  { return nil }
func (k *reply) SetWriteDeadline(time.Time) error { return nil }

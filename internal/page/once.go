package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// once sees to it that what a form asks for is done once, however often the form is sent: by a double
// click, or anew after the connection was lost. A form that comes again gets the answer of the first
// time. Jobs need it least, since the ledger knows them by the key of the form, also after a restart.
type once struct {
	mu    sync.Mutex // guards the fields below
	forms map[formKey]*sent
	order []formKey // those with an answer, the oldest first
	bytes int       // of all answers
}

// What is kept of answers. The secret of a new token is in one, so it is not kept for long.
const (
	keptFor   = 10 * time.Minute
	keptForms = 256
	keptBytes = 4 << 20
)

// formKey is a form of one login.
type formKey [sha256.Size]byte

// sent is a form that was sent.
type sent struct {
	content [sha256.Size]byte
	over    chan struct{} // is closed when there is an answer
	answer  *answer       // nil if nothing was done, so that it can be tried again
	at      time.Time
}

// answer is an answer that is kept.
type answer struct {
	head   http.Header
	status int
	text   bytes.Buffer
	done   bool // something was done, or may have been
	undone bool // nothing was done, although the answer is no error
}

func (a *answer) Header() http.Header { return a.head }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.text.Write(b)
}

// done notes that a form counts as done, although it may have failed.
func done(w http.ResponseWriter) {
	if a, ok := w.(*answer); ok {
		a.done = true
	}
}

// undone notes that nothing was done, so that the form can be sent again with other words.
func undone(w http.ResponseWriter) {
	if a, ok := w.(*answer); ok {
		a.undone = true
	}
}

func (a *answer) send(w http.ResponseWriter) {
	for name, values := range a.head {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	w.Write(a.text.Bytes())
}

// doOnce answers to a form that asks for something.
func (s *Site) doOnce(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if err := r.ParseForm(); err != nil {
		s.Fail(w, r, refused(http.StatusBadRequest, "the form cannot be read: %v", err))
		return
	}
	login, err := r.Cookie(cookieName)
	key := r.PostForm.Get("key")
	if err != nil || key == "" {
		s.Fail(w, r, refused(http.StatusBadRequest, "the form has lost its key; open the page of the action again"))
		return
	}
	is := formKey(sha256.Sum256([]byte(login.Value + "\n" + key)))
	content := sha256.Sum256([]byte(r.URL.Path + "\n" + r.PostForm.Encode()))
	// A second click has the browser give up the first request, which goes on all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patient)
	defer cancel()
	for {
		f, first := s.once.begin(is, content)
		if first {
			s.once.run(is, f, func(a *answer) { next.ServeHTTP(a, r.WithContext(ctx)) }).send(w)
			return
		}
		select {
		case <-f.over:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
		switch {
		case f.answer == nil: // nothing was done then
		case f.content != content:
			s.Fail(w, r, refused(http.StatusConflict, "this form was sent before with other words, and was done then. Nothing was done now; "+
				"open the page of the action again"))
			return
		default:
			f.answer.send(w)
			return
		}
	}
}

// begin takes a form that was sent. first says that it is for the caller to do what it asks for.
func (o *once) begin(is formKey, content [sha256.Size]byte) (f *sent, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tidy(0)
	if f = o.forms[is]; f != nil {
		return f, false
	}
	if o.forms == nil {
		o.forms = map[formKey]*sent{}
	}
	f = &sent{content: content, over: make(chan struct{})}
	o.forms[is] = f
	return f, true
}

// run has a form done, and keeps the answer if anything was done.
func (o *once) run(is formKey, f *sent, do func(*answer)) *answer {
	a := &answer{head: http.Header{}}
	ended := false
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if ended && (a.done || a.status < http.StatusBadRequest && !a.undone) && a.text.Len() <= keptBytes {
			o.tidy(a.text.Len())
			f.answer, f.at = a, time.Now()
			o.order = append(o.order, is)
			o.bytes += a.text.Len()
		} else {
			delete(o.forms, is)
		}
		close(f.over)
	}()
	do(a)
	a.WriteHeader(http.StatusOK)
	ended = true
	return a
}

// tidy forgets old answers, so that there is room for one of so many bytes more.
func (o *once) tidy(more int) {
	for len(o.order) > 0 {
		f := o.forms[o.order[0]]
		if time.Since(f.at) < keptFor && len(o.order) < keptForms && o.bytes+more <= keptBytes {
			return
		}
		o.bytes -= f.answer.text.Len()
		delete(o.forms, o.order[0])
		o.order = o.order[1:]
	}
}

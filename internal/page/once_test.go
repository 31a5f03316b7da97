package page

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOnceBounds: whoever sends many forms costs bounded memory.
func TestOnceBounds(t *testing.T) {
	var o once
	send := func(n, size int, status int) {
		is := formKey(sha256.Sum256(fmt.Append(nil, n)))
		f, first := o.begin(is, is)
		if !first {
			t.Fatalf("form %d is not new", n)
		}
		o.run(is, f, func(a *answer) {
			a.WriteHeader(status)
			a.Write([]byte(strings.Repeat("x", size)))
		})
	}
	for n := range 1000 {
		send(n, n, http.StatusOK)
	}
	if len(o.forms) != keptForms || len(o.order) != keptForms {
		t.Errorf("%d forms are kept, %d in order", len(o.forms), len(o.order))
	}
	for n := 1000; n < 1100; n++ {
		send(n, 1<<20, http.StatusOK)
	}
	send(2000, 2*keptBytes, http.StatusOK)
	send(2001, 10, http.StatusConflict)
	sum := 0
	for _, is := range o.order {
		sum += o.forms[is].answer.text.Len()
	}
	if o.bytes != sum || sum > keptBytes || len(o.forms) != len(o.order) {
		t.Errorf("%d bytes are kept and %d counted, of %d forms, %d in order", sum, o.bytes, len(o.forms), len(o.order))
	}
}

// TestGivenUp: what a form asks for is done to its end although the browser has given the request up, as it does at a second click.
// The second one waits for that, and has the same answer.
func TestGivenUp(t *testing.T) {
	s := New(Config{})
	begun, leave := make(chan bool), make(chan bool)
	n := 0
	work := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		close(begun)
		<-leave
		if r.Context().Err() != nil {
			http.Error(w, "it was given up", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("it is done"))
	})
	send := func(ctx context.Context) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(ctx, "POST", "/do/x", strings.NewReader("key=k"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(cookie("secret", keptFor))
		w := httptest.NewRecorder()
		s.doOnce(w, r, work)
		return w
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan bool)
	go func() {
		defer close(over)
		send(ctx)
	}()
	<-begun
	cancel()
	close(leave)
	if w := send(t.Context()); w.Code != http.StatusOK || w.Body.String() != "it is done" || n != 1 {
		t.Errorf("%d %s, done %d times", w.Code, w.Body, n)
	}
	<-over
}

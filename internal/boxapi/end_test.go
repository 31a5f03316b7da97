package boxapi_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// lingerer is a store that goes on for a while after a call was cancelled.
type lingerer struct {
	chunk.Images
	begin   func() chunk.Session
	linger  atomic.Bool
	began   chan bool     // a call has begun that waits to be cancelled
	release chan struct{} // lets it end
	open    atomic.Int64  // images and sessions
}

func newLingerer(t *testing.T, tune func(*boxapi.Config)) (*attack, *lingerer) {
	l := &lingerer{began: make(chan bool, 100), release: make(chan struct{})}
	a := newAttack(t, func(c *boxapi.Config) {
		l.Images, l.begin = c.Images, c.Begin
		c.Images, c.Begin = l, l.newSession
		tune(c)
	})
	l.linger.Store(true)
	return a, l
}

// wait is what lingers.
func (l *lingerer) wait(ctx context.Context) {
	if l.linger.Load() {
		l.began <- true
		<-ctx.Done()
		<-l.release
	}
}

func (l *lingerer) newSession() chunk.Session {
	l.open.Add(1)
	return &lingeringSession{l.begin(), l}
}

type lingeringSession struct {
	chunk.Session
	l *lingerer
}

func (s *lingeringSession) Put(ctx context.Context, o object.Object) error {
	s.l.wait(ctx)
	return s.Session.Put(context.WithoutCancel(ctx), o)
}

func (s *lingeringSession) Close() error {
	s.l.open.Add(-1)
	return s.Session.Close()
}

// OpenImage lingers if the disk is sdb, and its getter does for sda.
func (l *lingerer) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	l.open.Add(1)
	if disk == "sdb" {
		l.wait(ctx)
	}
	im, err := l.Images.OpenImage(context.WithoutCancel(ctx), r, disk)
	if err != nil {
		return nil, err
	}
	return chunk.OpenImage(context.WithoutCancel(ctx), &lingeringGetter{im.Getter(), l}, im.Name)
}

type lingeringGetter struct {
	chunk.Getter
	l *lingerer
}

func (g *lingeringGetter) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	if at.Key().Kind == object.Page {
		g.l.wait(ctx)
	}
	return g.Getter.Get(context.WithoutCancel(ctx), at, buf)
}

func (g *lingeringGetter) Close() error {
	g.l.open.Add(-1)
	return g.Getter.Close()
}

// TestClosedIsClosed: when Close of an image or a session returns at the client, nothing
// of it is open in the store, although calls were cancelled just before that the store
// still works on.
func TestClosedIsClosed(t *testing.T) {
	a, l := newLingerer(t, func(*boxapi.Config) {})
	c := a.client(all)
	for what, call := range map[string]func(ctx context.Context) (close func() error, err error){
		"a read": func(ctx context.Context) (func() error, error) {
			im, err := c.OpenImage(t.Context(), a.mine, "sda")
			must(t, err)
			_, err = im.Page(ctx, 0)
			return im.Close, err
		},
		"an open": func(ctx context.Context) (func() error, error) {
			_, err := c.OpenImage(ctx, a.mine, "sdb") // it closes the image itself
			return func() error { return nil }, err
		},
		"a put": func(ctx context.Context) (func() error, error) {
			s := c.Begin()
			return s.Close, s.Put(ctx, object1(1))
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-l.began
			cancel()
			time.Sleep(200 * time.Millisecond)
			l.release <- struct{}{}
		}()
		close, err := call(ctx)
		wantErr(t, what, err, context.Canceled)
		must(t, close())
		if n := l.open.Load(); n != 0 {
			t.Errorf("%s: %d images or sessions are open after Close", what, n)
		}
	}
}

// TestStillUsed: a server that cannot close something soon says that it is busy, as
// often as it is asked, and not that it is closed.
func TestStillUsed(t *testing.T) {
	a, l := newLingerer(t, func(c *boxapi.Config) { c.Answer = 100 * time.Millisecond })
	want := func(token, method, path string, body []byte, want wire.Code) {
		t.Helper()
		if status, code, _ := a.send(t, token, method, "/agent/v1/"+path, body); code != want {
			t.Errorf("%s %s: status %d, code %q, want %q", method, path, status, code, want)
		}
	}
	open := openText(a.mine, "sda", func(*wire.Open) {})
	want(a.token, "PUT", "images/1", open, "")
	page := wire.Place{Chunk: 0xffffffff}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	post := func(path string, body []byte) {
		go func() {
			a.sendContext(ctx, a.token, "POST", "/agent/v1/"+path, body)
			ended <- true
		}()
		<-l.began
	}
	post("images/1/read", places(page))
	post("sessions/1/objects", frame(object1(1), nil))
	cancel()
	for range 2 {
		<-ended
	}
	for range 2 {
		want(a.token, "DELETE", "images/1", nil, wire.CodeBusy)
		want(a.token, "DELETE", "sessions/1", nil, wire.CodeBusy)
	}
	want(a.token, "PUT", "images/1", open, wire.CodeBusy)
	want(a.token, "POST", "images/1/read", places(page), wire.CodeNotOpen)
	want(a.token, "POST", "sessions/1/objects", frame(object1(1), nil), wire.CodeClosed)
	if l.open.Load() != 2 {
		t.Errorf("%d are open", l.open.Load())
	}
	close(l.release)
	for deadline := time.Now().Add(10 * time.Second); l.open.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	want(a.token, "DELETE", "images/1", nil, "")
	want(a.token, "DELETE", "sessions/1", nil, "")
	if l.open.Load() != 0 {
		t.Errorf("%d are open", l.open.Load())
	}
	l.linger.Store(false)
	want(a.token, "PUT", "images/1", open, "")
	want(a.token, "POST", "images/1/read", places(page), "")
}

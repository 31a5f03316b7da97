package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type everything struct{}

func (everything) Grant(context.Context, string, netip.Addr) (boxapi.Grant, error) {
	return boxapi.Grant{Box: "10.0.0.7", Backup: true, MayRead: func(string, string, string) bool { return true }}, nil
}

// politeDesk welcomes everybody.
type politeDesk struct{}

func (politeDesk) Hello(context.Context, *wire.Hello, netip.Addr) (*wire.Welcome, error) {
	return &wire.Welcome{Word: job.Work, Time: time.Unix(1, 0), Job: &wire.Job{ID: "j", Action: box.Backup, Attempt: 1}}, nil
}

func (politeDesk) Report(context.Context, string, netip.Addr, *wire.Report) (*wire.Told, error) {
	return &wire.Told{Word: job.GoOn, Time: time.Unix(1, 0)}, nil
}

func (politeDesk) Inventory(context.Context, string, netip.Addr, string, []byte) error { return nil }
func (politeDesk) Firmware(context.Context, string, netip.Addr) (*wire.Firmware, error) {
	return &wire.Firmware{}, nil
}

func (politeDesk) Result(context.Context, string, netip.Addr, *wire.Result) (*wire.Told, error) {
	return &wire.Told{Word: job.Restart, Time: time.Unix(1, 0)}, nil
}

// liar is a server that answers as it should, until it has something to spoil.
type liar struct {
	c     *Client
	rec   *image.Record
	spoil atomic.Pointer[spoiler]
}

// spoiler answers requests whose path ends so. right is what the server would answer.
type spoiler struct {
	path   string
	answer answer
}

type answer func(w http.ResponseWriter, r *http.Request, right *httptest.ResponseRecorder)

func newLiar(t *testing.T) *liar {
	t.Helper()
	m, l := new(conform.MemStore), new(liar)
	api := boxapi.New(boxapi.Config{Grants: everything{}, Begin: m.Begin, Images: m, Desk: politeDesk{}})
	mux := http.NewServeMux()
	api.Routes(mux)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := l.spoil.Load()
		if s == nil || !strings.HasSuffix(r.URL.Path, s.path) {
			mux.ServeHTTP(w, r)
			return
		}
		right := httptest.NewRecorder()
		mux.ServeHTTP(right, r)
		s.answer(w, r, right)
	}))
	boxapi.Limit(srv.Config)
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); api.Close() })
	c, err := New(Config{HTTP: NewHTTP(wire.FingerprintOf(srv.Certificate())), Base: srv.URL, Token: rand.Text(),
		Away: 20 * time.Second, Quiet: 20 * time.Second})
	must(t, err)
	l.c = c
	s := m.Begin()
	l.rec = &image.Record{Format: image.RecordFormat, Box: "10.0.0.7", Disks: []image.RecordedDisk{{Name: "sda",
		Disk: image.Identity{Size: 2 << 20, SectorSize: 512}, Data: 2 << 20,
		Root: conform.SaveImage(t, s, conform.Disks(2 << 20)["noise"])}}}
	must(t, s.Commit(t.Context(), l.rec))
	return l
}

// body answers with other bytes.
func body(spoil func(b []byte) []byte) answer {
	return func(w http.ResponseWriter, _ *http.Request, right *httptest.ResponseRecorder) {
		w.Write(spoil(bytes.Clone(right.Body.Bytes())))
	}
}

// head spoils the first header of an answer, and makes its sum anew.
func head(spoil func(b []byte)) answer {
	return body(func(b []byte) []byte {
		spoil(b)
		binary.LittleEndian.PutUint64(b[56:], xxh3.Hash(b[:56]))
		return b
	})
}

func says(s string) answer {
	return body(func([]byte) []byte { return []byte(s) })
}

// status answers with a status.
func status(code int, contentType, text string) answer {
	return func(w http.ResponseWriter, _ *http.Request, _ *httptest.ResponseRecorder) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "https://127.0.0.1:1/")
		w.WriteHeader(code)
		io.WriteString(w, text)
	}
}

// endless answers without an end.
func endless(first []byte, again string) answer {
	return func(w http.ResponseWriter, r *http.Request, right *httptest.ResponseRecorder) {
		w.Write(first)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(again, 1000)); err != nil {
				return
			}
		}
	}
}

// slow answers so slowly that it would take for ever.
func slow(w http.ResponseWriter, r *http.Request, right *httptest.ResponseRecorder) {
	for _, b := range right.Body.Bytes() {
		w.Write([]byte{b})
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func silent(_ http.ResponseWriter, r *http.Request, _ *httptest.ResponseRecorder) {
	select {
	case <-r.Context().Done():
	case <-time.After(10 * time.Second):
	}
}

// TestHostileServer: whatever a server answers, no call succeeds with something wrong,
// waits for ever, or takes much memory.
func TestHostileServer(t *testing.T) {
	o := object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf([]byte("other"))}, []byte("other"), nil)
	other := append(wire.AppendHeader(nil, o), o.Data...)
	always := map[string]answer{
		"nothing":            says(""),
		"noise":              says(strings.Repeat("noise", 1000)),
		"cut off":            body(func(b []byte) []byte { return b[:len(b)/2] }),
		"endless zeros":      endless(nil, "\x00\x00\x00\x00"),
		"endless blanks":     endless(nil, "    "),
		"silent":             silent,
		"a redirect":         status(http.StatusTemporaryRedirect, "", ""),
		"another server":     status(http.StatusBadGateway, "text/html", "<html>"),
		"a page":             status(http.StatusOK, "text/html", "<html>"),
		"not found":          status(http.StatusNotFound, "text/html", "<html>"),
		"nothing to say":     status(http.StatusNoContent, "", ""),
		"an unknown code":    status(http.StatusConflict, wire.ProblemType, `{"code":"x"}`),
		"a code and status":  status(http.StatusConflict, wire.ProblemType, `{"code":"failed"}`),
		"a problem and more": status(http.StatusConflict, wire.ProblemType, `{"code":"missing"}{}`),
		"a count that lies":  status(http.StatusConflict, wire.ProblemType, `{"code":"missing","counted":-1}`),
		"a large count":      status(http.StatusConflict, wire.ProblemType, `{"code":"missing","counted":60}`),
		"a long problem":     status(http.StatusConflict, wire.ProblemType, `{"code":"missing","text":"`+strings.Repeat("x", 20<<10)+`"}`),
		"missing":            status(http.StatusConflict, wire.ProblemType, `{"code":"missing"}`),
		"busy for ever":      status(http.StatusServiceUnavailable, wire.ProblemType, `{"code":"busy"}`),
		"not open for ever":  status(http.StatusPreconditionFailed, wire.ProblemType, `{"code":"not-open"}`),
		"a head that is endless": func(w http.ResponseWriter, _ *http.Request, _ *httptest.ResponseRecorder) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		},
	}
	chunks := map[string]answer{
		"slow":                  slow,
		"another object":        says(string(other)),
		"another name":          head(func(b []byte) { b[20]++ }),
		"a page":                head(func(b []byte) { b[4] = byte(object.Page) }),
		"an unknown kind":       head(func(b []byte) { b[4] = 77 }),
		"an unknown codec":      head(func(b []byte) { b[5] = 77 }),
		"a longer object":       head(func(b []byte) { b[9]++ }),
		"a shorter object":      head(func(b []byte) { b[8]-- }),
		"a huge object":         head(func(b []byte) { b[11], b[15] = 0x7f, 0x7f }),
		"another length":        head(func(b []byte) { b[12]++ }),
		"another sum":           head(func(b []byte) { b[48]++ }),
		"a flipped bit":         body(func(b []byte) []byte { b[len(b)-10] ^= 1; return b }),
		"a sum of another head": body(func(b []byte) []byte { b[20]++; return b }),
		"missing in its place":  says(string(wire.AppendLack(nil, chunk.ErrMissing))),
		"damaged in its place":  says(string(wire.AppendLack(nil, object.ErrDamaged))),
		"a lack without end": body(func([]byte) []byte {
			b := wire.AppendLack(nil, chunk.ErrMissing)
			binary.LittleEndian.PutUint32(b[8:], 1<<30)
			binary.LittleEndian.PutUint64(b[56:], xxh3.Hash(b[:56]))
			return b
		}),
	}
	told := map[string]answer{
		"an unknown word": says(`{"word":"format","time":"2026-01-01T00:00:00Z"}`),
		"work":            says(`{"word":"work","time":"2026-01-01T00:00:00Z"}`),
		"no time":         says(`{"word":"go on"}`),
		"more":            says(`{"word":"go on","time":"2026-01-01T00:00:00Z","job":{}}`),
	}
	good := object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf([]byte("good"))}, []byte("good"), nil)
	calls := []hostileCall{
		{"get", "/read", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			o, err := c.im.Getter().Get(ctx, c.at, nil)
			if err == nil {
				_, err = o.Decode(nil)
			}
			if err == nil && o.Key != c.at.Key() {
				t.Errorf("%v came in place of %v", o.Key, c.at.Key())
			}
			return err
		}, chunks},
		{"check", "/check", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			return c.im.Getter().Check(ctx, c.at, nil)
		},
			map[string]answer{
				"an unknown verdict": says("\x09"), "a bad one": says("\x02"), "one that is not known": says("\x03")}},
		{"missing", "/missing", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			_, err := c.s.Missing(ctx, []object.Key{good.Key})
			return err
		},
			map[string]answer{
				"more bits": says("\x03"), "more bytes": says("\x01\x00")}},
		{"put", "/objects", func(t *testing.T, ctx context.Context, c *hostileClient) error { return c.s.Put(ctx, good) },
			map[string]answer{
				"fewer": says(`{"counted":0}`), "more": says(`{"counted":2}`), "other fields": says(`{"counted":1,"x":1}`)}},
		{"commit", "/1", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			r := *c.rec
			r.ID = ""
			return c.s.Commit(ctx, &r)
		},
			map[string]answer{
				"a bad id": says(`{"id":"../x","time":"2026-01-01T00:00:00Z"}`), "no id": says(`{"time":"2026-01-01T00:00:00Z"}`),
				"no time": says(`{"id":"20260101-000000"}`)}},
		{"open", "/2", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			im, err := c.c.OpenImage(ctx, c.rec, "sda")
			if err == nil {
				im.Close()
			}
			return err
		}, nil},
		{"hello", "/hello", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			addr, _ := box.ParseAddr("10.0.0.7")
			_, err := c.c.Hello(ctx, &wire.Hello{Box: addr, Arming: "0123456789abcdef"})
			return err
		},
			map[string]answer{
				"work without a job": says(`{"word":"work","time":"2026-01-01T00:00:00Z"}`),
				"a job without work": says(`{"word":"hold","time":"2026-01-01T00:00:00Z","job":{"id":"j","action":"backup","attempt":1}}`),
				"another action":     says(`{"word":"work","time":"2026-01-01T00:00:00Z","job":{"id":"j","action":"wipe","attempt":1}}`),
				"an empty record":    says(`{"word":"work","time":"2026-01-01T00:00:00Z","job":{"id":"j","action":"backup","attempt":1,"record":{}}}`)}},
		{"report", "/report", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			_, err := c.c.Report(ctx, &wire.Report{Number: 1})
			return err
		}, told},
		{"result", "/result", func(t *testing.T, ctx context.Context, c *hostileClient) error {
			_, err := c.c.Result(ctx, &wire.Result{Outcome: box.Done})
			return err
		}, told},
		{"inventory", "/" + box.InfoText, func(t *testing.T, ctx context.Context, c *hostileClient) error {
			return c.c.Inventory(ctx, box.InfoText, []byte("x"))
		}, map[string]answer{"something": status(http.StatusOK, "application/json", "{}")}},
	}
	for i, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			if i%4 != 0 {
				testenv.Long(t, "a second or more")
			}
			t.Parallel()
			l := newHostile(t)
			for _, table := range []map[string]answer{always, c.also} {
				for what, spoil := range table {
					if (c.name == "open" || c.name == "inventory") && what == "nothing to say" {
						continue // that is the right answer
					}
					l.try(t, &c, what, spoil)
				}
			}
			if c.name != "commit" {
				must(t, c.call(t, t.Context(), l))
			}
		})
	}
}

// hostileCall is a call whose answers are spoilt.
type hostileCall struct {
	name, path string
	call       func(t *testing.T, ctx context.Context, c *hostileClient) error
	also       map[string]answer
}

// hostileClient is a client of a liar.
type hostileClient struct {
	*liar
	im *chunk.Image
	at chunk.Place
	s  *Session
}

func newHostile(t *testing.T) *hostileClient {
	l := newLiar(t)
	im, err := l.c.OpenImage(t.Context(), l.rec, "sda")
	must(t, err)
	t.Cleanup(func() { im.Close() })
	region, err := im.Region(t.Context(), 0)
	must(t, err)
	at, err := region.Place(3)
	must(t, err)
	return &hostileClient{l, im, at, l.c.Begin()}
}

func (c *hostileClient) try(t *testing.T, call *hostileCall, what string, spoil answer) {
	t.Helper()
	c.c.images.Store(1)
	c.s.commits = 0
	c.spoil.Store(&spoiler{call.path, spoil})
	c.c.cfg.Away, c.c.cfg.Quiet = 100*time.Millisecond, 300*time.Millisecond
	start := time.Now()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	err := call.call(t, ctx, c)
	cancel()
	c.spoil.Store(nil)
	c.c.cfg.Away, c.c.cfg.Quiet = 20*time.Second, 20*time.Second
	runtime.ReadMemStats(&after)
	took := time.Since(start)
	if err == nil || errors.Is(err, context.DeadlineExceeded) || took > 10*time.Second {
		t.Errorf("%s: after %v: %v", what, took, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 400<<20 { // by all calls at once
		t.Errorf("%s: it took %d MiB", what, used>>20)
	}
	if err != nil && (len(err.Error()) > 3000 || strings.ContainsAny(err.Error(), "\n\x00")) {
		t.Errorf("%s: the error has %d bytes: %.200q", what, len(err.Error()), err)
	}
}

// TestBatches: what several goroutines send at the same time goes into few requests,
// and each gets its answer, also if others are cancelled.
func TestBatches(t *testing.T) {
	l := newLiar(t)
	s := l.c.Begin()
	defer s.Close()
	var requests atomic.Int64
	l.spoil.Store(&spoiler{"/objects", func(w http.ResponseWriter, _ *http.Request, right *httptest.ResponseRecorder) {
		requests.Add(1)
		time.Sleep(20 * time.Millisecond)
		w.WriteHeader(right.Code)
		w.Write(right.Body.Bytes())
	}})
	const writers = 64
	errs := make(chan error, writers)
	for n := range writers {
		go func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if n%5 == 4 {
				time.AfterFunc(time.Duration(n)*time.Millisecond/4, cancel)
			}
			err := s.Put(ctx, chunkOf(fmt.Sprint(n)))
			if n%5 == 4 && errors.Is(err, context.Canceled) {
				err = nil
			}
			errs <- err
		}()
	}
	for range writers {
		must(t, <-errs)
	}
	if n := requests.Load(); n > writers*2/3 {
		t.Errorf("%d objects took %d requests", writers, n)
	}
	for n := range writers {
		if o := chunkOf(fmt.Sprint(n)); n%5 != 4 {
			missing, err := s.Missing(t.Context(), []object.Key{o.Key})
			if err != nil || len(missing) > 0 {
				t.Errorf("object %d did not arrive: %v", n, err)
			}
		}
	}
}

func chunkOf(text string) object.Object {
	return object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf([]byte(text))}, []byte(text), nil)
}

// places are the places of all chunks of the image that a liar has.
func (l *liar) places(t *testing.T) (*chunk.Image, []chunk.Place) {
	t.Helper()
	im, err := l.c.OpenImage(t.Context(), l.rec, "sda")
	must(t, err)
	t.Cleanup(func() { im.Close() })
	region, err := im.Region(t.Context(), 0)
	must(t, err)
	var all []chunk.Place
	for i := range region.Len() {
		at, err := region.Place(i)
		must(t, err)
		all = append(all, at)
	}
	return im, all
}

// TestGetAll: many objects are asked for by one request. If the connection breaks, those
// that came are not asked for again, and fewer are asked for at a time.
func TestGetAll(t *testing.T) {
	l := newLiar(t)
	im, all := l.places(t)
	all = slices.Repeat(all, 100/len(all)+1)[:100]
	var asked []int
	var breaks atomic.Bool
	l.spoil.Store(&spoiler{"/read", func(w http.ResponseWriter, r *http.Request, right *httptest.ResponseRecorder) {
		asked = append(asked, int(r.ContentLength)/8)
		b := right.Body.Bytes()
		if breaks.Load() { // in the middle of the third object
			at := 0
			for range min(2, asked[len(asked)-1]-1) {
				at += wire.FrameSize + int(binary.LittleEndian.Uint32(b[at+8:]))
			}
			b = b[:at+wire.FrameSize+10]
		}
		w.Write(b)
	}})
	get := func() (n int, err error) {
		err = im.Getter().(chunk.Bulk).GetAll(t.Context(), all, nil, func(o object.Object, err error) error {
			if err == nil {
				_, err = o.Decode(nil)
			}
			if err == nil && o.Key != all[n].Key() {
				err = fmt.Errorf("%v came as number %d", o.Key, n)
			}
			n++
			if n == 10 {
				breaks.Store(false)
			}
			return err
		})
		return n, err
	}
	if n, err := get(); n != len(all) || err != nil || !slices.Equal(asked, []int{64, 36}) {
		t.Errorf("%d objects came by requests for %d: %v", n, asked, err)
	}
	asked = nil
	breaks.Store(true)
	if n, err := get(); n != len(all) || err != nil || !slices.Equal(asked[:6], []int{64, 32, 16, 8, 4, 2}) {
		t.Errorf("%d objects came by requests for %d: %v", n, asked, err)
	}
	asked = nil
	refused := errors.New("refused")
	n := 0
	err := im.Getter().(chunk.Bulk).GetAll(t.Context(), all, nil, func(object.Object, error) error {
		if n++; n == 3 {
			return refused
		}
		return nil
	})
	if err != refused || n != 3 || len(asked) != 1 {
		t.Errorf("after %d objects by requests for %d: %v", n, asked, err)
	}
}

// TestEndsOnce: an error of the caller ends a call, also if the caller's context ends at
// the same time, as when another goroutine has found damage too. Nothing is called after
// the last place.
func TestEndsOnce(t *testing.T) {
	l := newLiar(t)
	im, all := l.places(t)
	g, refused := im.Getter().(chunk.Bulk), errors.New("refused")
	for name, call := range map[string]func(ctx context.Context, got func() error) error{
		"get": func(ctx context.Context, got func() error) error {
			return g.GetAll(ctx, all, nil, func(object.Object, error) error { return got() })
		},
		"check": func(ctx context.Context, got func() error) error {
			return g.CheckAll(ctx, all, nil, func(error) error { return got() })
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		err := call(ctx, func() error {
			if n++; n < len(all) {
				return nil
			}
			cancel()
			return refused
		})
		if err != refused || n != len(all) {
			t.Errorf("%s: of %d places %d were answered: %v", name, len(all), n, err)
		}
	}
}

// TestCancelledInQueue: who does not want to read or to send an object any more does not
// wait for the requests before it.
func TestCancelledInQueue(t *testing.T) {
	l := newLiar(t)
	im, all := l.places(t)
	s := l.c.Begin()
	defer s.Close()
	for path, call := range map[string]func(ctx context.Context) error{
		"/read":    func(ctx context.Context) error { _, err := im.Getter().Get(ctx, all[0], nil); return err },
		"/objects": func(ctx context.Context) error { return s.Put(ctx, chunkOf("good")) },
	} {
		asked, answer := make(chan bool, 100), make(chan bool)
		release := sync.OnceFunc(func() { close(answer) })
		l.spoil.Store(&spoiler{path, func(w http.ResponseWriter, _ *http.Request, right *httptest.ResponseRecorder) {
			asked <- true
			<-answer
			w.Write(right.Body.Bytes())
		}})
		most := max(readsAtOnce, putsAtOnce)
		errs := make(chan error, most)
		for range most {
			go func() { errs <- call(t.Context()) }()
			select {
			case <-asked:
			case <-time.After(100 * time.Millisecond): // fewer are under way at once
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		time.AfterFunc(3*time.Second, release)
		err := call(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 2*time.Second {
			t.Errorf("%s: after %v: %v", path, took, err)
		}
		l.spoil.Store(nil)
		release()
		for range most {
			must(t, <-errs)
		}
	}
}

// TestConfig: what cannot be a server or a token is refused at once.
func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{Base: "", Token: "x"}, {Base: "10.0.0.1:8444", Token: "x"}, {Base: "ftp://h", Token: "x"}, {Base: "https://h/path", Token: "x"},
		{Base: "https://h?x=1", Token: "x"}, {Base: "https://h", Token: ""}, {Base: "https://h", Token: "a\r\nb"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

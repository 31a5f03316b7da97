package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
	"testbox-imaging/internal/testenv"
)

// bench is a store behind a proxy, and the same one without it.
type bench struct {
	*proxy
	server       *testenv.S3
	spoiled, own *s3.Store
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s3.Hurry(t)
	server := testenv.StartS3(t)
	p := startProxy(t, server.Addr)
	return &bench{p, server, open(t, server.URL(p.Addr, "store")), open(t, server.URL(server.Addr, "store"))}
}

// noise is content of a blob.
func noise(seed byte) []byte {
	b := make([]byte, 2<<20+1)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func (b *bench) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := blob.WriteAll(t.Context(), b.own, name, data); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) want(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := blob.ReadAll(t.Context(), b.own, name, 1<<30)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has other bytes, %d of %d, %v", name, len(got), len(want), err)
	}
}

func method(m string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == m }
}

// always is more often than anything is tried.
const always = 1000

func TestUploadFaults(t *testing.T) {
	b := newBench(t)
	for name, test := range map[string]struct {
		fault
		mends bool // the next attempt succeeds
	}{
		"500": {answer(500), true}, "503": {answer(503), true}, "429": {answer(429), true}, "403": {answer(403), false},
		"501": {answer(501), false}, "hang up": {hangUp, true}, "lost answer": {lostAnswer, true}, "cut": {cutUpload, true},
		"flip": {flipUpload, true}, "swallow": {swallow, false},
	} {
		for _, times := range testenv.Effort([]int{1}, []int{1, always}) {
			t.Run(fmt.Sprint(name, " ", times), func(t *testing.T) {
				b.put(t, "packs/a", noise(1))
				b.spoil(times, method("PUT"), test.fault)
				err := blob.WriteAll(t.Context(), b.spoiled, "packs/a", noise(2))
				if works := test.mends && times == 1; works != (err == nil) {
					t.Errorf("the blob is written with %v", err)
				}
				t.Log(err)
				if err == nil || name == "lost answer" { // then nobody knows
					b.want(t, "packs/a", noise(2))
				} else {
					b.want(t, "packs/a", noise(1))
				}
				if errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the error %v says that there is no such blob", err)
				}
			})
		}
	}
}

func TestDownloadFaults(t *testing.T) {
	b := newBench(t)
	want := noise(3)
	b.put(t, "packs/a", want)
	for name, test := range map[string]struct {
		fault
		mends bool
	}{
		"500": {answer(500), true}, "403": {answer(403), false}, "hang up": {hangUp, true}, "lost answer": {lostAnswer, true},
		"cut": {cutDownload, true}, "short": {shortDownload, true}, "no range": {noRange, false}, "other range": {otherRange, false},
	} {
		for _, times := range testenv.Effort([]int{1}, []int{1, always}) {
			t.Run(fmt.Sprint(name, " ", times), func(t *testing.T) {
				b.spoil(times, method("GET"), test.fault)
				p := make([]byte, 1<<20)
				n, err := b.spoiled.ReadAt(t.Context(), "packs/a", p, 1000)
				t.Log(err)
				if works := test.mends && times == 1; works != (err == nil) {
					t.Errorf("the range is read with %v", err)
				}
				if err == nil && !bytes.Equal(p, want[1000:1000+1<<20]) || err != nil && n != 0 {
					t.Errorf("%d wrong bytes are read, %v", n, err)
				}
				if errors.Is(err, fs.ErrNotExist) || err == io.EOF {
					t.Errorf("the error %v says that there is no such blob, or no more of it", err)
				}
			})
		}
	}
}

// TestDamagedDownload: what HTTP does not find, the pack does.
func TestDamagedDownload(t *testing.T) {
	b := newBench(t)
	w, err := b.own.Create(t.Context(), "packs/data-00000001", blob.Any)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pack.NewWriter(w, pack.Header{Number: 1, Store: [16]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	raw := noise(4)[:100_000]
	loc, err := p.Append(object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf(raw)}, raw, nil))
	if err = errors.Join(err, p.Seal()); err != nil {
		t.Fatal(err)
	}
	r := blob.Reader(t.Context(), b.spoiled, "packs/data-00000001")
	for _, times := range []int{0, 1} {
		b.spoil(times, method("GET"), flipDownload)
		_, err := pack.ReadObject(r, int64(loc.Off), 110_000, nil)
		if times == 0 && err != nil || times == 1 && !errors.Is(err, object.ErrDamaged) {
			t.Errorf("with %d bits flipped an object is read with %v", times, err)
		}
	}
}

// TestListFaults: a list is whole or an error.
func TestListFaults(t *testing.T) {
	b := newBench(t)
	const n = 1005
	var puts errgroup.Group
	puts.SetLimit(8)
	for i := range n {
		puts.Go(func() error { return blob.WriteAll(t.Context(), b.own, fmt.Sprintf("packs/data-%08d", i), nil) })
	}
	if err := puts.Wait(); err != nil {
		t.Fatal(err)
	}
	second := func(r *http.Request) bool { return r.URL.Query().Has("continuation-token") }
	again := respond(func(_ http.Header, _ *int, body *[]byte) {
		*body = bytes.ReplaceAll(*body, []byte("<Key>store/packs/data-00001"), []byte("<Key>store/packs/data-00000"))
	})
	for name, test := range map[string]struct {
		fault
		mends bool
	}{
		"500": {answer(500), true}, "403": {answer(403), false}, "hang up": {hangUp, true}, "cut": {cutDownload, true},
		"short": {shortDownload, true}, "again and again": {again, false},
	} {
		for _, times := range testenv.Effort([]int{1}, []int{1, always}) {
			t.Run(fmt.Sprint(name, " ", times), func(t *testing.T) {
				b.spoil(times, second, test.fault)
				infos, err := b.spoiled.List(t.Context(), "packs/")
				t.Log(err)
				if works := test.mends && times == 1; works != (err == nil) {
					t.Errorf("the list comes with %v", err)
				}
				if err == nil && len(infos) != n {
					t.Errorf("the list has %d of %d blobs", len(infos), n)
				}
			})
		}
	}
}

func TestOtherFaults(t *testing.T) {
	b := newBench(t)
	b.put(t, "a", []byte("text"))
	for status, mends := range map[int]bool{500: true, 403: false} {
		b.spoil(1, method("HEAD"), answer(status))
		if n, err := b.spoiled.Size(t.Context(), "a"); mends && (err != nil || n != 4) ||
			!mends && (err == nil || errors.Is(err, fs.ErrNotExist)) {
			t.Errorf("after %d the size is %d, %v", status, n, err)
		}
		b.spoil(1, method("DELETE"), answer(status))
		if err := b.spoiled.Remove(t.Context(), "a"); mends != (err == nil) {
			t.Errorf("after %d the blob is removed with %v", status, err)
		}
		b.put(t, "a", []byte("text"))
	}
}

// TestHang: a server that does not answer does not keep one who gives up.
func TestHang(t *testing.T) {
	b := newBench(t)
	b.put(t, "a", noise(5))
	b.spoil(always, func(*http.Request) bool { return true }, hang)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, readErr := b.spoiled.ReadAt(ctx, "a", make([]byte, 10), 0)
	writeErr := blob.WriteAll(ctx, b.spoiled, "b", []byte("text"))
	_, listErr := b.spoiled.List(ctx, "")
	for _, err := range []error{readErr, writeErr, listErr} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a server that hangs gives %v", err)
		}
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("giving up takes %v", d)
	}
}

// TestServerKilled kills the server in the middle of an upload.
func TestServerKilled(t *testing.T) {
	b := newBench(t)
	b.put(t, "packs/a", noise(1))
	kill := func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		half := r.ContentLength / 2
		r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, half), readFunc(func([]byte) (int, error) {
			b.server.Kill()
			return 0, io.ErrUnexpectedEOF
		})))
		forward.ServeHTTP(w, r)
	}
	b.spoil(1, method("PUT"), kill)
	if err := blob.WriteAll(t.Context(), b.spoiled, "packs/a", noise(2)); err == nil {
		t.Error("a blob is written to a server that is dead")
	}
	b.server.Start(t)
	b.want(t, "packs/a", noise(1))
	if infos, err := b.own.List(t.Context(), ""); err != nil || len(infos) != 1 {
		t.Errorf("after the crash there are %v, %v", infos, err)
	}
	if err := blob.WriteAll(t.Context(), b.spoiled, "packs/a", noise(2)); err != nil {
		t.Error(err)
	}
	b.want(t, "packs/a", noise(2))
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestOpenErrors: what is set up wrongly is said at once, each by its own
// message, and how to mend it.
func TestOpenErrors(t *testing.T) {
	b := newBench(t)
	cfg, err := s3.ParseURL(b.server.URL(b.server.Addr, ""))
	if err != nil {
		t.Fatal(err)
	}
	fails := func(what string, cfg s3.Config, want ...string) {
		t.Helper()
		_, err := s3.Open(t.Context(), cfg, t.TempDir())
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q", what, err, w)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v says that there is no blob", what, err)
		}
	}
	with := func(change func(*s3.Config)) s3.Config {
		c := cfg
		change(&c)
		return c
	}
	fails("no bucket", with(func(c *s3.Config) { c.Bucket = "nothing-here" }), "has no bucket nothing-here", "make it first")
	fails("no name of a bucket", with(func(c *s3.Config) { c.Bucket = "NO" }), `no bucket can be called "NO"`)
	fails("wrong region", with(func(c *s3.Config) { c.Region = "eu-west-1" }), "is in the region us-east-1", "the URL says region=eu-west-1",
		"put region=us-east-1")
	fails("no server", with(func(c *s3.Config) { c.Endpoint = "127.0.0.1:1" }), "127.0.0.1:1 cannot be reached")
	fails("no host", with(func(c *s3.Config) { c.Endpoint = "no-such-host.invalid" }), "the host name no-such-host.invalid is not known")
	fails("HTTPS", with(func(c *s3.Config) { c.Insecure = false }), "does not speak HTTPS", "http://")
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	fails("HTTP", with(func(c *s3.Config) { c.Endpoint = secure.Listener.Addr().String() }), "speaks HTTPS only", "https://")
	fails("unknown certificate", with(func(c *s3.Config) { c.Endpoint, c.Insecure = secure.Listener.Addr().String(), false }),
		"certificate is not trusted")

	front := with(func(c *s3.Config) { c.Endpoint = b.Addr })
	all := func(*http.Request) bool { return true }
	for name, page := range map[string]struct {
		status     int
		kind, text string
		want       string
	}{
		"page":        {200, "text/html", "<html>Welcome</html>", "this is no S3 server"},
		"no page":     {404, "text/html; charset=utf-8", "<html>Not found</html>", "this is no S3 server"},
		"no text":     {404, "text/plain; charset=utf-8", "404 page not found", "this is no S3 server"},
		"JSON":        {401, "application/json", `{"error":"login"}`, "this is no S3 server"},
		"clock":       {403, "application/xml", errorXML("RequestTimeTooSkewed"), "the clock of this machine"},
		"denied":      {403, "application/xml", errorXML("AccessDenied"), "the access key testbox-key may not do this"},
		"key":         {403, "application/xml", errorXML("InvalidAccessKeyId"), "does not know the access key testbox-key"},
		"token":       {400, "application/xml", errorXML("ExpiredToken"), "AWS_SESSION_TOKEN"},
		"redirect":    {301, "application/xml", errorXML("PermanentRedirect"), "the region is wrong"},
		"no room":     {507, "application/xml", errorXML("XMinioStorageFull"), "no room"},
		"its trouble": {503, "text/html", "<html>Service Unavailable</html>", "Service Unavailable"},
	} {
		b.spoil(always, all, func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", page.kind)
			w.WriteHeader(page.status)
			io.WriteString(w, page.text)
		})
		fails(name, front, page.want)
	}
	b.spoil(1, all, func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(503)
	})
	if _, err := s3.Open(t.Context(), front, t.TempDir()); err != nil {
		t.Errorf("a page that says that the server is busy does not pass: %v", err)
	}

	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	fails("wrong secret", cfg, "s3://testbox", "the secret of the access key testbox-key is wrong")
	t.Setenv("AWS_ACCESS_KEY_ID", "nobody")
	fails("wrong key", cfg, "does not know the access key nobody")
	t.Setenv("HOME", t.TempDir())
	for _, what := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"} {
		t.Setenv(what, "")
		fails("no "+what, cfg, "there are no keys for s3://testbox", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		_, err := s3.Open(t.Context(), cfg, t.TempDir())
		if err == nil || strings.Contains(err.Error(), "nil") {
			t.Errorf("no %s: %v", what, err)
		}
	}
}

func errorXML(code string) string {
	return "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>(the server's words)</Message></Error>"
}

// TestMayNotWrite: a key that may only read says so at the first write.
func TestMayNotWrite(t *testing.T) {
	b := newBench(t)
	b.spoil(always, method("PUT"), func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(403)
		io.WriteString(w, errorXML("AccessDenied"))
	})
	if err := blob.WriteAll(t.Context(), b.spoiled, "a", nil); err == nil ||
		!strings.Contains(err.Error(), "may not do this in the bucket testbox") {
		t.Error(err)
	}
}

// TestConditionalFaults: after an answer that was lost, the bytes tell whether
// the blob is the one that was written, or another's. A server that says that
// two writes met is asked again.
func TestConditionalFaults(t *testing.T) {
	b := newBench(t)
	put := func(name string, data []byte) blob.Version {
		t.Helper()
		b.put(t, name, data)
		v, err := b.own.Version(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	conflict := func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(409)
		io.WriteString(w, errorXML("ConditionalRequestConflict"))
	}
	// overtaken does what was asked, does not say so, and another writes then.
	overtaken := func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		forward.ServeHTTP(httptest.NewRecorder(), r)
		b.put(t, "a", noise(3))
		panic(http.ErrAbortHandler)
	}
	// mute lets another write, and never answers.
	mute := func(http.Handler, http.ResponseWriter, *http.Request) {
		b.put(t, "a", noise(3))
		panic(http.ErrAbortHandler)
	}
	removed := func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		forward.ServeHTTP(httptest.NewRecorder(), r)
		if err := b.own.Remove(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	}
	for name, test := range map[string]struct {
		fault
		times  int  // 0: once
		exists bool // another's blob is there before
		over   bool // it is to be written over it, and not as a new one
		want   error
		then   []byte
	}{
		"new":                            {fault: nil, then: noise(2)},
		"new, there is one":              {exists: true, want: fs.ErrExist, then: noise(1)},
		"new, lost answer":               {fault: lostAnswer, then: noise(2)},
		"new, lost, there is one":        {fault: lostAnswer, exists: true, want: fs.ErrExist, then: noise(1)},
		"new, lost, overtaken":           {fault: overtaken, want: fs.ErrExist, then: noise(3)},
		"new, not done":                  {fault: hangUp, then: noise(2)},
		"new, conflict":                  {fault: conflict, then: noise(2)},
		"new, cut":                       {fault: cutUpload, then: noise(2)},
		"over a version":                 {exists: true, over: true, then: noise(2)},
		"over a version, lost":           {fault: lostAnswer, exists: true, over: true, then: noise(2)},
		"over a version, overtaken":      {fault: overtaken, exists: true, over: true, want: blob.ErrChanged, then: noise(3)},
		"over a version, conflict":       {fault: conflict, exists: true, over: true, then: noise(2)},
		"over a version, lost, removed":  {fault: removed, exists: true, over: true, want: blob.ErrChanged},
		"new, overtaken, mute":           {fault: mute, times: always, want: fs.ErrExist, then: noise(3)},
		"over a version, mute":           {fault: mute, times: always, exists: true, over: true, want: blob.ErrChanged, then: noise(3)},
		"over a version, 500, then done": {fault: answer(500), exists: true, over: true, then: noise(2)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := b.own.Remove(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			over := blob.None
			if test.exists {
				if v := put("a", noise(1)); test.over {
					over = v
				}
			}
			if test.fault != nil {
				b.spoil(max(test.times, 1), method("PUT"), test.fault)
				defer b.spoil(0, nil, nil)
			}
			err := blob.WriteOver(t.Context(), b.spoiled, "a", over, noise(2))
			if !errors.Is(err, test.want) {
				t.Errorf("the blob is written with %v, want %v", err, test.want)
			}
			if test.then != nil {
				b.want(t, "a", test.then)
			}
		})
	}
}

// TestProbeServer: the real server keeps conditions, and nothing is left of the
// trial; one that writes over everything, or does not know conditions, is found.
func TestProbeServer(t *testing.T) {
	b := newBench(t)
	if err := blob.Probe(t.Context(), b.spoiled); err != nil {
		t.Error(err)
	}
	if infos, err := b.own.List(t.Context(), ""); err != nil || len(infos) > 0 {
		t.Errorf("left behind: %v, %v", infos, err)
	}
	b.spoil(always, method("PUT"), answer(501))
	if err := blob.Probe(t.Context(), b.spoiled); !errors.Is(err, blob.ErrNoConditions) {
		t.Errorf("a server that knows no conditions: %v", err)
	}
	b.spoil(always, method("PUT"), answer(500))
	if err := blob.Probe(t.Context(), b.spoiled); err == nil || errors.Is(err, blob.ErrNoConditions) {
		t.Errorf("a server in trouble: %v", err)
	}
	b.spoil(0, nil, nil)
	if infos, err := b.own.List(t.Context(), ""); err != nil || len(infos) > 0 {
		t.Errorf("left behind: %v, %v", infos, err)
	}
}

// TestSpool: a blob being written leaves no file behind, whatever happens.
func TestSpool(t *testing.T) {
	server, spool := testenv.StartS3(t), t.TempDir()
	cfg, err := s3.ParseURL(server.URL(server.Addr, ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(t.Context(), cfg, spool)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(t.Context(), "a", blob.Any)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(noise(1)); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(spool + "/*"); err != nil || len(left) > 0 {
		t.Errorf("the folder has %q, %v", left, err)
	}
	w.Abort()
	if err := os.Remove(spool); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "a", blob.Any); err == nil {
		t.Error("a blob is begun without a folder for it")
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/testenv"
)

// process runs the command as a process of its own, and gives its exit code
// and what it said.
func process(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command("testbox", args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// wantRestored wants each of the backups to be in a store, whole.
func wantRestored(t *testing.T, s *shell, folder string, backups map[string][]byte) {
	t.Helper()
	for box, disk := range backups {
		img := filepath.Join(t.TempDir(), box)
		if code, out := process(t, "image", "restore", "--yes", "--store", folder, box, img); code != 0 {
			t.Errorf("%s said that it is in the store: %s", box, out)
			continue
		}
		s.same(img, disk)
	}
}

// noisy is a disk that has nothing in common with another.
func noisy(seed byte) []byte {
	b := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// TestTwoFoldersOneBucket: two folders that were made for one bucket, and
// backups in both, at once and one after the other. Whatever says that it is
// in the store is there, and the other one is told who the owner is and how to
// take over.
func TestTwoFoldersOneBucket(t *testing.T) {
	s := newShell(t)
	server := testenv.StartS3(t)
	url := server.URL(server.Addr, "lab")
	one, two := s.path("one"), s.path("two")
	s.run(0, "store", "init", "--s3", url, one)
	if out := s.run(0, "store", "init", "--s3", url, two); !strings.Contains(out, one+" on ") {
		t.Errorf("a second folder is not told who the owner is: %s", out)
	}
	disks := map[string][]byte{"box1": noisy(1), "box2": noisy(2), "box3": noisy(3), "box4": noisy(4)}
	for box, disk := range disks {
		s.write(box+".img", disk)
	}
	create := func(folder, box string) (int, string) {
		return process(t, "image", "create", "--store", folder, box, s.path(box+".img"))
	}
	var wg sync.WaitGroup
	codes, said := make([]int, 2), make([]string, 2)
	for i, folder := range []string{one, two} {
		wg.Go(func() { codes[i], said[i] = create(folder, fmt.Sprint("box", i+1)) })
	}
	wg.Wait()
	if codes[0] != 0 || codes[1] != exitRefused || !strings.Contains(said[1], one+" on ") ||
		!strings.Contains(said[1], "testbox store take-over") {
		t.Errorf("two backups at once: %d, %d\n%s\n%s", codes[0], codes[1], said[0], said[1])
	}
	if code, out := create(two, "box2"); code != exitRefused || !strings.Contains(out, one+" on ") {
		t.Errorf("a backup beside an owner: %d\n%s", code, out)
	}
	for _, args := range [][]string{{"store", "gc", "--yes"}, {"image", "delete", "box1", "--yes"}, {"image", "pin", "box1"},
		{"store", "rebuild-index"}} {
		if code, out := process(t, append(args, "--store", two)...); code != exitRefused || !strings.Contains(out, one+" on ") {
			t.Errorf("%v beside an owner: %d\n%s", args, code, out)
		}
	}
	wantRestored(t, s, two, map[string][]byte{"box1": disks["box1"]})

	if out := s.run(0, "store", "take-over", two); !strings.Contains(out, "nothing was done") || !strings.Contains(out, one) {
		t.Errorf("a plan to take over says %s", out)
	}
	s.run(0, "store", "take-over", "--yes", two)
	if code, out := create(two, "box2"); code != 0 {
		t.Errorf("a backup after taking over: %d\n%s", code, out)
	}
	if code, out := create(one, "box3"); code != exitRefused || !strings.Contains(out, two+" on ") {
		t.Errorf("a backup of the folder before: %d\n%s", code, out)
	}
	s.run(0, "store", "take-over", "--yes", one)
	if code, out := create(one, "box3"); code != 0 {
		t.Errorf("a backup after taking back: %d\n%s", code, out)
	}
	s.run(0, "store", "scrub", "--store", one)
	wantRestored(t, s, two, map[string][]byte{"box1": disks["box1"], "box2": disks["box2"], "box3": disks["box3"]})

	// A copy of the owner's folder is another folder, once one of the two wrote.
	if out, err := exec.Command("cp", "-a", one, s.path("copied")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code, out := create(s.path("copied"), "box4"); code != 0 {
		t.Errorf("a folder that was moved: %d\n%s", code, out)
	}
	if code, out := create(one, "box4"); code != exitRefused || !strings.Contains(out, "copy of that one") {
		t.Errorf("the folder of which a copy wrote: %d\n%s", code, out)
	}
}

// front stands before an S3 server and does with requests what a test wants.
type front struct {
	url string

	mu sync.Mutex
	do func(forward http.Handler, w http.ResponseWriter, r *http.Request)
}

func startFront(t *testing.T, s *testenv.S3, prefix string) *front {
	t.Helper()
	f := &front{}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: s.Addr})
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		do := f.do
		f.mu.Unlock()
		if do == nil {
			forward.ServeHTTP(w, r)
		} else {
			do(forward, w, r)
		}
	}))
	t.Cleanup(server.Close)
	f.url = s.URL(server.Listener.Addr().String(), prefix)
	return f
}

func (f *front) set(do func(forward http.Handler, w http.ResponseWriter, r *http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.do = do
}

// TestTakenOverInTheMiddle: a backup whose store is taken over before it
// commits ends with an error that says so, and nothing of the new owner is
// lost; a process that is killed in the middle leaves its folder the owner.
func TestTakenOverInTheMiddle(t *testing.T) {
	s := newShell(t)
	server := testenv.StartS3(t)
	f := startFront(t, server, "lab")
	one, two := s.path("one"), s.path("two")
	s.run(0, "store", "init", "--s3", f.url, one)
	s.run(0, "store", "init", "--s3", server.URL(server.Addr, "lab"), two)
	disks := map[string][]byte{"box1": noisy(1), "box2": noisy(2), "box3": noisy(3)}
	for box, disk := range disks {
		s.write(box+".img", disk)
	}
	// The first pack of the backup waits until the other folder has done all.
	waits, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.set(func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/packs/") {
			once.Do(func() {
				close(waits)
				<-goOn
			})
		}
		forward.ServeHTTP(w, r)
	})
	var code int
	var out string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		code, out = process(t, "image", "create", "--store", one, "box1", s.path("box1.img"))
	}()
	<-waits
	s.run(0, "store", "take-over", "--yes", two)
	s.run(0, "image", "create", "--store", two, "box2", s.path("box2.img"))
	s.run(0, "store", "gc", "--yes", "--store", two)
	close(goOn)
	<-ended
	if code != 1 || !strings.Contains(out, "taken over by the folder "+two) || strings.Contains(out, "is in the store") {
		t.Errorf("a backup whose store was taken over: %d\n%s", code, out)
	}
	wantRestored(t, s, one, map[string][]byte{"box2": disks["box2"]})
	if out := s.run(0, "image", "list", "--store", two); strings.Contains(out, "box1") {
		t.Errorf("what was not committed is listed:\n%s", out)
	}

	// Killed in the middle: the same folder goes on.
	s.run(0, "store", "take-over", "--yes", one)
	kill := make(chan struct{})
	f.set(func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/records/") {
			kill <- struct{}{}
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		forward.ServeHTTP(w, r)
	})
	cmd := exec.Command("testbox", "image", "create", "--store", one, "box1", s.path("box1.img"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-kill
	if err := errors.Join(cmd.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	f.set(nil)
	s.run(0, "image", "create", "--store", one, "box3", s.path("box3.img"))
	s.run(0, "image", "create", "--store", one, "box1", s.path("box1.img"))
	s.run(0, "store", "gc", "--yes", "--store", one)
	wantRestored(t, s, one, disks)
}

// TestReadersWriteNothing: whatever only reads sends no request that writes.
func TestReadersWriteNothing(t *testing.T) {
	s := newShell(t)
	server := testenv.StartS3(t)
	f := startFront(t, server, "lab")
	disk := conform.Disks(3 << 20)["mixed"]
	img := s.write("a.img", disk)
	s.run(0, "store", "init", "--s3", f.url)
	s.run(0, "store", "init", "--s3", f.url, s.path("second"))
	s.run(0, "image", "create", "box", img)
	f.set(func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		forward.ServeHTTP(w, r)
	})
	for _, folder := range []string{s.path("store"), s.path("second")} {
		s.run(0, "image", "list", "--store", folder)
		s.run(0, "image", "verify", "--store", folder, "box", "sda="+img)
		s.run(0, "store", "stats", "--store", folder)
		s.run(0, "store", "gc", "--store", folder)
		s.run(0, "store", "take-over", folder)
		s.run(0, "image", "restore", "--yes", "--store", folder, "box", filepath.Join(t.TempDir(), "x.img"))
	}
	s.run(0, "store", "init", "--s3", f.url, s.path("third"))
}

// TestReadBesideOwner: a folder that reads verifies a backup that the owner
// commits, and then moves, while the reader is at work. It is called whole, and
// nothing is noted as damaged.
func TestReadBesideOwner(t *testing.T) {
	s := newShell(t)
	server := testenv.StartS3(t)
	f := startFront(t, server, "lab")
	s.run(0, "store", "init", "--s3", server.URL(server.Addr, "lab"))
	s.run(0, "store", "init", "--s3", f.url, s.path("second"))
	common := noisy(3)
	s.write("a.img", append(noisy(1), common...))
	s.write("b.img", append(common, noisy(2)...))
	s.run(0, "image", "create", "box", s.path("a.img"))
	// beside lets the owner do something before the reader's first request that is wanted.
	var mu sync.Mutex
	var done bool
	beside := func(wanted func(*http.Request) bool, args ...string) {
		done = false
		f.set(func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if !done && wanted(r) {
				done = true
				if code, out := process(t, args...); code != 0 {
					t.Errorf("%v: %s", args, out)
				}
			}
			mu.Unlock()
			forward.ServeHTTP(w, r)
		})
	}
	verify := func(what string) {
		t.Helper()
		if code, out := process(t, "image", "verify", "--store", s.path("second"), "box@latest"); code != 0 {
			t.Errorf("%s: %d\n%s", what, code, out)
		}
		if !done {
			t.Errorf("%s: the reader did not send the request that was waited for", what)
		}
		if out := s.run(0, "image", "list"); strings.Contains(out, "cannot be read") {
			t.Errorf("%s:\n%s", what, out)
		}
	}
	beside(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Query().Get("prefix"), "lab/records/") },
		"image", "create", "--store", s.path("store"), "box", s.path("b.img"))
	verify("committed since the packs were listed")
	s.run(0, "image", "delete", "box@latest~1", "--yes")
	hasRecords := false
	beside(func(r *http.Request) bool {
		hasRecords = hasRecords || strings.Contains(r.URL.Path, "/records/box/")
		return hasRecords && strings.Contains(r.URL.Path, "/packs/data-")
	}, "store", "gc", "--yes", "--store", s.path("store"))
	verify("moved since the packs were listed")
}

// ignoringConditions is a server that writes whatever the condition is. The
// headers are signed, so the request is made anew.
func ignoringConditions(t *testing.T, s *testenv.S3) func(http.Handler, http.ResponseWriter, *http.Request) {
	t.Helper()
	client, err := minio.NewCore(s.Addr, &minio.Options{Creds: credentials.NewEnvAWS(), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	return func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match")+r.Header.Get("If-Match") == "" {
			forward.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		info, err := client.PutObject(r.Context(), bucket, key, bytes.NewReader(body), int64(len(body)), "", "", minio.PutObjectOptions{})
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("ETag", `"`+info.ETag+`"`)
	}
}

// TestServerWithoutConditions: a server that lets every write through is
// refused, unless the admin says that only one folder writes; and then a second
// one is refused all the same.
func TestServerWithoutConditions(t *testing.T) {
	s := newShell(t)
	server := testenv.StartS3(t)
	f := startFront(t, server, "lab")
	ignores := ignoringConditions(t, server)
	refuses := func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match")+r.Header.Get("If-Match") == "" {
			forward.ServeHTTP(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNotImplemented)
		io.WriteString(w, "<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is not "+
			"implemented</Message></Error>")
	}
	img := s.write("a.img", noisy(9))
	for i, server := range []func(http.Handler, http.ResponseWriter, *http.Request){ignores, refuses} {
		f.set(server)
		out := s.run(exitRefused, "store", "init", "--s3", f.url, s.path(fmt.Sprint("new", i)))
		if !strings.Contains(out, "does not keep conditions") || !strings.Contains(out, "--only-writer") {
			t.Error(out)
		}
	}
	f.set(nil)
	s.run(0, "store", "init", "--s3", f.url)
	f.set(ignores)
	out := s.run(exitRefused, "image", "create", "box", img)
	if !strings.Contains(out, "does not keep conditions") || !strings.Contains(out, "store take-over --only-writer") {
		t.Error(out)
	}
	s.run(0, "store", "take-over", "--only-writer", "--yes")
	f.set(refuses)
	s.run(0, "image", "create", "box", img)
	s.run(0, "image", "pin", "box")
	s.run(0, "image", "verify", "box", "sda="+img)
	s.run(0, "store", "init", "--s3", f.url, "--only-writer", s.path("second"))
	if out := s.run(exitRefused, "image", "create", "--store", s.path("second"), "box", img); !strings.Contains(out, s.path("store")) {
		t.Error(out)
	}
	f.set(nil)
	s.run(0, "store", "take-over", "--only-writer=false", "--yes")
	if b, err := os.ReadFile(s.path("store/remote")); err != nil || bytes.Contains(b, []byte("only-writer")) {
		t.Errorf("the folder says %s, %v", b, err)
	}
	s.run(exitWrong, "store", "take-over", "--yes", t.TempDir())
	s.write("store/remote", nil)
	if out := s.run(exitWrong, "image", "list"); !strings.Contains(out, s.path("store/remote")+": ") {
		t.Error(out)
	}
	if err := os.Remove(s.path("store/remote")); err != nil {
		t.Fatal(err)
	}
	if out := s.run(exitWrong, "image", "list"); !strings.Contains(out, "write the URL into it again") {
		t.Error(out)
	}
	s.run(exitWrong, "store", "init", "--only-writer", s.path("no"))
}

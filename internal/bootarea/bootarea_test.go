package bootarea

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var boxAddr = netip.MustParseAddr("10.40.41.42")

// area is a folder with boot files, and a secret beside it.
func area(t testing.TB) (*Area, string) {
	t.Helper()
	dir := t.TempDir()
	top := filepath.Join(dir, "tftp")
	for name, text := range map[string]string{
		"secret": "secret", "tftp/pxelinux.0": "loader", "tftp/pxelinux.cfg/default": "default", "tftp/pxelinux.cfg/0A28292A": "mine",
		"tftp/pxelinux.cfg/0A28292B": "another's", "tftp/pxelinux.cfg/0A28": "prefix", "tftp/pxelinux.cfg/0A28292A.ABC.tmp": "half",
		"tftp/other/0A28292B": "free", "tftp/a/kernel": strings.Repeat("0123456789", 100),
	} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	must(t, os.Symlink("a", filepath.Join(top, "latest")))
	must(t, os.Symlink("../secret", filepath.Join(top, "out")))
	must(t, os.Symlink(filepath.Join(dir, "secret"), filepath.Join(top, "far")))
	must(t, os.Symlink("loop", filepath.Join(top, "loop")))
	must(t, unix.Mkfifo(filepath.Join(top, "fifo"), 0o644))
	a, err := Open(top)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a, top
}

func TestOpen(t *testing.T) {
	a, _ := area(t)
	for name, want := range map[string]string{
		"pxelinux.0": "loader", "/pxelinux.0": "loader", "//pxelinux.0": "loader", "./a/../pxelinux.0": "loader", `\\pxelinux.0`: "loader",
		`pxelinux.cfg\default`: "default", "pxelinux.cfg//0A28292A": "mine", "pxelinux.cfg/0A28": "prefix", "other/0A28292B": "free",
		"../pxelinux.0": "loader", "../../pxelinux.0": "loader", // the area is all there is
		"pxelinux.cfg/0A28292B": "", "/pxelinux.cfg/./0A28292B": "", "pxelinux.cfg/0A28292A.ABC.tmp": "", "pxelinux.cfg/0a28292a": "",
		"": "", "/": "", ".": "", "..": "", "a": "", "a/": "", "a/kernel/x": "", "out": "", "far": "", "loop": "", "fifo": "", "../secret": "",
		"a\x00b": "", strings.Repeat("a/", 2000): "", strings.Repeat("n", 300): "", "nothing": "",
	} {
		f, err := a.Open(name, boxAddr)
		if want == "" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%.50q: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		f.Close()
	}
	if f, err := a.Open("latest/kernel", netip.Addr{}); err != nil || f.Size() != 1000 {
		t.Errorf("a link within the area: %v", err)
	}
	if _, err := a.Open("pxelinux.cfg/0A28292A", netip.MustParseAddr("::ffff:10.40.41.42")); err != nil {
		t.Errorf("the same address in the form of IPv6: %v", err)
	}
}

// TestGRUBConfig: GRUB gets a configuration that ends in a restart, whatever is in the
// area. One that somebody else wrote is given out as it is.
func TestGRUBConfig(t *testing.T) {
	ours := string(bootcfg.GRUBConfig())
	for what, c := range map[string]struct {
		there any // text, or nil for no file
		want  string
	}{
		"none": {nil, ours}, "empty": {"", ours}, "whole": {ours, ours}, "cut off": {ours[:1000], ours}, "another's": {"reboot\n", "reboot\n"},
	} {
		a, top := area(t)
		if text, ok := c.there.(string); ok {
			must(t, os.Mkdir(filepath.Join(top, "grub"), 0o755))
			must(t, os.WriteFile(filepath.Join(top, bootcfg.GRUBConfigName), []byte(text), 0o644))
		}
		f, err := a.Open("/grub/grub.cfg", boxAddr)
		must(t, err)
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size())); err != nil || string(got) != c.want {
			t.Errorf("%s: GRUB gets %.99q, %v", what, got, err)
		}
		must(t, f.Close())
	}
	a, top := area(t)
	must(t, os.MkdirAll(filepath.Join(top, bootcfg.LoadersDir), 0o755))
	must(t, os.WriteFile(filepath.Join(top, bootcfg.LoadersDir, "0A28292B.cfg"), []byte("x"), 0o644))
	f, err := a.Open("grub/boxes/0A28292B.cfg", boxAddr)
	must(t, err) // which has no secret, so that everybody can read it
	must(t, f.Close())
}

func TestClosedFile(t *testing.T) {
	if os.Getuid() == 0 {
		// Root may read every file, so the error comes from a file system.
		if err := plain(&fs.PathError{Err: unix.EACCES}); !errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		return
	}
	a, top := area(t)
	must(t, os.Chmod(filepath.Join(top, "pxelinux.0"), 0))
	if _, err := a.Open("pxelinux.0", boxAddr); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

func TestHTTP(t *testing.T) {
	a, _ := area(t)
	data := strings.Repeat("0123456789", 100)
	for _, c := range []struct {
		method, target, ranges string
		status                 int
		body                   string
	}{
		{"GET", "/a/kernel", "", 200, data},
		{"GET", "//a//kernel", "", 200, data},
		{"GET", "/a/kernel", "bytes=10-19", 206, "0123456789"},
		{"GET", "/a/kernel", "bytes=995-", 206, "56789"},
		{"GET", "/a/kernel", "bytes=2000-", 416, "invalid range: failed to overlap\n"},
		{"HEAD", "/a/kernel", "", 200, ""},
		{"GET", "/a", "", 404, "there is no such file\n"},
		{"GET", "/a/", "", 404, "there is no such file\n"},
		{"GET", "/", "", 404, "there is no such file\n"},
		{"GET", "/a/%2e%2e/%2e%2e/secret", "", 404, "there is no such file\n"},
		{"GET", "/pxelinux.cfg/0A28292A", "", 200, "mine"},
		{"GET", "/pxelinux.cfg/0A28292B", "", 404, "there is no such file\n"},
		{"POST", "/a/kernel", "", 405, "this server only gives files out\n"},
	} {
		r := httptest.NewRequest(c.method, "http://server"+c.target, nil)
		r.RemoteAddr = "10.40.41.42:1024"
		if c.ranges != "" {
			r.Header.Set("Range", c.ranges)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Location") != "" {
			t.Errorf("%s %s %s: %d %.60q", c.method, c.target, c.ranges, w.Code, w.Body)
		}
		if c.status == 200 && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", c.target, w.Header())
		}
		if c.method == "HEAD" && w.Header().Get("Content-Length") != "1000" {
			t.Errorf("%v", w.Header())
		}
	}
	server := httptest.NewServer(a) // through a real connection
	defer server.Close()
	answer, err := http.Get(server.URL + "/a/kernel")
	must(t, err)
	defer answer.Body.Close()
	if got, err := io.ReadAll(answer.Body); err != nil || !bytes.Equal(got, []byte(data)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, name := range []string{"pxelinux.0", "../secret", "a/../../secret", `..\secret`, "pxelinux.cfg/0A28292B", "out", "far"} {
		f.Add(name)
	}
	a, _ := area(f)
	f.Fuzz(func(t *testing.T, name string) {
		file, err := a.Open(name, boxAddr)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		defer file.Close()
		got, _ := io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
		if s := string(got); s == "secret" || s == "another's" || s == "half" {
			t.Errorf("%q gives %q", name, s)
		}
	})
}

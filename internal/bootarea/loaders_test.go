package bootarea

import (
	"bytes"
	"debug/pe"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/testenv/testpe"
)

// TestLoaders: shim and GRUB are given out together, and only as long as they are what was checked.
func TestLoaders(t *testing.T) {
	a, dir := area(t)
	site := testpe.NewSite()
	put := func(name string, data []byte) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, durable.WriteFile(durable.OS{}, filepath.Join(dir, name), data, 0o644))
	}
	gives := func(step string, want bool) {
		t.Helper()
		for _, name := range []string{"shimx64.efi", "grubx64.efi", "//grubx64.efi", `\shimx64.efi`} {
			f, err := a.Open(name, boxAddr)
			if err == nil {
				f.Close()
			}
			if (err == nil) != want || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s: %v", step, name, err)
			}
		}
		if _, err := a.Loaders(loaders.X64); (err == nil) != want {
			t.Errorf("%s: %v", step, err)
		}
	}
	looks := func(changed bool) {
		t.Helper()
		if got := a.LookAtLoaders(); slices.Contains(got, loaders.X64) != changed || len(got) > 1 {
			t.Errorf("a look finds that %v changed", got)
		}
	}
	shim, grub := site.Shim(pe.IMAGE_FILE_MACHINE_AMD64, "5"), site.GRUB(pe.IMAGE_FILE_MACHINE_AMD64, "2.12", "7")
	if _, err := a.Loaders(loaders.X64); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	put("grubx64.efi", grub)
	put("shimx64.efi", shim)
	looks(true)
	gives("nobody is trusted", false)
	put("uefi-trust.pem", site.Firmware.PEM())
	gives("nobody has looked", false)
	looks(true)
	gives("whole", true)
	looks(false)

	// The bytes of the same size and time, in the same place.
	path := filepath.Join(dir, "grubx64.efi")
	st, err := os.Stat(path)
	must(t, err)
	given, err := a.Open("grubx64.efi", boxAddr)
	must(t, err)
	defer given.Close()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{grub[1500] ^ 1}, 1500)
	must(t, errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, st.ModTime())))
	_, err = a.Open("grubx64.efi", boxAddr)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "before its signature is checked") {
		t.Errorf("a GRUB that was changed just now: %v", err)
	}
	looks(true)
	gives("GRUB is damaged", false)
	loaded := make([]byte, given.Size())
	if _, err := given.ReadAt(loaded, 0); err != nil || !bytes.Equal(loaded, grub) {
		t.Errorf("a machine that loads GRUB while it is written over gets other bytes, %v", err)
	}
	put("grubx64.efi", grub)
	looks(true)
	gives("whole again", true)
	for _, c := range []struct {
		name string
		data []byte
	}{{"shimx64.efi", shim[:len(shim)/2]}, {"grubx64.efi", nil},
		{"uefi-trust.pem", []byte("x")}} {
		old, err := os.ReadFile(filepath.Join(dir, c.name))
		must(t, err)
		put(c.name, c.data)
		looks(true)
		gives(c.name+" is damaged", false)
		must(t, os.Remove(filepath.Join(dir, c.name)))
		a.LookAtLoaders()
		if f, err := a.Open("grubx64.efi", boxAddr); err == nil {
			t.Errorf("GRUB is given out without %s", c.name)
			f.Close()
		}
		put(c.name, old)
		a.LookAtLoaders()
		gives(c.name+" is there again", true)
	}
	put("site/shimx64.efi", []byte("whatever"))
	if f, err := a.Open("site/shimx64.efi", boxAddr); err != nil {
		t.Errorf("a file of the admin's in another folder: %v", err)
	} else {
		f.Close()
	}

	// shim asks for two slashes over HTTP, and follows no redirection.
	for path, want := range map[string]int{"//grubx64.efi": http.StatusOK, "/shimx64.efi": http.StatusOK,
		"/shimia32.efi": http.StatusNotFound} {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			r := httptest.NewRequest(method, "http://server/", nil)
			r.URL.Path, r.RemoteAddr = path, netip.AddrPortFrom(boxAddr, 1000).String()
			w := httptest.NewRecorder()
			if a.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
}

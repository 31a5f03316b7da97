package server

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// TestReaddress: a box takes its logs and backups along to another address. What stands in
// the way is said before anything is changed. If it fails in the middle, neither address gets
// a job, and a restart or another call ends it.
func TestReaddress(t *testing.T) {
	p := newParts(t)
	old, to := addr(t, "10.0.0.7"), addr(t, "10.0.0.8")
	folder := func(a box.Addr) string { return filepath.Join(p.Config.BoxesDir(), a.String()) }
	must(t, os.Mkdir(folder(old), 0o755))
	must(t, os.WriteFile(filepath.Join(folder(old), "log.txt"), []byte("x\n"), 0o644))
	record := commit(t, p.Store, old.String(), 1)
	loaders := []bootcfg.LocalLoader{{Volume: "1A2B-3C4D", Path: "/EFI/debian/shimx64.efi"}}
	if _, err := p.Place.Boot.WriteLoaders(old, loaders); err != nil {
		t.Fatal(err)
	}
	_, stop := run(t, p)
	client := func() *apiclient.Client {
		c, err := apiclient.New(apiclient.Config{Server: p.Config.Socket})
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	do := func(method, path string, body, answer any) error {
		return client().Do(t.Context(), method, path, body, answer)
	}
	must(t, do(http.MethodPost, apiclient.Path("boxes"), api.NewBox{Address: old.String(), Name: "web"}, nil))
	move := func(name string) (b api.Box, err error) {
		err = do(http.MethodPost, apiclient.Path("boxes", name, "readdress"), api.NewAddress{Address: to.String(), Why: "a new rack"}, &b)
		return b, err
	}
	job := func(a box.Addr) error {
		return do(http.MethodPost, apiclient.Path("jobs"), api.NewJobs{Action: box.RefreshInfo, Targets: []string{a.String()}}, nil)
	}
	must(t, os.Mkdir(folder(to), 0o755))
	if _, err := move("web"); err == nil || !strings.Contains(err.Error(), "logs of another machine") {
		t.Errorf("%v", err)
	}
	must(t, os.Remove(folder(to)))

	// The backup does not follow, since its record cannot be written.
	records := filepath.Join(p.Config.StoreDir(), "records")
	must(t, os.WriteFile(filepath.Join(records, to.String()), nil, 0o644))
	_, err := move("web")
	if err == nil || !strings.Contains(err.Error(), "readdress 10.0.0.7 10.0.0.8` again") {
		t.Fatalf("%v", err)
	}
	for _, a := range []box.Addr{old, to} {
		if err := job(a); err == nil || !strings.Contains(err.Error(), "is being changed") {
			t.Errorf("%s gets a job: %v", a, err)
		}
	}
	if _, err := move(old.String()); err == nil {
		t.Error("it ended although the record cannot be written")
	}
	must(t, stop())
	_, stop = run(t, p)
	if err := job(to); err == nil {
		t.Error("after a restart the box gets a job before its backups are there")
	}
	must(t, os.Remove(filepath.Join(records, to.String())))
	b, err := move(old.String())
	if err != nil || b.Address != to.String() || b.Name != "web" || b.LastBackup == nil || b.LastBackup.ID != record.ID {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(folder(to), "log.txt")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder(old)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old folder: %v", err)
	}
	if got, err := p.Place.Boot.Loaders(to); err != nil || !slices.Equal(got, loaders) {
		t.Errorf("the loaders did not follow: %+v, %v", got, err)
	}
	if again, err := move(old.String()); err != nil || again.Address != to.String() {
		t.Errorf("the same request again: %+v, %v", again, err)
	}
	if _, err := move("10.0.0.6"); err == nil || !strings.Contains(err.Error(), "there is no box 10.0.0.6") {
		t.Errorf("%v", err)
	}
	must(t, job(old)) // which is nobody's address now
	if _, err := move("web"); err == nil {
		t.Error("a box moves to its own address")
	}

	// A start of the server ends what is left.
	to = addr(t, "10.0.0.9")
	must(t, os.WriteFile(filepath.Join(records, to.String()), nil, 0o644))
	if _, err := move("web"); err == nil {
		t.Error("it ended although the record cannot be written")
	}
	must(t, stop())
	must(t, os.Remove(filepath.Join(records, to.String())))
	_, stop = run(t, p)
	must(t, do(http.MethodGet, apiclient.Path("boxes", "web"), nil, &b))
	if b.Address != to.String() || b.LastBackup == nil || b.LastBackup.ID != record.ID {
		t.Errorf("%+v", b)
	}
	must(t, job(to))
	must(t, stop())
}

// TestForgottenLoaders: of a box that is forgotten, nothing is left that a loader reads.
func TestForgottenLoaders(t *testing.T) {
	p := newParts(t)
	a := addr(t, "10.0.0.7")
	_, stop := run(t, p)
	c, err := apiclient.New(apiclient.Config{Server: p.Config.Socket})
	must(t, err)
	defer c.Close()
	must(t, c.Do(t.Context(), http.MethodPost, apiclient.Path("boxes"), api.NewBox{Address: a.String(), Name: "web"}, nil))
	if _, err := p.Place.Boot.WriteLoaders(a, []bootcfg.LocalLoader{{Volume: "1A2B-3C4D", Path: "/a"}}); err != nil {
		t.Fatal(err)
	}
	must(t, c.Do(t.Context(), http.MethodDelete, apiclient.Path("boxes", "web")+"?why=scrapped", nil, nil))
	if got, err := p.Place.Boot.Loaders(a); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left are %+v, %v", got, err)
	}
	must(t, stop())
}

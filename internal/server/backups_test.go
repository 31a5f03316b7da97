package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/store"
)

func newBackups(t *testing.T) (*backups, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	must(t, store.InitDir(t.Context(), dir))
	s, err := store.OpenDir(t.Context(), dir, nil, false, t.Logf)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return &backups{s, time.Now}, dir
}

func addr(t *testing.T, s string) box.Addr {
	t.Helper()
	a, err := box.ParseAddr(s)
	must(t, err)
	return a
}

func TestFindBackup(t *testing.T) {
	b, dir := newBackups(t)
	first, last := commit(t, b.store, "10.0.0.7", 1), commit(t, b.store, "10.0.0.7", 2)
	other := commit(t, b.store, "10.0.0.8", 3)
	seven := addr(t, "10.0.0.7")
	all, err := b.Of(t.Context(), seven)
	if err != nil || len(all) != 2 || all[0].ID != last.ID {
		t.Errorf("the box has %v, %v", all, err)
	}
	for name, want := range map[string]string{
		"": last.ID, first.ID: first.ID, "latest": last.ID, "latest~1": first.ID, "10.0.0.8@latest": other.ID, "10.0.0.8": "",
		"latest~2": "", "10.0.0.9@latest": "", "baseline": "",
	} {
		r, err := b.Find(t.Context(), seven, name)
		if want == "" && err == nil || want != "" && (err != nil || r.ID != want) {
			t.Errorf("%q means %v, %v", name, r, err)
		}
		if want == "" && name != "10.0.0.8" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, text := range map[string]string{"yesterday": `"yesterday" is no backup of 10.0.0.7`, "@": "does not begin with a box",
		"../x@latest": "does not begin with a box", "10.0.0.8": "a box, and not one of its backups: 10.0.0.8@latest",
	} {
		if _, err := b.Find(t.Context(), seven, name); !errors.As(err, new(*problem.Error)) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", name, err)
		}
	}
	must(t, b.store.SetBaseline(t.Context(), "10.0.0.7", first.ID, true))
	if r, err := b.Find(t.Context(), seven, ""); err != nil || r.ID != first.ID {
		t.Errorf("with a baseline, the box's backup is %v, %v", r, err)
	}
	must(t, b.store.SetBaseline(t.Context(), "10.0.0.7", first.ID, false))

	// The latest backup cannot be read. The one before it must not take its place.
	must(t, os.WriteFile(filepath.Join(dir, "records", "10.0.0.7", last.ID), []byte("spoilt"), 0o600))
	if r, err := b.Find(t.Context(), seven, ""); !errors.As(err, new(*problem.Error)) {
		t.Errorf("beside a record that cannot be read, the box's backup is %v, %v", r, err)
	}
	if r, err := b.Find(t.Context(), seven, first.ID); err != nil || r.ID != first.ID {
		t.Errorf("the backup that can be read is %v, %v", r, err)
	}
}

package durable_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

func TestOS(t *testing.T) {
	conform.DurableFS(t, func(t *testing.T) (durable.FS, string) { return durable.OS{}, t.TempDir() })
}

func TestModesWithoutUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	if err := durable.WriteFile(durable.OS{}, filepath.Join(dir, "a"), nil, 0o664); err != nil {
		t.Fatal(err)
	}
	if err := (durable.OS{}).MkdirAll(filepath.Join(dir, "d/e"), 0o775); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"a": 0o664, "d": 0o775 | fs.ModeDir, "d/e": 0o775 | fs.ModeDir} {
		if st, err := os.Stat(filepath.Join(dir, path)); err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, st.Mode(), want, err)
		}
	}
}

// TestOpenRegularOnly: what a hostile machine may put into a shared folder.
func TestOpenRegularOnly(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o644), os.Symlink("/dev/zero", link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link, dir} {
		if _, err := (durable.OS{}).Open(path); err == nil {
			t.Errorf("%s opens", path)
		}
	}
}

func TestFree(t *testing.T) {
	if n, known := (durable.OS{}).Free(t.TempDir()); !known || n < 0 {
		t.Errorf("free space is %d, known %v", n, known)
	}
	if _, known := (durable.OS{}).Free("/does/not/exist"); known {
		t.Error("free space of nothing is known")
	}
}

const path, oldText, newText = "/d/file", "the old text", "the new text, which is longer"

// oldFile is a file system that holds the old text durably.
func oldFile(t *testing.T) *faults.Volatile {
	t.Helper()
	v := faults.NewVolatile()
	err := v.MkdirAll("/d", 0o755)
	if err = errors.Join(err, durable.WriteFile(v, path, []byte(oldText), 0o644)); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestWriteFileSurvivesEverything fails each operation of a write in each
// manner, then cuts the power.
func TestWriteFileSurvivesEverything(t *testing.T) {
	for _, manner := range []faults.Manner{faults.Fails, faults.Lies, faults.Dies} {
		for k, hit := 1, true; hit; k++ {
			for seed := range uint64(50) {
				v := oldFile(t)
				kth := &faults.Kth{FS: v, K: k, Manner: manner}
				err := durable.WriteFile(kth, path, []byte(newText), 0o644)
				hit = kth.Failed() != ""
				checkWritten(t, v, err, kth.Failed())
				random := rand.New(rand.NewPCG(seed, uint64(k)))
				checkWritten(t, v.Crash(func() bool { return random.IntN(2) == 0 }), err, kth.Failed()+" and a crash")
			}
		}
	}
}

// checkWritten checks the file after a write that ended with err.
func checkWritten(t *testing.T, fsys durable.FS, err error, what string) {
	t.Helper()
	got, readErr := durable.ReadFile(fsys, path, 1<<20)
	switch {
	case readErr != nil:
		t.Errorf("%s: %v", what, readErr)
	case err == nil && string(got) != newText:
		t.Errorf("%s: written without an error, the file has %q", what, got)
	case err != nil && !errors.Is(err, durable.ErrUnsure) && string(got) != oldText:
		t.Errorf("%s: %v, but the file has %q", what, err, got)
	case string(got) != oldText && string(got) != newText:
		t.Errorf("%s: the file has %q", what, got)
	}
}

// TestFailedSyncIsFinal: a write whose sync failed is not tried again.
func TestFailedSyncIsFinal(t *testing.T) {
	v := oldFile(t)
	kth := &faults.Kth{FS: v}
	if err := durable.WriteFile(kth, path, []byte(newText), 0o644); err != nil {
		t.Fatal(err)
	}
	syncs := 0
	for k := 1; k <= kth.Count(); k++ {
		v := oldFile(t)
		f := &faults.Kth{FS: v, K: k}
		err := durable.WriteFile(f, path, []byte(newText), 0o644)
		if f.Failed() == "sync "+path+".tmp" {
			syncs++
			if !errors.Is(err, faults.ErrInjected) {
				t.Errorf("error is %v", err)
			}
			if names, _ := v.ReadDir("/d"); len(names) != 1 {
				t.Errorf("files left: %v", names)
			}
		}
	}
	if syncs != 1 {
		t.Errorf("%d syncs failed, want 1", syncs)
	}
}

func TestRemoveIsDurable(t *testing.T) {
	v := oldFile(t)
	if err := v.Remove(path); err != nil { // somebody removed it and died before the sync
		t.Fatal(err)
	}
	if err := durable.Remove(v, path); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Crash(func() bool { return false }).Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the removed file is back: %v", err)
	}
}

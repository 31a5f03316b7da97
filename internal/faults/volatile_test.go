package faults_test

import (
	"errors"
	"io/fs"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

func TestVolatile(t *testing.T) {
	conform.DurableFS(t, func(*testing.T) (durable.FS, string) { return faults.NewVolatile(), "/" })
}

// TestVolatileAfterCrash: what a crash leaves is a file system like any other.
func TestVolatileAfterCrash(t *testing.T) {
	conform.DurableFS(t, func(t *testing.T) (durable.FS, string) {
		v := faults.NewVolatile()
		if err := v.MkdirAll("/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
		return v.Crash(none), "/a/b"
	})
}

func TestKthWithoutFault(t *testing.T) {
	conform.DurableFS(t, func(*testing.T) (durable.FS, string) { return &faults.Kth{FS: faults.NewVolatile()}, "/" })
}

func none() bool { return false }
func all() bool  { return true }

func text(t *testing.T, fsys durable.FS, path string) string {
	t.Helper()
	b, err := durable.ReadFile(fsys, path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLoses shows that the model loses what it says it does: without this every
// test that uses it would prove nothing.
func TestLoses(t *testing.T) {
	v := faults.NewVolatile()
	f, err := v.Create("/a", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("data"))
	if got := text(t, v.Crash(none), "/a"); got != "none" {
		t.Errorf("name not synced: %q", got)
	}
	v.SyncDir("/")
	if got := text(t, v.Crash(none), "/a"); got != "" {
		t.Errorf("data not synced: %q", got)
	}
	if got := text(t, v.Crash(all), "/a"); got != "data" {
		t.Errorf("kept by chance: %q", got)
	}
	f.Sync()
	if got := text(t, v.Crash(none), "/a"); got != "data" {
		t.Errorf("synced: %q", got)
	}
	v.Rename("/a", "/b")
	if got := text(t, v.Crash(none), "/a") + text(t, v.Crash(none), "/b"); got != "datanone" {
		t.Errorf("rename lost: %q", got)
	}
	v.Remove("/b")
	kept := 0
	after := v.Crash(func() bool { kept++; return kept == 2 }) // the remove, not the rename
	if got := text(t, after, "/a") + text(t, after, "/b"); got != "datanone" {
		t.Errorf("second change only: %q", got)
	}
}

// TestTornWrite: each sector of a write has its own fate.
func TestTornWrite(t *testing.T) {
	v := faults.NewVolatile()
	f, _ := v.Create("/a", 0)
	v.SyncDir("/")
	data := make([]byte, 1536)
	for i := range data {
		data[i] = 'x'
	}
	f.Write(data)
	i := 0
	got := text(t, v.Crash(func() bool { i++; return i == 2 }), "/a")
	if len(got) != 1024 || got[0] != 0 || got[511] != 0 || got[512] != 'x' {
		t.Errorf("the middle sector alone: %d bytes", len(got))
	}
}

// TestFailedSyncForgets: as Linux does, data whose sync failed is never durable.
func TestFailedSyncForgets(t *testing.T) {
	v := faults.NewVolatile()
	k := &faults.Kth{FS: v, K: 3}
	f, _ := k.Create("/a", 0)
	f.Write([]byte("data"))
	if err := f.Sync(); !errors.Is(err, faults.ErrInjected) {
		t.Fatalf("first sync: %v", err)
	}
	if err := errors.Join(f.Sync(), v.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	if seen, kept := text(t, v, "/a"), text(t, v.Crash(all), "/a"); seen != "data" || kept != "" {
		t.Errorf("seen %q, after a crash %q", seen, kept)
	}
}

func TestManners(t *testing.T) {
	for manner, want := range map[faults.Manner]string{faults.Fails: "none one", faults.Lies: "one one", faults.Dies: "none none"} {
		v := faults.NewVolatile()
		k := &faults.Kth{FS: v, K: 1, Manner: manner}
		for _, name := range []string{"/a", "/b"} {
			if f, err := k.Create(name, 0); err == nil {
				f.Write([]byte("one"))
			} else if g, err := v.Open(name); err == nil {
				g.Close()
				v.Append(name, []byte("one"))
			}
		}
		if got := text(t, v, "/a") + " " + text(t, v, "/b"); got != want {
			t.Errorf("%v: %q, want %q", manner, got, want)
		}
	}
}

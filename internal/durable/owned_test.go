package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/testenv"
)

// TestOwned: what root makes in a folder of another user is that user's.
func TestOwned(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	fsys := durable.Owned{}
	if err := fsys.MkdirAll(filepath.Join(dir, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(fsys, filepath.Join(dir, "a/b/file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a/b", "a/b/file"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if s := st.Sys().(*syscall.Stat_t); s.Uid != 1234 || s.Gid != 1235 {
			t.Errorf("%s belongs to %d:%d", name, s.Uid, s.Gid)
		}
	}
}

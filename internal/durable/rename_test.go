package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRenameLostAnswer plays an NFS server that has done a rename, and is asked
// again because its answer was lost.
func TestRenameLostAnswer(t *testing.T) {
	enoent := func(a, b string) error { return &os.LinkError{Op: "rename", Old: a, New: b, Err: syscall.ENOENT} }
	tests := map[string]struct {
		rename func(a, b string) error
		done   bool
	}{
		"done and denied":   {func(a, b string) error { return errors.Join(os.Rename(a, b), enoent(a, b)) }, true},
		"not done":          {enoent, false},
		"removed by others": {func(a, b string) error { return errors.Join(os.Remove(a), enoent(a, b)) }, false},
		"another error":     {func(a, b string) error { return syscall.EIO }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
			if err := errors.Join(os.WriteFile(from, []byte("new"), 0o600), os.WriteFile(to, []byte("old"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := renameWith(test.rename, from, to); (err == nil) != test.done {
				t.Errorf("error is %v", err)
			}
		})
	}
	if err := renameWith(os.Rename, "/does/not/exist", "/neither"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename of nothing: %v", err)
	}
}

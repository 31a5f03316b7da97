package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"testbox-imaging/internal/testenv"
)

// TestRootLeavesNothing: a store that belongs to a server's user stays that user's, whatever root
// does with it. The server would not start otherwise.
func TestRootLeavesNothing(t *testing.T) {
	testenv.Root(t)
	path := folder(t)
	all := func(do func(string, *syscall.Stat_t)) {
		must(t, filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
			must(t, err)
			st, err := e.Info()
			must(t, err)
			do(at, st.Sys().(*syscall.Stat_t))
			return nil
		}))
	}
	all(func(at string, _ *syscall.Stat_t) { must(t, os.Chown(at, 1234, 1235)) })
	must(t, openDir(t, path, true).Close())
	w := openDir(t, path, false)
	commit(t, w.Store, "x", 0)
	must(t, w.Close())
	files := 0
	all(func(at string, st *syscall.Stat_t) {
		if files++; st.Uid != 1234 || st.Gid != 1235 {
			t.Errorf("%s belongs to %d:%d", at, st.Uid, st.Gid)
		}
	})
	if files < 6 {
		t.Errorf("only %d files were looked at", files)
	}
}

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"testbox-imaging/internal/server"
	"testbox-imaging/internal/testenv"
)

// TestGiveTo: a server that ran as root can run as another user afterwards, since all
// that it wrote is given to that user. What a link leads to is not.
func TestGiveTo(t *testing.T) {
	testenv.Root(t)
	cfg := server.DefaultConfig()
	cfg.State = t.TempDir()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"testbox-tftp/pxelinux.0", "store/packs/x", "tls/agents.key", "ledger.db", "ledger.db-wal", "ledger.db.lock", "ledger-copy.db",
	} {
		path := filepath.Join(cfg.State, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, filepath.Join(cfg.State, "ledger.db-shm")); err != nil {
		t.Fatal(err)
	}
	const user = 12345
	if err := giveTo(user, user, &cfg); err != nil {
		t.Fatal(err)
	}
	owner := func(path string) uint32 {
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Uid
	}
	err := filepath.WalkDir(cfg.State, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && owner(path) != user && filepath.Base(path) != "pxelinux.0" {
			t.Errorf("%s is of user %d", path, owner(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if owner(other) != 0 {
		t.Error("what a link leads to was given away")
	}
}

// TestUsualFolders: `testbox pxe-conf` finds the boot files of a storage server without -c,
// since `testbox server recover` and a box whose job is lost say to use it.
func TestUsualFolders(t *testing.T) {
	cfg := server.DefaultConfig()
	if dirs := realWorld().configDirs; !slices.Contains(dirs, cfg.BootDir()) {
		t.Errorf("%q has no %s", dirs, cfg.BootDir())
	}
}

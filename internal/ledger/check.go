package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Check returns the error that Open would return, and changes nothing beside the ledger. It
// opens a copy, since SQLite writes beside each ledger that it opens. If a process has the
// ledger, the error matches ErrInUse, and that process has found it whole. If there is
// none, it matches fs.ErrNotExist.
func Check(ctx context.Context, file string) error {
	file, err := realPath(file)
	if err != nil {
		return err
	}
	d := &sqliteDB{path: file}
	if err := d.free(); err != nil {
		return fmt.Errorf("the ledger %s: %w", file, err)
	}
	if _, err := d.header(); err != nil {
		return fmt.Errorf("the ledger %s: %w", file, d.explain(err))
	}
	dir, err := os.MkdirTemp("", "testbox-ledger-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	scratch := filepath.Join(dir, "ledger.db")
	for _, end := range []string{"", "-wal", "-journal"} {
		if err := copyFile(file+end, scratch+end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("copy the ledger %s to look at it: %w", file, err)
		}
	}
	if err := d.free(); err != nil { // a server was started while the files were read
		return fmt.Errorf("the ledger %s: %w", file, err)
	}
	l, err := Open(ctx, scratch, Options{MustExist: true})
	if err != nil {
		return fmt.Errorf("a copy of the ledger %s: %w", file, err)
	}
	return l.Close()
}

// free returns an error that matches ErrInUse if a process has the ledger.
func (d *sqliteDB) free() error {
	lock, err := os.OpenFile(d.path+".lock", os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return inUse(lock)
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return nil // closing gives the lock back
}

func copyFile(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return errors.Join(err, out.Close())
}

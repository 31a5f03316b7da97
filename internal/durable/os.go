package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OS is the operating system's file system, local or NFS.
type OS struct{}

// Create implements FS. The file gets the mode whatever the umask is.
func (OS) Create(path string, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if err := setMode(f, mode); err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return f, nil
}

// setMode sets the mode only if the umask changed it, because servers without
// modes refuse the call.
func setMode(f *os.File, mode fs.FileMode) error {
	st, err := f.Stat()
	if err != nil || st.Mode().Perm() == mode.Perm() {
		return err
	}
	return f.Chmod(mode)
}

type osReadable struct {
	*os.File
	info fs.FileInfo
}

func (r osReadable) Size() int64        { return r.info.Size() }
func (r osReadable) ModTime() time.Time { return r.info.ModTime() }

// Open implements FS. It opens only regular files, and does not block on a pipe
// that somebody put into a shared folder. The size is read once, so a file that
// is changed during reading can give a short read.
func (OS) Open(path string) (Readable, error) { return openWith(path, 0) }

// OpenHere is Open for a path that must not end in a link.
func (OS) OpenHere(path string) (Readable, error) { return openWith(path, syscall.O_NOFOLLOW) }

func openWith(path string, flags int) (Readable, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osReadable{f, st}, nil
}

// Rename implements FS.
func (OS) Rename(oldPath, newPath string) error { return renameWith(os.Rename, oldPath, newPath) }

// renameWith calls rename and detects a lost answer. If the first answer is
// lost, an NFS client sends the rename again, and is told that the old path
// does not exist. If the file that had the old path has the new path now, the
// rename was done.
func renameWith(rename func(string, string) error, oldPath, newPath string) error {
	before, statErr := os.Lstat(oldPath)
	err := rename(oldPath, newPath)
	if !errors.Is(err, fs.ErrNotExist) || statErr != nil {
		return err
	}
	if _, gone := os.Lstat(oldPath); !errors.Is(gone, fs.ErrNotExist) {
		return err
	}
	if after, statErr := os.Lstat(newPath); statErr == nil && os.SameFile(before, after) {
		return nil
	}
	return err
}

// RenameNew implements FS.
func (OS) RenameNew(oldPath, newPath string) error { return renameWith(renameNew, oldPath, newPath) }

// renameNew asks the kernel for a rename that replaces nothing. NFS does not
// support this, so a hard link is made instead. Some file systems (FAT, some
// FUSE) have no hard links either. There, two processes that rename at the same
// moment can both succeed.
func renameNew(oldPath, newPath string) error {
	err := unix.Renameat2(unix.AT_FDCWD, oldPath, unix.AT_FDCWD, newPath, unix.RENAME_NOREPLACE)
	if !unsupported(err) {
		return pathError("rename", newPath, err)
	}
	err = os.Link(oldPath, newPath)
	switch {
	case err == nil || sameFile(oldPath, newPath): // the link was made, perhaps by a call whose answer was lost
		os.Remove(oldPath)
		return nil
	case !unsupported(err):
		return err
	}
	if _, err := os.Lstat(newPath); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, pathError("rename", newPath, fs.ErrExist))
	}
	return os.Rename(oldPath, newPath)
}

// unsupported reports whether an error says that a file system does not support
// a call.
func unsupported(err error) bool {
	for _, e := range []error{syscall.EINVAL, syscall.ENOSYS, syscall.ENOTSUP, syscall.EPERM, syscall.EMLINK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func sameFile(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

// Resolve returns the path that a path leads to by links.
func (OS) Resolve(path string) (string, error) { return filepath.EvalSymlinks(path) }

// ReadDir implements FS.
func (OS) ReadDir(path string) ([]string, error) {
	es, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(es))
	for i, e := range es {
		names[i] = e.Name()
	}
	return names, nil
}

// MkdirAll implements FS. The parent folder is synced even if the folder
// existed, since the process that made it may have died before its sync.
func (o OS) MkdirAll(path string, mode fs.FileMode) error {
	path = filepath.Clean(path)
	parent := filepath.Dir(path)
	if parent == path {
		return nil
	}
	err := mkdir(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := o.MkdirAll(parent, mode); err != nil {
			return err
		}
		err = mkdir(path, mode)
	}
	if err != nil {
		return err
	}
	return o.SyncDir(parent)
}

// mkdir makes one folder. It is no error if the folder exists.
func mkdir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if err == nil {
		return os.Chmod(path, mode)
	}
	if st, statErr := os.Stat(path); statErr == nil && st.IsDir() {
		return nil
	}
	return err
}

// SyncDir implements FS.
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return syncDirError(d.Sync())
}

// syncDirError ignores EINVAL, ENOTSUP and ENOSYS. These errors come from file
// systems that cannot sync folders (some FUSE and network file systems). Their
// folder changes are as durable as possible when the call that made them
// returns. On NFS the client's sync of a folder does nothing, and the `sync`
// option of the export makes the server answer only when a create, rename or
// remove is on its disk. All other errors (EIO, ENOSPC, ESTALE, ...) are
// returned.
func syncDirError(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	return err
}

// Free returns how many bytes an unprivileged writer can still store in the
// file system of path. Servers that do not know say 0 of 0 bytes, and known is
// false then.
func (OS) Free(path string) (bytes int64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil || st.Blocks == 0 {
		return 0, false
	}
	if st.Bsize <= 0 || st.Bavail > uint64(1<<62)/uint64(st.Bsize) {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true
}

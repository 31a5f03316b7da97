package hook

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tree is a folder of a mounted file system, below which files are found as if it were the
// root of all.
type tree struct{ fd int }

// errAbsent is matched by the error for a file that is not there.
var errAbsent = fs.ErrNotExist

// unfitError says that a file is none that a hook changes. Nothing was changed.
type unfitError struct{ text string }

func (e *unfitError) Error() string { return e.text }

func unfit(format string, args ...any) error { return &unfitError{fmt.Sprintf(format, args...)} }

// maxFile is how many bytes a file may have that a hook reads.
const maxFile = 64 << 10

// open opens a file or folder. Links to folders are followed within the tree, as after
// chroot(2). The last part of the path is no link.
func (t tree) open(path string, flags int) (int, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY // nothing of what a name can be makes the agent wait
	}
	how := &unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o644
	}
	fd, err := unix.Openat2(t.fd, path, how)
	if errors.Is(err, unix.ELOOP) {
		return -1, unfit("/%s is a symbolic link, or has too many on its way, and hooks change no file through a link", path)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: "/" + path, Err: err}
	}
	return fd, nil
}

// folder returns a folder of the tree. "." is the tree itself.
func (t tree) folder(path string) (tree, error) {
	if path == "." {
		return t, nil
	}
	fd, err := t.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) {
		err = errAbsent
	}
	return tree{fd}, err
}

func (t tree) close() { unix.Close(t.fd) }

// has reports whether there is something with this path, if only a link.
func (t tree) has(path string) bool {
	fd, err := t.open(path, unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// isLink reports whether a path is a symbolic link.
func (t tree) isLink(path string) bool {
	fd, err := t.open(path, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// file opens a regular file that no other name has.
func (t tree) file(path string, flags int) (*os.File, error) {
	fd, err := t.open(path, flags)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			err = unfit("/%s is no regular file", path)
		case st.Nlink > 1:
			err = unfit("/%s has another name too, which would be changed along with it", path)
		case st.Size > maxFile:
			err = unfit("/%s has %d bytes, and %d at most are read", path, st.Size, maxFile)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"+path), nil
}

// read returns the content of a file.
func (t tree) read(path string) ([]byte, error) {
	f, err := t.file(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = unfit("/%s has more than %d bytes", path, maxFile)
	}
	return data, err
}

// write gives a file another content. It stays the same file, with its owner, its rights
// and its label of SELinux. If it is not there, it is made.
func (t tree) write(path string, data []byte) error {
	f, err := t.file(path, unix.O_WRONLY)
	if errors.Is(err, errAbsent) {
		f, err = t.file(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

// remove removes a file of a folder.
func (t tree) remove(folder, name string) error {
	dir, err := t.folder(folder)
	if err != nil {
		return err
	}
	defer dir.close()
	f, err := dir.file(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Unlinkat(dir.fd, name, 0); err != nil {
		return &fs.PathError{Op: "remove", Path: "/" + folder + "/" + name, Err: err}
	}
	return unix.Fsync(dir.fd)
}

// maxNames is how many names a folder may have that a hook lists.
const maxNames = 10000

// names lists a folder.
func (t tree) names(folder string) ([]string, error) {
	dir, err := t.folder(folder)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dir.fd), "/"+folder)
	defer f.Close()
	names, err := f.Readdirnames(maxNames + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if len(names) > maxNames {
		err = fmt.Errorf("/%s has more than %d files", folder, maxNames)
	}
	return names, err
}

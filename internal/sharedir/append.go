package sharedir

import (
	"fmt"
	"os"
	"syscall"
)

// AppendFile is the Append of the operating system. It opens and closes the
// file in each call. Closing writes back, so the NFS server has the line when
// the call returns. A handle never becomes stale, and the admin can rename the
// log. AppendFile writes only to regular files and follows no link, because
// every box can write to the area and could make a log a link to a disk.
func AppendFile(path string, data []byte) (n int, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, fileMode)
	if err != nil {
		return 0, err
	}
	defer func() {
		if closeErr := f.Close(); err == nil && closeErr != nil {
			n, err = 0, closeErr // how much was written back is not known
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	if st.Size() == 0 && st.Mode().Perm() != fileMode {
		f.Chmod(fileMode) // undo the umask; an error does not matter, a log that only its owner can write is still a log
	}
	return f.Write(data)
}

// OpenHere opens a path of a shared folder for reading. It does not follow a
// link at the path's end. Boxes may run hostile code and can write to some of
// the folders, and their links must not make root read or change a file
// elsewhere.
func OpenHere(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

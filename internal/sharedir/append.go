package sharedir

import (
	"fmt"
	"os"
	"syscall"
)

// AppendFile is the Append of the operating system. The file is opened for each
// call: so the line is with the NFS server when the call returns (closing
// writes back), a handle never goes stale, and the admin can rename the log
// away. Only regular files are written, and no link is followed: in an area
// that every box can write, a log could be made a link to a disk.
func AppendFile(path string, data []byte) (n int, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, fileMode)
	if err != nil {
		return 0, err
	}
	defer func() {
		if closeErr := f.Close(); err == nil && closeErr != nil {
			n, err = 0, closeErr // what was written back is not known
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
		f.Chmod(fileMode) // the umask; a log that only its owner can write is still a log
	}
	return f.Write(data)
}

// OpenHere opens a path of a shared folder for reading, without following a link
// at its end. Boxes, which run hostile code, write to some of the folders, and a
// link that they put there must not have root read or change something elsewhere.
func OpenHere(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

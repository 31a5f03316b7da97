package imagefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrFolder is matched by the error for a folder on which disks cannot be mounted.
var ErrFolder = errors.New("give an empty folder on which nothing is mounted")

// prepare checks that disks can be mounted on a folder. The folder must exist, be
// empty, and have no mount. A mount that a killed process of this program left is
// removed first. prepare gives the folder's real path.
func prepare(dir string, logf func(format string, args ...any)) (string, error) {
	dir, err := realPath(dir)
	if err != nil {
		return "", err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	kind, err := mountedOn(f, dir)
	if err != nil {
		return "", err
	}
	_, dead := os.Stat(dir)
	switch {
	case errors.Is(dead, syscall.ENOTCONN):
		if err := clearDead(dir, kind); err != nil {
			return "", err
		}
		logf("what a mount that was killed had left on %s is taken away", dir)
	case kind != "":
		return "", fmt.Errorf("%s has a file system mounted on it (%s): umount it, or %w", dir, kind, ErrFolder)
	}
	names, err := os.ReadDir(dir)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s is not empty; %w", dir, ErrFolder)
	}
	return dir, err
}

// clearDead removes the mount of a program that was killed. It refuses if the mount
// is not of this package.
func clearDead(dir, kind string) error {
	err := errors.New("it is not of this program")
	if kind == fsType {
		err = detach(dir)
	}
	if err != nil {
		return fmt.Errorf("%s has a mount (%s) whose program was killed; `umount %s`, or without root `fusermount3 -u %s`, takes it away: %w",
			dir, kind, dir, dir, err)
	}
	return nil
}

// realPath gives the folder's path without symbolic links. It does not stat the
// folder itself, since that fails on a dead mount.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if st, err := os.Lstat(dir); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(dir)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	return filepath.Join(parent, filepath.Base(dir)), err
}

// detach unmounts the folder even if a file is still open. Every read of such a file
// fails anyway, since the mount is dead.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return syscall.Unmount(dir, syscall.MNT_DETACH)
	}
	if msg, err := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(msg)))
	}
	return nil
}

// mountedOn gives the type of the file system that is mounted on a folder, or "" if
// there is none. It reads /proc/self/mountinfo, which proc_pid_mountinfo(5)
// describes.
func mountedOn(mountinfo io.Reader, dir string) (kind string, err error) {
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) >= 5 && len(types) > 0 && unescape(fields[4]) == dir {
			kind = types[0] // of several mounts on one folder, the last one lies on top
		}
	}
	return kind, lines.Err()
}

// unescape turns each \ooo, three octal digits, back into its byte.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

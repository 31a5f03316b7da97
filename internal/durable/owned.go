package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Owned is OS for a folder that may belong to another user than root, such as a store that a
// server writes to. What root makes there belongs to the folder's owner, who could not
// use it otherwise.
type Owned struct{ OS }

// Create implements FS.
func (o Owned) Create(path string, mode fs.FileMode) (File, error) {
	f, err := o.OS.Create(path, mode)
	if err == nil {
		GiveToFolder(path)
	}
	return f, err
}

// MkdirAll implements FS.
func (o Owned) MkdirAll(path string, mode fs.FileMode) error {
	var missing []string // the lowest first
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		if _, err := os.Lstat(at); err == nil || at == filepath.Dir(at) {
			break
		}
		missing = append(missing, at)
	}
	if err := o.OS.MkdirAll(path, mode); err != nil {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		GiveToFolder(missing[i])
	}
	return nil
}

// GiveToFolder gives a new file to the owner of its folder if this process is root's. There are
// file systems on which that cannot be, and the file stays root's there.
func GiveToFolder(path string) {
	if os.Geteuid() != 0 {
		return
	}
	if st, err := os.Stat(filepath.Dir(path)); err == nil {
		if s, ok := st.Sys().(*syscall.Stat_t); ok && (s.Uid != 0 || s.Gid != 0) {
			os.Lchown(path, int(s.Uid), int(s.Gid))
		}
	}
}

package realfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Tree has the files of a file system, which can be changed.
type Tree interface {
	// Mkdir, Write and Remove fail the test on errors. Only if there is no
	// space left, Mkdir and Write return false.
	Mkdir(path string) bool
	Write(path string, data []byte) bool // creates or replaces the file
	Remove(path string)
	Dir() string // the mount point, "" if it is not mounted
}

// tree is a mounted file system.
type tree struct {
	t   testing.TB
	dir string
}

func (m tree) Dir() string { return m.dir }

func (m tree) Mkdir(path string) bool { return m.room(os.Mkdir(filepath.Join(m.dir, path), 0o755)) }

// Write tries again after a sync if there is no space left. Btrfs gives the
// space of removed files back only with its next commit, whose time depends on
// how busy the machine is, and the same seed is to make the same files.
func (m tree) Write(path string, data []byte) bool {
	path = filepath.Join(m.dir, path)
	err := os.WriteFile(path, data, 0o644)
	if errors.Is(err, unix.ENOSPC) {
		m.sync()
		err = os.WriteFile(path, data, 0o644)
	}
	return m.room(err)
}

// sync writes everything that the file system still has in memory.
func (m tree) sync() {
	dir, err := os.Open(m.dir)
	if err == nil {
		err = unix.Syncfs(int(dir.Fd()))
		dir.Close()
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m tree) Remove(path string) {
	// A file is missing if there was no inode left for it.
	if err := os.Remove(filepath.Join(m.dir, path)); err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
}

func (m tree) room(err error) bool {
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		m.t.Fatal(err)
	}
	return err == nil
}

// mtree is a FAT that is changed by mtools.
type mtree struct {
	t   testing.TB
	img string
}

func (m mtree) Dir() string { return "" }

func (m mtree) Mkdir(path string) bool {
	Run(m.t, "mmd", "-i", m.img, "::"+path)
	return true
}

func (m mtree) Write(path string, data []byte) bool {
	from := filepath.Join(m.t.TempDir(), "data")
	if err := os.WriteFile(from, data, 0o644); err != nil {
		m.t.Fatal(err)
	}
	Run(m.t, "mcopy", "-D", "o", "-i", m.img, from, "::"+path)
	return true
}

func (m mtree) Remove(path string) { Run(m.t, "mdel", "-i", m.img, "::"+path) }

// Files has everything in a file system. For each path, it has type, mode, size
// and content as text.
type Files map[string]string

// Files reads everything in the file system. It mounts it read-write, as a box
// would, so img may change.
func (k Kind) Files(t testing.TB, img string) Files {
	t.Helper()
	if k.Mount != nil {
		var files Files
		k.Mounted(t, img, func(dir string) { files = readFiles(t, dir) })
		return files
	}
	dir := t.TempDir()
	Run(t, "mcopy", "-s", "-n", "-i", img, "::/", dir)
	return readFiles(t, dir)
}

func readFiles(t testing.TB, dir string) Files {
	t.Helper()
	files := Files{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " " + to
		}
		what += xattrs(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = what
		return nil
	})
	if err != nil {
		t.Fatalf("read the files: %v", err)
	}
	return files
}

// Diff describes the differences in a few lines. It is "" if there are none.
func (f Files) Diff(other Files) string {
	var lines []string
	for path, what := range f {
		if got := other[path]; got != what {
			lines = append(lines, fmt.Sprintf("%s: %q became %q", path, what, got))
		}
	}
	for path, what := range other {
		if _, ok := f[path]; !ok {
			lines = append(lines, fmt.Sprintf("%s: nothing became %q", path, what))
		}
	}
	sort.Strings(lines)
	if n := len(lines); n > 10 {
		lines = append(lines[:10], fmt.Sprintf("... %d in all", n))
	}
	return strings.Join(lines, "\n")
}

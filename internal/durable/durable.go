// Package durable writes files so that they survive a power cut: whole and
// synced under a temporary name, renamed, and the folder synced. Every durable
// write of the project goes through here. FS is the small file system below it,
// so that tests can put one beneath that loses what was not synced.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FS is the part of a file system that durable work needs. Paths are those of
// package filepath. Errors match fs.ErrNotExist and fs.ErrExist by errors.Is.
type FS interface {
	// Create makes a file for writing; it must not exist.
	Create(path string, mode fs.FileMode) (File, error)
	// Open opens a file for reading.
	Open(path string) (Readable, error)
	// Rename replaces the new path; durable after SyncDir of the folder.
	Rename(oldPath, newPath string) error
	// Remove deletes a file; durable after SyncDir of the folder.
	Remove(path string) error
	// ReadDir lists the names in a folder, sorted.
	ReadDir(path string) ([]string, error)
	// MkdirAll makes a folder and its parents.
	MkdirAll(path string, mode fs.FileMode) error
	// SyncDir makes the folder's entries durable.
	SyncDir(path string) error
}

// File is a file being written.
type File interface {
	io.Writer
	Sync() error // data durable; after an error nothing may be assumed, and a second call proves nothing
	Close() error
}

// Readable is a file being read.
type Readable interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// tempSuffix ends the names of files that are not finished. A crash can leave
// them; Clean removes them.
const tempSuffix = ".tmp"

// IsTemp reports whether name is one of an unfinished write.
func IsTemp(name string) bool { return strings.HasSuffix(name, tempSuffix) }

// Pending is a file being written, not visible under its name until Commit.
// Two writers of the same name exclude each other by the temporary name.
type Pending struct {
	File
	fsys FS
	path string
	done bool
}

// Create starts a durable write of path. A left-over of an earlier write that
// did not finish is replaced; so the caller must be the only writer of path.
func Create(fsys FS, path string, mode fs.FileMode) (*Pending, error) {
	tmp := path + tempSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := fsys.Create(tmp, mode)
	if err != nil {
		return nil, err
	}
	return &Pending{File: f, fsys: fsys, path: path}, nil
}

// Commit makes the file durable under its name. After an error the name holds
// what it held before, or (only if syncing the folder failed) may hold either.
func (p *Pending) Commit() error {
	if p.done {
		return errors.New("commit of a finished write")
	}
	if err := p.Sync(); err != nil {
		p.Abort()
		return fmt.Errorf("sync %s: %w", p.path, err)
	}
	p.done = true
	if err := p.Close(); err != nil {
		p.fsys.Remove(p.path + tempSuffix)
		return err
	}
	if err := p.fsys.Rename(p.path+tempSuffix, p.path); err != nil {
		p.fsys.Remove(p.path + tempSuffix)
		return err
	}
	return p.fsys.SyncDir(filepath.Dir(p.path))
}

// Abort gives the write up and removes the temporary file. After Commit it
// does nothing, so it can be deferred.
func (p *Pending) Abort() {
	if p.done {
		return
	}
	p.done = true
	p.Close()
	p.fsys.Remove(p.path + tempSuffix)
}

// WriteFile writes a small file durably.
func WriteFile(fsys FS, path string, data []byte, mode fs.FileMode) error {
	p, err := Create(fsys, path, mode)
	if err != nil {
		return err
	}
	defer p.Abort()
	if _, err := p.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return p.Commit()
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(fsys FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	b := make([]byte, f.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, f.Size()), b); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// Remove deletes a file durably. A file that is not there is removed.
func Remove(fsys FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

// OS is the operating system's file system.
type OS struct{}

// Create implements FS. The mode is set whatever the umask is.
func (OS) Create(path string, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return f, nil
}

type osReadable struct {
	*os.File
	size int64
}

func (r osReadable) Size() int64 { return r.size }

// Open implements FS. Only regular files open; a size read once is kept, so a
// file that changes below the reader gives a short read.
func (OS) Open(path string) (Readable, error) {
	f, err := os.Open(path)
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
	return osReadable{f, st.Size()}, nil
}

// Rename implements FS.
func (OS) Rename(oldPath, newPath string) error { return os.Rename(oldPath, newPath) }

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

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

// MkdirAll implements FS.
func (OS) MkdirAll(path string, mode fs.FileMode) error { return os.MkdirAll(path, mode) }

// SyncDir implements FS.
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

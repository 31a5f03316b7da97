// Package durable writes files so that they survive a power cut. It writes a
// file completely under a temporary name, syncs it, renames it and syncs the
// folder. All durable writes of the project use this package. FS is the small
// file system interface below it, so that tests can use one that loses what was
// not synced.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// FS is the part of a file system that durable work needs. Paths are as in
// package filepath. Errors match fs.ErrNotExist and fs.ErrExist by errors.Is.
// Different names in a folder may be changed at the same time, but not the same
// name.
type FS interface {
	// Create makes a file for writing, which must not exist. The name is durable
	// after SyncDir of the folder, the bytes after File.Sync.
	Create(path string, mode fs.FileMode) (File, error)
	// Open opens a regular file for reading.
	Open(path string) (Readable, error)
	// Rename moves a file and atomically replaces a file at the new path. After a
	// crash there is either the old or the new state. The rename is durable after
	// SyncDir of the folder, or of both folders if they differ. Of several renames
	// that were not synced, any may be lost.
	Rename(oldPath, newPath string) error
	// RenameNew is like Rename, but the new path must not exist. If it exists,
	// nothing changes, and the error matches fs.ErrExist. If several callers do it
	// at once, only one succeeds.
	RenameNew(oldPath, newPath string) error
	// Remove deletes a file or an empty folder. It is durable after SyncDir.
	Remove(path string) error
	// ReadDir lists the names in a folder, sorted.
	ReadDir(path string) ([]string, error)
	// MkdirAll durably makes a folder and the missing ones above it. They get this
	// mode whatever the umask is. A folder that exists keeps its mode.
	MkdirAll(path string, mode fs.FileMode) error
	// SyncDir makes all earlier creates, renames and removes in the folder
	// durable. After an error, any of them may be lost.
	SyncDir(path string) error
}

// File is a file being written.
type File interface {
	io.Writer
	// Sync makes the bytes durable. After an error, any bytes may be lost, and a
	// second call that succeeds proves nothing, since the kernel reports lost
	// pages only once. The file must be written anew.
	Sync() error
	// Close may return the error of a failed write, since NFS writes back at that
	// time. Only bytes that were synced before are durable.
	Close() error
}

// Readable is a file being read.
type Readable interface {
	io.ReaderAt
	io.Closer
	Size() int64        // bytes, at the time of opening
	ModTime() time.Time // by the clock of the machine that has the file, over NFS the server
}

// tempSuffix ends the names of unfinished files. A crash can leave such files.
// The owner of the folder removes them at its next start.
const tempSuffix = ".tmp"

// IsTemp reports whether name is that of an unfinished file.
func IsTemp(name string) bool { return strings.HasSuffix(name, tempSuffix) }

// Pending is a file being written. It is not visible under its name before
// Commit.
type Pending struct {
	File
	fsys FS
	path string
	tmp  string // where the file is before Commit
	done bool
}

// Create starts a durable write of path. It replaces the temporary file of an
// earlier unfinished write, so the caller must be the only writer of path.
func Create(fsys FS, path string, mode fs.FileMode) (*Pending, error) {
	tmp := path + tempSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := fsys.Create(tmp, mode)
	if err != nil {
		return nil, err
	}
	return &Pending{File: f, fsys: fsys, path: path, tmp: tmp}, nil
}

// CreateBeside is like Create, but there may be several writers of path. If a
// writer is killed, its temporary file stays until somebody removes files for
// which IsTemp is true.
func CreateBeside(fsys FS, path string, mode fs.FileMode) (*Pending, error) {
	tmp := path + "." + rand.Text() + tempSuffix
	f, err := fsys.Create(tmp, mode)
	if err != nil {
		return nil, err
	}
	return &Pending{File: f, fsys: fsys, path: path, tmp: tmp}, nil
}

// TempPath is where the file is before Commit, for a program that writes it by
// its name.
func (p *Pending) TempPath() string { return p.tmp }

// ErrUnsure is matched by the error of a Commit that failed when the file may
// have its name already. After a crash the name has the new file or the earlier
// one. After all other errors it still has the earlier one.
var ErrUnsure = errors.New("it is not known whether the file is in place")

// Commit makes the file durable under its name, and replaces a file of that
// name.
func (p *Pending) Commit() error { return p.commit(p.fsys.Rename) }

// CommitNew is like Commit, but if the name exists, it fails and the error
// matches fs.ErrExist.
func (p *Pending) CommitNew() error { return p.commit(p.fsys.RenameNew) }

func (p *Pending) commit(rename func(oldPath, newPath string) error) error {
	if p.done {
		return errors.New("commit of a finished write")
	}
	if err := p.Sync(); err != nil {
		p.Abort()
		return fmt.Errorf("sync %s: %w", p.path, err)
	}
	p.done = true
	if err := p.Close(); err != nil {
		p.fsys.Remove(p.tmp)
		return fmt.Errorf("close %s: %w", p.path, err)
	}
	if err := rename(p.tmp, p.path); err != nil {
		// A server may have done the rename although the answer was an error. If the
		// temporary file can still be removed, the rename was not done.
		if p.fsys.Remove(p.tmp) == nil {
			return err
		}
		return fmt.Errorf("%w (%w)", err, ErrUnsure)
	}
	if err := p.fsys.SyncDir(filepath.Dir(p.path)); err != nil {
		return fmt.Errorf("%w (%w: %s)", err, ErrUnsure, p.path)
	}
	return nil
}

// Abort ends the write and removes the temporary file. After Commit it does
// nothing, so it can be deferred.
func (p *Pending) Abort() {
	if p.done {
		return
	}
	p.done = true
	p.Close()
	p.fsys.Remove(p.tmp)
}

// WriteFile writes a small file durably. Its errors are like those of Commit.
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

// Size returns a file's length in bytes.
func Size(fsys FS, path string) (int64, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size(), nil
}

// Remove deletes a file durably. It is no error if the file does not exist. The
// folder is synced then too, because an earlier Remove may not have been
// synced.
func Remove(fsys FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

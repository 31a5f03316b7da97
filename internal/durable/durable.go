// Package durable writes files so that they survive a power cut: whole and
// synced under a temporary name, renamed, and the folder synced. Every durable
// write of the project goes through here. FS is the small file system below it,
// so that tests can put one beneath that loses what was not synced.
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

// FS is the part of a file system that durable work needs. Paths are those of
// package filepath. Errors match fs.ErrNotExist and fs.ErrExist by errors.Is.
// Two names of one folder may be worked on at the same time, one name not.
type FS interface {
	// Create makes a file for writing; it must not exist. The name is
	// durable after SyncDir of the folder, the bytes after File.Sync.
	Create(path string, mode fs.FileMode) (File, error)
	// Open opens a regular file for reading.
	Open(path string) (Readable, error)
	// Rename moves a file and replaces what has the new path, at once: a crash
	// shows the old state or the new one. It is durable after SyncDir of the
	// folder (of both, if they differ). Renames that were not synced may be
	// lost one without the other.
	Rename(oldPath, newPath string) error
	// RenameNew is Rename to a path that nothing has: else it changes nothing,
	// and its error matches fs.ErrExist. Of several at once, one succeeds.
	RenameNew(oldPath, newPath string) error
	// Remove deletes a file or an empty folder; durable after SyncDir.
	Remove(path string) error
	// ReadDir lists the names in a folder, sorted.
	ReadDir(path string) ([]string, error)
	// MkdirAll makes a folder and the missing ones above it, with this mode
	// whatever the umask is, all of them durable. A folder that is there
	// already keeps its mode.
	MkdirAll(path string, mode fs.FileMode) error
	// SyncDir makes all earlier creates, renames and removes in the folder
	// durable. After an error nothing is known about them.
	SyncDir(path string) error
}

// File is a file being written.
type File interface {
	io.Writer
	// Sync makes the bytes durable. After an error nothing may be assumed, and
	// a second call that succeeds proves nothing: the kernel reports lost
	// pages once and then forgets them. Write the file anew.
	Sync() error
	// Close can be the call that reports a failed write (NFS writes back then).
	// Only bytes synced before are durable.
	Close() error
}

// Readable is a file being read.
type Readable interface {
	io.ReaderAt
	io.Closer
	Size() int64        // bytes, when it was opened
	ModTime() time.Time // by the clock of whoever holds the file: over NFS, the server's
}

// tempSuffix ends the names of files that are not finished. A crash can leave
// them; whoever owns the folder removes them at its next start.
const tempSuffix = ".tmp"

// IsTemp reports whether name is one of an unfinished write.
func IsTemp(name string) bool { return strings.HasSuffix(name, tempSuffix) }

// Pending is a file being written, not visible under its name until Commit.
type Pending struct {
	File
	fsys FS
	path string
	tmp  string // where the file is until then
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
	return &Pending{File: f, fsys: fsys, path: path, tmp: tmp}, nil
}

// CreateBeside is Create for one of several writers of path. What one leaves
// that is killed stays until somebody looks for names that IsTemp knows.
func CreateBeside(fsys FS, path string, mode fs.FileMode) (*Pending, error) {
	tmp := path + "." + rand.Text() + tempSuffix
	f, err := fsys.Create(tmp, mode)
	if err != nil {
		return nil, err
	}
	return &Pending{File: f, fsys: fsys, path: path, tmp: tmp}, nil
}

// ErrUnsure is matched by the error of a Commit that failed when the file may
// have its name already: after a crash the name holds the new file or what it
// held before. All other errors leave what was there before.
var ErrUnsure = errors.New("it is not known whether the file is in place")

// Commit makes the file durable under its name, in place of what has it.
func (p *Pending) Commit() error { return p.commit(p.fsys.Rename) }

// CommitNew is Commit if nothing has the name. Else the error matches
// fs.ErrExist.
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
		// A server may have done what its answer denies. It has not if the
		// temporary file is still there to be removed.
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

// Abort gives the write up and removes the temporary file. After Commit it
// does nothing, so it can be deferred.
func (p *Pending) Abort() {
	if p.done {
		return
	}
	p.done = true
	p.Close()
	p.fsys.Remove(p.tmp)
}

// WriteFile writes a small file durably. Its errors are those of Commit.
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

// Size is a file's length in bytes.
func Size(fsys FS, path string) (int64, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size(), nil
}

// Remove deletes a file durably. A file that is not there is removed: the
// folder is synced all the same, because an earlier Remove may not have been.
func Remove(fsys FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

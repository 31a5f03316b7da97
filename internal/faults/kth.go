package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"testbox-imaging/internal/durable"
)

// ErrInjected is matched by the errors of Kth and Failing.
var ErrInjected = errors.New("injected fault")

// Manner is how a Kth fails.
type Manner int

// The manners of failing.
const (
	Fails Manner = iota // the K-th operation is not done, or half done if it is a write
	Lies                // the K-th operation is done, but returns an error
	Dies                // the K-th and all later ones are not done, as if the caller was killed
)

func (m Manner) String() string { return [...]string{"fails", "lies", "dies"}[m] }

// Kth is a durable.FS whose K-th operation fails. Operations on its open files
// count too. With K 0 no operation fails, and Count returns how many there
// were. Kth is safe for concurrent use.
type Kth struct {
	durable.FS
	K      int // counted from 1
	Manner Manner
	Err    error // an error that the K-th returns together with ErrInjected; may be nil

	mu    sync.Mutex // guards the fields below
	count int
	last  string // the operation that was to fail first
	told  bool   // an injected error was returned
}

// Count is how many operations there were.
func (k *Kth) Count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count
}

// Injected reports whether an injected error was returned. An operation that is
// to lie, but cannot be done anyway, returns its own error.
func (k *Kth) Injected() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.told
}

// Failed is the operation that failed, or "" if there were fewer than K.
func (k *Kth) Failed() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

// do counts an operation and runs it, unless it is to fail. half is called
// instead of an operation that fails, and may be nil.
func (k *Kth) do(op, path string, run func() error, half func()) error {
	k.mu.Lock()
	k.count++
	hit := k.K > 0 && (k.count == k.K || k.Manner == Dies && k.count > k.K)
	if hit && k.last == "" {
		k.last = op + " " + path
	}
	k.mu.Unlock()
	if !hit {
		return run()
	}
	err := &fs.PathError{Op: op, Path: path, Err: ErrInjected}
	if k.Err != nil {
		err.Err = fmt.Errorf("%w: %w", ErrInjected, k.Err)
	}
	switch {
	case k.Manner == Lies:
		if doneErr := run(); doneErr != nil {
			return doneErr
		}
	case half != nil:
		half()
	}
	k.mu.Lock()
	k.told = true
	k.mu.Unlock()
	return err
}

// Create implements durable.FS.
func (k *Kth) Create(path string, mode fs.FileMode) (f durable.File, err error) {
	err = k.do("create", path, func() error {
		f, err = k.FS.Create(path, mode)
		return err
	}, nil)
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return &kthFile{f, k, path}, nil
}

// Open implements durable.FS.
func (k *Kth) Open(path string) (r durable.Readable, err error) {
	err = k.do("open", path, func() error {
		r, err = k.FS.Open(path)
		return err
	}, nil)
	if err != nil {
		if r != nil {
			r.Close()
		}
		return nil, err
	}
	return &kthReadable{r, k, path}, nil
}

// Rename implements durable.FS.
func (k *Kth) Rename(oldPath, newPath string) error {
	return k.do("rename", oldPath+" to "+newPath, func() error { return k.FS.Rename(oldPath, newPath) }, nil)
}

// RenameNew implements durable.FS.
func (k *Kth) RenameNew(oldPath, newPath string) error {
	return k.do("rename", oldPath+" to new "+newPath, func() error { return k.FS.RenameNew(oldPath, newPath) }, nil)
}

// Remove implements durable.FS.
func (k *Kth) Remove(path string) error {
	return k.do("remove", path, func() error { return k.FS.Remove(path) }, nil)
}

// ReadDir implements durable.FS.
func (k *Kth) ReadDir(path string) (names []string, err error) {
	err = k.do("readdir", path, func() error {
		names, err = k.FS.ReadDir(path)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return names, nil
}

// MkdirAll implements durable.FS.
func (k *Kth) MkdirAll(path string, mode fs.FileMode) error {
	return k.do("mkdir", path, func() error { return k.FS.MkdirAll(path, mode) }, nil)
}

// SyncDir implements durable.FS.
func (k *Kth) SyncDir(path string) error {
	return k.do("syncdir", path, func() error { return k.FS.SyncDir(path) }, nil)
}

type kthFile struct {
	durable.File
	k    *Kth
	path string
}

func (f *kthFile) Write(p []byte) (n int, err error) {
	run := func() error {
		n, err = f.File.Write(p)
		return err
	}
	err = f.k.do("write", f.path, run, func() {
		if f.k.Manner != Dies {
			n, _ = f.File.Write(p[:len(p)/2])
		}
	})
	return n, err
}

func (f *kthFile) Sync() error {
	return f.k.do("sync", f.path, f.File.Sync, func() {
		if v, ok := f.File.(interface{ syncFailed() }); ok && f.k.Manner == Fails {
			v.syncFailed()
		}
	})
}

func (f *kthFile) Close() error {
	return f.k.do("close", f.path, f.File.Close, func() { f.File.Close() })
}

type kthReadable struct {
	durable.Readable
	k    *Kth
	path string
}

func (r *kthReadable) ReadAt(p []byte, off int64) (n int, err error) {
	err = r.k.do("read", r.path, func() error {
		n, err = r.Readable.ReadAt(p, off)
		return err
	}, nil)
	if err != nil && errors.Is(err, ErrInjected) {
		return 0, err
	}
	return n, err
}

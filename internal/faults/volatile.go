// Package faults breaks things on purpose: storage that forgets, fails or lies.
// It is for tests only.
package faults

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/durable"
)

// Volatile is a durable.FS in memory with a cache that a power cut loses. Crash
// keeps any part of what was not synced. Volatile is worse than real file
// systems: changes of one folder survive in any combination, each 512 bytes of
// a write survive on their own, and data whose sync failed never becomes
// durable. Modes are not stored. Volatile is safe for concurrent use.
type Volatile struct {
	mu   sync.Mutex // guards the fields below, and every inode
	dirs map[string]*volatileDir
	now  func() time.Time
}

// volatileDir is a folder. It has the entries that programs see, those on the
// disk, and the changes between the two.
type volatileDir struct {
	seen, disk map[string]*inode
	pending    []dirChange
}

// dirChange is a set of entries that change at once. A nil inode removes the
// entry.
type dirChange map[string]*inode

func (c dirChange) apply(entries map[string]*inode) {
	for name, node := range c {
		if node == nil {
			delete(entries, name)
		} else {
			entries[name] = node
		}
	}
}

// inode is a file. It has the bytes that programs see, those on the disk, and
// the writes between the two.
type inode struct {
	seen, disk []byte
	pending    []write
	mtime      time.Time
}

type write struct {
	off  int
	data []byte
}

// sector is how many bytes of a write survive or are lost together.
const sector = 512

// NewVolatile is an empty file system with the folder "/".
func NewVolatile() *Volatile {
	return &Volatile{dirs: map[string]*volatileDir{"/": newDir()}, now: time.Now}
}

// SetClock sets the clock of file times. The default is time.Now.
func (v *Volatile) SetClock(now func() time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now = now
}

func newDir() *volatileDir {
	return &volatileDir{seen: map[string]*inode{}, disk: map[string]*inode{}}
}

func (d *volatileDir) change(c dirChange) {
	c.apply(d.seen)
	d.pending = append(d.pending, c)
}

// Crash returns the file system after a power cut. Everything in it is durable.
// keep is called for every part that was not synced, and tells whether it got
// to the disk. The old file system continues to work, like a machine that was
// only disconnected.
func (v *Volatile) Crash(keep func() bool) *Volatile {
	v.mu.Lock()
	defer v.mu.Unlock()
	after := &Volatile{dirs: map[string]*volatileDir{}, now: v.now}
	nodes := map[*inode]*inode{} // one new inode for each file, even if it has several names
	for _, path := range sortedKeys(v.dirs) {
		d, entries := v.dirs[path], map[string]*inode{}
		dirChange(d.disk).apply(entries)
		for _, c := range d.pending {
			if keep() {
				c.apply(entries)
			}
		}
		now := newDir()
		for _, name := range sortedKeys(entries) {
			node := entries[name]
			if nodes[node] == nil {
				nodes[node] = node.crash(keep)
			}
			now.seen[name], now.disk[name] = nodes[node], nodes[node]
		}
		after.dirs[path] = now
	}
	return after
}

func (n *inode) crash(keep func() bool) *inode {
	data := slices.Clone(n.disk)
	for _, w := range n.pending {
		for off := 0; off < len(w.data); off += sector {
			if keep() {
				data = writeAt(data, w.off+off, w.data[off:min(off+sector, len(w.data))])
			}
		}
	}
	return &inode{seen: slices.Clone(data), disk: data, mtime: n.mtime}
}

// writeAt writes into data, which grows by zeros if needed.
func writeAt(data []byte, off int, p []byte) []byte {
	if grow := off + len(p) - len(data); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	copy(data[off:], p)
	return data
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// dir returns the folder of path, and the name in it.
func (v *Volatile) dir(op, path string) (*volatileDir, string, error) {
	path = filepath.Clean(path)
	d := v.dirs[filepath.Dir(path)]
	if d == nil {
		return nil, "", &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
	}
	return d, filepath.Base(path), nil
}

// file returns the file at path.
func (v *Volatile) file(op, path string) (*inode, error) {
	d, name, err := v.dir(op, path)
	if err != nil {
		return nil, err
	}
	if v.dirs[filepath.Clean(path)] != nil {
		return nil, &fs.PathError{Op: op, Path: path, Err: errors.New("is a folder")}
	}
	if d.seen[name] == nil {
		return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
	}
	return d.seen[name], nil
}

// Create implements durable.FS.
func (v *Volatile) Create(path string, _ fs.FileMode) (durable.File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, name, err := v.dir("create", path)
	if err != nil {
		return nil, err
	}
	if d.seen[name] != nil || v.dirs[filepath.Clean(path)] != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	node := &inode{mtime: v.now()}
	d.change(dirChange{name: node})
	return &volatileFile{v: v, node: node}, nil
}

// Open implements durable.FS.
func (v *Volatile) Open(path string) (durable.Readable, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	node, err := v.file("open", path)
	if err != nil {
		return nil, err
	}
	return &volatileReadable{v: v, node: node, size: int64(len(node.seen)), mtime: node.mtime}, nil
}

// Rename implements durable.FS. A rename between two folders is two changes,
// and a crash can keep only one of them.
func (v *Volatile) Rename(oldPath, newPath string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	node, err := v.file("rename", oldPath)
	if err != nil {
		return err
	}
	from, oldName, _ := v.dir("rename", oldPath)
	to, newName, err := v.dir("rename", newPath)
	switch {
	case err != nil:
		return err
	case v.dirs[filepath.Clean(newPath)] != nil:
		return &fs.PathError{Op: "rename", Path: newPath, Err: fs.ErrExist}
	case from != to:
		to.change(dirChange{newName: node})
		from.change(dirChange{oldName: nil})
	case oldName != newName:
		to.change(dirChange{newName: node, oldName: nil})
	}
	return nil
}

// RenameNew implements durable.FS.
func (v *Volatile) RenameNew(oldPath, newPath string) error {
	v.mu.Lock()
	_, err := v.file("rename", newPath)
	v.mu.Unlock()
	if err == nil {
		return &fs.PathError{Op: "rename", Path: newPath, Err: fs.ErrExist}
	}
	return v.Rename(oldPath, newPath)
}

// Remove implements durable.FS. Removing a folder is durable at once.
func (v *Volatile) Remove(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.dirs[filepath.Clean(path)]; d != nil {
		if len(v.names(path)) > 0 {
			return &fs.PathError{Op: "remove", Path: path, Err: errors.New("folder not empty")}
		}
		delete(v.dirs, filepath.Clean(path))
		return nil
	}
	if _, err := v.file("remove", path); err != nil {
		return err
	}
	d, name, _ := v.dir("remove", path)
	d.change(dirChange{name: nil})
	return nil
}

// ReadDir implements durable.FS.
func (v *Volatile) ReadDir(path string) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dirs[filepath.Clean(path)] == nil {
		return nil, &fs.PathError{Op: "readdir", Path: path, Err: fs.ErrNotExist}
	}
	return v.names(path), nil
}

func (v *Volatile) names(path string) []string {
	path = filepath.Clean(path)
	names := sortedKeys(v.dirs[path].seen)
	for p := range v.dirs {
		if p != path && filepath.Dir(p) == path {
			names = append(names, filepath.Base(p))
		}
	}
	slices.Sort(names)
	return names
}

// MkdirAll implements durable.FS.
func (v *Volatile) MkdirAll(path string, _ fs.FileMode) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for path = filepath.Clean(path); v.dirs[path] == nil; path = filepath.Dir(path) {
		if d := v.dirs[filepath.Dir(path)]; d != nil && d.seen[filepath.Base(path)] != nil {
			return &fs.PathError{Op: "mkdir", Path: path, Err: errors.New("is a file")}
		}
		v.dirs[path] = newDir()
	}
	return nil
}

// SyncDir implements durable.FS.
func (v *Volatile) SyncDir(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.dirs[filepath.Clean(path)]
	if d == nil {
		return &fs.PathError{Op: "sync", Path: path, Err: fs.ErrNotExist}
	}
	for _, c := range d.pending {
		c.apply(d.disk)
	}
	d.pending = nil
	return nil
}

// Append writes data to the end of a file, which is created if it is missing.
// Nothing is synced.
func (v *Volatile) Append(path string, data []byte) (int, error) {
	v.mu.Lock()
	node, err := v.file("append", path)
	v.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		f, err := v.Create(path, 0)
		if err != nil {
			return 0, err
		}
		return f.Write(data)
	}
	if err != nil {
		return 0, err
	}
	return (&volatileFile{v: v, node: node}).Write(data)
}

// volatileFile appends to a file.
type volatileFile struct {
	v      *Volatile
	node   *inode
	closed bool
}

func (f *volatileFile) Write(p []byte) (int, error) {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	w := write{len(f.node.seen), slices.Clone(p)}
	f.node.seen = append(f.node.seen, p...)
	f.node.pending = append(f.node.pending, w)
	f.node.mtime = f.v.now()
	return len(p), nil
}

func (f *volatileFile) Sync() error {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	for _, w := range f.node.pending {
		f.node.disk = writeAt(f.node.disk, w.off, w.data)
	}
	f.node.pending = nil
	return nil
}

// syncFailed does what a failed fsync does. The pages count as clean, and no
// later sync writes them.
func (f *volatileFile) syncFailed() {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	f.node.pending = nil
}

func (f *volatileFile) Close() error {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}

type volatileReadable struct {
	v     *Volatile
	node  *inode
	size  int64
	mtime time.Time
}

func (r *volatileReadable) Size() int64        { return r.size }
func (r *volatileReadable) ModTime() time.Time { return r.mtime }
func (r *volatileReadable) Close() error       { return nil }

func (r *volatileReadable) ReadAt(p []byte, off int64) (int, error) {
	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	if off >= int64(len(r.node.seen)) {
		return 0, io.EOF
	}
	n := copy(p, r.node.seen[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

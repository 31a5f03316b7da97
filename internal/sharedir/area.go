// Package sharedir is the backup area of share mode: a folder on the storage
// server with a folder for each box, in which images, facts and logs are plain
// files that people can use without this program. Several images are committed
// as one backup, so that a crash at any moment leaves the old backup or the new
// one, whole (see Set and commitPlan). Which images a backup makes .old, and
// which it replaces, is not decided here: package agent says it by a Before.
package sharedir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// Marker is the file in the area's root that says that this is a backup area.
// Without it nothing is written: the area is not mounted, or is another one.
const Marker = bootcfg.BackupMarker

// Modes of what is made in an area. The agent may be squashed to an
// unprivileged user, so the group can work on what it left.
const (
	fileMode   fs.FileMode = 0o664
	folderMode fs.FileMode = 0o775
)

// Area is a backup area.
type Area struct {
	fsys durable.FS
	root string
}

// Open takes root for a backup area if the marker file is there.
func Open(fsys durable.FS, root string) (*Area, error) {
	if _, err := durable.Size(fsys, filepath.Join(root, Marker)); err != nil {
		return nil, fmt.Errorf("%s is no backup area, or it is not mounted: %w; `testbox share init` makes one, in an area made by hand put "+
			"an empty file named %s into it",
			root, err, Marker)
	}
	return &Area{fsys, root}, nil
}

// GlobalLog is the path of the log of all boxes.
func (a *Area) GlobalLog() string { return filepath.Join(a.root, box.LogFile) }

// Folder is the part of the area that belongs to one box. One agent at a time
// works on it; Set.Commit notices a second one.
type Folder struct {
	area *Area
	fsys durable.FS
	addr box.Addr
	dir  string
}

// Box makes the box's folder if it is missing.
func (a *Area) Box(addr box.Addr) (*Folder, error) {
	if addr.IsZero() {
		return nil, errors.New("the folder of a box needs the box's address")
	}
	f := a.Look(addr)
	if err := a.fsys.MkdirAll(f.dir, folderMode); err != nil {
		return nil, fmt.Errorf("cannot make the folder of box %s: %w; check that the area is exported read-write and that its owner is the "+
			"user that root is squashed to", addr, err)
	}
	return f, nil
}

// Look is the box's folder as it is. It may be missing, and nothing is made.
func (a *Area) Look(addr box.Addr) *Folder {
	return &Folder{area: a, fsys: a.fsys, addr: addr, dir: filepath.Join(a.root, addr.String())}
}

// Dir is the folder's path.
func (f *Folder) Dir() string { return f.dir }

// Path is the path of a file in the folder.
func (f *Folder) Path(name string) string { return filepath.Join(f.dir, name) }

// Free is how many bytes can still be stored, if the server says so.
func (f *Folder) Free() (bytes int64, known bool) {
	if s, ok := f.fsys.(interface{ Free(string) (int64, bool) }); ok {
		return s.Free(f.dir)
	}
	return 0, false
}

// Clock says how far the storage server's clock is ahead of this machine's, as
// the time of a file just made has it. A box's own clock may be years off, so
// log times and an arming's expiry go by time.Now().Add(ahead). The result is
// as exact as the server's file times, in the worst case two seconds.
func (f *Folder) Clock() (ahead time.Duration, err error) {
	return ClockBy(f.fsys, f.Path("clock.tmp"))
}

// ClockBy is Folder.Clock by a file that is made at path and removed again.
func ClockBy(fsys durable.FS, path string) (ahead time.Duration, err error) {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	start := time.Now()
	w, err := fsys.Create(path, fileMode)
	if err != nil {
		return 0, fmt.Errorf("cannot make a file to read the server's clock: %w", err)
	}
	defer fsys.Remove(path)
	_, err = w.Write([]byte("clock\n"))
	// A full area still gives the file its time.
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return 0, fmt.Errorf("cannot read the server's clock: %w", err)
	}
	took := time.Since(start)
	r, err := fsys.Open(path)
	if err != nil {
		return 0, fmt.Errorf("cannot read the server's clock: %w", err)
	}
	defer r.Close()
	return r.ModTime().Sub(start.Add(took / 2)), nil
}

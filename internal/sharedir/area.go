// Package sharedir is the backup area of share mode. It is a folder on the
// storage server with a folder for each box. Images, facts and logs are plain
// files there, which people can use without this program. Several images are
// committed as one backup, so that a crash at any moment leaves either the old
// backup or the new one complete (see Set and commitPlan). Package agent
// decides which images a backup makes .old and which it replaces, and says so
// by a Before.
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
	"testbox-imaging/internal/problem"
)

// Marker is the file in the area's root that shows that this is a backup area.
// If it is missing, the area is not mounted or is another folder, and nothing
// is written.
const Marker = bootcfg.BackupMarker

// Modes of new files and folders in an area. The NFS server may squash the
// agent to an unprivileged user, so its group has the right to write too.
const (
	fileMode   fs.FileMode = 0o664
	folderMode fs.FileMode = 0o775
)

// Area is a backup area.
type Area struct {
	fsys durable.FS
	root string
}

// Open opens root as a backup area. It is an error if the marker file is
// missing.
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

// Folder is the part of the area that belongs to one box. Only one agent may
// work in it at a time. Set.Commit notices a second one.
type Folder struct {
	area *Area
	fsys durable.FS
	addr box.Addr
	dir  string
}

// Box returns the box's folder, and makes it if it is missing.
func (a *Area) Box(addr box.Addr) (*Folder, error) {
	if addr.IsZero() {
		return nil, errors.New("the folder of a box needs the box's address")
	}
	f := a.Look(addr)
	if err := f.Own(); err != nil {
		return nil, err
	}
	if err := a.fsys.MkdirAll(f.dir, folderMode); err != nil {
		return nil, fmt.Errorf("cannot make the folder of box %s: %w; check that the area is exported read-write and that its owner is the "+
			"user that root is squashed to", addr, err)
	}
	return f, nil
}

// Look returns the box's folder without making it. It may be missing.
func (a *Area) Look(addr box.Addr) *Folder {
	return &Folder{area: a, fsys: a.fsys, addr: addr, dir: filepath.Join(a.root, addr.String())}
}

// Beside returns the folder of another box of the same area, without making it.
func (f *Folder) Beside(addr box.Addr) *Folder { return f.area.Look(addr) }

// Own returns an error if the folder is a link to the folder of another box. Two
// boxes with one folder would have each other's log, inventory, disks and images. A
// link to any other folder, as on a larger disk, is allowed. So is a folder that is
// missing.
func (f *Folder) Own() error {
	fsys, ok := f.fsys.(interface{ Resolve(string) (string, error) })
	if !ok {
		return nil
	}
	is, err := fsys.Resolve(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("the folder of box %s cannot be looked at: %w", f.addr, err)
	}
	if other, err := box.ParseAddr(filepath.Base(is)); err == nil && other != f.addr {
		return problem.Refusef("the folder of box %s is a link to that of box %s (%s), and each box needs a folder of its own: "+
			"remove the link %s", f.addr, other, is, f.dir)
	}
	return nil
}

// Dir is the folder's path.
func (f *Folder) Dir() string { return f.dir }

// Path is the path of a file in the folder.
func (f *Folder) Path(name string) string { return filepath.Join(f.dir, name) }

// Free returns how many more bytes can be stored, if the server says so.
func (f *Folder) Free() (bytes int64, known bool) {
	if s, ok := f.fsys.(interface{ Free(string) (int64, bool) }); ok {
		return s.Free(f.dir)
	}
	return 0, false
}

// Clock returns how far the storage server's clock is ahead of this machine's.
// It makes a file and reads its time. A box's own clock may be years off, so
// log times and an arming's expiry use time.Now().Add(ahead). The result is as
// exact as the server's file times, which is two seconds in the worst case.
func (f *Folder) Clock() (ahead time.Duration, err error) {
	return ClockBy(f.fsys, f.Path("clock.tmp"))
}

// ClockBy is Folder.Clock by a file that it makes at path and removes again.
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
	// Even in a full area the file gets its time.
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

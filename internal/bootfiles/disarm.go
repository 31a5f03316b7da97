package bootfiles

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"testbox-imaging/internal/box"
)

// ArmedAnewError says that a box's boot file belongs to another arming than the
// one to be removed. That file stays.
type ArmedAnewError struct{ File *File }

func (e *ArmedAnewError) Error() string {
	c := e.File.Cmdline
	return fmt.Sprintf("%s was armed anew meanwhile for %s (arming %s), and that boot file stays", c.Address, c.Action, c.Arming)
}

// DisarmedError says that a box's boot file was removed as soon as it was
// written.
type DisarmedError struct{ Addr box.Addr }

func (e *DisarmedError) Error() string { return fmt.Sprintf("%s was disarmed meanwhile", e.Addr) }

// NotOursError says that a box's boot file is not ours, and that nothing shows
// that it belongs to the arming to be removed. The file stays.
type NotOursError struct {
	Path string
	Err  error // why it is not ours
}

func (e *NotOursError) Error() string { return fmt.Sprintf("boot file %s: %v", e.Path, e.Err) }
func (e *NotOursError) Unwrap() error { return e.Err }

// Disarm removes the box's boot file if it belongs to this arming, even if
// somebody edited it, and returns what it removed. The removal is durable when
// Disarm returns. Admin and agent both disarm by it.
//
// The error matches fs.ErrNotExist if there is no boot file any more. It is an
// *ArmedAnewError if the box was armed anew, and a *NotOursError if somebody
// replaced the boot file. After any error but the first the box still has a
// boot file, as far as the file system tells.
//
// Somebody may arm the box anew at any moment. So Disarm first renames the file
// to a name that no loader asks for, reads it again, and renames it back if it
// is another file now. A crash between the two renames would disarm the box, so
// Disarm renames only a file that a first look found to be of this arming.
func (f *Folder) Disarm(addr box.Addr, id box.Arming) (removed *File, err error) {
	path := f.BootFile(addr)
	if _, err := f.look(addr, path, id); err != nil {
		return nil, err
	}
	away := path + "." + rand.Text() + ".tmp"
	if err := f.fsys.Rename(path, away); errors.Is(err, fs.ErrNotExist) {
		return nil, err
	} else if err != nil {
		f.putBack(away, path) // a server may have renamed it although it answered with an error
		return nil, err
	}
	removed, err = f.look(addr, away, id)
	if err == nil {
		err = f.fsys.Remove(away)
	}
	if err != nil {
		return nil, errors.Join(err, f.putBack(away, path))
	}
	if err := f.fsys.SyncDir(f.dir); err != nil {
		return removed, err
	}
	f.sweep(addr)
	return removed, nil
}

// look reads the box's boot file at path. A file of another arming is an error.
func (f *Folder) look(addr box.Addr, path string, id box.Arming) (*File, error) {
	file, err := f.read(addr, path)
	switch {
	case err != nil:
		return nil, err
	case file.isOf(id):
		return file, nil
	case file.Cmdline != nil:
		return nil, &ArmedAnewError{file}
	}
	return nil, &NotOursError{f.BootFile(addr), file.Err}
}

// putBack gives a boot file its name again, unless a newer file has that name.
func (f *Folder) putBack(away, path string) error {
	err := f.fsys.RenameNew(away, path)
	if errors.Is(err, fs.ErrExist) {
		err = f.fsys.Remove(away)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the file was removed, but the server's answer was lost
	}
	if err != nil {
		return fmt.Errorf("the boot file is now %s, and was not given its name again: %w", away, err)
	}
	return f.fsys.SyncDir(f.dir)
}

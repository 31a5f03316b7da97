// Package bootfiles is the folder of boot files, pxelinux.cfg in the TFTP area,
// and the files that boot files refer to. A box that has a boot file there is
// armed. The package reads, lists, writes and removes boot files. It says what a
// box starts when it is not armed, finds maintenance systems, and says which
// files a TFTP server cannot give.
package bootfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// Folder is a folder of boot files. New reads nothing.
type Folder struct {
	fsys durable.FS
	dir  string
}

// New takes the path of the folder of boot files on this machine.
func New(fsys durable.FS, dir string) *Folder { return &Folder{fsys, filepath.Clean(dir)} }

// Dir is the folder's path.
func (f *Folder) Dir() string { return f.dir }

// Path is the path of a file in the folder.
func (f *Folder) Path(name string) string { return filepath.Join(f.dir, name) }

// TFTP is the TFTP area, to which the paths of kernels and initrds are relative.
func (f *Folder) TFTP() string { return filepath.Dir(f.dir) }

// BootFile is the path of the box's boot file.
func (f *Folder) BootFile(addr box.Addr) string { return f.Path(addr.Hex()) }

// File is an existing boot file.
type File struct {
	Addr    box.Addr         // the box, by the file's name
	Cmdline *bootcfg.Cmdline // what the box is armed for; if nil, Err says why that is not known
	Kernel  string           // path below the TFTP area; "" without Cmdline
	Initrd  string           // path below the TFTP area; "" without Cmdline
	// Err says why this is no boot file of ours. It cannot be read, somebody edited
	// it, another program wrote it, or it was written for another box.
	Err error

	text []byte
}

// Read reads the box's boot file. The error matches fs.ErrNotExist if there is
// none, which means that the box is not armed. A boot file that is not ours is
// no error.
func (f *Folder) Read(addr box.Addr) (*File, error) { return f.read(addr, f.BootFile(addr)) }

// read reads the box's boot file at a path that may differ from its usual one.
func (f *Folder) read(addr box.Addr, path string) (*File, error) {
	file := &File{Addr: addr}
	file.text, file.Err = durable.ReadFile(f.fsys, path, bootcfg.MaxConfig)
	if errors.Is(file.Err, fs.ErrNotExist) {
		return nil, file.Err
	}
	if file.Err == nil {
		file.Cmdline, file.Kernel, file.Initrd, file.Err = bootcfg.ParseBootFile(file.text)
	}
	if file.Err == nil && file.Cmdline.Address != addr {
		file.Err = fmt.Errorf("boot file was written for %s", file.Cmdline.Address)
		file.Cmdline, file.Kernel, file.Initrd = nil, "", ""
	}
	return file, nil
}

// Expired reports whether the arming is no longer valid.
func (f *File) Expired(now time.Time) bool {
	return f.Cmdline != nil && !f.Cmdline.Expires.IsZero() && !now.Before(f.Cmdline.Expires)
}

// isOf reports whether the boot file belongs to that arming. It also recognizes
// a file that somebody edited so that it is not ours any more.
func (f *File) isOf(id box.Arming) bool {
	if f.Cmdline != nil {
		return f.Cmdline.Arming == id
	}
	return bootcfg.IsOfArming(f.text, id)
}

// Write arms a box by writing its boot file. With replace it replaces an older
// one. Without it, if there is one, nothing changes and the error matches
// fs.ErrExist. The file is durable when Write returns. If a TFTP server could
// not give the file to the box, Write removes it again and refuses.
//
// Several admins may arm a box at once. So Write reads at last which boot file
// is in place. It is an *ArmedAnewError if that is another one, and a
// *DisarmedError if it is none.
func (f *Folder) Write(addr box.Addr, text []byte, replace bool) error {
	c, _, _, err := bootcfg.ParseBootFile(text)
	if err != nil {
		return err
	}
	if err := f.put(addr, text, replace); err != nil {
		return err
	}
	if err := f.CheckFiles(filepath.Join(bootcfg.ConfigDir, addr.Hex())); err != nil {
		_, undo := f.Disarm(addr, c.Arming)
		if errors.Is(undo, fs.ErrNotExist) {
			return &DisarmedError{addr} // a server cannot give what is not there
		}
		return errors.Join(err, undo)
	}
	f.sweep(addr)
	switch file, err := f.Read(addr); {
	case errors.Is(err, fs.ErrNotExist):
		return &DisarmedError{addr}
	case err != nil:
		return err
	case bytes.Equal(file.text, text):
		return nil
	case file.Cmdline != nil:
		return &ArmedAnewError{file}
	default:
		return &NotOursError{f.BootFile(addr), file.Err}
	}
}

// put makes the box's boot file. Its temporary file has a name of its own,
// because there may be several writers.
func (f *Folder) put(addr box.Addr, text []byte, replace bool) error {
	path := f.BootFile(addr)
	p, err := durable.CreateBeside(f.fsys, path, 0o644)
	if err != nil {
		return err
	}
	defer p.Abort()
	if _, err := p.Write(text); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if replace {
		return p.Commit()
	}
	return p.CommitNew()
}

// Written returns when the box's boot file was written, by the clock of the
// machine that has the folder. Over NFS that is the storage server.
func (f *Folder) Written(addr box.Addr) (time.Time, error) {
	return f.written(f.BootFile(addr))
}

func (f *Folder) written(path string) (time.Time, error) {
	file, err := f.fsys.Open(path)
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	return file.ModTime(), nil
}

// List reads all boot files in the folder, in the order of the boxes'
// addresses. It ignores files whose name is no address.
func (f *Folder) List() ([]*File, error) {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var all []*File
	for _, name := range names {
		addr, err := box.ParseHex(name)
		if err != nil {
			continue
		}
		file, err := f.Read(addr)
		if errors.Is(err, fs.ErrNotExist) {
			continue // disarmed just now
		}
		if err != nil {
			return nil, err
		}
		all = append(all, file)
	}
	return all, nil
}

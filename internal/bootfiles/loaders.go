package bootfiles

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// LoadersFile is the path of the box's file of loaders, by which a UEFI machine
// that is not armed finds its operating system.
func (f *Folder) LoadersFile(addr box.Addr) string {
	return filepath.Join(f.TFTP(), bootcfg.LoadersDir, addr.Hex()+".cfg")
}

// WriteLoaders records the loaders of the box's own systems, in the order in which
// they are tried. The file is durable when WriteLoaders returns, and is not touched
// if it says the same already. Without a loader there is no file. What the
// file cannot express is left out and returned in left.
func (f *Folder) WriteLoaders(addr box.Addr, loaders []bootcfg.LocalLoader) (left []error, err error) {
	text, left := bootcfg.MarshalLoaders(loaders)
	if len(text) == 0 {
		return left, f.RemoveLoaders(addr)
	}
	path := f.LoadersFile(addr)
	if old, err := durable.ReadFile(f.fsys, path, bootcfg.MaxGRUB); err == nil && bytes.Equal(old, text) {
		return left, nil
	}
	if err := f.fsys.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return left, err
	}
	p, err := durable.CreateBeside(f.fsys, path, 0o644) // there may be several writers
	if err != nil {
		return left, err
	}
	defer p.Abort()
	if _, err := p.Write(text); err != nil {
		return left, err
	}
	return left, p.Commit()
}

// Loaders reads the box's recorded loaders. The error matches fs.ErrNotExist if there
// are none.
func (f *Folder) Loaders(addr box.Addr) ([]bootcfg.LocalLoader, error) {
	data, err := durable.ReadFile(f.fsys, f.LoadersFile(addr), bootcfg.MaxGRUB)
	if err != nil {
		return nil, err
	}
	return bootcfg.ParseLoaders(data)
}

// RemoveLoaders forgets the box's loaders. It is no error if there are none.
func (f *Folder) RemoveLoaders(addr box.Addr) error {
	err := durable.Remove(f.fsys, f.LoadersFile(addr))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// MoveLoaders gives a box's loaders to the address that the box has from now on. It
// is no error if there are none, and it can be repeated.
func (f *Folder) MoveLoaders(from, to box.Addr) error {
	text, err := durable.ReadFile(f.fsys, f.LoadersFile(from), bootcfg.MaxGRUB)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	loaders, err := bootcfg.ParseLoaders(text)
	if err != nil {
		return f.RemoveLoaders(from) // GRUB looks for known loaders then
	}
	if _, err := f.WriteLoaders(to, loaders); err != nil {
		return err
	}
	return f.RemoveLoaders(from)
}

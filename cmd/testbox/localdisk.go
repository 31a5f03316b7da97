package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// localDisk is a disk of this machine, or a file with the bytes of one.
type localDisk struct {
	copier.Target
	path     string
	identity image.Identity
	kernel   string // kernel's name of a block device
	rotating bool
	cached   bool         // as in copier.Job
	user     string       // who may change it while it is read, as "by a mount on /srv"; "" if nobody
	still    func() error // as in backup.Disk
	close    func() error
}

// openLocal opens a disk. With sector 0 it finds out the sector size. A device
// that something else uses is an error, unless it is only read and busy allows
// it.
func openLocal(path string, sector int, write, busy bool) (*localDisk, error) {
	raw, err := openRaw(path, sector)
	if err != nil {
		return nil, err
	}
	d := &localDisk{path: path, identity: image.Identity{Size: raw.size, SectorSize: raw.sector}}
	d.identify()
	by := disk.User(path, write)
	if by != "" && busy && !write {
		d.Target, d.user, d.close = readOnlyDisk{raw, raw.size}, by, raw.Close
		return d, nil
	}
	if by != "" {
		raw.Close()
		return nil, refused("%s is in use %s; let go of it first", path, by)
	}
	if !write && !busy {
		d.still = stillOf(raw.File)
	}
	if d.still == nil {
		raw.Close()
	}
	dev, err := disk.OpenPath(path, disk.Disk{Name: path, Identity: d.identity}, write)
	if err != nil {
		raw.Close()
	}
	switch {
	case errors.Is(err, disk.ErrInUse):
		return nil, refused("%w", err)
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS):
		return nil, wrong("%w", err)
	case err != nil:
		return nil, err
	}
	d.Target, d.rotating, d.cached = dev, dev.Rotational(), dev.Cached()
	d.close = func() error {
		raw.Close()
		return dev.Close()
	}
	return d, nil
}

// stillOf returns a function that says whether a file was changed since, by its size and
// time. A program that opens a file for writing, after it was found free, does not heed
// its lock. For what is no regular file stillOf returns nil.
func stillOf(f *os.File) func() error {
	was, err := f.Stat()
	if err != nil || !was.Mode().IsRegular() {
		return nil
	}
	return func() error {
		now, err := f.Stat()
		if err == nil && (now.Size() != was.Size() || !now.ModTime().Equal(was.ModTime())) {
			err = errors.New("it was changed while it was read, so no backup was made; see to it that nothing writes to it, and run this again")
		}
		return err
	}
}

// NextData implements copier.Sparse by the disk, if that knows its holes.
func (d *localDisk) NextData(off int64) (from, to int64) {
	if s, ok := d.Target.(copier.Sparse); ok {
		return s.NextData(off)
	}
	return off, d.Size()
}

// identify finds out what identifies a block device.
func (d *localDisk) identify() {
	real, err := filepath.EvalSymlinks(d.path)
	st, statErr := os.Stat(d.path)
	if err != nil || statErr != nil || st.Mode()&os.ModeDevice == 0 {
		return
	}
	d.kernel = filepath.Base(real)
	disks, _ := disk.List(os.DirFS("/sys"))
	for _, known := range disks {
		if known.Name == d.kernel && known.Size == d.identity.Size && known.SectorSize == d.identity.SectorSize {
			d.identity = known.Identity
		}
	}
}

// readOnlyDisk is a disk that is only read.
type readOnlyDisk struct {
	io.ReaderAt
	size int64 // bytes
}

func (d readOnlyDisk) Size() int64 { return d.size }

// NextData implements copier.Sparse by the reader, if that knows its holes.
func (d readOnlyDisk) NextData(off int64) (from, to int64) {
	if s, ok := d.ReaderAt.(copier.Sparse); ok {
		return s.NextData(off)
	}
	return off, d.size
}

func (d readOnlyDisk) WriteAt([]byte, int64) (int, error) { return 0, errReadOnlyDisk }
func (d readOnlyDisk) ZeroAt(int64, int64) error          { return errReadOnlyDisk }
func (d readOnlyDisk) Sync() error                        { return errReadOnlyDisk }

var errReadOnlyDisk = fmt.Errorf("the disk was opened to be read: %w", os.ErrPermission)

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// localDisk is a disk of this machine, or a file with the bytes of one.
type localDisk struct {
	copier.Target
	path     string
	identity image.Identity
	kernel   string // of a block device
	rotating bool
	busy     bool // it may change while it is read
	close    func() error
}

// openLocal opens a disk. sector 0 means to find out. A device that something
// else has open is an error, unless it is only read and busy allows it.
func openLocal(path string, sector int, write, busy bool) (*localDisk, error) {
	raw, err := openRaw(path, sector)
	if err != nil {
		return nil, err
	}
	d := &localDisk{path: path, identity: image.Identity{Size: raw.size, SectorSize: raw.sector}}
	d.identify()
	if raw.busy && busy && !write {
		d.Target, d.busy, d.close = readOnlyDisk{raw, raw.size}, true, raw.Close
		return d, nil
	}
	raw.Close()
	switch {
	case raw.size%int64(raw.sector) != 0:
		return nil, wrong("%s has %d bytes, which are not whole sectors of %d: it is no disk, or is cut off", path, raw.size, raw.sector)
	case raw.busy:
		return nil, refused("%s is in use: mounted, part of a RAID or LVM, or the disk of a running virtual machine; let go of it first", path)
	}
	dev, err := disk.OpenPath(path, disk.Disk{Name: path, Identity: d.identity}, write)
	if err != nil {
		return nil, err
	}
	d.Target, d.close = dev, dev.Close
	return d, nil
}

// identify finds out what a block device is known by.
func (d *localDisk) identify() {
	real, err := filepath.EvalSymlinks(d.path)
	st, statErr := os.Stat(d.path)
	if err != nil || statErr != nil || st.Mode()&os.ModeDevice == 0 {
		return
	}
	d.kernel = filepath.Base(real)
	turns, _ := os.ReadFile(filepath.Join("/sys/class/block", d.kernel, "queue/rotational"))
	d.rotating = strings.TrimSpace(string(turns)) == "1" && !strings.HasPrefix(d.kernel, "loop")
	disks, _ := disk.List(os.DirFS("/sys"))
	for _, known := range disks {
		if known.Name == d.kernel && known.Size == d.identity.Size && known.SectorSize == d.identity.SectorSize {
			d.identity = known.Identity
		}
	}
}

// options are those of all work on the disk.
func (d *localDisk) options(p *progressLine) copier.Options {
	return copier.Options{
		Progress: p.tell, SectorSize: d.identity.SectorSize, Alloc: disk.AlignedBuffer,
		Medium: func(err error) bool { return errors.Is(err, disk.ErrMedium) },
	}
}

// readOnlyDisk is a disk that is only read.
type readOnlyDisk struct {
	io.ReaderAt
	size int64 // bytes
}

func (d readOnlyDisk) Size() int64 { return d.size }

func (d readOnlyDisk) WriteAt([]byte, int64) (int, error) { return 0, errReadOnlyDisk }
func (d readOnlyDisk) ZeroAt(int64, int64) error          { return errReadOnlyDisk }
func (d readOnlyDisk) Sync() error                        { return errReadOnlyDisk }

var errReadOnlyDisk = fmt.Errorf("the disk was opened to be read: %w", os.ErrPermission)

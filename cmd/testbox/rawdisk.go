package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/words"
)

// rawDisk is a block device or a file that stands for one, open for reading.
type rawDisk struct {
	*os.File
	size   int64
	sector int
}

// openRaw opens a disk. With sector 0 it finds out the sector size.
func openRaw(path string, sector int) (*rawDisk, error) {
	if sector != 0 && !image.ValidSectorSize(sector) {
		return nil, wrong("--sector-size %d: no disk has such sectors; they are 512 or 4096 bytes", sector)
	}
	f, err := openStill(path)
	if err != nil {
		return nil, err
	}
	d := &rawDisk{File: f, sector: sector}
	err = d.look()
	if err == nil {
		err = wholeSectors(path, d.size, d.sector)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// wholeSectors refuses a length that no disk can have.
func wholeSectors(path string, size int64, sector int) error {
	if size%int64(sector) == 0 {
		return nil
	}
	return wrong("%s has %s, which %s not whole sectors of %d: it is no disk, or is cut off",
		path, words.Count(size, "byte"), words.Verb(size, "is", "are"), sector)
}

// openStill opens a disk or a file to read it.
func openStill(path string) (*os.File, error) {
	p, err := lookPlace(path)
	if err == nil {
		err = p.mustBeDisk()
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, wrong("%w", err)
	}
	return f, nil
}

// look finds out the size and the sector size of what was opened.
func (d *rawDisk) look() error {
	st, err := d.Stat()
	if err != nil {
		return err
	}
	if d.size, err = d.Seek(0, io.SeekEnd); err != nil {
		return wrong("%s is neither a disk nor a file with the bytes of one: %w", d.Name(), err)
	}
	switch {
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		err = d.lookBlock()
	case st.Mode().IsRegular():
		err = d.lookFile()
	default:
		return wrong("%s is neither a disk nor a file with the bytes of one", d.Name())
	}
	switch {
	case err != nil:
		return err
	case d.size == 0:
		return wrong("%s is empty", d.Name())
	}
	return nil
}

func (d *rawDisk) lookBlock() error {
	sector, err := unix.IoctlGetInt(int(d.Fd()), unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("ask %s for its sector size: %w", d.Name(), err)
	}
	if d.sector != 0 && d.sector != sector {
		return wrong("--sector-size %d: %s has sectors of %d bytes", d.sector, d.Name(), sector)
	}
	d.sector = sector
	return nil
}

func (d *rawDisk) lookFile() error {
	if d.sector == 0 {
		d.sector = parttab.GuessSector(d, d.size)
	}
	return nil
}

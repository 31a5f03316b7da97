package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

// mapOptions are the flags of disk map.
type mapOptions struct {
	json   bool
	sector int // bytes; 0: the device's, or guessed for a file
	raw    bool
}

func newDiskCmd() *cobra.Command {
	return newGroupCmd("disk", "Look into a disk", `Looks at the disk of this machine, or at a file with the bytes of one. Nothing is written.`, newDiskMapCmd())
}

func newDiskMapCmd() *cobra.Command {
	var o mapOptions
	cmd := &cobra.Command{
		Use:   "map DEVICE|FILE",
		Short: "Show which bytes of a disk matter, and why",
		Long: `Reads the partition table of a disk and the metadata of its file systems, and shows which bytes
matter: what is used, what is free, and what counts as used because of a doubt, with the reason.
Of a file system that was not cleanly unmounted, is damaged, has a feature that this program
does not know, or stands beside the remains of another one, all of it counts as used. Files are
held against the bitmaps of ext2/3/4, NTFS, FAT and exFAT; where an ext file system has too many
to do that soon, a note says what was not looked at.

First comes the disk as a bar, with the partitions' numbers below where they begin ("1-3" if they
begin in one character); then a table of its parts; then what was in doubt, and notes. --json prints
the same for programs, with all used ranges (docs/format.md).

FILE holds the raw bytes of a disk, of a partition or of a file system. One that is known to hold
something else (an image of another tool, an archive, a compressed file) is refused, and the message
says what it is and which command makes raw bytes of it. Nothing is written. A disk that is in use
changes while it is read: then the map is not to be relied on, and a warning says so.`,
		Example: `  testbox disk map /dev/sda
  testbox disk map --json disk.img`,
		Args:              oneDisk,
		ValidArgsFunction: completeDisk,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDiskMap(cmd.Context(), printerOf(cmd), args[0], o)
		},
	}
	f := cmd.Flags()
	addRaw(cmd, &o.raw)
	f.BoolVar(&o.json, "json", false, "print the map for programs, with all used ranges")
	f.IntVar(&o.sector, "sector-size", 0, "logical sectors of `BYTES`; without it those of the device, and for a file what its GPT tells, else 512")
	mustComplete(cmd.RegisterFlagCompletionFunc("sector-size", cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func oneDisk(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("give one disk: a device as /dev/sda, or a file with the bytes of a disk")
	}
	return nil
}

func completeDisk(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

func runDiskMap(ctx context.Context, p printer, path string, o mapOptions) error {
	if err := wantDisks([]string{path}, o.raw); err != nil {
		return err
	}
	d, err := openRaw(path, o.sector)
	if err != nil {
		return err
	}
	defer d.Close()
	if by := disk.User(path, false); by != "" {
		p.warnf("%s is in use %s; the map is of a disk that changes, and not to be relied on", path, by)
	}
	m, err := usedmap.Read(ctx, d, d.size, d.sector)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if o.json {
		enc := json.NewEncoder(p.out)
		enc.SetIndent("", " ")
		return enc.Encode(m)
	}
	return printMap(p.out, path, m)
}

// rawDisk is a block device or a file that stands for one, open for reading.
type rawDisk struct {
	*os.File
	size   int64
	sector int
}

// openRaw opens a disk. sector 0 means to find out.
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

// wholeSectors refuses what cannot be a disk because of its length.
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

// look finds out what was opened.
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

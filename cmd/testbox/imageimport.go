package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/convert"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/form"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/usedmap/probe"
	"testbox-imaging/internal/usedmap/volume"
	"testbox-imaging/internal/words"
)

func newImageImportCmd(w world) *cobra.Command {
	o := createOptions{throughFlags: throughFlags{server: serverFlag{world: w}}}
	cmd := &cobra.Command{
		Use:   "import BOX [NAME=]FILE... | import FOLDER",
		Short: "Bring images of other forms into the store",
		Long: `Makes a backup of BOX of FILEs: raw bytes of a disk, these compressed by gzip or zstd, or qcow2. A
file of another form (VHD, VMDK, an archive, an image of partclone and so on), also one that is
compressed, is refused; the message says what it is, and which command makes raw bytes of it. --raw
takes the bytes of a file as they are.

With the FOLDER of a box of share mode (10.40.41.42/ with sda.raw.gz and so on), makes a backup of
the box that the folder is named for; what the sidecars say of the disks, the time and unreadable
sectors is kept, and the files are checked against them. The .old images become an older backup of
their own. With a whole backup area, does so for each box. What the store has already is passed over
and said, so an import that was interrupted goes on when it is run again.

An image that is named as a partition is (sda1.raw.gz) is refused in a folder; a FILE of such a name
needs NAME=.

Files of gzip and zstd are unpacked into $TMPDIR first, since a disk is not read in order.
` + uploadHelp,
		Example: `  testbox image import web-1 sda=web.qcow2
  testbox image import /export/testbox-backup/10.40.41.42
  testbox image import /export/testbox-backup`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return errors.New("give a box and files, or a folder of share mode")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return runImageImport(cmd.Context(), printerOf(cmd), args, o)
		},
	}
	o.add(cmd)
	addRaw(cmd, &o.raw)
	f := cmd.Flags()
	f.StringVar(&o.note, "note", "", "`WORDS` to find the backup again")
	f.BoolVar(&o.pin, "pin", false, "keep it for good: retention does not delete it")
	f.BoolVar(&o.allUsed, "all-used", false, "keep all bytes of the disks, also what no file system uses")
	o.addFailing(cmd)
	f.IntVar(&o.sector, "sector-size", 0, "logical sectors of `BYTES`; without it what their GPT tells, else 512")
	return cmd
}

func runImageImport(ctx context.Context, p printer, args []string, o createOptions) (err error) {
	st, statErr := os.Stat(args[0])
	isDir := statErr == nil && st.IsDir()
	switch {
	case len(args) == 1 && isDir && o.raw:
		return wrong("--raw is for files, not for a folder: its images are gzip files")
	case len(args) == 1 && isDir:
		return importFolders(ctx, p, args[0], o)
	case len(args) == 1 && statErr != nil:
		return wrong("there is no folder %s; give the folder of a box, the backup area, or a box and files", args[0])
	case len(args) == 1:
		return wrong("%s is no folder; give a box and files", args[0])
	}
	if err := checkWords(args[0], o.note); err != nil {
		return err
	}
	var disks []namedDisk
	defer func() { closeDisks(disks) }()
	if disks, err = importFiles(ctx, p, args[1:], o); err != nil {
		return err
	}
	s, err := o.openSaver(ctx, p)
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	r := &image.Record{Format: image.RecordFormat, Box: args[0], Note: o.note, Pinned: o.pin}
	return saveDisks(ctx, p, s, r, disks, o)
}

func importFiles(ctx context.Context, p printer, args []string, o createOptions) (out []namedDisk, err error) {
	if err := checkSources(args, o.dir); err != nil {
		return nil, err
	}
	if err := wantNames(args); err != nil {
		return nil, err
	}
	for _, a := range args {
		name, path := splitNamed(a)
		d, err := importFile(ctx, p, path, o, nil)
		if err != nil {
			return out, err
		}
		out = append(out, namedDisk{name: name, localDisk: d})
	}
	return out, nil
}

// importFile opens a file of any form as a disk. facts are from its sidecar, or
// nil without one.
func importFile(ctx context.Context, p printer, path string, o createOptions, facts *image.Facts) (*localDisk, error) {
	f, err := openStill(path)
	if err != nil {
		return nil, err
	}
	if by := disk.User(path, false); by != "" {
		f.Close()
		return nil, refused("%s is in use %s; let go of it first", path, by)
	}
	is, err := formOf(path)
	if is == nil && err == nil || o.raw {
		f.Close()
		return importRaw(ctx, p, path, o)
	}
	d := &localDisk{path: path, still: stillOf(f), close: f.Close}
	if err == nil {
		err = d.takeFile(ctx, p, f, is, o.sector, facts)
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if facts == nil {
		d.sayBare(ctx, p)
	}
	return d, nil
}

// importRaw opens a file that holds raw bytes.
func importRaw(ctx context.Context, p printer, path string, o createOptions) (*localDisk, error) {
	if err := wantSource(path, o.raw); err != nil {
		return nil, err
	}
	d, err := openLocal(path, o.sector, false, false)
	if err == nil {
		d.sayBare(ctx, p)
	}
	return d, err
}

// takeFile makes the content of a file the disk, if its form can be read.
func (d *localDisk) takeFile(ctx context.Context, p printer, f *os.File, is *form.Form, sector int, facts *image.Facts) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	switch is.Kind {
	case form.Gzip:
		err = d.takeGzip(ctx, p, f, st.Size(), sector, facts)
	case form.Zstd:
		var r image.Reader
		if r, err = convert.NewZstdReader(f); err == nil {
			err = d.unpack(ctx, r, sector)
		}
	case form.Qcow2:
		var q *convert.Qcow2
		if q, err = convert.OpenQcow2(f, st.Size()); err == nil {
			err = d.take(q, q.Size(), sector)
		}
	default:
		return wrong("it is not the raw bytes of a disk: it is %s (--raw takes it as it is)", is)
	}
	switch {
	case errors.Is(err, rawgz.ErrTrailer), errors.Is(err, convert.ErrForm):
		err = wrong("%w", err)
	case err == nil && facts == nil:
		err = d.wantRaw(is)
	}
	if err == nil {
		err = d.wantSize()
	}
	return err
}

// wantRaw refuses a file of a readable form whose content is not the raw bytes
// of a disk.
func (d *localDisk) wantRaw(of *form.Form) error {
	inner, err := form.Of(d, d.Size())
	if err != nil || inner == nil {
		return err
	}
	return wrong("it is %s, and what is in it is not the raw bytes of a disk: it is %s", of.What, inner)
}

// sayBare warns that a file without a partition table may hold no disk. It also
// warns that a file may be cut off if it is shorter than its partition table
// says.
func (d *localDisk) sayBare(ctx context.Context, p printer) {
	if d.kernel != "" {
		return
	}
	if _, err := parttab.Read(d, d.identity.Size, d.identity.SectorSize); errors.Is(err, parttab.ErrBeyond) {
		p.warnf("%s ends before its partitions do (%v): it may be cut off, or one of several parts of an image",
			d.path, err)
	}
	name, err := probe.Bare(volume.New(ctx, d, d.identity.Size, d.identity.SectorSize, nil))
	if err == nil && name != "" {
		p.warnf("%s has no partition table, but begins as a file system (%s): "+
			"it is the image of a partition, or of a disk without a table", d.path, name)
	}
}

// take makes the content of a reader the disk.
func (d *localDisk) take(r io.ReaderAt, size int64, sector int) error {
	if size == 0 {
		return wrong("it holds no disk: it is empty")
	}
	if sector == 0 {
		sector = parttab.GuessSector(r, size)
	}
	d.Target = readOnlyDisk{r, size}
	d.identity = image.Identity{Size: size, SectorSize: sector}
	return nil
}

// wantSize refuses a size that no disk of an image can have.
func (d *localDisk) wantSize() error {
	if size := d.identity.Size; size > chunk.MaxDisk {
		return wrong("it holds a disk of %s, and an image has at most %s", bytesText(size), bytesText(chunk.MaxDisk))
	}
	return wholeSectors("the disk in it", d.identity.Size, d.identity.SectorSize)
}

func (d *localDisk) takeGzip(ctx context.Context, p printer, f *os.File, size int64, sector int, facts *image.Facts) error {
	if facts != nil {
		line := newProgress(p.err)
		_, err := rawgz.Check(ctx, f, size, facts, func(done, total int64) { line.tell("check "+d.path, done, total) })
		if line.end(); err != nil {
			return err
		}
		sector = facts.Disk.SectorSize
	}
	r, err := rawgz.NewReader(f, size)
	if err != nil {
		return err
	}
	if err := d.unpack(ctx, r, sector); err != nil {
		return err
	}
	if facts != nil && d.identity.Size != facts.Disk.Size {
		return fmt.Errorf("it has %d bytes, its sidecar says %d", d.identity.Size, facts.Disk.Size)
	}
	if n := r.Padding(); n > 0 {
		p.warnf("the disk in %s is whole; after it, from byte %d of the file on, %s %s, which %s passed over",
			d.path, size-n, words.Verb(n, "comes", "come"), words.Count(n, "zero"), words.Verb(n, "is", "are"))
	}
	return nil
}

// unpack writes the content of an image that can only be read in order to a
// file.
func (d *localDisk) unpack(ctx context.Context, r image.Reader, sector int) error {
	tmp, err := os.CreateTemp("", "testbox-import-")
	if err != nil {
		return fmt.Errorf("it is unpacked to a file first, in the folder that TMPDIR names: %w", err)
	}
	os.Remove(tmp.Name()) // the file is removed when the process ends
	before := d.close
	d.close = func() error { return errors.Join(before(), tmp.Close()) }
	limit := int64(1) << 62
	if free, known := (durable.OS{}).Free(os.TempDir()); known {
		// Holes need no space. So this is only a rough limit against archives that
		// unpack to a huge size.
		limit = max(free, 1<<20) * 1000
	}
	size, err := convert.Unpack(ctx, r, tmp, limit)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w; it is unpacked to a file in %s first; set TMPDIR to a folder with more room", err, os.TempDir())
	} else if err != nil {
		return err
	}
	return d.take(tmp, size, sector)
}

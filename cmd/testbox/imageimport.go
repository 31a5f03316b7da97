package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/convert"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/sharedir"
)

func newImageImportCmd() *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "import BOX [NAME=]FILE... | import FOLDER",
		Short: "Bring images of other forms into the store",
		Long: `Makes a backup of BOX of FILEs: raw bytes of a disk, these compressed by gzip or zstd, or qcow2. With
a FOLDER of share mode (10.40.41.42/ with sda.raw.gz and so on), makes one of the box that the
folder is named for; what the sidecars say of the disks, the time and unreadable sectors is kept,
and the files are checked against them.

Files of gzip and zstd are unpacked into $TMPDIR first, since a disk is not read in order.`,
		Example: `  testbox image import web-1 sda=web.qcow2
  testbox image import /export/testbox-backup/10.40.41.42`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 {
				return errors.New("give a box and files, or a folder of share mode")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runImageImport(cmd, args, o) },
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.note, "note", "", "`WORDS` to find the backup again")
	f.BoolVar(&o.pin, "pin", false, "keep it for good: retention does not delete it")
	f.BoolVar(&o.allUsed, "all-used", false, "keep all bytes of the disks, also what no file system uses")
	o.addFailing(cmd)
	f.IntVar(&o.sector, "sector-size", 0, "logical sectors of `BYTES`; without it what their GPT tells, else 512")
	return cmd
}

func runImageImport(cmd *cobra.Command, args []string, o createOptions) (err error) {
	r := &image.Record{Format: image.RecordFormat, Note: o.note, Pinned: o.pin}
	var disks []namedDisk
	defer func() { closeDisks(disks) }()
	if st, statErr := os.Stat(args[0]); len(args) == 1 && statErr == nil && st.IsDir() {
		disks, err = importFolder(cmd, args[0], r)
	} else if len(args) == 1 {
		return wrong("%s is no folder; give a box and files", args[0])
	} else if err = checkWords(args[0], o.note); err == nil {
		r.Box = args[0]
		disks, err = importFiles(cmd, args[1:], o)
	}
	if err != nil {
		return err
	}
	s, err := o.open(cmd, false)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	return saveDisks(cmd, s, r, disks, o)
}

func importFiles(cmd *cobra.Command, args []string, o createOptions) (out []namedDisk, err error) {
	if err := checkSources(args, o.dir); err != nil {
		return nil, err
	}
	for _, a := range args {
		name, path := splitNamed(a)
		d, err := importFile(cmd, path, o.sector, nil)
		if err != nil {
			return out, err
		}
		out = append(out, namedDisk{name: name, localDisk: d})
	}
	return out, nil
}

// importFolder opens the images of a folder of share mode.
func importFolder(cmd *cobra.Command, dir string, r *image.Record) (out []namedDisk, err error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r.Box = filepath.Base(full)
	if err := checkWords(r.Box, r.Note); err != nil {
		return nil, err
	}
	entries, err := sharedir.ReadImages(durable.OS{}, dir)
	if err != nil {
		return nil, wrong("%w", err)
	}
	if len(entries) == 0 {
		return nil, wrong("%s has no images: files such as sda.raw.gz", dir)
	}
	for _, e := range entries {
		d, err := importFile(cmd, e.Path, 0, e.Facts)
		if err != nil {
			return out, err
		}
		out = append(out, namedDisk{name: e.Name, localDisk: d})
		if e.Facts == nil {
			cmd.PrintErrf("testbox: warning: %s has no sidecar; nothing says whether it is whole\n", e.Path)
			continue
		}
		if err := takeFacts(r, e.Facts); err != nil {
			return out, fmt.Errorf("%s: %w", dir, err)
		}
		d.identity, d.kernel, out[len(out)-1].bad = e.Facts.Disk, e.Facts.Kernel, e.Facts.Bad
	}
	return out, nil
}

// takeFacts takes over what a sidecar says of the backup.
func takeFacts(r *image.Record, f *image.Facts) error {
	if r.Arming != "" && r.Arming != f.Arming {
		return refused("the images are of different backups (armings %s and %s)", r.Arming, f.Arming)
	}
	if f.Box != r.Box {
		return refused("the images are of box %s; give the folder that name, or import the files one by one", f.Box)
	}
	r.Host, r.UUID, r.Arming, r.Time = f.Host, f.UUID, f.Arming, f.Time
	return nil
}

// importFile opens a file as a disk, whatever its form is.
func importFile(cmd *cobra.Command, path string, sector int, facts *image.Facts) (*localDisk, error) {
	f, err := openStill(path)
	if err != nil {
		return nil, err
	}
	if by := disk.User(path, false); by != "" {
		f.Close()
		return nil, refused("%s is in use %s; let go of it first", path, by)
	}
	head := make([]byte, 4)
	f.ReadAt(head, 0) // a shorter file has none of the marks
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	d := &localDisk{path: path, close: f.Close}
	switch {
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		var q *convert.Qcow2
		if q, err = convert.OpenQcow2(f, st.Size()); err == nil {
			err = d.take(q, q.Size(), sector)
		}
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		err = d.takeGzip(cmd, f, st.Size(), sector, facts)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		var r image.Reader
		if r, err = convert.NewZstdReader(f); err == nil {
			err = d.unpack(cmd, r, sector)
		}
	default:
		f.Close()
		return openLocal(path, sector, false, false)
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// take makes a reader the disk.
func (d *localDisk) take(r io.ReaderAt, size int64, sector int) error {
	if size == 0 {
		return errors.New("it holds no disk: it is empty")
	}
	if sector == 0 {
		sector = parttab.GuessSector(r, size)
	}
	if err := wholeSectors("the disk in it", size, sector); err != nil {
		return err
	}
	d.Target = readOnlyDisk{r, size}
	d.identity = image.Identity{Size: size, SectorSize: sector}
	return nil
}

func (d *localDisk) takeGzip(cmd *cobra.Command, f *os.File, size int64, sector int, facts *image.Facts) error {
	if facts != nil {
		p := newProgress(cmd.ErrOrStderr())
		_, err := rawgz.Check(cmd.Context(), f, size, facts, func(done, total int64) { p.tell("check "+d.path, done, total) })
		if p.end(); err != nil {
			return err
		}
		sector = facts.Disk.SectorSize
	}
	r, err := rawgz.NewReader(f, size)
	if err != nil {
		return err
	}
	if err := d.unpack(cmd, r, sector); err != nil {
		return err
	}
	if facts != nil && d.identity.Size != facts.Disk.Size {
		return fmt.Errorf("it has %d bytes, its sidecar says %d", d.identity.Size, facts.Disk.Size)
	}
	return nil
}

// unpack makes a file of an image that can only be read in order.
func (d *localDisk) unpack(cmd *cobra.Command, r image.Reader, sector int) error {
	tmp, err := os.CreateTemp("", "testbox-import-")
	if err != nil {
		return err
	}
	os.Remove(tmp.Name()) // it goes with the process
	before := d.close
	d.close = func() error { return errors.Join(before(), tmp.Close()) }
	limit := int64(1) << 62
	if free, known := (durable.OS{}).Free(os.TempDir()); known {
		// Holes cost nothing, so this is a guess against bombs, not a promise.
		limit = max(free, 1<<20) * 1000
	}
	size, err := convert.Unpack(cmd.Context(), r, tmp, limit)
	if err != nil {
		return err
	}
	return d.take(tmp, size, sector)
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/convert"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/rawgz"
)

// viewCache is how many bytes of unpacked chunks are kept for a disk that is
// read in order. That includes chunks that are read ahead.
const viewCache = 64 << 20

func newImageExportCmd() *cobra.Command {
	var o storeFlag
	var format string
	cmd := &cobra.Command{
		Use:   "export BACKUP[:DISK] FILE|-",
		Short: "Write a disk of a backup to a file, as raw bytes, gzip or qcow2",
		Long: `Writes a disk of a backup to FILE, which must not be there. What no file system used reads as zeros.
raw is the bytes of the disk, with holes in the file for zeros; raw.gz is what share mode keeps, and
any gunzip unpacks; qcow2 is for QEMU. Without --format it is told from the end of FILE's name: .gz,
.qcow2, or else raw; a name that promises a form which is not written here, as A.vmdk does, is
refused. To standard output goes raw or raw.gz.

The file has its name only when all of it is there and durable. What an export leaves that is killed
is called FILE.testbox-NUMBER.tmp, and the next export to FILE removes it. The exit code is 4 if the image has
zeros for sectors that could not be read when it was made; they are named.`,
		Example: `  testbox image export 10.40.41.42:sda sda.qcow2
  testbox image export --format raw 10.40.41.42 - | ssh lab 'cat > disk.img'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("give a backup and a file")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := exportFormat(args[1], format)
			if err != nil {
				return err
			}
			return o.with(cmd.Context(), printerOf(cmd), true, func(s backups) error {
				return runImageExport(cmd.Context(), printerOf(cmd), s, o.dir, args[0], args[1], format)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&format, "format", "", "`FORM` of the file: raw, raw.gz or qcow2")
	mustComplete(cmd.RegisterFlagCompletionFunc("format",
		cobra.FixedCompletions([]string{"raw", "raw.gz", "qcow2"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func exportFormat(path, format string) (string, error) {
	if format == "" {
		inner := path // the path without .gz
		switch ending(path) {
		case "gz":
			format, inner = "raw.gz", path[:len(path)-len(".gz")]
		case "qcow2":
			format, inner = "qcow2", ""
		default:
			format = "raw"
		}
		if of := formOfName(inner); of != "" {
			return "", wrong("%s would be named as %s, which is not written here; say --format raw, raw.gz or qcow2, or give it another name; "+
				"`qemu-img convert` makes other forms of raw or qcow2", path, of)
		}
	}
	switch format {
	case "raw", "raw.gz":
		return format, nil
	case "qcow2":
		if path == "-" {
			return "", wrong("qcow2 cannot go to standard output: its beginning is written last")
		}
		return format, nil
	}
	return "", wrong("--format %s: it is raw, raw.gz or qcow2", format)
}

func runImageExport(ctx context.Context, p printer, s reader, dir, arg, path, format string) (err error) {
	full := path
	if path != "-" {
		if full, err = newFile(path, dir); err != nil {
			return err
		}
	}
	r, d, err := pickDisk(ctx, p, s, arg)
	if err != nil {
		return err
	}
	if err := warnDamaged(ctx, p, s, r, []*image.RecordedDisk{d}); err != nil {
		return err
	}
	im, err := openImage(ctx, s, r, d)
	if err != nil {
		return err
	}
	defer im.Close()
	if path != "-" && format != "raw.gz" { // the length of a raw.gz is not known in advance
		warnRoom(p, map[string]int64{full: d.Data})
	}
	view := im.ReaderAt(ctx, viewCache)
	defer view.Close()
	line := newProgress(p.err)
	told := func(done, total int64) { line.tell("write", done, total) }
	if path == "-" {
		err = exportStream(ctx, view, p.out, format, told)
	} else {
		sweepExports(p, full)
		err = exportFile(ctx, view, full, format, told)
	}
	line.end()
	if err != nil {
		return err
	}
	if path != "-" {
		p.printf("%s of backup %s of %s is in %s\n", d.Name, r.ID, r.Box, path)
	}
	printBad(p, d.Name, d.Bad)
	if len(d.Bad) > 0 {
		return errBadSectors
	}
	return nil
}

// newFile returns the full path of a file that will be made. It refuses a path
// where no file can be made.
func newFile(path, store string) (string, error) {
	p, err := lookPlace(path)
	switch {
	case err != nil:
		return "", err
	case p.isFile():
		return "", wrong("%s is there already; move it away", path)
	case p.isBlock():
		return "", wrong("%s is a disk; an export makes a new file, and `testbox image restore` writes to disks", path)
	case !p.isNew():
		return "", wrong("%s is there already, and is %s; an export makes a new file, and - is standard output", path, p.kind())
	}
	if err := p.mayBeMade(); err != nil {
		return "", err
	}
	return p.full, p.notInStore(store)
}

// exportFile writes a file, at first under a temporary name.
func exportFile(ctx context.Context, view *chunk.DiskReader, path, format string, told convert.Progress) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+exportTemp+"*.tmp")
	if err != nil {
		return wrong("%w", err)
	}
	unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // sweepExports leaves a file that is locked
	tmp := f.Name()
	defer os.Remove(tmp)
	defer f.Close()
	switch format {
	case "raw":
		err = convert.WriteRaw(ctx, view, f, told)
	case "qcow2":
		err = convert.WriteQcow2(ctx, view, f, told)
	default:
		err = exportStream(ctx, view, f, format, told)
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := giveName(tmp, path); err != nil {
		return err
	}
	return durable.OS{}.SyncDir(filepath.Dir(path))
}

// exportTemp stands between the name of a file that is exported and the rest of
// its temporary name.
const exportTemp = ".testbox-"

// sweepExports removes what earlier exports to path left because they were
// killed. The temporary file of an export that goes on is locked, and stays.
func sweepExports(p printer, path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), filepath.Base(path)+exportTemp)
		number, temp := strings.CutSuffix(rest, ".tmp")
		if !ours || !temp || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		left := filepath.Join(filepath.Dir(path), e.Name())
		f, err := os.Open(left)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && os.Remove(left) == nil {
			p.tellf("%s is removed: an export that was killed left it", printable(left))
		}
		f.Close()
	}
}

// giveName renames a file. If somebody else made a file of that name in the
// meantime, it does not replace it.
func giveName(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every file system supports this
		err = os.Link(from, to)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s was made by somebody else meanwhile, and is left as it is", to)
	}
	return err
}

// exportStream writes to an output that only accepts bytes in order.
func exportStream(ctx context.Context, view *chunk.DiskReader, w io.Writer, format string, told convert.Progress) error {
	if format == "raw" {
		b := bufio.NewWriterSize(w, 1<<20)
		_, err := io.CopyBuffer(b, &toldReader{r: io.NewSectionReader(view, 0, view.Size()), total: view.Size(), told: told}, make([]byte, 1<<20))
		return errors.Join(err, b.Flush())
	}
	out := rawgz.NewWriter(w)
	opt := copier.Options{Progress: func(_ string, done, total int64) { told(done, total) }}
	if _, err := copier.Backup(ctx, view, out, copier.SourceOptions{Options: opt}); err != nil {
		return err
	}
	_, err := out.Close()
	return err
}

// toldReader reports how much was read.
type toldReader struct {
	r           io.Reader
	done, total int64
	told        convert.Progress
}

func (t *toldReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.done += int64(n)
	t.told(t.done, t.total)
	return n, err
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

// createOptions are the flags of image create.
type createOptions struct {
	throughFlags
	note    string
	pin     bool
	allUsed bool
	failing bool
	busy    bool
	raw     bool // use the bytes of files as they are, whatever they look like
	sector  int  // bytes; 0 is the device's, or is guessed for a file
	// unless is called after everything was read. If it returns true, the backup is
	// not made. It may be nil.
	unless func(*image.Record) bool
}

func newImageCreateCmd(w world) *cobra.Command {
	o := createOptions{throughFlags: throughFlags{server: serverFlag{world: w}}}
	cmd := &cobra.Command{
		Use:   "create BOX [NAME=]DISK...",
		Short: "Back up disks into the store",
		Long: `Reads what matters of the disks and adds it to the store as one backup of BOX. DISK is a device
of this machine or a file with the bytes of a disk. Nothing is written to DISK, and a disk that is
in use is refused, and so is a file that holds something else than the raw bytes of a disk, such as an
image of another tool (` + "`testbox image import`" + ` reads some).

NAME is what the disk's image is called for good. A disk without one keeps the name that it has in
earlier backups of BOX, whatever the order or its device: it is known by WWN, serial, partition
table, file systems, path, the file's name, or its size. What cannot be told is refused, and what has
changed is said (docs/matching.md). A disk that is new gets the device's kernel name, or for a file
the next of sda, sdb and so on.

What no file system uses is not read and not kept (` + "`testbox disk map`" + ` shows it); a restore leaves
it as it is on the target. What is in doubt is kept.

The backup is there when the last line says so, or not at all. Of a file that is changed while it
is read, none is made. With unreadable sectors it is made, with zeros in their place; they are
named, and the exit code is 4. Of a disk of which more than a hundredth of what is read, or 16 MiB,
or the partition table cannot be read, no backup is made, nor of the disks beside it;
--accept-failing takes what can be read.
` + uploadHelp,
		Example: `  testbox image create 10.40.41.42 /dev/sda
  testbox image create --note "fresh install" web-1 sda=disk.img
  testbox image create --server https://server:8443 web-1 sda=disk.img`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return errors.New("give the box and its disks (BOX DISK...)")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o.storeFlag),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return runImageCreate(cmd.Context(), printerOf(cmd), args[0], args[1:], o)
		},
	}
	f := cmd.Flags()
	o.add(cmd)
	addRaw(cmd, &o.raw)
	f.StringVar(&o.note, "note", "", "`WORDS` to find the backup again")
	f.BoolVar(&o.pin, "pin", false, "keep it for good: retention does not delete it")
	f.BoolVar(&o.allUsed, "all-used", false, "keep all bytes of the disks, also what no file system uses")
	o.addFailing(cmd)
	f.BoolVar(&o.busy, "busy", false, "read disks that are in use; the image may then be no state that the disk ever had")
	f.IntVar(&o.sector, "sector-size", 0, "logical sectors of `BYTES` of files; without it what their GPT tells, else 512")
	return cmd
}

func (o *createOptions) addFailing(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.failing, "accept-failing", false, "take a disk of which much, or the partition table, cannot be read")
}

// namedDisk is a disk of a command line.
type namedDisk struct {
	name string // of its image
	*localDisk
	used *usedmap.Map  // nil means that all of it is used
	bad  []image.Range // ranges of an imported image that are known to be unreadable
}

func runImageCreate(ctx context.Context, p printer, box string, args []string, o createOptions) (err error) {
	if err := checkWords(box, o.note); err != nil {
		return err
	}
	disks, err := openSources(ctx, p, args, o)
	if err != nil {
		return err
	}
	defer closeDisks(disks)
	s, err := o.openSaver(ctx, p)
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	r := &image.Record{Format: image.RecordFormat, Box: box, Note: o.note, Pinned: o.pin}
	return saveDisks(ctx, p, s, r, disks, o)
}

// checkWords refuses a box or a note that a record cannot have, before anything
// is read for it.
func checkWords(box, note string) error {
	if !image.ValidBox(box) {
		return wrong("%q cannot be the name of a box: %s", box, image.BoxRule)
	}
	if len(note) > image.MaxNote {
		return wrong("the note has %d bytes; at most %d are kept", len(note), image.MaxNote)
	}
	return nil
}

// splitNamed splits [NAME=]PATH. The path may have a = too.
func splitNamed(arg string) (name, path string) {
	name, path, named := strings.Cut(arg, "=")
	if !named || !image.ValidName(name) {
		return "", arg
	}
	return name, path
}

// openSources opens the disks of a command line.
func openSources(ctx context.Context, p printer, args []string, o createOptions) (out []namedDisk, err error) {
	defer func() {
		if err != nil {
			closeDisks(out)
		}
	}()
	if err := checkSources(args, o.dir); err != nil {
		return nil, err
	}
	if err := wantNames(args); err != nil {
		return nil, err
	}
	for _, a := range args {
		name, path := splitNamed(a)
		if err := wantSource(path, o.raw); err != nil {
			return out, err
		}
		d, err := openLocal(path, o.sector, false, o.busy)
		if err != nil {
			return out, err
		}
		if d.user != "" {
			p.warnf("%s is in use %s; its image may be no state that the disk ever had", path, d.user)
		}
		d.sayBare(ctx, p)
		out = append(out, namedDisk{name: name, localDisk: d})
	}
	return out, nil
}

// checkSources refuses an argument that is no disk, and a disk that is given
// twice.
func checkSources(args []string, store string) error {
	var before []place
	for _, a := range args {
		_, path := splitNamed(a)
		p, err := lookPlace(path)
		if err == nil {
			err = p.mustBeDisk()
		}
		if err == nil {
			err = p.notInStore(store)
		}
		if err != nil {
			return err
		}
		for _, o := range before {
			if o.same(&p) {
				return wrong("%s and %s are the same disk", o.path, path)
			}
		}
		before = append(before, p)
	}
	return nil
}

func closeDisks(disks []namedDisk) {
	for _, d := range disks {
		d.close()
	}
}

// errBadSectors is the error of a command that makes or uses an image with
// unreadable sectors.
var errBadSectors = &exitError{exitBadSectors, errors.New("the image has zeros for sectors that could not be read")}

// saveDisks makes one backup of disks, and prints what it did.
func saveDisks(ctx context.Context, p printer, s saver, r *image.Record, disks []namedDisk, o createOptions) error {
	if err := mapDisks(ctx, disks, o); err != nil {
		return err
	}
	if err := nameDisks(ctx, p, s, r.Box, disks); err != nil {
		return err
	}
	if err := probeDisks(ctx, p, disks, o); err != nil {
		return err
	}
	if r.Time.IsZero() {
		if err := sayLater(ctx, p, s, r.Box); err != nil {
			return err
		}
	}
	session, err := s.begin(ctx, r)
	if err != nil {
		return err
	}
	defer session.Close()
	saved, err := makeBackup(ctx, p, session, r, disks, o)
	if err != nil {
		return err
	}
	bad := false
	for i := range saved {
		printSaved(p, disks[i].name, &saved[i])
		bad = bad || len(saved[i].Disk.Bad) > 0
	}
	p.printf("backup %s of %s is in the store\n", r.ID, r.Box)
	sayDate(ctx, p, s, r)
	if bad {
		return errBadSectors
	}
	return nil
}

// makeBackup reads the disks into the session, commits the record, and shows
// the progress.
func makeBackup(
	ctx context.Context, p printer, session chunk.Session, r *image.Record, disks []namedDisk, o createOptions,
) ([]copier.Saved, error) {
	sources := sourcesOf(disks)
	var plan []progress.Work
	for i := range sources {
		plan = append(plan, progress.Work{Disk: sources[i].Name, Pass: "read", Bytes: sources[i].Bytes()})
	}
	line := newProgress(p.err, plan...)
	defer func() { line.end() }()
	opt := backup.Options{
		Options:     copier.Options{Progress: func(stage string, done, total int64) { line.tell(stage, done, total) }},
		TakeFailing: o.failing, Unless: o.unless,
		Reading: func(d *backup.Disk) { line.of(d.Name) },
		Again: func(why error) {
			line.end()
			p.warnf("%v; it is sent again", why)
			line = newProgress(p.err, plan...)
		},
	}
	saved, err := backup.Make(ctx, session, r, sources, opt)
	return saved, diskError(disks, err)
}

// sourcesOf returns the disks in the form that package backup uses.
func sourcesOf(disks []namedDisk) (out []backup.Disk) {
	for _, d := range disks {
		out = append(out, backup.Disk{
			Name: d.name, Kernel: cmp.Or(d.kernel, filepath.Base(d.path)), Identity: d.identity, Source: d, Used: d.used, Bad: d.bad,
			Still: d.still,
		})
	}
	return out
}

// mapDisks finds out what is used on all disks.
func mapDisks(ctx context.Context, disks []namedDisk, o createOptions) (err error) {
	for i := range disks {
		d := &disks[i]
		if o.allUsed {
			continue
		}
		if d.used, err = usedmap.Read(ctx, d, d.identity.Size, d.identity.SectorSize); err != nil {
			return d.wrap(err)
		}
	}
	return nil
}

// probeDisks prints what is in doubt on all disks. Before the first is read, it
// finds out whether one of them is failing.
func probeDisks(ctx context.Context, p printer, disks []namedDisk, o createOptions) error {
	for _, d := range disks {
		if d.used != nil {
			sayDoubt(p, d.name, d.used)
		}
	}
	return diskError(disks, backup.Probe(ctx, sourcesOf(disks), backup.Options{TakeFailing: o.failing}))
}

// diskError adds the disk's name, as the command line has it, to an error. The
// error is a refusal if the disk is failing.
func diskError(disks []namedDisk, err error) error {
	var of *backup.DiskError
	if !errors.As(err, &of) {
		return err
	}
	err = disks[of.Index].wrap(of.Err)
	if !errors.Is(err, copier.ErrFailing) {
		return err
	}
	return refused("%w; --accept-failing takes what can be read of it, and without it, the other disks are backed up alone", err)
}

// wrap adds the disk to an error.
func (d *namedDisk) wrap(err error) error {
	return fmt.Errorf("%s (%s): %w", cmp.Or(d.name, "disk"), d.path, err)
}

// sayDoubt prints what counts as used because of a doubt.
func sayDoubt(p printer, name string, m *usedmap.Map) {
	if m.Doubt != "" {
		p.tellf("%s: all of it counts as used: %s", name, printable(m.Doubt))
		return
	}
	for i := range m.Parts {
		part := &m.Parts[i]
		if part.Doubt != "" && part.Kind != usedmap.Gap {
			p.tellf("%s: %s: all of it counts as used: %s", name, partName(part), printable(part.Doubt))
		}
	}
}

// printSaved prints what a backup did with a disk.
func printSaved(p printer, name string, s *copier.Saved) {
	d := &s.Disk
	took := readTime(s)
	p.printf("%s: %s: read %s in %s (%s/s), not used %s, zero %s\n", name, bytesText(d.Data+d.Zero+d.Unused), bytesText(s.Receipt.Read),
		took.Round(time.Millisecond), bytesText(int64(float64(s.Receipt.Read)/max(took.Seconds(), 1e-9))), bytesText(d.Unused), bytesText(d.Zero))
	p.printf("%s: %s of data: %s were in the store, %s are new and take %s; %s bound it\n", name, bytesText(d.Data), bytesText(d.Data-s.New),
		bytesText(s.New), bytesText(d.Stored), s.Bound())
	printBad(p, name, d.Bad)
}

func readTime(s *copier.Saved) time.Duration {
	for _, st := range s.Receipt.Stages {
		if st.Name == "read" {
			return st.Elapsed
		}
	}
	return 0
}

// maxBadShown is how many places of unreadable sectors are printed.
const maxBadShown = 20

// printBad prints the places for which an image has zeros.
func printBad(p printer, name string, bad []image.Range) {
	sayBad(p, name, bad, "cannot be read; the image has zeros there")
}

func sayBad(p printer, name string, bad []image.Range, what string) {
	for _, b := range bad[:min(len(bad), maxBadShown)] {
		p.notef("%s: bytes %d to %d %s", name, b.Off, b.End()-1, printable(what))
	}
	if more := len(bad) - maxBadShown; more > 0 {
		p.notef("%s: and %s", name, words.Count(more, "more such place"))
	}
}

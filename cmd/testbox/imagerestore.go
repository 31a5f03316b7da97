package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/progress"
)

// restoreOptions are the flags of image restore.
type restoreOptions struct {
	storeFlag
	full   bool
	verify string
	unused string
	yes    bool
	raw    bool
	shrink bool
}

var readBacks = map[string]copier.ReadBack{"all": copier.VerifyAll, "written": copier.VerifyWritten, "none": copier.VerifyNone}

var unusedWays = map[string]copier.Unused{"keep": copier.UnusedKeep, "discard": copier.UnusedDiscard, "zero": copier.UnusedZero}

func newImageRestoreCmd() *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore BACKUP [NAME=]TARGET...",
		Short: "Write a backup to disks",
		Long: `Writes the disks of a backup to TARGETs: devices of this machine, or files. All disks of the backup
must have a target; BACKUP:DISK restores one alone. What is on the targets is shown, and a file that
is not there is announced, and it is asked whether to go on; without a terminal say --yes. Nothing
is made below /dev, so a mistyped device is an error.

All is checked before the first write, what the store has for it too. The first and last MiB of all
targets are cleared first and written last, so no mixture of old and new ever boots. A target is
locked: a second restore to it, or a backup of it, is refused meanwhile.

Each place of a target is read first, and only what differs is written, unless most of it does or
the disk turns; --full writes everything. All that the image has is read back from the disk after a
flush and compared; the last line says so, or the restore has failed. The exit code is 4 if the image
has zeros for sectors that could not be read when it was made; they are named.`,
		Example: `  testbox image restore 10.40.41.42 /dev/sdb
  testbox image restore web-1@latest~1 sda=/dev/sda sdb=/dev/sdc
  testbox image restore 10.40.41.42:sda disk.img`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return errors.New("give the backup and where it goes (BACKUP [NAME=]TARGET...)")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o.storeFlag),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runImageRestore(cmd.Context(), printerOf(cmd), args[0], args[1:], o)
		},
	}
	o.add(cmd)
	addRaw(cmd, &o.raw)
	f := cmd.Flags()
	f.BoolVar(&o.full, "full", false, "write everything, also what is on the target already")
	f.StringVar(&o.verify, "verify", "all", "`WHAT` is read back: all, written or none; with none nothing is proved, and the images are "+
		"not checked before")
	f.StringVar(&o.unused, "unused", "keep", "`WHAT` becomes of bytes that an image does not have: keep, discard or zero")
	f.BoolVar(&o.shrink, "shrink-table", false, shrinkHelp)
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	mustComplete(cmd.RegisterFlagCompletionFunc("verify",
		cobra.FixedCompletions([]string{"all", "written", "none"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("unused",
		cobra.FixedCompletions([]string{"keep", "discard", "zero"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func runImageRestore(ctx context.Context, p printer, arg string, targets []string, o restoreOptions) (err error) {
	outliveReader()
	opt := copier.RestoreOptions{Full: o.full}
	var ok bool
	if opt.Verify, ok = readBacks[o.verify]; !ok {
		return wrong("--verify %q: it is all, written or none", o.verify)
	}
	if opt.Unused, ok = unusedWays[o.unused]; !ok {
		return wrong("--unused %q: it is keep, discard or zero", o.unused)
	}
	s, err := o.open(ctx, p, true)
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	r, sel, err := pick(ctx, p, s, arg)
	if err != nil {
		return err
	}
	disks, err := pairTargets(r, sel, targets)
	if err != nil {
		return err
	}
	if err := warnDamaged(ctx, p, s, r, recorded(disks)); err != nil {
		return err
	}
	begun := false
	defer func() { err = errors.Join(err, closeTargets(disks, begun)) }()
	if err := openTargets(ctx, s, r, o.dir, disks); err != nil {
		return err
	}
	if err := wantTargets(targets, o.raw); err != nil {
		return err
	}
	if err := refuseTargets(ctx, disks, opt.Unused, o.shrink); err != nil {
		return err
	}
	if err := askRestore(ctx, p, r, disks, o.yes); err != nil {
		return err
	}
	if err := makeTargets(disks); err != nil {
		return err
	}
	if err := refuseTargets(ctx, disks, opt.Unused, o.shrink); err != nil {
		return err
	}
	begun, err = writeDisks(ctx, p, r, disks, opt)
	return err
}

// askRestore prints what will be overwritten and what will be made. On a
// terminal it asks for confirmation.
func askRestore(ctx context.Context, p printer, r *image.Record, disks []restoring, yes bool) error {
	lost := false
	for i := range disks {
		d := &disks[i]
		goes := fmt.Sprintf("%s of backup %s of %s goes to %s", d.Name, r.ID, r.Box, d.path)
		if d.isNew() {
			p.tellf("%s, which is not there: a new file of %s (%d bytes) is made, %s", goes, bytesText(d.Disk.Size), d.Disk.Size, d.full)
			continue
		}
		lost = true
		holds, err := d.target.content(ctx)
		if err != nil {
			return fmt.Errorf("nothing was written: %w", err)
		}
		p.tellf("%s (%s), which holds %s", goes, printable(d.target.identity.String()), holds)
		if d.shrunk != nil {
			p.tellf("%s: %s", d.Name, d.shrunk.Shrunk())
		}
		for _, w := range otherDisk(r, d) {
			p.warnf("%s", printable(w))
		}
	}
	need := map[string]int64{}
	for i := range disks {
		if d := &disks[i]; d.isNew() {
			need[d.full] = d.Data
		}
	}
	warnRoom(p, need)
	if yes {
		return nil
	}
	question, why := "A new file is made. Go on? [y/N] ", "a new file would be made; say --yes"
	if lost {
		question, why = "What is there will be lost. Go on? [y/N] ", "what is on the targets would be lost; say --yes"
	}
	in, ok := p.in.(*os.File)
	if !ok || !progress.IsTerminal(in) {
		return refused("%s", why)
	}
	fmt.Fprint(p.err, question)
	return readYes(ctx, in)
}

// otherDisk says what speaks against a target. The target may be known as
// another disk than the image's, or even as one that has another image in the
// backup.
func otherDisk(r *image.Record, d *restoring) (warnings []string) {
	is := d.target.identity
	for i := range r.Disks {
		if o := &r.Disks[i]; o.Name != d.Name && match.Same(o.Disk, is) {
			warnings = append(warnings, fmt.Sprintf("%s is the disk of image %s, not of %s", d.path, o.Name, d.Name))
		}
	}
	if match.Contradict(d.RecordedDisk.Disk, is) {
		warnings = append(warnings, fmt.Sprintf("%s is another disk than the image was made of: that was %s, this is %s",
			d.path, d.RecordedDisk.Disk, is))
	}
	return warnings
}

// restorePlan lists what a restore does with each disk. It compares first on
// some disks.
func restorePlan(disks []restoring, opt copier.RestoreOptions) (plan []progress.Work) {
	for i := range disks {
		d := &disks[i]
		passes := []string{"compare", "check", "write", "verify"}
		if opt.Full || d.target.rotating {
			passes = passes[1:]
		}
		if opt.Verify == copier.VerifyNone {
			passes = slices.DeleteFunc(passes, func(p string) bool { return p == "check" || p == "verify" })
		}
		for _, pass := range passes {
			plan = append(plan, progress.Work{Disk: d.Name, Pass: pass, Bytes: d.Data})
		}
	}
	return plan
}

// writeDisks restores, and prints what it did. begun says that targets may have
// been written to.
func writeDisks(
	ctx context.Context, p printer, r *image.Record, disks []restoring, opt copier.RestoreOptions,
) (begun bool, err error) {
	line := newProgress(p.err, restorePlan(disks, opt)...)
	say := func(format string, args ...any) { line.end(); p.tellf(format, args...) }
	var jobs []copier.Job
	for i := range disks {
		j := disks[i].job()
		if disks[i].shrunk == nil {
			j.Fit = fitting(&disks[i], say)
		}
		jobs = append(jobs, j)
	}
	opt.Progress, opt.Log = line.tell, say
	receipts, err := copier.Restore(ctx, jobs, opt)
	line.end()
	if err != nil {
		begun = receipts != nil
		switch {
		case errors.Is(err, copier.ErrMayBoot):
			p.notef("the restore failed, and a disk that was begun may boot; the error below names it")
		case begun:
			p.notef("the restore failed; a disk that was begun does not boot")
		}
		return begun, err
	}
	for i := range receipts {
		printReceipt(p, &receipts[i], disks[i].path, disks[i].target.Target.Size())
		printBad(p, disks[i].Name, disks[i].Bad)
	}
	proved := map[copier.ReadBack]string{
		copier.VerifyAll: "and read back", copier.VerifyWritten: "and what was written was read back",
		copier.VerifyNone: "but not read back: this does not prove it",
	}[opt.Verify]
	did := recorded(disks)
	p.printf("%s is restored, %s%s\n", subject(r, did), proved, notDone(r, did, "restored"))
	if hasZeros(did) {
		return true, errBadSectors
	}
	return true, nil
}

// fitting returns the function that makes a partition table fit a larger disk.
// It prints what it changes.
func fitting(d *restoring, say func(format string, args ...any)) copier.FitFunc {
	return copier.FitGPT(d.Disk.SectorSize,
		func(note string) { say("%s: %s", d.Name, note) },
		func(warning string) { say("testbox: warning: %s: %s", d.Name, warning) })
}

func printReceipt(p printer, r *image.Receipt, path string, size int64) {
	p.printf("%s: %s: right already %s, written %s, read back %s, not used %s\n", r.Image, path, bytesText(r.Skipped), bytesText(r.Written),
		bytesText(r.Verified), bytesText(r.Unused))
	for _, st := range r.Stages {
		n := stageBytes(r, st.Name)
		p.printf("%s: %s %s in %s (%s/s)\n", r.Image, st.Name, bytesText(n), st.Elapsed.Round(time.Millisecond),
			bytesText(int64(float64(n)/max(st.Elapsed.Seconds(), 1e-9))))
	}
	for _, c := range r.Changed {
		done := "were fitted to the disk"
		if c.Off >= size {
			done = "have no place on the disk, and were left out"
		}
		p.printf("%s: bytes %d to %d %s\n", r.Image, c.Off, c.End()-1, done)
	}
	p.printf("%s: image %s\n", r.Image, cmp.Or(r.Root, r.BLAKE3))
}

// stageBytes returns how many bytes a pass read or wrote. That is less than the
// size of the disk.
func stageBytes(r *image.Receipt, stage string) int64 {
	switch stage {
	case "compare":
		return r.Read
	case "check", "write":
		return r.Written
	}
	return r.Verified
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/imagefs"
	"testbox-imaging/internal/usedmap"
)

// mountOptions are the flags of image mount.
type mountOptions struct {
	storeFlag
	foreground bool
	tell       bool // another process waits for the message that the mount is there
}

func newImageMountCmd() *cobra.Command {
	var o mountOptions
	cmd := &cobra.Command{
		Use:   "mount BACKUP FOLDER",
		Short: "Show the disks of a backup as files",
		Long: `Mounts a backup on an empty FOLDER, read-only: each disk is a file such as sda.raw there, each
partition one such as sda-part1.raw, each linear logical volume one such as sda-GROUP-VOLUME.raw.
mount, losetup, QEMU and guestfish take them for disks. What no file system used reads as zeros.

It returns when the files can be opened, and a process in the background goes on serving them until
FOLDER is unmounted. What that has to say, as where something is damaged, goes to a log file whose
name is printed; a log with nothing in it is removed at the end. With --foreground no process goes
to the background: it ends when it is interrupted or FOLDER is unmounted, and says all here.

A mount that is in use is not taken away: it ends when nothing uses it any more. Packs are not
removed from the store before.`,
		Example: `  testbox image mount 10.40.41.42@latest~1 /mnt
  mount -o loop,ro /mnt/sda-part1.raw /media     # ext4 of a box that lost power wants ro,noload
  losetup --find --show --partscan --read-only /mnt/sda.raw
  umount /mnt                                    # without root: fusermount3 -u /mnt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("give a backup and an empty folder")
			}
			return nil
		},
		ValidArgsFunction: completeFirst(&o.storeFlag),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "" { // an empty path would mean the working folder
				return wrong("the name of the folder is empty")
			}
			if !o.foreground {
				return mountInBackground(cmd.Context(), printerOf(cmd), o.dir, args[0], args[1])
			}
			return o.with(cmd.Context(), printerOf(cmd), true, func(s backups) error {
				return runImageMount(cmd.Context(), printerOf(cmd), s, args[0], args[1], o.tell)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&o.foreground, "foreground", false, "do not go to the background; interrupt ends it")
	cmd.Flags().BoolVar(&o.tell, tellFlag, false, "tell the process that waits")
	mustComplete(cmd.Flags().MarkHidden(tellFlag))
	return cmd
}

func runImageMount(ctx context.Context, p printer, s reader, arg, dir string, tell bool) error {
	r, sel, err := pick(ctx, p, s, arg)
	if err != nil {
		return err
	}
	// Stat fails on a mount whose program was killed. imagefs handles that.
	switch st, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return wrong("there is no folder %s; make it first", dir)
	case err == nil && !st.IsDir():
		return wrong("%s is no folder", dir)
	}
	if err := warnDamaged(ctx, p, s, r, chosen(r, sel)); err != nil {
		return err
	}
	for _, d := range chosen(r, sel) {
		printBad(p, d.Name, d.Bad)
	}
	// An interrupt must not stop reads of those who still use a file.
	reading := context.WithoutCancel(ctx)
	var disks []imagefs.Disk
	layouts := map[string][]usedmap.LayoutPart{}
	for _, d := range chosen(r, sel) {
		im, err := openImage(ctx, s, r, d)
		if err != nil {
			return err
		}
		defer im.Close()
		view := im.ReaderAt(reading, viewCache)
		defer view.Close()
		file := imagefs.File{Name: d.Name, Size: d.Disk.Size, ModTime: r.Time, ReaderAt: view}
		disks = append(disks, imagefs.Disk{File: file, SectorSize: d.Disk.SectorSize})
		layouts[d.Name] = usedmap.ParseLayout(im.Root.Layout).Parts
	}
	var logged atomic.Bool
	say := func(format string, args ...any) {
		prefix := "testbox: "
		if logged.Load() {
			prefix = time.Now().UTC().Format(time.RFC3339) + " "
		}
		p.tellf("%s%s", prefix, fmt.Sprintf(format, args...))
	}
	shown, notes := imagefs.Show(ctx, disks)
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, n := range notes {
		say("note: %s", printable(n))
	}
	var files []imagefs.File
	for _, f := range shown {
		files = append(files, f.File)
	}
	outliveReader()
	m, err := imagefs.New(dir, files, say)
	if errors.Is(err, imagefs.ErrFolder) {
		return wrong("%w", err)
	} else if err != nil {
		return err
	}
	printShown(p, subject(r, chosen(r, sel)), dir, shown, layouts)
	if !tell {
		p.printf("`umount %s` or an interrupt ends it\n", dir)
		m.Wait(ctx)
		return nil
	}
	logged.Store(true)
	return serveInBackground(ctx, p, m, dir)
}

// serveInBackground serves the mount until the folder is unmounted.
func serveInBackground(ctx context.Context, p printer, m *imagefs.Mount, dir string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	log, err := newMountLog()
	if err == nil {
		defer log.end()
		p.printf("`umount %s` ends it; what goes wrong until then is written to %s\n", dir, log.path)
		err = log.goToBackground()
	}
	if err != nil {
		stop() // nobody would know of the mount
	}
	m.Wait(ctx)
	return err
}

// printShown prints which files there are.
func printShown(p printer, what, dir string, shown []imagefs.Shown, layouts map[string][]usedmap.LayoutPart) {
	p.printf("%s is mounted on %s:\n", what, dir)
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	disk := ""
	for _, f := range shown {
		if f.Number == 0 && f.Volume == "" {
			disk = f.Name
		}
		fmt.Fprintf(tab, "  %s.raw\t%s\t%s\n", f.Name, bytesText(f.Size), printable(holdsOf(f, layouts[disk])))
	}
	tab.Flush()
	for line := range strings.Lines(b.String()) {
		p.printf("%s\n", strings.TrimRight(line, " \n"))
	}
}

// holdsOf says what a file contains, as far as the backup knew.
func holdsOf(f imagefs.Shown, parts []usedmap.LayoutPart) string {
	for _, p := range parts {
		if f.Number != 0 && p.Number == f.Number {
			return strings.TrimSpace(p.FS + " " + p.Label)
		}
		for _, v := range p.Volumes {
			if f.Volume != "" && v.Name == f.Volume {
				return strings.TrimSpace(v.FS + " " + v.Label)
			}
		}
	}
	return ""
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

// defaultStore is the folder of the store if the user names none.
const defaultStore = "/srv/testbox-store"

// storeFlag is the flag that says where the store is.
type storeFlag struct{ dir string }

func (o *storeFlag) add(cmd *cobra.Command) {
	def := os.Getenv("TESTBOX_STORE")
	if def == "" {
		def = defaultStore
	}
	cmd.Flags().StringVar(&o.dir, "store", def, "the store's `FOLDER`; $TESTBOX_STORE says it too")
	mustComplete(cmd.MarkFlagDirname("store"))
}

// open opens the store. If another process uses the store, the error is a
// refusal.
func (o *storeFlag) open(ctx context.Context, p printer, readOnly bool) (backups, error) {
	s, err := openStore(ctx, p, o.dir, readOnly)
	if err != nil {
		return nil, err
	}
	return storeFolder{s}, nil
}

// with opens the store, calls do, and closes the store.
func (o *storeFlag) with(ctx context.Context, p printer, readOnly bool, do func(backups) error) (err error) {
	s, err := o.open(ctx, p, readOnly)
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	return do(s)
}

// withFolder is with for the upkeep of a store, which works on the store's own
// folder.
func (o *storeFlag) withFolder(ctx context.Context, p printer, readOnly bool, do func(*store.Locked) error) error {
	s, err := openStore(ctx, p, o.dir, readOnly)
	if err != nil {
		return err
	}
	return doAndClose(ctx, p, s, do)
}

// doAndClose calls do, and closes the store.
func doAndClose(ctx context.Context, p printer, s *store.Locked, do func(*store.Locked) error) (err error) {
	defer closing(ctx, p, s, &err)
	return do(s)
}

func openStore(ctx context.Context, p printer, dir string, readOnly bool) (*store.Locked, error) {
	r, err := readRemote(dir)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, wrong("%s is no folder, and a store is one", dir)
	}
	var s *store.Locked
	if err == nil {
		s, err = openPlace(ctx, p, dir, r, readOnly)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; run this as the user that the store belongs to, or as root", err)
	}
	return s, err
}

// openPlace opens the store of a folder. r says where its packs are, and is nil
// if they are in the folder.
func openPlace(ctx context.Context, p printer, dir string, r *remote, readOnly bool) (*store.Locked, error) {
	place, err := r.open(ctx, dir)
	if err != nil {
		return nil, err
	}
	s, err := store.OpenDir(ctx, dir, place, readOnly, func(format string, args ...any) {
		clearLine()
		p.warnf(format, args...)
	})
	switch {
	case errors.Is(err, store.ErrNoStore):
		return nil, noStore(err, dir, r)
	case errors.Is(err, store.ErrLocked), errors.Is(err, store.ErrNotOwner), errors.Is(err, store.ErrLocalLocks),
		errors.Is(err, store.ErrRecordsGone):
		return nil, refused("%w", err)
	case errors.Is(err, blob.ErrNoConditions):
		return nil, refused("%w; %s, declare this folder the only writer with `testbox store take-over --only-writer`", err, noConditions)
	}
	return s, err
}

var errScrub = errors.New("`testbox store scrub` says which backups this costs; " +
	"after it, a backup of a disk that still has the bytes heals them")

// noStore adds to the error of a missing store the command that makes one.
func noStore(err error, dir string, r *remote) error {
	in := dir
	if r != nil {
		in = "--s3 URL " + dir
	}
	return wrong("%w; `testbox store init %s` makes one", err, in)
}

// closing records in the store what was found damaged, and closes the store. It
// adds errors of that to the command's error. If the command's error is about
// damage, it also adds what to do about it.
func closing(ctx context.Context, p printer, s closer, err *error) {
	lost := store.IsLost(*err)
	if ctx.Err() == nil {
		sayUnnoted(p, s.NoteFound(ctx, lost))
	}
	if lost && !errors.Is(*err, errScrub) {
		*err = errors.Join(*err, errScrub)
	}
	if e := s.Close(); e != nil {
		*err = errors.Join(*err, e)
	}
}

// allRecords reads all records, and prints which are damaged.
func allRecords(ctx context.Context, p printer, s catalogue) ([]*image.Record, []*store.RecordError, error) {
	rs, damaged, err := s.Records(ctx)
	for _, d := range damaged {
		p.warnf("%v", d)
	}
	return rs, damaged, err
}

// pick finds the backup that an argument means. A box alone means its baseline,
// or the latest backup if there is none. pick prints a line if the baseline is
// not the latest, since the user may not expect that.
func pick(ctx context.Context, p printer, s catalogue, arg string) (*image.Record, store.Selector, error) {
	sel, err := store.ParseSelector(arg)
	if err != nil {
		return nil, sel, wrong("%w", err)
	}
	rs, damaged, err := allRecords(ctx, p, s)
	if err != nil {
		return nil, sel, err
	}
	now := time.Now()
	r, err := choose(rs, damaged, sel, now)
	if errors.Is(err, store.ErrNoBackup) || errors.Is(err, store.ErrNoImage) {
		return nil, sel, fmt.Errorf("%w; `testbox image list` shows what there is", err)
	}
	if err == nil && (sel.When == "" || strings.HasPrefix(sel.When, "latest")) {
		sayPassedOver(p, rs, r, now)
	}
	if err == nil && sel.When == "" {
		if latest, err := store.Select(rs, damaged, store.Selector{Box: sel.Box, When: "latest"}, now); err == nil && latest != r {
			p.tellf("%s means its baseline, backup %s; the latest is %s, as %s@latest", r.Box, r.ID, latest.ID, r.Box)
		} else if errors.As(err, new(*store.UnreadableError)) {
			p.tellf("%s means its baseline, backup %s; which one is the latest is not known", r.Box, r.ID)
		}
	}
	return r, sel, err
}

// choose is store.Select with one difference. It refuses if the argument could
// mean another backup than the one that can be read.
func choose(rs []*image.Record, damaged []*store.RecordError, sel store.Selector, now time.Time) (*image.Record, error) {
	r, err := store.Select(rs, damaged, sel, now)
	var unreadable *store.UnreadableError
	switch {
	case errors.As(err, &unreadable) && unreadable.Instead != nil:
		return nil, refused("%w", err)
	case errors.Is(err, store.ErrNoBackup), errors.Is(err, store.ErrNoImage):
		return nil, wrong("%w", err)
	}
	return r, err
}

// pickDisk finds the one disk that an argument means.
func pickDisk(ctx context.Context, p printer, s catalogue, arg string) (*image.Record, *image.RecordedDisk, error) {
	r, sel, err := pick(ctx, p, s, arg)
	if err != nil {
		return nil, nil, err
	}
	disks := chosen(r, sel)
	if len(disks) > 1 {
		return nil, nil, wrong("backup %s of %s has %d disks (%s); name one as %s@%s:%s", r.ID, r.Box, len(disks), diskNames(r), r.Box, r.ID,
			r.Disks[0].Name)
	}
	return r, disks[0], nil
}

// chosen returns the disks of a backup that a selector means.
func chosen(r *image.Record, sel store.Selector) (out []*image.RecordedDisk) {
	for i := range r.Disks {
		if sel.Disk == "" || sel.Disk == r.Disks[i].Name {
			out = append(out, &r.Disks[i])
		}
	}
	return out
}

// subject is the subject of a command's last line. It is a backup, or some of
// its disks.
func subject(r *image.Record, disks []*image.RecordedDisk) string {
	is := fmt.Sprintf("backup %s of %s", r.ID, r.Box)
	if len(disks) == len(r.Disks) {
		return is
	}
	var names []string
	for _, d := range disks {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ") + " of " + is
}

// notDone names the disks of the backup to which a command did nothing. It ends
// the command's last line, as in "; sdb was not restored".
func notDone(r *image.Record, disks []*image.RecordedDisk, verb string) string {
	var left []string
	for i := range r.Disks {
		if !slices.Contains(disks, &r.Disks[i]) {
			left = append(left, r.Disks[i].Name)
		}
	}
	switch len(left) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("; %s was not %s", left[0], verb)
	}
	return fmt.Sprintf("; %s were not %s", strings.Join(left, ", "), verb)
}

// recorded returns the recorded disks that are restored or compared.
func recorded(disks []restoring) (out []*image.RecordedDisk) {
	for i := range disks {
		out = append(out, disks[i].RecordedDisk)
	}
	return out
}

func diskNames(r *image.Record) string {
	var names []string
	for _, d := range r.Disks {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

// openImage opens the image of a backup's disk. The caller closes it.
func openImage(ctx context.Context, s chunk.Images, r *image.Record, d *image.RecordedDisk) (*chunk.Image, error) {
	im, err := s.OpenImage(ctx, r, d.Name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	return im, nil
}

// completeFirst completes one image, and then files.
func completeFirst(o *storeFlag) cobra.CompletionFunc {
	images := completeImages(o)
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return images(cmd, args, typed)
	}
}

// completeImages completes boxes and their backups.
func completeImages(o *storeFlag) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		if cmd.Context() == nil {
			cmd.SetContext(context.Background())
		}
		s, err := openStore(cmd.Context(), printerOf(cmd), o.dir, true)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.Close()
		rs, _, _ := s.Records(cmd.Context())
		seen := map[string]bool{}
		var out []string
		for _, r := range rs {
			name := r.Box
			if strings.Contains(typed, "@") {
				name = r.Box + "@" + r.ID
			}
			if strings.HasPrefix(name, typed) && !seen[name] {
				seen[name] = true
				out = append(out, name)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

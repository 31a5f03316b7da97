package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/sharedir"
)

// Share is share mode's Arming. It has the box's boot file in the TFTP area,
// and the box's folder in the backup area. Both areas are mounted folders. Set
// the fields before the first call.
type Share struct {
	FS           durable.FS
	TFTP, Backup string           // the areas' folders
	Cmd          *bootcfg.Cmdline // what the box was started with
	Console      io.Writer        // gets every line of the log
	Now          func() time.Time // the storage server's time, as far as it is known
	Voice        Voice
}

// Reach checks that the TFTP area is mounted.
func (s *Share) Reach() error {
	if _, err := fs.Stat(os.DirFS(s.TFTP), bootcfg.LoaderName); err != nil {
		return fmt.Errorf("the TFTP area is not mounted on %s, or has no %s: %w", s.TFTP, bootcfg.LoaderName, err)
	}
	return nil
}

// Open opens the box's folder in the backup area.
func (s *Share) Open() (Home, error) {
	area, err := sharedir.Open(s.FS, s.Backup)
	if err != nil {
		return nil, err
	}
	folder, err := area.Box(s.Cmd.Address)
	if err != nil {
		return nil, err
	}
	return &shareHome{Share: s, folder: folder}, nil
}

// Clock reads the storage server's clock by a file beside the boot file.
func (s *Share) Clock() (ahead time.Duration, err error) {
	return sharedir.ClockBy(s.FS, s.bootFilePath()+".clock.tmp")
}

// bootFiles returns the folder of boot files in the TFTP area.
func (s *Share) bootFiles() *bootfiles.Folder {
	return bootfiles.New(s.FS, filepath.Join(s.TFTP, bootcfg.ConfigDir))
}

func (s *Share) bootFilePath() string { return s.bootFiles().BootFile(s.Cmd.Address) }

// Agrees compares the command line to the boot file. If there is no boot file,
// the address is wrong, or an admin disarmed the box while it started.
func (s *Share) Agrees() (version string, err error) {
	file, err := s.bootFiles().Read(s.Cmd.Address)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &NotArmedError{fmt.Sprintf("there is no boot file %s: the box was disarmed meanwhile, or has another address",
			s.bootFilePath())}
	}
	if err == nil && file.Err != nil {
		err = fmt.Errorf("boot file %s: %w", s.bootFilePath(), file.Err)
	}
	if err != nil {
		return "", err
	}
	if err := bootcfg.Agree(s.Cmd, file.Cmdline); err != nil {
		return "", err
	}
	return path.Base(path.Dir(file.Kernel)), nil
}

// Disarm removes the boot file of this arming, but not one that an admin wrote
// since. It also removes one that somebody edited, because that must not keep a
// box from its disk after its action is done or has expired.
func (s *Share) Disarm(End) error {
	removed, err := s.bootFiles().Disarm(s.Cmd.Address, s.Cmd.Arming)
	var anew *bootfiles.ArmedAnewError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Voice.Info("there is no boot file any more: the box is disarmed")
		return nil
	case errors.As(err, &anew):
		s.Voice.Info("armed anew meanwhile for %s; that boot file stays", anew.File.Cmdline.Action)
		return nil
	case errors.As(err, new(*bootfiles.NotOursError)):
		return fmt.Errorf("disarm: %w", err)
	case err != nil:
		return fmt.Errorf("disarm: %w; the box boots into maintenance again until its boot file is gone: "+
			"`testbox pxe-conf disarm %s` removes it, and `testbox share init` gives boxes the right to do so", err, s.Cmd.Address)
	case removed.Err != nil:
		s.Voice.Error("the boot file is of this arming and was edited, and is removed all the same: %v", removed.Err)
	}
	s.Voice.Info("disarmed")
	// Such a file may have come while the box was at work. The box cannot stay
	// armed because of it, since then it would never start its own disk.
	for _, err := range s.bootFiles().NotLocal(s.Cmd.Address) {
		s.Voice.Warn("this box may not start its own disk now: %v", err)
	}
	return nil
}

// SayFirst implements Arming. Lines can be logged after the boot file is gone, and
// whoever follows the log takes the outcome for the end of everything.
func (s *Share) SayFirst() bool { return false }

// Conclude implements Arming. Nobody has to be told, since the logs have it.
func (s *Share) Conclude(end End) Next { return nextAfter(end.Outcome) }

// Ask implements Arming. Nobody holds a box in share mode.
func (s *Share) Ask() Next { return Restart }

// shareHome is share mode's Home. It is the box's folder in the backup area.
type shareHome struct {
	*Share
	folder *sharedir.Folder
	state  *efi.State // of the firmware, for the sidecars; nil before SaveFirmware
}

// Firmware reads what the latest start noted, and the sidecars of the images.
func (h *shareHome) Firmware() (known KnownFirmware, err error) {
	known.Before, err = h.folder.Note()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if h.Cmd.Action != box.Restore && h.Cmd.Action != box.Verify {
		return known, err
	}
	entries, _ := h.entries() // what speaks against the images is said when they are listed
	for _, e := range entries {
		if e.Facts != nil && e.Facts.Firmware != nil {
			known.Image = e.Facts.Firmware
			break
		}
	}
	return known, err
}

// SaveFirmware writes the note into the box's folder, and the box's own loaders beside
// the configuration of GRUB, if that is there.
func (h *shareHome) SaveFirmware(n *efi.Note) error {
	h.state = &n.State
	if err := durable.WriteFile(h.FS, h.folder.Path(box.FirmwareFile), n.Marshal(), 0o644); err != nil {
		return err
	}
	if _, err := durable.Size(h.FS, filepath.Join(h.TFTP, bootcfg.GRUBConfigName)); err != nil || !bootcfg.TellsLoaders(n, h.Cmd.Action) {
		return nil
	}
	left, err := h.bootFiles().WriteLoaders(h.Cmd.Address, bootcfg.LoadersOf(&n.State))
	if err != nil { // GRUB looks for loaders that it knows then
		h.Voice.Error("the loaders of this box's own systems are not written for GRUB: %v; "+
			"`testbox share init` gives boxes the right to do so", err)
	}
	for _, e := range left {
		h.Voice.Info("GRUB cannot start one of this box's own systems by its boot entry: %v", e)
	}
	return nil
}

// Clock reads the storage server's clock by a file in the box's folder.
func (h *shareHome) Clock() (ahead time.Duration, err error) { return h.folder.Clock() }

// Log opens the logs in the box's folder.
func (h *shareHome) Log(host string) Log {
	return h.folder.Log(host, sharedir.LogOptions{Console: h.Console, Now: h.Now})
}

// Named implements Home. The name of an address mostly has its domain, which no system has
// in its own name.
func (h *shareHome) Named() string {
	name, _, _ := strings.Cut(h.Cmd.Host, ".")
	return name
}

// SetHost writes the small files by which people find the box's folder.
func (h *shareHome) SetHost(host string) error {
	if err := h.folder.SetNames(host); err != nil {
		return fmt.Errorf("name files: %w", err)
	}
	return nil
}

// Recover brings the box's folder into order.
func (h *shareHome) Recover() error {
	if err := h.folder.Recover(); err != nil {
		return fmt.Errorf("put the box's folder in order: %w", err)
	}
	return nil
}

// Done reads last-action.json, and then the images.
func (h *shareHome) Done() box.Outcome {
	last, err := h.folder.Last()
	if err != nil {
		// A record that cannot be read counts as none. The action is done again, and
		// writes a new record.
		h.Voice.Error("record of the last action: %v", err)
	}
	switch {
	case last != nil && last.Arming == h.Cmd.Arming && last.Outcome.Class() == box.Ended:
		return last.Outcome
	case last != nil && last.Arming == h.Cmd.Arming:
		return box.Done // only an ended action is recorded
	case h.Cmd.Action != box.Backup && h.Cmd.Action != box.BackupAgain:
		return ""
	}
	return h.committed()
}

// committed is Done by the images alone. Power may have been lost after they
// were put in place and before the action was recorded.
func (h *shareHome) committed() box.Outcome {
	done, err := h.folder.Committed(h.Cmd.Arming)
	if err != nil {
		h.Voice.Error("images that are there: %v", err)
	}
	if err != nil || !done {
		return ""
	}
	entries, _ := h.folder.Images() // no error, since Committed has just read them
	if slices.ContainsFunc(entries, func(e sharedir.Entry) bool { return !wholeEntry(e) }) {
		return box.BadSectors
	}
	return box.Done
}

// Record writes last-action.json.
func (h *shareHome) Record(end End) error {
	return h.folder.SetLast(sharedir.LastAction{
		Arming: h.Cmd.Arming, Action: h.Cmd.Action, Outcome: end.Outcome, Time: h.Now(), Receipts: end.Receipts,
		Restored: &sharedir.Restored{Arming: h.Cmd.Arming, Time: h.Now(), From: h.Cmd.From, Hooks: h.Cmd.Hooks},
	})
}

// Watch implements Home. Nobody stops an action in share mode.
func (h *shareHome) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// Writes implements Home. Nobody has to know it before.
func (h *shareHome) Writes(context.Context) error { return nil }

// Progress implements Home. The log has the progress too.
func (h *shareHome) Progress(string, string, int64, int64, time.Duration) {}

// HasInventory reports whether the box's folder has the inventory's text.
func (h *shareHome) HasInventory() bool {
	_, err := durable.Size(h.FS, h.folder.Path(box.InfoText))
	return !errors.Is(err, fs.ErrNotExist)
}

// SaveInventory writes the inventory into the box's folder.
func (h *shareHome) SaveInventory(files []inventory.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, durable.WriteFile(h.FS, h.folder.Path(f.Name), f.Data, 0o644))
	}
	return errors.Join(errs...)
}

// Selection reads disk-devices.lst.
func (h *shareHome) Selection() (match.Selection, error) {
	data, err := h.folder.ReadDisks()
	if errors.Is(err, sharedir.ErrNoDisks) {
		h.tellLikeDisks(h.Voice.Warn, "there is no "+box.DisksFile+", so that no disk is left out by it")
		return nil, nil
	}
	var sel match.Selection
	if err == nil {
		sel, err = match.ParseList(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.folder.Path(box.DisksFile), err)
	}
	h.tellLikeDisks(h.Voice.Info, box.DisksFile+" counts")
	return sel, nil
}

// tellLikeDisks names files that somebody may have meant to be
// disk-devices.lst.
func (h *shareHome) tellLikeDisks(tell func(string, ...any), what string) {
	like, err := h.folder.LikeDisks()
	if err != nil {
		h.Voice.Error("files like %s cannot be looked for: %v", box.DisksFile, err)
	}
	if len(like) > 0 {
		tell("%s; %s in %s counts for nothing", what, strings.Join(quoted(like), ", "), h.folder.Dir())
	}
}

// quoted puts quotation marks around names that are easily misread without
// them, such as a name with a blank at its end.
func quoted(names []string) []string {
	names = slices.Clone(names)
	for i, n := range names {
		if q := strconv.Quote(n); strings.Contains(n, " ") || q != `"`+n+`"` {
			names[i] = q
		}
	}
	return names
}

// wholeEntry reports whether an image has everything that its disk had, as far
// as anybody knows.
func wholeEntry(e sharedir.Entry) bool { return e.Facts == nil || len(e.Facts.Bad) == 0 }

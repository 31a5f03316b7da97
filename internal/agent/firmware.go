package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"time"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap/fat"
)

// efiLimit is how long the firmware may take to answer about its variables. Each
// access is a call of the firmware, and nothing can end one that hangs.
const efiLimit = 60 * time.Second

// KnownFirmware is what the other side knows of the firmware of the box. A field is
// nil if that is unknown.
type KnownFirmware struct {
	Before *efi.Note  // what the latest start noted
	Image  *efi.State // as it was when the images were made that the arming asks to restore
}

// lookAtFirmware reads the state of the firmware, sees to it that the box goes on to
// start from the network, and notes both. Nothing of that keeps the box from its
// action, but what went wrong is a warning.
func (s *session) lookAtFirmware(ctx context.Context, disks []disk.Disk) {
	s.note = &efi.Note{Format: efi.NoteFormat, Arming: string(s.cmd.Arming), State: efi.State{Kind: efi.BIOS}}
	if s.home != nil {
		known, err := s.home.Firmware()
		if err != nil {
			s.log.Info("what is known of the firmware from before cannot be had: %v", err)
		}
		s.known = known
	}
	if _, err := fs.Stat(s.cfg.Sys, "firmware/efi"); err == nil {
		s.lookAtUEFI(ctx, disks)
	}
	s.describeFirmware(ctx, disks)
	s.saveNote()
}

// lookAtUEFI reads the variables, and puts the network first.
func (s *session) lookAtUEFI(ctx context.Context, disks []disk.Disk) {
	s.note.State.Kind = efi.UEFI
	type look struct {
		state *efi.State
		first *efi.NetworkFirst
	}
	dir, card, before := efi.Dir(s.cfg.EFIVars), s.card(), s.known.Before
	var l look
	err := errors.New("they are not mounted")
	if dir.Mounted() {
		l, err = within(efiLimit, func() (look, error) {
			state := dir.State()
			return look{state, dir.PutNetworkFirst(state, card, before)}, nil
		})
	}
	if err != nil {
		s.note.NetworkFirst = &efi.NetworkFirst{Result: efi.OrderFailed, Text: fmt.Sprintf("The UEFI variables cannot be read: %v.", err)}
		s.warn("whether this box starts from the network first is not known: %s", s.note.NetworkFirst.Text)
		return
	}
	s.note.State, s.note.NetworkFirst = *l.state, l.first
	s.locate(ctx, &s.note.State, disks)
	s.tellOrder()
	for _, p := range s.note.State.Problems {
		s.log.Info("firmware: %s", p)
	}
}

// card is the MAC of the network card that has booted, or "" if that is not known.
func (s *session) card() string { return strings.ToLower(s.cmd.BootIF.String()) }

// tellOrder logs the boot order, and what became of it.
func (s *session) tellOrder() {
	n := s.note.NetworkFirst
	for _, e := range s.note.State.Ordered() {
		inactive := ""
		if !e.Active {
			inactive = ", not active"
		}
		s.log.Info("boot entry %s: %s (%s%s) %s", e.Number, e.Name, e.Kind, inactive, e.Path)
	}
	switch n.Result {
	case efi.OrderKept:
		s.log.Info("boot order: %s; the network comes first, as it should", efi.Numbers(s.note.State.Order))
	case efi.OrderRepaired:
		s.log.Info("boot order: the network did not come first, and now does. %s", n.Text)
	case efi.OrderIgnored:
		s.warn("boot order: %s", n.Text)
	default:
		s.warn("boot order: this box may not start from the network first. %s", n.Text)
	}
}

// describeFirmware adds what does not come from UEFI variables.
func (s *session) describeFirmware(ctx context.Context, disks []disk.Disk) {
	state := &s.note.State
	state.Vendor, state.Version, state.Date = inventory.FirmwareVersion(ctx, s.cfg.Sys)
	s.cfg.Alive()
	spaces, problems := inventory.Namespaces(ctx, s.cfg.Dev, disks)
	state.NVMe = spaces
	for _, p := range problems {
		s.log.Info("NVMe: %v", p)
	}
	s.cfg.Alive()
}

// saveNote notes the firmware at the other side. Without a note, the next start cannot
// tell whether the order that was written has stayed.
func (s *session) saveNote() {
	s.note.Time = s.now()
	if s.home == nil {
		return
	}
	if err := s.home.SaveFirmware(s.note); err != nil {
		s.log.Error("the state of the firmware is not noted: %v", err)
	}
}

// table is the partition table of a disk, and the disk.
type table struct {
	disk disk.Disk
	from io.ReaderAt
	*parttab.Table
}

// places has where the partitions of a table are, by the keys that boot entries use.
func (t *table) places() map[string]efi.Place {
	places := map[string]efi.Place{}
	block := int64(t.disk.SectorSize)
	for _, p := range t.Parts {
		at := efi.Place{Number: uint32(p.Number), Start: uint64(p.Off / block), Blocks: uint64(p.Len / block)}
		switch {
		case p.GUID != "":
			places[strings.ToLower(p.GUID)] = at
		case t.ID != "":
			places[efi.MBRKey(t.ID, at.Number)] = at
		}
	}
	return places
}

// locate finds out on which disks the partitions of boot entries are, and by which
// number GRUB knows their file systems.
func (s *session) locate(ctx context.Context, state *efi.State, disks []disk.Disk) {
	wanted := partitionsOf(state)
	for _, d := range disks {
		if len(wanted) == 0 || ctx.Err() != nil {
			return
		}
		if d.Size == 0 || d.Removable || d.Transport == "virtual" {
			continue
		}
		if err := s.locateOn(d, wanted); err != nil {
			s.log.Info("firmware: whether the boot entries start from disk %s is not known: %v", d.Name, err)
		}
	}
}

// locateOn looks for the partitions on one disk, and takes those that it finds from
// wanted.
func (s *session) locateOn(d disk.Disk, wanted map[string][]*efi.Partition) error {
	dev, err := disk.Open(s.cfg.Dev, d, false)
	if err != nil {
		return err
	}
	defer dev.Close()
	t, err := s.readTable(d, dev)
	if err != nil || t == nil {
		return err
	}
	t.locate(wanted)
	return nil
}

// partitionsOf has the partitions of boot entries by their keys.
func partitionsOf(state *efi.State) map[string][]*efi.Partition {
	all := map[string][]*efi.Partition{}
	for i := range state.Entries {
		if p := state.Entries[i].Partition; p.Key() != "" {
			all[p.Key()] = append(all[p.Key()], p)
		}
	}
	return all
}

// locate finds partitions in a table, and takes those that are there from wanted.
func (t *table) locate(wanted map[string][]*efi.Partition) {
	for key, at := range t.places() {
		if len(wanted[key]) == 0 {
			continue
		}
		volume := fat.Volume(t.from, int64(at.Start)*int64(t.disk.SectorSize))
		for _, p := range wanted[key] {
			p.Disk, p.Volume = t.disk.Name, volume
		}
		delete(wanted, key)
	}
}

// readTable reads the partition table of a disk. It returns nil if there is none.
func (s *session) readTable(d disk.Disk, from io.ReaderAt) (*table, error) {
	alive := aliveReader{from, s.cfg.Alive}
	t, err := parttab.Read(alive, d.Size, d.SectorSize)
	if errors.Is(err, parttab.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &table{d, alive, t}, nil
}

// tellOtherFirmware warns of images that were made with the other kind of firmware,
// before anything is written.
func (s *session) tellOtherFirmware() {
	image := s.known.Image
	if image == nil || image.Kind == s.note.State.Kind {
		return
	}
	s.warn("the images were made when this box was started by %s, and now it was started by %s; the system in them may not start so",
		image.Kind, s.note.State.Kind)
}

// putBackEntries puts back the boot entries that the restored systems need. The disks
// are written and proved already, so that nothing of it makes the restore fail.
func (s *session) putBackEntries(targets []target, jobs []copier.Job) {
	image, now := s.known.Image, &s.note.State
	if now.Kind != efi.UEFI || len(now.Entries) == 0 || s.note.NetworkFirst == nil {
		return // a BIOS has none, and without variables a warning has said so
	}
	s.note.PutBack = &efi.PutBack{}
	if image == nil || image.Kind != efi.UEFI {
		s.log.Info("the backup has no boot entries, so that none are put back")
	} else {
		s.note.PutBack = s.putBack(image, now, s.restored(targets, jobs))
	}
	for _, n := range s.note.PutBack.Put {
		if e := now.Entry(n); e != nil {
			s.log.Info("boot entry %s was put back: %s %s", n, e.Name, e.Path)
		}
	}
	for _, text := range s.note.PutBack.Left {
		s.warn("%s", text)
	}
	if len(s.note.PutBack.Put) > 0 {
		s.log.Info("boot order: %s", efi.Numbers(now.Order))
	}
	s.locateOnTargets(targets, jobs)
	s.saveNote()
}

// restored has where the partitions of the restored disks are.
func (s *session) restored(targets []target, jobs []copier.Job) map[string]efi.Place {
	places := map[string]efi.Place{}
	for i, j := range jobs {
		t, err := s.readTable(targets[i].disk, j.Target)
		if err != nil {
			s.log.Info("%s: its partitions are not known, so that no boot entry is put back for them: %v", j.Name, err)
		}
		if t != nil {
			maps.Copy(places, t.places())
		}
	}
	return places
}

// locateOnTargets finds the file systems of boot entries on the restored disks, which
// are still open.
func (s *session) locateOnTargets(targets []target, jobs []copier.Job) {
	wanted := partitionsOf(&s.note.State)
	for i, j := range jobs {
		if t, err := s.readTable(targets[i].disk, j.Target); err == nil && t != nil {
			t.locate(wanted)
		}
	}
}

func (s *session) putBack(image, now *efi.State, places map[string]efi.Place) *efi.PutBack {
	type result struct {
		state *efi.State
		done  *efi.PutBack
	}
	dir := efi.Dir(s.cfg.EFIVars)
	r, err := within(efiLimit, func() (result, error) {
		done := dir.PutBack(dir.State(), image, places)
		return result{dir.State(), done}, nil
	})
	if err != nil {
		return &efi.PutBack{Left: []string{fmt.Sprintf("The boot entries of the image were not put back: %v.", err)}}
	}
	now.Order, now.Entries = r.state.Order, r.state.Entries
	return r.done
}

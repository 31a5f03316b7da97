package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/words"
)

// Foresee says what the agent would refuse of an arming, and what it would warn
// of, as far as the box's folder and its inventory (nil: none) tell. It goes
// the agent's own way as far as that is possible without the box. Nothing is
// changed, and no image is read.
func Foresee(folder *sharedir.Folder, inv *inventory.Inventory, c bootcfg.Cmdline) (warnings []string, refused error) {
	switch c.Action {
	case box.RefreshInfo, box.Rescue:
		return nil, nil
	}
	s := newSession(Config{})
	s.cmd, s.folder, s.fsys = &c, folder, durable.OS{}
	s.log = sharedir.ConsoleLog(c.Address, "", sharedir.LogOptions{})
	err := s.foresee(inv)
	if errors.Is(err, sharedir.ErrUnfinished) {
		err = nil // the agent puts the backup in place first
	}
	return append(s.warnings, s.foreseeDamage()...), err
}

// foreseeDamage says of images that are to be used what they lack, since another
// may be whole.
func (s *session) foreseeDamage() (warnings []string) {
	if s.cmd.Action != box.Restore && s.cmd.Action != box.Verify {
		return nil
	}
	entries, _ := s.images()
	var old []sharedir.Entry
	if !s.cmd.OldImages {
		old, _ = s.folder.OldImages()
	}
	for _, e := range entries {
		if whole(e) {
			continue
		}
		lacks := int64(0)
		for _, r := range e.Facts.Bad {
			lacks += r.Len
		}
		text := fmt.Sprintf("image %s has zeros for %s in %s that could not be read when it was made",
			e.Name, words.Count(lacks, "byte"), words.Count(len(e.Facts.Bad), "place"))
		if hasWhole(old, e.Name) {
			text += "; the one before it is whole: --image=old"
		}
		warnings = append(warnings, text)
	}
	return warnings
}

func (s *session) foresee(inv *inventory.Inventory) error {
	// What needs no disks comes first: it is true however old the inventory is.
	if _, err := s.selection(); err != nil {
		return err
	}
	if err := s.foreseeImages(); err != nil || inv == nil {
		return err
	}
	s.uuid, s.warnings = inv.UUID, nil
	if err := s.foreseeDisks(inventoryDisks(inv)); err != nil {
		return fmt.Errorf("%w (by its inventory of %s)", err, inv.Time.UTC().Format(time.RFC3339))
	}
	return nil
}

func (s *session) foreseeImages() (err error) {
	switch s.cmd.Action {
	case box.Restore, box.Verify:
		_, err = s.images()
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no image in %s; arm the box for backup first", s.folder.Dir())
		}
	default:
		if _, _, err = s.earlier(); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return err
}

func (s *session) foreseeDisks(disks []disk.Disk) error {
	choice, err := s.choose(disks)
	if err != nil {
		return err
	}
	switch s.cmd.Action {
	case box.Restore, box.Verify:
		_, err := s.targets(disks, choice)
		return err
	}
	entries, old, err := s.earlier()
	if err != nil {
		return err
	}
	return s.successors(imageNames(disks, append(entries[:len(entries):len(entries)], old...)), choice, entries, old)
}

// inventoryDisks is the disks that a box had when its inventory was taken.
func inventoryDisks(inv *inventory.Inventory) []disk.Disk {
	var disks []disk.Disk
	for _, d := range inv.Disks {
		var parts []string
		for _, p := range d.Partitions {
			parts = append(parts, p.Name)
		}
		disks = append(disks, disk.Disk{
			Name: d.Name, Identity: d.Identity, Removable: d.Removable, Transport: d.Transport, Parts: parts, Links: d.Links,
		})
	}
	return disks
}

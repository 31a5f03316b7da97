package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/words"
)

// Foresee says what the agent would refuse of an arming, and what it would warn
// about, as far as the box's folder and its inventory show. inv may be nil.
// Foresee uses the agent's own code as far as that is possible without the box.
// It changes nothing and reads no image.
func Foresee(folder *sharedir.Folder, inv *inventory.Inventory, c bootcfg.Cmdline) (warnings []string, refused error) {
	switch c.Action {
	case box.RefreshInfo, box.Rescue:
		return nil, nil
	}
	s := newSession(Config{})
	s.cmd = &c
	s.log = consoleLog(c.Address, "", s.cfg.Console, s.now)
	home := &shareHome{Share: s.share(), folder: folder}
	s.home = home
	err := s.foresee(home, inv)
	if errors.Is(err, sharedir.ErrUnfinished) && c.From == "" {
		err = nil // the agent first puts that backup in place
	}
	warnings = s.warnings
	s.warnings = nil // they are said once more when the images are listed for their damage
	return append(warnings, s.foreseeDamage(home)...), err
}

// foreseeDamage says which of the images to be used are damaged, and whether
// the image before is complete.
func (s *session) foreseeDamage(home *shareHome) (warnings []string) {
	if s.cmd.Action != box.Restore && s.cmd.Action != box.Verify {
		return nil
	}
	images, _ := s.images()
	var old []sharedir.Entry
	if !s.cmd.OldImages {
		old, _ = home.source().OldImages()
	}
	for _, im := range images {
		i := im.Info()
		if i.whole() {
			continue
		}
		lacks := int64(0)
		for _, r := range i.Bad {
			lacks += r.Len
		}
		text := fmt.Sprintf("image %s has zeros for %s in %s that could not be read when it was made",
			i.Name, words.Count(lacks, "byte"), words.Count(len(i.Bad), "place"))
		if hasWhole(old, i.Name) {
			text += "; the one before it is whole: --image=old"
		}
		warnings = append(warnings, text)
	}
	return warnings
}

func (s *session) foresee(home *shareHome, inv *inventory.Inventory) error {
	// Checks without disks come first. They are right however old the inventory is.
	if _, err := s.selection(); err != nil {
		return err
	}
	if err := s.foreseeImages(home); err != nil || inv == nil {
		return err
	}
	s.uuid, s.warnings = inv.UUID, nil
	if err := s.foreseeDisks(home, inventoryDisks(inv)); err != nil {
		return fmt.Errorf("%w (by its inventory of %s)", err, inv.Time.UTC().Format(time.RFC3339))
	}
	return nil
}

func (s *session) foreseeImages(home *shareHome) (err error) {
	switch s.cmd.Action {
	case box.Restore, box.Verify:
		_, err = s.images()
		if errors.Is(err, fs.ErrNotExist) && s.cmd.From == "" {
			err = fmt.Errorf("there is no image in %s; arm the box for backup first", home.folder.Dir())
		}
	default:
		if _, _, err = home.earlier(); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return err
}

func (s *session) foreseeDisks(home *shareHome, disks []disk.Disk) error {
	choice, err := s.choose(disks)
	if err != nil {
		return err
	}
	switch s.cmd.Action {
	case box.Restore, box.Verify:
		_, err := s.targets(disks, choice)
		return err
	}
	_, err = home.plan(disks, choice)
	return err
}

// inventoryDisks returns the disks that a box had when its inventory was taken.
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

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/words"
)

// act does the action that the box was armed for.
func (s *session) act(ctx context.Context) error {
	disks, problems := disk.List(s.cfg.Sys)
	for _, p := range problems {
		s.log.Error("%v", p)
	}
	for _, c := range disk.Unready(s.cfg.Sys) {
		s.warn("controller %s; if disks are behind it, this box has more disks than are seen", c)
	}
	// This comes before anything reads a disk. Whatever goes wrong from here on,
	// the kernel lets nobody write to one.
	unprotected := s.protect(disks)
	s.lookAtFirmware(ctx, disks)
	switch s.cmd.Action {
	case box.RefreshInfo:
		return s.inventory(ctx, disks)
	case box.Rescue:
		return s.rescue(ctx, disks, unprotected)
	}
	if s.wantsInventory() {
		// A broken sensor, or a lack of room for the inventory, does not keep the box
		// from being imaged.
		if err := s.inventory(ctx, disks); err != nil {
			s.log.Error("%v", err)
		}
	}
	choice, err := s.choose(disks)
	if err != nil {
		return refusalOf(err)
	}
	switch s.cmd.Action {
	case box.Backup, box.BackupAgain:
		return s.backup(ctx, disks, choice)
	case box.Restore:
		return s.restore(ctx, disks, choice)
	case box.Verify:
		return s.verify(ctx, disks, choice)
	}
	return refuse("this agent does not know the action %q", s.cmd.Action)
}

// protect sets all disks read-only and returns the names of those where that
// failed.
func (s *session) protect(disks []disk.Disk) (failed []string) {
	for _, d := range disks {
		s.cfg.Alive() // a failing disk answers late
		if err := disk.Protect(s.cfg.Dev, d, true); err != nil {
			s.log.Error("%s cannot be set read-only: %v", d.Name, err)
			failed = append(failed, d.Name)
		}
	}
	return failed
}

// wantsInventory reports whether the action takes an inventory. A restore or
// verify takes one only if there is none yet.
func (s *session) wantsInventory() bool {
	if s.cmd.Action == box.Restore || s.cmd.Action == box.Verify {
		return !s.home.HasInventory()
	}
	return true
}

// inventory collects what the box is made of, and saves it beside the images.
func (s *session) inventory(ctx context.Context, disks []disk.Disk) error {
	s.home.Progress("inventory", "taking the inventory", 0, 0, 0)
	o := inventory.Options{
		Sys: s.cfg.Sys, Proc: s.cfg.Proc, Dev: s.cfg.Dev, Kmsg: inventory.KernelLog,
		Address: s.cmd.Address, Host: s.host, Time: s.now(), Disks: disks, Maintenance: s.version,
		Firmware: s.note,
	}
	if s.cfg.PCIIDs != "" {
		o.PCIIDs = func() ([]byte, error) { return os.ReadFile(s.cfg.PCIIDs) }
	}
	inv := inventory.Collect(ctx, o)
	files, err := inv.Files()
	if err := errors.Join(s.home.SaveInventory(files), err); err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	s.log.Info("inventory written, %s of it could not be read", words.Count(len(inv.Problems), "part"))
	return nil
}

// selection returns the disks that the admin named. If the arming names none,
// these are the ones that the admin named for all actions of the box.
func (s *session) selection() (match.Selection, error) {
	if len(s.cmd.Disks) > 0 {
		sel, err := match.Select(s.cmd.Disks)
		if err != nil {
			return nil, fmt.Errorf("the disks of the arming: %w", err)
		}
		return sel, nil
	}
	return s.home.Selection()
}

// choose decides which disks the action uses.
func (s *session) choose(disks []disk.Disk) (match.Choice, error) {
	for _, d := range disks {
		s.log.Info("seen: disk %s", d)
	}
	sel, err := s.selection()
	if err != nil {
		return match.Choice{}, err
	}
	maps, err := match.ParseMap(s.cmd.Map)
	if err != nil {
		return match.Choice{}, fmt.Errorf("the map of the arming: %w", err)
	}
	choice, err := match.Choose(disks, sel, maps...)
	choice.Shrink = s.cmd.ShrinkTable
	for _, n := range choice.Notes {
		s.log.Info("%s", n)
	}
	for _, m := range choice.Missing {
		s.warn("the disk %q was named and is not there", m)
	}
	return choice, err
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/site"
)

// foresee says what the boxes will refuse, as far as the backup area tells,
// where that is at hand. It is no reason not to arm: an image can be put there,
// or a disk be plugged in, before the box starts.
func (f *pxeFolder) foresee(plan []armPlan, s *site.Site) (warnings []string) {
	say := func(format string, p armPlan, text string) {
		warnings = append(warnings, fmt.Sprintf(format, p.target, p.file.Cmdline.Action, strings.ReplaceAll(text, "\n", "; ")))
	}
	const refuses, warns = "%s will refuse `%s`: %s", "%s, `%s`: %s"
	if err := f.warnAbove(s.TFTPPath); err != nil {
		warnings = append(warnings, err.Error())
	}
	dir := f.backupArea()
	names, dirErr := f.fsys.ReadDir(dir)
	atHome := dir == filepath.Clean(s.BackupPath)
	if !atHome && (errors.Is(dirErr, fs.ErrNotExist) || dirErr == nil && len(names) == 0) {
		return warnings // the area is not mounted here
	}
	area, err := sharedir.Open(f.fsys, dir)
	for _, p := range plan {
		c := p.file.Cmdline
		if err != nil {
			if c.Action != box.Rescue {
				say(refuses, p, err.Error())
			}
			continue
		}
		folder := area.Look(p.target.addr)
		for _, check := range []func(*sharedir.Folder) error{f.linkedOut, f.closedToBoxes} {
			if err := check(folder); err != nil && c.Action != box.Rescue {
				say(warns, p, err.Error())
			}
		}
		if c.Action == box.Backup || c.Action == box.BackupAgain {
			st := boxStatus{folder: folder}
			st.read()
			if half := st.halfRestored(); half != "" {
				say(warns, p, half+"; a backup of disks that are not whole would take the place of a good one")
			}
		}
		others, refusal := agent.Foresee(folder, f.inventory(p.target.addr), c)
		for _, o := range others {
			say(warns, p, o)
		}
		if refusal != nil {
			say(refuses, p, refusal.Error())
		}
	}
	return warnings
}

// inventory is that of the box's last action; nil if there is none to be read,
// or if it came with a folder that was copied from another box's.
func (f *pxeFolder) inventory(addr box.Addr) *inventory.Inventory {
	data, err := durable.ReadFile(f.fsys, filepath.Join(f.backupArea(), addr.String(), inventory.JSONName), inventory.MaxJSON)
	if err != nil {
		return nil
	}
	inv, err := inventory.ParseJSON(data)
	if err != nil || inv.Address != addr.String() {
		return nil
	}
	return inv
}

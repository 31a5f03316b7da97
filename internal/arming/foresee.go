package arming

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/follow"
	"testbox-imaging/internal/sharedir"
)

// Foresee says what the boxes will refuse, as far as the backup area shows it
// and is at hand. That is no reason not to arm them. Somebody can still put an
// image there, or plug in a disk, before the box starts.
func (p *Place) Foresee(plan *Plan) (warnings []string) {
	say := func(format string, b PlannedBox, text string) {
		warnings = append(warnings, fmt.Sprintf(format, b.Target, b.Cmdline.Action, strings.ReplaceAll(text, "\n", "; ")))
	}
	const refuses, warns = "%s will refuse `%s`: %s", "%s, `%s`: %s"
	if err := p.Boot.CheckAbove(plan.Site.TFTPPath); err != nil {
		warnings = append(warnings, err.Error())
	}
	dir := p.backupArea()
	names, dirErr := p.FS.ReadDir(dir)
	atHome := dir == filepath.Clean(plan.Site.BackupPath)
	if !atHome && (errors.Is(dirErr, fs.ErrNotExist) || dirErr == nil && len(names) == 0) {
		return warnings // the area is not mounted here
	}
	area, err := sharedir.Open(p.FS, dir)
	for _, b := range plan.Boxes {
		c := b.Cmdline
		if err != nil {
			if c.Action != box.Rescue {
				say(refuses, b, err.Error())
			}
			continue
		}
		folder := area.Look(b.Addr)
		for _, check := range []func(*sharedir.Folder) error{p.linkedOut, p.closedToBoxes} {
			if err := check(folder); err != nil && c.Action != box.Rescue {
				say(warns, b, err.Error())
			}
		}
		if from, err := box.ParseAddr(c.From); err == nil {
			for _, check := range []func(*sharedir.Folder) error{p.linkedOut, p.closedToReaders} {
				if err := check(area.Look(from)); err != nil {
					say(warns, b, err.Error())
				}
			}
		}
		if c.Host == "" && slices.Contains(c.Hooks, box.HookHostname) {
			say(warns, b, fmt.Sprintf("no name of this box is known here, and if the box finds none, it refuses the hook %s; "+
				"give its address a name in DNS or /etc/hosts, or arm it by its name", box.HookHostname))
		}
		if c.Action == box.Backup || c.Action == box.BackupAgain {
			if half := follow.Read(folder).HalfRestored(); half != "" {
				say(warns, b, half+"; a backup of disks that are not whole would take the place of a good one")
			}
		}
		others, refusal := agent.Foresee(folder, p.inventory(b.Addr), c)
		for _, o := range others {
			say(warns, b, o)
		}
		if refusal != nil {
			say(refuses, b, refusal.Error())
		}
	}
	return warnings
}

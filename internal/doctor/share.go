package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
)

// ShareBox looks at one box of share mode: whether it could be armed for a backup and for a
// restore now. Nothing is written.
func ShareBox(ctx context.Context, place *arming.Place, word string) (all []Finding) {
	for _, action := range []box.Action{box.BackupAgain, box.Restore} {
		plan, err := place.Plan(ctx, arming.Request{Boxes: []string{word}, Cmdline: bootcfg.Cmdline{Action: action}, Replace: true})
		if err != nil {
			all = append(all, problem("arming", "As it says.", "it could not be armed for %s now: %v", action, err))
			continue
		}
		all = append(all, fine("arming", "it could be armed for %s, with the maintenance system %s", action, plan.Version.Version))
		for _, text := range place.Foresee(plan) {
			all = append(all, warning("arming", "As it says.", "%s", text))
		}
		if action == box.Restore {
			all = append(all, lastAction(place, plan.Boxes[0].Addr)...)
		}
	}
	return all
}

func lastAction(place *arming.Place, addr box.Addr) []Finding {
	area, err := place.Backup()
	if err != nil {
		return []Finding{notLooked("backup", "%v", err)}
	}
	all := shareCopy(area.Look(addr), addr)
	switch list, err := area.Look(addr).ReadDisks(); {
	case err == nil:
		all = append(all, fine("disks", "its list of disks:\n%.1000s", list))
	case !errors.Is(err, sharedir.ErrNoDisks) && !errors.Is(err, fs.ErrNotExist):
		all = append(all, problem("disks", fmt.Sprintf("Correct or remove the file %s.", area.Look(addr).Path(box.DisksFile)), "%v", err))
	}
	return all
}

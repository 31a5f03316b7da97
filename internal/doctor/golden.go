package doctor

import (
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
)

const ownMachineID = "Restore it again with --hooks machine-id, or empty /etc/machine-id on it and restart it."

// Copies looks for boxes that may have the machine-id of another one, since they got its
// system without the hook that takes the id away. jobs are the latest first. What people do
// to a box by themselves is not known.
func Copies(jobs []api.Job) (all []Finding) {
	looked := map[string]bool{}
	for _, j := range jobs {
		if !j.Restored() || looked[j.Box] {
			continue
		}
		looked[j.Box] = true
		if j.SharesMachineID() {
			all = append(all, warning("machine-id", ownMachineID,
				"the box %s has the system of %.64s by job %s, and has its machine-id too, if it has one", j.Box, j.Options.From, j.ID))
		}
	}
	return all
}

// ShareCopies is Copies for share mode, by what is recorded of the latest restore of each box.
func ShareCopies(place *arming.Place) (all []Finding) {
	area, err := place.Backup()
	if err != nil {
		return []Finding{notLooked("machine-id", "%v", err)}
	}
	boxes, err := place.Boxes()
	if err != nil {
		return []Finding{notLooked("machine-id", "%v", err)}
	}
	for _, addr := range boxes {
		all = append(all, shareCopy(area.Look(addr), addr)...)
	}
	return all
}

func shareCopy(folder *sharedir.Folder, addr box.Addr) []Finding {
	last, err := folder.Last()
	switch {
	case err != nil:
		return []Finding{notLooked("machine-id", "%v", err)}
	case last == nil || !last.Restored.SharesMachineID():
		return nil
	}
	r := last.Restored
	return []Finding{warning("machine-id", ownMachineID,
		"the box %s has the system of %s since its restore of %s (arming %s), and has its machine-id too, if it has one", addr, r.From,
		r.Time.UTC().Format(time.RFC3339), r.Arming)}
}

package doctor

import "testbox-imaging/internal/api"

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
			all = append(all, warning("machine-id", "Restore it again with --hooks machine-id, or empty /etc/machine-id on it and restart it.",
				"the box %s has the system of %.64s by job %s, and has its machine-id too, if it has one", j.Box, j.Options.From, j.ID))
		}
	}
	return all
}

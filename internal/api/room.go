package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/wire"
	"testbox-imaging/internal/words"
)

// roomOf is how the box of a job takes part in a room, or nil if it is in none and others say nothing of it.
func roomOf(st dispatch.Status) *Room {
	r := Room{Dropped: st.Dropped}
	for _, f := range st.Faults {
		r.Faults = append(r.Faults, RoomFault{f.Fault, f.Boxes, f.Text()})
	}
	if p := st.Progress; p != nil && p.Room != nil && st.State == job.Running {
		s := p.Room
		r.Boxes, r.FromServer, r.FromPeers, r.ToPeers, r.Deaf = s.Boxes, s.FromServer, s.FromPeers, s.ToPeers, s.Deaf
	}
	if r.Boxes < 2 && r.FromPeers == 0 && r.ToPeers == 0 && len(r.Faults) == 0 && !r.Dropped {
		return nil // a box that is alone has nothing to tell
	}
	return &r
}

// Troubles are what is not as it should be with the box of a room.
func (r *Room) Troubles() (all []string) {
	if r.Deaf && r.Boxes > 1 {
		all = append(all, "It reaches no other box, or gets too little from them, and takes all from the server.")
	}
	for _, f := range r.Faults {
		all = append(all, f.Text)
	}
	if r.Dropped {
		all = append(all, "Other boxes are not told of it any more.")
	}
	return all
}

// RoomSum tells of the boxes together that restore the same backup.
type RoomSum struct {
	Backup string   // BOX@ID
	Lines  []string // sentences
	// Troubles are sentences about single boxes, which are named in them.
	Troubles []string
}

// Rooms sums up jobs whose boxes restore the same backup and get chunks from each other. It can be given any jobs.
func Rooms(jobs []Job) (all []RoomSum) {
	of := map[string][]*Job{}
	var order []string
	is := map[string]bool{} // there is a room
	for i := range jobs {
		j := &jobs[i]
		if j.Action != box.Restore || j.Backup == "" {
			continue
		}
		backup := j.Backup
		if !strings.Contains(backup, "@") {
			backup = j.Box + "@" + backup
		}
		if of[backup] == nil {
			order = append(order, backup)
		}
		of[backup] = append(of[backup], j)
		_, peers := j.Sources()
		is[backup] = is[backup] || j.Room != nil || peers > 0
	}
	for _, backup := range order {
		if is[backup] && len(of[backup]) > 1 {
			all = append(all, sumRoom(backup, of[backup]))
		}
	}
	return all
}

// roomWords say in which order jobs are counted, and what their boxes do.
var roomWords = []struct {
	is        func(*Job) bool
	one, many string
}{
	{inState(job.Queued), "waits", "wait"}, {inState(job.Armed), "starts", "start"},
	{func(j *Job) bool {
		return j.State == job.Running && step(j) != wire.StepWrite && step(j) != wire.StepVerify
	}, "prepares", "prepare"},
	{atStep(wire.StepWrite), "writes", "write"}, {atStep(wire.StepVerify), "reads back", "read back"},
	{inState(job.Restarting), "restarts", "restart"}, {inState(job.Held), "is held", "are held"},
	{func(j *Job) bool { return j.State == job.Ended && j.Restored() }, "is done", "are done"},
	{func(j *Job) bool { return j.State == job.Ended && !j.Restored() }, "did not succeed", "did not succeed"},
}

func inState(s job.State) func(*Job) bool { return func(j *Job) bool { return j.State == s } }

func atStep(s wire.Step) func(*Job) bool {
	return func(j *Job) bool { return j.State == job.Running && step(j) == s }
}

func step(j *Job) wire.Step {
	if j.Progress == nil {
		return ""
	}
	return j.Progress.Step
}

func sumRoom(backup string, jobs []*Job) RoomSum {
	sum := RoomSum{Backup: backup}
	var does []string
	for _, w := range roomWords {
		n := 0
		for _, j := range jobs {
			if w.is(j) {
				n++
			}
		}
		if n > 0 {
			does = append(does, fmt.Sprintf("%d %s", n, words.Verb(n, w.one, w.many)))
		}
	}
	var server, peers int64
	var slowest *Job
	known, open := 0, 0
	for _, j := range jobs {
		s, p := j.Sources()
		server, peers = server+s, peers+p
		if j.State != job.Ended && j.State != job.Held && j.State != job.Restarting {
			open++
		}
		if j.Progress != nil && j.Progress.Left > 0 {
			known++
			if slowest == nil || j.Progress.Left > slowest.Progress.Left {
				slowest = j
			}
		}
		if j.Room != nil {
			for _, t := range j.Room.Troubles() {
				sum.Troubles = append(sum.Troubles, fmt.Sprintf("%s: %s", cmp.Or(j.Name, j.Box), t))
			}
		}
	}
	slices.Sort(sum.Troubles)
	sum.Lines = append(sum.Lines, fmt.Sprintf("Of %d boxes %s.", len(jobs), strings.Join(does, ", ")))
	if slowest != nil {
		who := "All are"
		if known < open {
			who = "Those whose time is known are"
		}
		sum.Lines = append(sum.Lines, fmt.Sprintf("%s done in about %s; the last is %s.", who,
			progress.Clock(time.Duration(slowest.Progress.Left)*time.Second), cmp.Or(slowest.Name, slowest.Box)))
	}
	if text := image.SourcesText(server, peers); text != "" {
		sum.Lines = append(sum.Lines, text+".")
	}
	return sum
}

// Sources are how many bytes of chunks, as the store has them, came from the server and from other boxes. Both are 0 if
// nobody counted them.
func (j *Job) Sources() (server, peers int64) {
	for _, r := range j.Receipts {
		server, peers = server+r.FromServer, peers+r.FromPeers
	}
	if r := j.Room; r != nil && len(j.Receipts) == 0 {
		server, peers = r.FromServer, r.FromPeers
	}
	return server, peers
}

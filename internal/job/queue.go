package job

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/words"
)

// Lab is all that the queue looks at.
type Lab struct {
	Jobs  []Job                 // all that have not ended
	Boxes map[box.Addr]BoxFacts // a box that is not in it has no groups and no holder
	// Closed says in a sentence why no job begins now, when the server is in
	// maintenance. It is "" else.
	Closed string
	Most   int            // how many boxes may be at work at once; 0 means any number
	Groups map[string]int // the same for boxes of a group; with 0 it is closed, and a group that is not in it has no limit
	// Starting is how many boxes that the server switches on may be starting at once; 0 means any number.
	Starting int
}

// StartTime is for how long a box counts as starting that the server has switched on, unless its agent is heard of
// before. Boxes that never come must not keep the others waiting.
const StartTime = 5 * time.Minute

// BoxFacts is what the queue knows of a box.
type BoxFacts struct {
	Groups    []string
	Holder    string    // who reserved the box; "" is nobody
	HeldUntil time.Time // when that ends; zero means never
	Opens     time.Time // when jobs of the box may begin again; zero or past means now
	// NoSystem says in a sentence why the box has no maintenance system that this
	// server can work with. It is "" else.
	NoSystem string
}

// Grant lets a job begin by Slot.
type Grant struct {
	ID string
	// TakesOver is the held job of the same box, if there is one. It gets NewJob.
	// Both jobs are made durable at once.
	TakesOver string
}

// Reason is what a queued job waits for.
type Reason string

// The reasons.
const (
	ForServer Reason = "server" // the server is in maintenance
	ForSystem Reason = "system" // a maintenance system that the server can work with
	ForWindow Reason = "window" // the time at which jobs of the box may begin
	ForClosed Reason = "closed" // that a group of the box is opened again
	ForHolder Reason = "holder" // somebody has reserved the box
	ForHeld   Reason = "held"   // a disk of the box is not fit to run, and the job is no restore and no rescue
	ForJob    Reason = "job"    // another job of the box
	ForGroup  Reason = "group"  // a place among the boxes of a group
	ForPlace  Reason = "place"  // a place among all boxes
	ForPower  Reason = "power"  // a place among the boxes that are starting
)

// forPlace reports whether a reason is nothing but that a place is not free.
func (r Reason) forPlace() bool { return r == ForGroup || r == ForPlace || r == ForPower }

// Wait is why a queued job does not begin.
type Wait struct {
	ID     string
	Place  int // in the queue; 1 is the next
	Reason Reason
	Text   string // a whole sentence for people
}

// Give says which queued jobs begin now, and why each of the others waits. It
// goes through the queue in the order of Compare.
//
// Nobody starves, but for jobs that yield, which end when they must not begin any more.
// A job that waits only for places keeps those of its groups that are free: no later
// job gets them. It needs no such claim to a place among all boxes, since a group's
// place becomes free together with one of those, and the earlier job is asked first. A job that waits for something else claims
// nothing, and has its old place in the queue as soon as that is over.
func Give(lab Lab, now time.Time) (begin []Grant, wait []Wait) {
	q := newQueue(lab, now)
	for _, j := range q.queued {
		reason, text := q.obstacle(j)
		if reason == "" {
			begin = append(begin, Grant{j.ID, q.held[j.Box]})
			q.all++
			if j.Power {
				q.starting++
			}
		} else {
			wait = append(wait, Wait{j.ID, len(wait) + 1, reason, text})
		}
		if reason == "" || reason.forPlace() {
			q.claim(j)
		}
	}
	return begin, wait
}

type queue struct {
	Lab
	now    time.Time
	queued []Job               // in their order
	held   map[box.Addr]string // the held job of a box
	busy   map[box.Addr]string // the job that a box has, or that is before others of the box
	all    int                 // boxes at work
	group  map[string]int      // places that are taken or claimed

	// idle is how many boxes at work are armed for a job that yields, and wait for somebody who restarts them. That may take
	// days, so people's jobs need not wait for their places. idleIn are those of each group.
	idle   int
	idleIn map[string]int

	starting int // boxes that the server has switched on, and that are not there yet
}

func newQueue(lab Lab, now time.Time) *queue {
	q := &queue{Lab: lab, now: now, held: map[box.Addr]string{}, busy: map[box.Addr]string{}, group: map[string]int{},
		idleIn: map[string]int{}}
	for _, j := range lab.Jobs {
		switch j.State {
		case Queued:
			q.queued = append(q.queued, j)
		case Held:
			q.held[j.Box] = j.ID
		case Rescue: // people are at work, which may take days, so it has no place
			q.busy[j.Box] = j.ID
		case Armed, Running, Restarting:
			q.claim(j)
			q.all++
			if j.State == Armed && j.Yields && (!j.Power || j.ByHand || !now.Before(j.Since.Add(StartTime))) {
				q.idle++
				for _, g := range q.groups(j) {
					q.idleIn[g]++
				}
			}
			if j.State == Armed && j.Power && now.Before(j.Since.Add(StartTime)) {
				q.starting++
			}
		}
	}
	slices.SortFunc(q.queued, Compare)
	return q
}

// Compare says which of two queued jobs is asked first. Jobs that yield come last, and
// all others in the order in which they were asked for.
func Compare(a, b Job) int {
	yields := func(j Job) int {
		if j.Yields {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(yields(a), yields(b)), a.Asked.Compare(b.Asked), cmp.Compare(a.ID, b.ID))
}

// claim takes the box and the places of its groups.
func (q *queue) claim(j Job) {
	q.busy[j.Box] = j.ID
	for _, g := range q.groups(j) {
		q.group[g]++
	}
}

// groups are the groups of a job's box, each of them once.
func (q *queue) groups(j Job) []string {
	return slices.Compact(slices.Sorted(slices.Values(q.Boxes[j.Box].Groups)))
}

// obstacle is what keeps a job from beginning now. Places come last, since only
// who waits for nothing else may claim them.
func (q *queue) obstacle(j Job) (Reason, string) {
	b := q.Boxes[j.Box]
	switch {
	case q.Closed != "":
		return ForServer, q.Closed
	case b.NoSystem != "":
		return ForSystem, b.NoSystem
	case j.late(q.now): // it ends in a moment
		return ForWindow, fmt.Sprintf("This job had to begin before %s.", minute(j.Until))
	case j.From.After(q.now): // somebody has set the clock back
		return ForWindow, fmt.Sprintf("This job may begin at %s.", minute(j.From))
	case b.Opens.After(q.now):
		return ForWindow, fmt.Sprintf("Jobs of this box may begin at %s.", minute(b.Opens))
	case b.Holder != "" && b.Holder != j.By && (b.HeldUntil.IsZero() || b.HeldUntil.After(q.now)):
		return ForHolder, fmt.Sprintf("%s has reserved this box.", b.Holder)
	case q.held[j.Box] != "" && j.Action != box.Restore && j.Action != box.Rescue:
		return ForHeld, fmt.Sprintf("Job %s left a disk that is not fit to run; release this box or restore it.", q.held[j.Box])
	case q.busy[j.Box] != "":
		return ForJob, fmt.Sprintf("Job %s of this box comes first.", q.busy[j.Box])
	}
	for _, g := range q.groups(j) {
		if most, limited := q.Groups[g]; limited && most < 1 {
			return ForClosed, fmt.Sprintf("Group %s is closed.", g)
		}
	}
	idle, idleIn := q.idle, q.idleIn
	if j.Yields {
		idle, idleIn = 0, nil
	}
	for _, g := range q.groups(j) {
		if most, limited := q.Groups[g]; limited && q.group[g]-idleIn[g] >= most {
			return ForGroup, fmt.Sprintf("Group %s may have %s at work at once.", g, words.Count(most, "box", "boxes"))
		}
	}
	if q.Most > 0 && q.all-idle >= q.Most {
		return ForPlace, fmt.Sprintf("The server may have %s at work at once.", words.Count(q.Most, "box", "boxes"))
	}
	if j.Power && q.Starting > 0 && q.starting >= q.Starting {
		return ForPower, fmt.Sprintf("The server may have %s starting at once.", words.Count(q.Starting, "box", "boxes"))
	}
	return "", ""
}

// minute is a time as people read it.
func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

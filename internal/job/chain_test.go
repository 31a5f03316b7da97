package job

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
	"testbox-imaging/internal/box"
)

// chain is one box with all its jobs, and a server that may die at any moment.
type chain struct {
	t     *rapid.T
	now   time.Time
	jobs  []Job
	sites []*site // of each job
	file  *WriteBootFile
	dirty bool // a disk must not run; no job is asked for that
	more  bool // so must a disk that the job at work does not restore
}

// do carries out an effect of a job on the one box that all jobs have.
func (c *chain) do(i int, f Effect) {
	s := c.sites[i]
	s.file = c.file
	s.do(c.jobs[i], f)
	if c.file = s.file; c.file == nil && c.dirty {
		c.t.Fatalf("%T of job %d, which is %s, lets the box start from a disk that is not fit to run", f, i, c.jobs[i].State)
	}
	live := 0
	for _, s := range c.sites {
		live += len(s.sessions)
	}
	if live > 1 {
		c.t.Fatalf("the box has %d sessions", live)
	}
}

// all makes changes of jobs durable at once and carries out their effects. The
// server may die before all of them are done. Then it reads its jobs again.
func (c *chain) all(jobs []int, effects [][]Effect) {
	left := rapid.IntRange(0, 12).Draw(c.t, "effects before the crash")
	for k, i := range jobs {
		for _, f := range effects[k] {
			if left--; left < 0 {
				c.crash()
				return
			}
			c.do(i, f)
		}
		c.settle(i)
	}
}

func (c *chain) settle(i int) {
	j, fx := Next(c.jobs[i], Settled{c.jobs[i].Step, c.now.Add(time.Millisecond)}, c.now, limits)
	c.jobs[i] = j
	for _, f := range fx {
		c.do(i, f)
	}
}

func (c *chain) crash() {
	var order []int
	for i := range c.jobs {
		order = append(order, i)
	}
	for _, i := range rapid.Permutation(order).Draw(c.t, "order of the jobs") {
		var fx []Effect
		c.jobs[i], fx = Resume(c.jobs[i], c.now, limits)
		for _, f := range fx {
			c.do(i, f)
		}
		c.settle(i)
	}
}

// add asks for one more job.
func (c *chain) add() {
	n := len(c.jobs)
	o := drawOrder(c.t)
	o.ID, o.Arming = fmt.Sprint(n), box.Arming(fmt.Sprintf("%016x", n))
	c.jobs, c.sites = append(c.jobs, New(o, seed, c.now)), append(c.sites, newSite())
}

// give lets the queue decide.
func (c *chain) give() {
	lab := Lab{Jobs: slices.DeleteFunc(slices.Clone(c.jobs), func(j Job) bool { return j.State == Ended })}
	begin, _ := Give(lab, c.now)
	if len(begin) > 1 {
		c.t.Fatalf("%v begin on one box", begin)
	}
	for _, g := range begin {
		var jobs []int
		var effects [][]Effect
		for i := range c.jobs {
			var e Event
			switch c.jobs[i].ID {
			case g.TakesOver:
				e = NewJob{g.ID}
			case g.ID:
				s := Slot{TakesOver: g.TakesOver != "", AllDisks: rapid.Bool().Draw(c.t, "all disks")}
				e, c.more = s, s.TakesOver && !s.AllDisks
			default:
				continue
			}
			var fx []Effect
			c.jobs[i], fx = Next(c.jobs[i], e, c.now, limits)
			jobs, effects = append(jobs, i), append(effects, fx)
		}
		c.all(jobs, effects)
	}
}

// usual is what the box does next, and nil if it does nothing for the job.
func (c *chain) usual(j Job) Event {
	switch j.State {
	case Armed:
		return Hello{Secret: c.file.Secret, From: here, Session: Session{byte(j.Step), 1}, Protocol: limits.Protocol}
	case Running:
		if rapid.Bool().Draw(c.t, "reports") {
			return Report{Session: j.Session, Writes: true}
		}
		o := rapid.SampledFrom([]box.Outcome{box.Done, box.Failed, box.Failed, box.Refused, box.Rescuing}).Draw(c.t, "outcome")
		return Result{Session: j.Session, Outcome: o, Class: ClassImage, Text: "So it was."}
	case Rescue:
		return Finish{"ann"}
	}
	return nil
}

// event lets something happen to one of the jobs.
func (c *chain) event() {
	i := rapid.IntRange(max(0, len(c.jobs)-3), len(c.jobs)-1).Draw(c.t, "job")
	before := c.jobs[i]
	e := drawEvent(c.t, before, c.now)
	if rapid.IntRange(0, 3).Draw(c.t, "as usual") > 0 {
		for k, j := range c.jobs { // the agent of the job that is at work does what agents do
			if usual := c.usual(j); usual != nil {
				i, before, e = k, j, usual
			}
		}
	}
	switch e.(type) {
	case Slot, NewJob: // they come from the queue
		return
	}
	after, fx := Next(before, e, c.now, limits)
	switch e := e.(type) {
	case Report:
		c.dirty = c.dirty || e.Writes && before.State == Running && before.Action == box.Restore && slices.Contains(fx, Effect(Answer{GoOn}))
	case Result:
		done := e.Outcome == box.Done || e.Outcome == box.BadSectors
		if done && before.State == Running && e.Session == before.Session && before.Action == box.Restore {
			c.dirty = c.more
		}
	case Release:
		if before.State == Held {
			c.dirty = false
		}
	}
	c.jobs[i] = after
	c.all([]int{i}, [][]Effect{fx})
}

// TestJobsOfOneBox lets jobs follow each other on one box. A disk that is not
// fit to run must not run, whichever job left it so and whichever takes over.
func TestJobsOfOneBox(t *testing.T) {
	took, held := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := &chain{t: t, now: start}
		c.add()
		for range 80 {
			c.now = c.now.Add(drawPause(t))
			switch rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 1, 2, 2}).Draw(t, "what") {
			case 1:
				c.add()
			case 2:
				c.give()
			default:
				c.event()
			}
			if c.dirty && c.file == nil {
				t.Fatal("the box starts from a disk that is not fit to run")
			}
			active := 0
			for _, j := range c.jobs {
				switch j.State {
				case Held:
					held++
				case Armed, Running, Restarting, Rescue:
					active++
				}
			}
			if active > 1 {
				t.Fatalf("%d jobs of one box are at work", active)
			}
		}
		for _, j := range c.jobs {
			if j.TookOver {
				took++
			}
		}
	})
	if took == 0 {
		t.Errorf("no job took over, in %d rounds with a held box", held)
	}
}

package job

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
	"testbox-imaging/internal/box"
)

// drawOrder draws what a job is asked for.
func drawOrder(t *rapid.T) Order {
	var until time.Time
	if rapid.IntRange(0, 3).Draw(t, "must begin in time") == 0 {
		until = start.Add(time.Duration(rapid.IntRange(0, 180).Draw(t, "until")) * time.Minute)
	}
	return Order{ID: "1", Box: here, By: "ann", Arming: "0123456789abcdef", Until: until,
		Action: rapid.SampledFrom(append([]box.Action{box.Restore, box.Restore, box.Restore}, box.Actions...)).Draw(t, "action"),
		WaitUp: rapid.Bool().Draw(t, "wait"), Power: rapid.Bool().Draw(t, "power")}
}

// drawEvent draws something that can happen to a job. Most of it makes sense in
// the job's state, so that all states are reached; the rest is whatever hostile
// or confused callers can think of.
func drawEvent(t *rapid.T, j Job, now time.Time) Event {
	session := func() Session {
		if rapid.IntRange(0, 4).Draw(t, "whose session") > 0 {
			return j.Session
		}
		return Session{rapid.ByteRange(0, 5).Draw(t, "session")}
	}
	hello := func() Event {
		e := Hello{From: here, Protocol: limits.Protocol, Session: Session{rapid.ByteRange(1, 200).Draw(t, "new session")}}
		e.Secret = seed.Secret(j.Secrets + rapid.SampledFrom([]int{1, 1, 1, 1, 1, 0, -1, 2}).Draw(t, "which secret"))
		switch rapid.IntRange(0, 19).Draw(t, "what is odd") {
		case 0:
			e.From = there
		case 1:
			e.Protocol--
		case 2:
			e.Stranger = "Its UUID is another one."
		case 3:
			e.Session = j.Session
		case 4:
			e.Secret = Seed{7}.Secret(j.Secrets + 1)
		}
		return e
	}
	outcomes := append(box.Outcomes(), Cancelled, "finished", box.Failed, box.Failed)
	if j.Action == box.Rescue {
		outcomes = append(outcomes, slices.Repeat([]box.Outcome{box.Rescuing}, len(outcomes))...)
	}
	at := now.Add(time.Duration(rapid.IntRange(-90, 5).Draw(t, "when")) * time.Second)
	step := j.Step - rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "how old")
	switch n := rapid.IntRange(0, 27).Draw(t, "event"); {
	case n == 0 || n < 6 && j.State == Queued:
		return Slot{TakesOver: rapid.IntRange(0, 4).Draw(t, "takes over") == 0, AllDisks: rapid.Bool().Draw(t, "all disks")}
	case n < 6:
		return Tick{}
	case n < 11:
		return hello()
	case n < 15:
		return Report{Session: session(), Writes: rapid.Bool().Draw(t, "writes")}
	case n < 19:
		return Result{Session: session(), Outcome: rapid.SampledFrom(outcomes).Draw(t, "outcome"),
			Class: rapid.SampledFrom([]Class{"", ClassImage, ClassBox, "odd"}).Draw(t, "class"), Text: "So it was."}
	case n == 19:
		return Cancel{"ann"}
	case n == 20:
		return Release{"ann"}
	case n == 21:
		return Finish{"ann"}
	case n == 22:
		return NewJob{"2"}
	case n < 25:
		return DefaultAsked{at}
	case n == 25:
		return Probed{at}
	case n == 26:
		return PowerFailed{step, "no route"}
	}
	return ArmFailed{step, "disk full"}
}

func drawPause(t *rapid.T) time.Duration {
	pauses := []time.Duration{time.Second, time.Second, time.Second, time.Minute, 6 * time.Minute, 31 * time.Minute}
	return rapid.SampledFrom(pauses).Draw(t, "pause")
}

// memory is what a test knows of a job without asking it.
type memory struct {
	dirty    bool // a disk must not run
	more     bool // so must a disk that the job does not restore
	released bool
	used     int // secrets that led to work
}

// learn takes what an event and its effects tell.
func (m *memory) learn(t *rapid.T, before, after Job, e Event, word Word) {
	switch e := e.(type) {
	case Slot:
		if before.State == Queued && e.TakesOver {
			m.dirty, m.more = true, !e.AllDisks
		}
	case Report:
		m.dirty = m.dirty || e.Writes && word == GoOn && before.State == Running && before.Action == box.Restore
	case Release:
		m.released = m.released || before.State == Held
	case Result:
		done := e.Outcome == box.Done || e.Outcome == box.BadSectors
		if done && before.State == Running && e.Session == before.Session && before.Action == box.Restore {
			m.dirty = m.more
		}
	case Hello:
		again := e.Session == before.Session && e.Secret == seed.Secret(m.used)
		if word != Work || again && m.used > 0 {
			break
		}
		if e.Secret != seed.Secret(before.Secrets+1) || e.From != here || e.Protocol != limits.Protocol || after.Session != e.Session {
			t.Fatalf("work is given for %#v", e)
		}
		m.used = before.Secrets + 1
	}
	_, finished := e.(Finish)
	r, told := e.(Result)
	claimed := finished && after.Outcome == box.Done || told && r.Session == before.Session && r.Outcome == after.Outcome
	if success(after.Outcome) && !success(before.Outcome) && !claimed {
		t.Fatalf("%#v makes a success of a job that was %s", e, before.State)
	}
}

// TestAnything lets anything happen to a job, and holds it to the rules that no
// sequence of events may break.
func TestAnything(t *testing.T) {
	reached := map[State]int{}
	// Some states are rare, so that one round of sequences may miss them by chance.
	for round := 0; round == 0 || round < 50 && len(reached) < len(States); round++ {
		rapid.Check(t, func(t *rapid.T) {
			for range 20 {
				anything(t, reached)
			}
		})
	}
	for _, s := range States {
		if reached[s] == 0 {
			t.Errorf("no sequence came to the state %s", s)
		}
	}
}

// anything plays one job. The box does what the effects lead it to.
func anything(t *rapid.T, reached map[State]int) {
	j, s, now := New(drawOrder(t), seed, start), newSite(), start
	var m memory
	for range rapid.IntRange(0, 40).Draw(t, "how many events") {
		now = now.Add(drawPause(t))
		e := drawEvent(t, j, now)
		k, fx := Next(j, e, now, limits)
		s.word = ""
		for _, f := range fx {
			if a, is := f.(Answer); is {
				s.word = a.Word
			}
		}
		m.learn(t, j, k, e, s.word)
		for _, f := range fx {
			if _, is := f.(RemoveBootFile); is && m.dirty && !m.released {
				t.Fatalf("%s, %#v: the box may start from a disk that is not fit to run", j.State, e)
			}
			s.do(k, f)
			goes := k.State == Queued || k.State == Restarting || k.State == Ended && k.Bootable()
			if len(s.sessions) > 1 {
				t.Fatalf("%s, %#v: there are %d sessions", j.State, e, len(s.sessions))
			} else if a, is := f.(Answer); is && a.Word != Refuse && k.Attempt > 0 && goes != (s.file == nil) {
				t.Fatalf("%s, %#v: the box is told to %s, and that it starts its own disk is %v", j.State, e, a.Word, s.file == nil)
			}
		}
		switch {
		case j.State == Ended && k != j:
			t.Fatalf("%#v changes a job that has ended to %s", e, k.State)
		case m.dirty && !m.released && k.Attempt > 0 && s.file == nil:
			t.Fatalf("%s, %#v: the box starts from a disk that is not fit to run", j.State, e)
		case k.Attempt > limits.Attempts:
			t.Fatalf("%s, %#v: attempt %d", j.State, e, k.Attempt)
		case k.State == Held != (m.dirty && !m.released && k.Outcome != "" && k.State != Ended):
			t.Fatalf("%s, %#v: %s with outcome %q, and that a disk is not fit to run is %v", j.State, e, k.State, k.Outcome, m.dirty)
		case (k.State == Running || k.State == Rescue) != (len(s.sessions) == 1):
			t.Fatalf("%s, %#v: %s with %d sessions", j.State, e, k.State, len(s.sessions))
		case (k.State == Ended) != (k.Up != "") || k.State == Ended && (k.Outcome == "" || k.Seed != Seed{}):
			t.Fatalf("%s, %#v: %s with up %q, outcome %q", j.State, e, k.State, k.Up, k.Outcome)
		}
		due := k.Due(limits)
		before := due.Add(-time.Nanosecond)
		if due.IsZero() {
			before = now.Add(1000 * time.Hour)
		}
		if early, _ := Next(k, Tick{}, before, limits); early != k && !k.Since.After(before) {
			t.Fatalf("%s: a tick before the time is due changes it to %s", k.State, early.State)
		}
		if late, _ := Next(k, Tick{}, due, limits); !due.IsZero() && late == k {
			t.Fatalf("%s: a tick at the time that is due changes nothing", k.State)
		}
		reached[k.State]++
		j, _ = Next(k, Settled{k.Step, now.Add(time.Millisecond)}, now, limits)
	}
	comesToAnEnd(t, j, now)
}

// comesToAnEnd lets time pass, and an admin decide where that is needed.
func comesToAnEnd(t *rapid.T, j Job, now time.Time) {
	for range 4*limits.Attempts + 4 {
		switch j.State {
		case Queued:
			j, _ = Next(j, Cancel{"ann"}, now, limits)
		case Held:
			j, _ = Next(j, Release{"ann"}, now, limits)
		case Rescue:
			j, _ = Next(j, Finish{"ann"}, now, limits)
		case Ended:
			return
		default:
			if due := j.Due(limits); due.After(now) {
				now = due
			}
			j, _ = Next(j, Tick{}, now, limits)
		}
	}
	t.Fatalf("the job is still %s", j.State)
}

// TestCrashAnywhere plays the same events twice. The second time the server dies
// after some of the changes, before it has carried out all effects. Agents that
// got no answer ask again. Both times all must come to the same.
func TestCrashAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j, s, now := New(drawOrder(t), seed, start), newSite(), start
		c, cs := j, newSite()
		settle := func(j Job) Job {
			j, fx := Next(j, Settled{j.Step, now.Add(time.Millisecond)}, now, limits)
			for _, f := range fx {
				s.do(j, f)
				cs.do(j, f)
			}
			return j
		}
		for range rapid.IntRange(0, 30).Draw(t, "how many events") {
			now = now.Add(drawPause(t))
			e := drawEvent(t, j, now)
			next, fx := Next(j, e, now, limits)
			s.word, cs.word = "", ""
			for _, f := range fx {
				s.do(next, f)
			}
			c, fx = Next(c, e, now, limits)
			crash := rapid.IntRange(0, len(fx)+2).Draw(t, "effects before the crash") // more than there are: it lives
			for _, f := range fx[:min(crash, len(fx))] {
				cs.do(c, f)
			}
			if crash < len(fx) {
				heard, deadline := c.Heard, c.Deadline
				c, fx = Resume(c, now, limits)
				c.Heard, c.Deadline = heard, deadline // how long it was away is another matter
				for _, f := range fx {
					cs.do(c, f)
				}
				switch e.(type) {
				case Hello, Report, Result:
					c, fx = Next(c, e, now, limits)
					for _, f := range fx {
						cs.do(c, f)
					}
				}
			}
			j, c = settle(next), settle(c)
			same := (s.file == nil) == (cs.file == nil) && (s.file == nil || *s.file == *cs.file) && s.word == cs.word &&
				len(s.sessions) == len(cs.sessions) && s.probes == cs.probes && len(s.notified) == len(cs.notified) &&
				s.cycles <= cs.cycles && s.alarms <= cs.alarms
			for session := range s.sessions {
				same = same && cs.sessions[session]
			}
			if j != c || !same {
				t.Fatalf("%#v: without a crash\n%+v %+v\nwith one after %d effects\n%+v %+v", e, j, s, crash, c, cs)
			}
		}
	})
}

package job

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
)

// play is a job to which things happen one after the other. Every effect is
// carried out on a box, so that tests can ask what the box would do.
type play struct {
	t   testing.TB
	job Job
	now time.Time
	fx  []Effect
	*site
}

// site is what effects change.
type site struct {
	file     *WriteBootFile // nil if the box would start its own disk
	sessions map[Session]bool
	cycles   int
	alarms   int
	probes   bool
	notified map[int]bool
	word     Word // the last answer
}

func newSite() *site { return &site{sessions: map[Session]bool{}, notified: map[int]bool{}} }

// do carries out one effect of a job.
func (s *site) do(j Job, e Effect) {
	switch e := e.(type) {
	case OnlySession:
		for other := range s.sessions {
			if other != e.Session {
				delete(s.sessions, other)
			}
		}
	case WriteBootFile:
		s.file = &e
	case RemoveBootFile:
		if s.file != nil && s.file.Arming == e.Arming {
			s.file = nil
		}
	case PowerCycle:
		s.cycles++
	case Alarm:
		s.alarms++
	case Probe:
		s.probes = true
	case Notify:
		s.notified[e.Step] = true
	case Answer:
		if s.word = e.Word; e.Word == Work {
			s.sessions[j.Session] = true
		}
	}
}

func newPlay(t testing.TB, a box.Action, change ...func(*Order)) *play {
	o := Order{ID: "1", Box: here, Action: a, By: "ann", Power: true, Arming: "0123456789abcdef"}
	for _, c := range change {
		c(&o)
	}
	return &play{t: t, job: New(o, seed, start), now: start, site: newSite()}
}

// happens lets something happen, and carries out all effects.
func (p *play) happens(e Event) *play {
	p.t.Helper()
	p.word = ""
	p.job, p.fx = Next(p.job, e, p.now, limits)
	for _, fx := range p.fx {
		p.do(p.job, fx)
	}
	p.job, _ = Next(p.job, Settled{p.job.Step, p.now.Add(time.Millisecond)}, p.now, limits)
	return p
}

func (p *play) after(d time.Duration) *play { p.now = p.now.Add(d); return p }

// boots lets the box start, from whatever it has for a boot file, with an agent
// that draws the session s.
func (p *play) boots(s byte) *play {
	p.t.Helper()
	if p.file == nil {
		p.t.Fatalf("the box starts its own disk, while the job is %s", p.job.State)
	}
	return p.after(time.Second).happens(Hello{Secret: p.file.Secret, From: here, Session: Session{s}, Protocol: limits.Protocol})
}

func (p *play) says(s byte, o box.Outcome) *play {
	p.t.Helper()
	return p.after(time.Second).happens(Result{Session: Session{s}, Outcome: o, Class: ClassImage, Text: "So it was."})
}

func (p *play) writes(s byte) *play {
	p.t.Helper()
	return p.after(time.Second).happens(Report{Session: Session{s}, Writes: true})
}

// is compares where the job stands. word is the answer to an agent, or "".
func (p *play) is(s State, attempt int, o box.Outcome, word Word) *play {
	p.t.Helper()
	if p.job.State != s || p.job.Attempt != attempt || p.job.Outcome != o || p.word != word {
		p.t.Fatalf("the job is %s in attempt %d with outcome %q, and the agent was told %q; %s, %d, %q, %q is wanted",
			p.job.State, p.job.Attempt, p.job.Outcome, p.word, s, attempt, o, word)
	}
	return p
}

// ownDisk says whether the box would start from its own disk now.
func (p *play) ownDisk(want bool) *play {
	p.t.Helper()
	if (p.file == nil) != want {
		p.t.Fatalf("the job is %s, and that the box starts its own disk is %v", p.job.State, !want)
	}
	return p
}

func waitUp(o *Order)  { o.WaitUp = true }
func noPower(o *Order) { o.Power = false }

func TestBackup(t *testing.T) {
	p := newPlay(t, box.Backup)
	p.happens(Slot{}).is(Armed, 1, "", "").ownDisk(false)
	p.boots(1).is(Running, 1, "", Work).ownDisk(false)
	p.says(1, box.Done).is(Ended, 1, box.Done, Restart).ownDisk(true)
	if p.job.Up != UpNotAsked || p.job.Class != "" || p.cycles != 1 || len(p.sessions) != 0 || p.job.Seed != (Seed{}) {
		t.Errorf("up is %q, class %q, %d power cycles, %d sessions", p.job.Up, p.job.Class, p.cycles, len(p.sessions))
	}
	done := p.job
	p.says(1, box.Failed).is(Ended, 1, box.Done, Restart)
	if p.job != done {
		t.Error("a second outcome changes a job that has ended")
	}
}

// An outcome that is said again gets the same answer and changes nothing, in
// whatever state the first one led to.
func TestOutcomeAgain(t *testing.T) {
	for _, o := range append(box.Outcomes(), Cancelled) {
		for _, a := range []box.Action{box.Restore, box.Verify, box.Rescue} {
			p := newPlay(t, a, waitUp).happens(Slot{}).boots(1).writes(1).says(1, o)
			was, word := p.job, p.word
			p.says(1, o)
			if was.Heard = p.job.Heard; p.job != was || p.word != word {
				t.Errorf("%s, %s: %s and %q become %s and %q", a, o, was.State, word, p.job.State, p.word)
			}
		}
	}
}

// What an agent says counts only if it belongs to its action.
func TestOutcomesBelieved(t *testing.T) {
	for _, o := range append(box.Outcomes(), Cancelled, "", "finished") {
		for _, a := range box.Actions {
			want := Armed // the next attempt
			switch {
			case o == box.Refused, o == box.Done && a != box.Rescue, o == box.Differs && a == box.Verify,
				o == box.BadSectors && a != box.Rescue && a != box.RefreshInfo:
				want = Ended
			case o == box.Rescuing && a == box.Rescue:
				want = Rescue
			}
			if p := newPlay(t, a).happens(Slot{}).boots(1).says(1, o); p.job.State != want {
				t.Errorf("%s says %q: %s", a, o, p.job.State)
			}
		}
	}
}

func TestSecretCountsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		hello Hello
		state State
		word  Word
		alarm int
	}{
		"the agent did not get its answer": {Hello{Secret: seed.Secret(1), From: here, Session: Session{1}}, Running, Work, 0},
		"somebody else has the secret":     {Hello{Secret: seed.Secret(1), From: here, Session: Session{2}}, Ended, Restart, 1},
		"and is at another address":        {Hello{Secret: seed.Secret(1), From: there, Session: Session{2}}, Running, Refuse, 1},
		"the next one, at another address": {Hello{Secret: seed.Secret(2), From: there, Session: Session{2}}, Running, Refuse, 1},
		"one that was never given out":     {Hello{Secret: seed.Secret(3), From: here, Session: Session{2}}, Running, Refuse, 0},
		"one of another job":               {Hello{Secret: Seed{9}.Secret(1), From: here, Session: Session{1}}, Running, Refuse, 0},
		"none":                             {Hello{From: here, Session: Session{1}}, Running, Refuse, 0},
	} {
		c.hello.Protocol = limits.Protocol
		p := newPlay(t, box.Backup).happens(Slot{}).boots(1).happens(c.hello)
		if p.job.State != c.state || p.word != c.word || p.alarms != c.alarm || c.state == Ended && p.job.Outcome != box.Failed {
			t.Errorf("%s: %s, %q, %d alarms", name, p.job.State, p.word, p.alarms)
		}
	}
}

// The secret of an attempt is no use in the next one.
func TestOldSecret(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{})
	old := p.file.Secret
	p.boots(1).after(limits.Silence).happens(Tick{}).is(Armed, 2, "", "")
	if p.file.Secret == old {
		t.Fatal("the second attempt has the secret of the first one")
	}
	p.happens(Hello{Secret: old, From: here, Session: Session{2}, Protocol: limits.Protocol}).is(Ended, 2, box.Failed, Restart)
	if p.alarms != 1 {
		t.Error("there is no alarm")
	}
}

func TestAttempts(t *testing.T) {
	var cycles []int
	for _, lost := range []func(p *play, s byte){
		func(p *play, s byte) { p.after(limits.Silence).happens(Tick{}) },
		func(p *play, s byte) { p.says(s, box.Failed) },
	} {
		for action, end := range map[box.Action]State{box.Backup: Ended, box.Restore: Held} {
			p := newPlay(t, action).happens(Slot{})
			for attempt := 1; attempt <= 3; attempt++ {
				p.is(Armed, attempt, "", p.word).ownDisk(false).boots(byte(attempt)).is(Running, attempt, "", Work)
				if action == box.Restore && attempt == 1 {
					p.writes(1).is(Running, 1, "", GoOn)
				}
				lost(p, byte(attempt))
			}
			p.is(end, 3, box.Failed, p.word).ownDisk(end == Ended)
			if len(p.sessions) != 0 {
				t.Error("a session goes on")
			}
			cycles = append(cycles, p.cycles)
		}
	}
	if !slices.Equal(cycles, []int{3, 3, 1, 1}) { // a box whose agent has failed restarts by itself
		t.Errorf("there are %v power cycles", cycles)
	}
	p := newPlay(t, box.Restore).happens(Slot{}).boots(1).says(1, box.Failed).boots(2).says(2, box.Failed).boots(3).says(3, box.Failed)
	p.is(Ended, 3, box.Failed, Restart).ownDisk(true) // nothing was written
}

// A box that loses power in the middle comes again by itself.
func TestPowerCut(t *testing.T) {
	p := newPlay(t, box.Restore).happens(Slot{}).boots(1).writes(1)
	p.boots(2).is(Running, 2, "", Work)
	if p.sessions[Session{1}] || !p.sessions[Session{2}] {
		t.Error("the session of before goes on")
	}
	p.happens(Report{Session: Session{1}}).is(Running, 2, "", Refuse)
	p.boots(3).is(Running, 3, "", Work).boots(4).is(Held, 3, box.Failed, Hold).ownDisk(false)
}

func TestHeld(t *testing.T) {
	held := func() *play {
		return newPlay(t, box.Restore).happens(Slot{}).boots(1).writes(1).happens(Cancel{"ann"}).says(1, Cancelled).
			is(Held, 1, Cancelled, Hold).ownDisk(false)
	}
	p := held().boots(2).is(Held, 1, Cancelled, Hold).boots(3).is(Held, 1, Cancelled, Hold)
	p.after(1000*time.Hour).happens(Tick{}).happens(Cancel{"ann"}).is(Held, 1, Cancelled, "").ownDisk(false)
	// Somebody removes the boot file by hand. The agent asks again, and it is back.
	secret := p.file.Secret
	p.file = nil
	p.happens(Hello{Secret: secret, From: here, Session: Session{4}, Protocol: limits.Protocol}).is(Held, 1, Cancelled, Hold).ownDisk(false)
	p.happens(Release{"ann"}).is(Ended, 1, Cancelled, "").ownDisk(true)

	// Another job takes over. At no time does the box start its own disk, whatever effects get lost.
	for lost := range 4 {
		for _, done := range []bool{true, false} {
			old := held()
			next := newPlay(t, box.Restore, func(o *Order) { o.ID, o.Arming = "2", "fedcba9876543210" })
			next.site, next.now = old.site, old.now
			oldFile := *old.file
			job1, fx1 := Next(old.job, NewJob{"2"}, old.now, limits)
			job2, fx2 := Next(next.job, Slot{TakesOver: true, AllDisks: true}, next.now, limits)
			all := slices.Concat(fx1, fx2)
			for _, fx := range all[:min(lost, len(all))] {
				old.do(job1, fx)
				next.ownDisk(false)
			}
			// The agent of before asks what to do, while the new boot file may not be there yet.
			old.job = job1
			old.happens(Hello{Secret: oldFile.Secret, From: here, Session: Session{7}, Protocol: limits.Protocol}).is(Ended, 1, Cancelled, Restart)
			next.ownDisk(false)
			next.job, fx2 = Resume(job2, next.now, limits)
			for _, fx := range fx2 {
				next.do(next.job, fx)
			}
			if next.file.Arming != "fedcba9876543210" {
				t.Fatal("the new job has no boot file")
			}
			if next.boots(5).is(Running, 1, "", Work); done {
				next.says(5, box.Done).is(Ended, 1, box.Done, Restart).ownDisk(true)
			} else {
				next.says(5, box.Refused).is(Held, 1, box.Refused, Hold).ownDisk(false)
			}
			old.happens(Report{Session: Session{1}}).is(Ended, 1, Cancelled, Restart)
			next.ownDisk(done)
		}
	}

	p = newPlay(t, box.Restore).happens(Slot{}).boots(1).writes(1).says(1, box.Refused).is(Held, 1, box.Refused, Hold)
	if p.alarms != 1 {
		t.Errorf("%d alarms tell that the box is held", p.alarms)
	}

	// So is a job that has another action: what it does makes no disk fit to run.
	p = newPlay(t, box.Rescue).happens(Slot{TakesOver: true}).boots(1).says(1, box.Rescuing).says(1, box.Done)
	p.is(Held, 1, box.Done, Hold).ownDisk(false)
	newPlay(t, box.Restore).happens(Slot{TakesOver: true, AllDisks: true}).happens(Cancel{"ann"}).is(Held, 1, Cancelled, "").ownDisk(false)
	// And a restore of some of the disks does not mend the others.
	newPlay(t, box.Restore).happens(Slot{TakesOver: true}).boots(1).writes(1).says(1, box.Done).is(Held, 1, box.Done, Hold).ownDisk(false)
}

func TestCancel(t *testing.T) {
	newPlay(t, box.Backup).happens(Cancel{"ann"}).is(Ended, 0, Cancelled, "").ownDisk(true)
	newPlay(t, box.Backup).happens(Slot{}).happens(Cancel{"ann"}).is(Ended, 1, Cancelled, "").ownDisk(true)

	running := func() *play { return newPlay(t, box.Restore, waitUp).happens(Slot{}).boots(1).happens(Cancel{"ann"}) }
	// Before the first write the agent is told so, and does not write.
	p := running().is(Running, 1, "", "").writes(1).is(Running, 1, "", Stop)
	p.says(1, Cancelled).is(Ended, 1, Cancelled, Restart).ownDisk(true)
	if !strings.Contains(p.job.Text, "ann") {
		t.Errorf("it is not said who cancelled: %q", p.job.Text)
	}
	// It may be done already, or fail, or vanish, or restart, or go on for ever.
	running().says(1, box.Done).is(Restarting, 1, box.Done, Restart)
	running().says(1, box.Failed).is(Ended, 1, Cancelled, Restart)
	running().boots(2).is(Ended, 1, Cancelled, Restart)
	p = running()
	for range 10 {
		if p.after(limits.Silence / 10).happens(Report{Session: Session{1}}); p.word != Stop {
			t.Fatalf("the agent is told %q", p.word)
		}
	}
	p.happens(Tick{}).is(Ended, 1, Cancelled, "").happens(Report{Session: Session{1}}).is(Ended, 1, Cancelled, Restart)
	if len(p.sessions) != 0 {
		t.Error("the session goes on")
	}
	// The wait for the box's own system can be given up.
	p = newPlay(t, box.Restore, waitUp).happens(Slot{}).boots(1).says(1, box.Done).happens(Cancel{"ann"})
	if p.is(Ended, 1, box.Done, "").ownDisk(true); p.job.Up != UpNo {
		t.Errorf("up is %q", p.job.Up)
	}
	newPlay(t, box.Rescue).happens(Slot{}).boots(1).says(1, box.Rescuing).happens(Cancel{"ann"}).is(Ended, 1, Cancelled, "").ownDisk(true)
}

func TestExpiry(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{}).after(limits.Arming/2 - time.Second).happens(Tick{})
	if p.cycles != 1 {
		t.Fatalf("%d power cycles before half of the time", p.cycles)
	}
	p.after(time.Second).happens(Tick{}).after(time.Second).happens(Tick{})
	if p.is(Armed, 1, "", "").ownDisk(false); p.cycles != 2 {
		t.Fatalf("%d power cycles after half of the time", p.cycles)
	}
	p.after(limits.Arming/2).happens(Tick{}).is(Ended, 1, box.Expired, "").ownDisk(true)

	// The time counts, and not whether somebody has looked at the clock.
	newPlay(t, box.Backup).happens(Slot{}).after(limits.Arming).boots(1).is(Ended, 1, box.Expired, Restart).ownDisk(true)

	p = newPlay(t, box.Backup, noPower).happens(Slot{}).after(limits.Arming / 2).happens(Tick{})
	if p.cycles != 0 {
		t.Error("a box without a power command gets a power cycle")
	}
	// A box that does not come back is no box that never came.
	p = newPlay(t, box.Restore).happens(Slot{}).boots(1).writes(1).says(1, box.Failed).after(limits.Arming).happens(Tick{})
	p.is(Held, 2, box.Failed, "").ownDisk(false)
}

// The file of an arming is served as often as anybody likes.
func TestServedFileIsNoEvidence(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{})
	was := p.job
	if p.happens(DefaultAsked{p.now}).happens(Probed{p.now}); p.job != was {
		t.Error("a request of a loader changes an armed job")
	}
}

func TestWaitUp(t *testing.T) {
	up := func() *play {
		return newPlay(t, box.Restore, waitUp).happens(Slot{}).boots(1).writes(1).says(1, box.Done)
	}
	p := up().is(Restarting, 1, box.Done, Restart).ownDisk(true)
	p.after(time.Second).happens(Probed{p.now}).is(Restarting, 1, box.Done, "") // the agent's kernel may have answered
	p.happens(DefaultAsked{p.job.Since}).happens(Probed{p.now.Add(time.Second)}).is(Restarting, 1, box.Done, "")
	if p.probes {
		t.Error("it is probed before it starts")
	}
	p.after(time.Minute).happens(DefaultAsked{p.now}).is(Restarting, 1, box.Done, "")
	if !p.probes {
		t.Error("it is not probed")
	}
	asked := p.now
	p.after(time.Minute).happens(Probed{asked.Add(-time.Second)}).is(Restarting, 1, box.Done, "")
	if p.happens(Probed{p.now}).is(Ended, 1, box.Done, ""); p.job.Up != UpYes {
		t.Errorf("up is %q", p.job.Up)
	}

	p = up().after(limits.Up / 2).happens(Tick{})
	if p.cycles != 2 {
		t.Errorf("%d power cycles of a box that hangs", p.cycles)
	}
	if p.after(limits.Up/2).happens(Tick{}).is(Ended, 1, box.Done, ""); p.job.Up != UpNo || p.job.Class != ClassBox {
		t.Errorf("up is %q, class %q", p.job.Up, p.job.Class)
	}
	if p = up().after(time.Minute).happens(DefaultAsked{start.Add(time.Minute)}).after(limits.Up / 2).happens(Tick{}); p.cycles != 1 {
		t.Error("a box that starts its own system gets a power cycle")
	}
	newPlay(t, box.Restore, waitUp).happens(Slot{}).boots(1).says(1, box.Refused).is(Ended, 1, box.Refused, Restart)
}

// The box can ask for its default boot file before the server has written down
// that the file of the arming is gone.
func TestDisarmedLate(t *testing.T) {
	p := newPlay(t, box.Restore, waitUp).happens(Slot{}).boots(1)
	j, _ := Next(p.job, Result{Session: Session{1}, Outcome: box.Done}, p.now, limits)
	at := func(seconds int) time.Time { return p.now.Add(time.Duration(seconds) * time.Second) }
	k, fx := Next(j, DefaultAsked{at(2)}, at(2), limits)
	if slices.Contains(fx, Effect(Probe{})) {
		t.Error("it is probed while the boot file may still be there")
	}
	late, fx := Next(k, Settled{j.Step, at(1)}, at(3), limits)
	if !late.starts() || !slices.Contains(fx, Effect(Probe{})) {
		t.Errorf("it does not count that the boot file was gone: %v", fx)
	}
	if same, _ := Next(k, Settled{j.Step, p.now}, at(3), limits); !same.starts() {
		t.Error("a disarm in the instant of the outcome does not count")
	}
	if before, _ := Next(k, Settled{j.Step - 1, at(-1)}, at(3), limits); before.starts() {
		t.Error("what was done before the outcome counts as a disarm")
	}
	if early, _ := Next(k, Settled{k.Step, at(3)}, at(3), limits); early.starts() {
		t.Error("a request from before the disarm counts")
	}
}

func TestOtherProtocol(t *testing.T) {
	old := func(p *play) *play {
		return p.happens(Hello{Secret: p.file.Secret, From: here, Session: Session{1}, Protocol: limits.Protocol - 1})
	}
	p := old(newPlay(t, box.Backup).happens(Slot{})).is(Queued, 1, "", Restart).ownDisk(true)
	p.happens(Hello{Secret: seed.Secret(1), From: here, Session: Session{1}, Protocol: limits.Protocol - 1}).is(Queued, 1, "", Restart)
	p.happens(Slot{}).is(Armed, 1, "", "").boots(2).is(Running, 1, "", Work)
	// A box with a disk that is not fit to run cannot wait with its own system.
	old(newPlay(t, box.Restore).happens(Slot{}).boots(3).writes(3).says(3, box.Failed)).is(Held, 2, box.Failed, Hold).ownDisk(false)
}

func TestStranger(t *testing.T) {
	p := newPlay(t, box.Restore).happens(Slot{})
	p.happens(Hello{Secret: p.file.Secret, From: here, Session: Session{1}, Protocol: limits.Protocol, Stranger: "Its UUID is another one."})
	p.is(Ended, 1, box.Refused, Restart).ownDisk(true)
}

func TestRescue(t *testing.T) {
	p := newPlay(t, box.Rescue).happens(Slot{}).boots(1).says(1, box.Rescuing).is(Rescue, 1, "", GoOn).ownDisk(false)
	p.after(1000*time.Hour).happens(Tick{}).is(Rescue, 1, "", "")
	for s := byte(2); s < 9; s++ { // power is lost time and again
		p.boots(s).is(Running, 1, "", Work).says(s, box.Rescuing).is(Rescue, 1, "", GoOn)
	}
	p.says(8, box.Done).is(Ended, 1, box.Done, Restart).ownDisk(true)
	p = newPlay(t, box.Rescue).happens(Slot{}).boots(1).says(1, box.Rescuing).happens(Finish{"ann"}).is(Ended, 1, box.Done, "")
	p.happens(Report{Session: Session{1}}).is(Ended, 1, box.Done, Restart).ownDisk(true)
}

func TestPowerCommand(t *testing.T) {
	p := newPlay(t, box.Backup)
	j, fx := Next(p.job, Slot{}, p.now, limits)
	write := slices.IndexFunc(fx, func(e Effect) bool { _, is := e.(WriteBootFile); return is })
	if cycle := slices.Index(fx, Effect(PowerCycle{})); write < 0 || cycle < write {
		t.Errorf("the box is started before its boot file is there: %v", fx)
	}
	if _, again := Resume(j, p.now, limits); !slices.Contains(again, Effect(PowerCycle{})) {
		t.Errorf("a crash loses the power command: %v", again)
	}
	done, _ := Next(j, Settled{j.Step, p.now}, p.now, limits)
	if _, again := Resume(done, p.now, limits); slices.Contains(again, Effect(PowerCycle{})) {
		t.Errorf("a box that boots gets a power cycle when the server is started again: %v", again)
	}
	failed, fx := Next(j, PowerFailed{j.Step, "no route"}, p.now, limits)
	if failed.State != Armed || slices.Contains(fx, Effect(PowerCycle{})) || !strings.Contains(failed.Text, "no route") {
		t.Errorf("after the power command failed the job is %s, %q, %v", failed.State, failed.Text, fx)
	}
	if same, _ := Next(failed, PowerFailed{j.Step, "again"}, p.now, limits); same != failed {
		t.Error("a failure of an earlier step counts")
	}
	newPlay(t, box.Backup).happens(Slot{}).happens(ArmFailed{1, "disk full"}).is(Ended, 1, box.Failed, "")
}

// The time in which the server was away is not the agent's silence.
func TestResumeForgivesSilence(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{}).boots(1).after(10 * limits.Silence)
	p.job, _ = Resume(p.job, p.now, limits)
	p.happens(Tick{}).is(Running, 1, "", "").happens(Report{Session: Session{1}}).is(Running, 1, "", GoOn)
}

// A box that has started while the server was away keeps its job, although the time of its
// arming is over. It is no longer waited for than that.
func TestResumeForgivesArming(t *testing.T) {
	for _, away := range []time.Duration{limits.Arming - time.Second, limits.Arming, 10 * limits.Arming} {
		p := newPlay(t, box.Backup).happens(Slot{}).after(away)
		p.job, _ = Resume(p.job, p.now, limits)
		p.happens(Tick{}).after(time.Minute).happens(Tick{}).boots(1).is(Running, 1, "", Work)

		p = newPlay(t, box.Backup).happens(Slot{}).after(away)
		p.job, _ = Resume(p.job, p.now, limits)
		p.after(afterStart).happens(Tick{}).is(Ended, 1, box.Expired, "")

		p = newPlay(t, box.Backup, func(o *Order) { o.WaitUp = true }).happens(Slot{}).boots(1).says(1, box.Done).after(away)
		p.job, _ = Resume(p.job, p.now, limits)
		p.happens(Tick{}).is(Restarting, 1, box.Done, "")
	}
	p := newPlay(t, box.Backup).happens(Slot{})
	before := p.job.Deadline
	if p.job, _ = Resume(p.job, p.now, limits); p.job.Deadline != before {
		t.Error("a job that has time has another one after a start of the server")
	}
}

// If the clock is set back, a box has as much time as it had, and what it shows afterwards
// counts.
func TestClockSetBack(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{})
	p.after(-24*time.Hour).happens(Tick{}).is(Armed, 1, "", "")
	p.after(limits.Arming).happens(Tick{}).is(Ended, 1, box.Expired, "")

	p = newPlay(t, box.Restore, func(o *Order) { o.WaitUp = true }).happens(Slot{}).boots(1).says(1, box.Done)
	p.after(-24*time.Hour).happens(Tick{}).is(Restarting, 1, box.Done, "")
	p.after(time.Second).happens(DefaultAsked{p.now}).after(time.Second).happens(Probed{p.now}).is(Ended, 1, box.Done, "")
	if p.job.Up != UpYes {
		t.Errorf("up is %q", p.job.Up)
	}
}

// Effects of a step that is over do not count for the step that is now.
func TestSettledLate(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{}).after(limits.Arming / 2)
	old := p.job.Step
	j, _ := Next(p.job, Tick{}, p.now, limits)
	j, _ = Next(j, Settled{old, p.now}, p.now, limits)
	if _, fx := Resume(j, p.now, limits); !slices.Contains(fx, Effect(PowerCycle{})) {
		t.Errorf("the second power cycle is lost: %v", fx)
	}
}

// The server can die between the outcome and the disarm. An agent that repeats
// its outcome is answered only after the boot file is gone.
func TestDisarmBeforeAnswer(t *testing.T) {
	for _, e := range []Event{Result{Session: Session{1}, Outcome: box.Done}, Report{Session: Session{1}},
		Hello{Secret: seed.Secret(2), From: here, Session: Session{2}, Protocol: limits.Protocol}} {
		for _, wait := range []bool{true, false} {
			p := newPlay(t, box.Restore, func(o *Order) { o.WaitUp = wait }).happens(Slot{}).boots(1)
			j, _ := Next(p.job, Result{Session: Session{1}, Outcome: box.Done}, p.now, limits)
			_, fx := Next(j, e, p.now, limits)
			remove := slices.Index(fx, Effect(RemoveBootFile{j.Arming}))
			if answer := slices.Index(fx, Effect(Answer{Restart})); remove < 0 || answer < remove {
				t.Errorf("%s, %#v: %v", j.State, e, fx)
			}
		}
	}
}

// Effects of a job that has ended are not repeated for ever.
func TestResumeEnded(t *testing.T) {
	p := newPlay(t, box.Backup).happens(Slot{})
	j, fx := Next(p.job, Cancel{"ann"}, p.now, limits)
	if _, again := Resume(j, p.now, limits); !slices.Equal(again, fx) || len(fx) == 0 {
		t.Errorf("after a crash the effects are %v, and %v before it", again, fx)
	}
	j, _ = Next(j, Settled{j.Step, p.now}, p.now, limits)
	if _, again := Resume(j, p.now, limits); len(again) != 0 {
		t.Errorf("a job that is over has the effects %v", again)
	}
}

// Whoever reports without a session has none, even before anybody had one.
func TestNoSession(t *testing.T) {
	p := newPlay(t, box.Restore).happens(Slot{}).happens(Report{Writes: true}).is(Armed, 1, "", Refuse)
	p.happens(Result{Outcome: box.Done}).is(Armed, 1, "", Refuse)
	p.happens(Hello{Secret: p.file.Secret, From: here, Protocol: limits.Protocol}).is(Armed, 1, "", Refuse)
}

// Everything that a job is can be written down as JSON.
func TestJSON(t *testing.T) {
	p := newPlay(t, box.Restore, waitUp).happens(Slot{TakesOver: true, AllDisks: true}).boots(1).writes(1).happens(Cancel{"ann"})
	text, err := json.Marshal(p.job)
	if err != nil {
		t.Fatal(err)
	}
	var back Job
	if err := json.Unmarshal(text, &back); err != nil || back != p.job {
		t.Errorf("%+v becomes %+v, %v", p.job, back, err)
	}
}

// TestResumeInTime: a start of the server gives a box no more time than its job has to begin.
func TestResumeInTime(t *testing.T) {
	until := start.Add(30 * time.Minute)
	o := Order{ID: "1", Box: here, Action: box.Backup, By: "schedule nightly", Power: true, Arming: "0123456789abcdef", Until: until}
	j := New(o, seed, start)
	armed, _ := Next(j, Slot{}, start, limits)
	if armed.State != Armed || !armed.Deadline.Equal(until) {
		t.Errorf("%s until %s", armed.State, armed.Deadline)
	}
	for _, later := range []time.Duration{time.Minute, 25 * time.Minute, 29 * time.Minute, time.Hour} {
		if k, _ := Resume(armed, start.Add(later), limits); !k.Deadline.Equal(until) {
			t.Errorf("after a start of the server %s later, the box has until %s", later, k.Deadline)
		}
	}
	// A slot a minute before the end leaves the box no time, which is not its fault.
	last := until.Add(-time.Minute)
	armed, _ = Next(j, Slot{}, last, limits)
	ended, _ := Next(armed, Tick{}, until, limits)
	if ended.State != Ended || ended.Outcome != box.Expired || ended.Class != ClassAdmin {
		t.Errorf("%s, %s, %s", ended.State, ended.Outcome, ended.Class)
	}
	// The next attempt of a job that has begun may be later.
	armed, _ = Next(j, Slot{}, start, limits)
	hello := Hello{Secret: seed.Secret(1), From: here, Session: first, Protocol: limits.Protocol}
	running, _ := Next(armed, hello, start.Add(time.Minute), limits)
	again, _ := Next(running, Tick{}, start.Add(time.Hour), limits)
	if again.State != Armed || again.Attempt != 2 || !again.Deadline.After(start.Add(time.Hour)) {
		t.Errorf("%s, attempt %d, until %s", again.State, again.Attempt, again.Deadline)
	}
}

// TestPowerAgainSoon: a box that is waited for over a day is switched off and on for the last time within half an hour.
// Later, somebody could be at work with it.
func TestPowerAgainSoon(t *testing.T) {
	for wait, want := range map[time.Duration]time.Duration{10 * time.Minute: 5 * time.Minute, time.Hour: 30 * time.Minute,
		24 * time.Hour: PowerAgain} {
		l := limits
		l.Arming = wait
		j, _ := Next(New(Order{ID: "1", Box: here, Action: box.Backup, Power: true}, seed, start), Slot{}, start, l)
		if due := j.Due(l).Sub(start); due != want {
			t.Errorf("in %v it is asked for after %v", wait, due)
		}
		j, fx := Next(j, Tick{}, start.Add(want), l)
		if !j.Half || !slices.Contains(fx, Effect(PowerCycle{})) || !j.Due(l).Equal(start.Add(wait)) {
			t.Errorf("in %v: %+v, %v", wait, j, fx)
		}
	}
}

// TestPowerFailedToTheEnd: a job whose box nobody restarts says at its end what was wrong with its power command.
func TestPowerFailedToTheEnd(t *testing.T) {
	j, _ := Next(New(Order{ID: "1", Box: here, Action: box.Backup, Power: true}, seed, start), Slot{}, start, limits)
	j, _ = Next(j, PowerFailed{j.Step, "The power command failed: no route."}, start, limits)
	half, _ := Next(j, Tick{}, start.Add(limits.Arming/2), limits)
	if !j.ByHand || half.ByHand || half.Text != "" || !half.Cycle {
		t.Errorf("when power is asked for again: %+v", half)
	}
	half, _ = Next(half, PowerFailed{half.Step, "The power command failed: no answer."}, start, limits)
	if end, _ := Next(half, Tick{}, start.Add(limits.Arming), limits); end.Outcome != box.Expired ||
		end.Text != "The box did not start maintenance. The power command failed: no answer." {
		t.Errorf("%+v", end)
	}
	// What an action led to stays, when the box does not come back by itself.
	j = Job{Order: Order{ID: "1", Box: here, Power: true}, State: Restarting, Step: 3, Cycle: true, Text: "Finished by ann."}
	if j, _ = Next(j, PowerFailed{3, "The power command failed: no route."}, start, limits); j.Text !=
		"Finished by ann. The power command failed: no route." {
		t.Errorf("%q", j.Text)
	}
}

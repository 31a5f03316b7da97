package dispatch

import (
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

// machine is a box that lives by itself: it starts from what it has for a boot file,
// does what it is told, and asks again whenever the server does not answer.
type machine struct {
	*rig
	addr box.Addr
	// plan says how the n-th start of the agent ends, counted from 1. nil means that
	// all goes well.
	plan func(n int) fate

	mu     sync.Mutex
	starts int  // of the agent
	dirty  bool // a disk is not fit to run
	own    int  // starts from its own disk
	stop   bool // it was switched off
	reset  chan struct{}
}

// fate is how a start of the agent ends.
type fate int

const (
	well   fate = iota
	fails       // it says so
	dies        // power is lost in the middle
	hangs       // it says nothing more until somebody switches the box off and on
	stuck       // it works until it is told to stop
	rescue      // it is up for people
)

var errStop = errors.New("the box was switched off")

// pause waits for a time. It fails if the box is switched off, or off and on.
func (m *machine) pause(d time.Duration) error {
	select {
	case <-time.After(d):
	case <-m.reset:
		return errStop
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop {
		return errStop
	}
	return nil
}

func (m *machine) live() {
	for {
		m.pause(time.Second)
		m.mu.Lock()
		stop := m.stop
		m.mu.Unlock()
		if stop {
			return
		}
		m.start()
	}
}

// start starts the box once.
func (m *machine) start() {
	f, armed := m.boots.get(m.addr)
	if armed {
		m.mu.Lock()
		m.starts++
		n := m.starts
		m.mu.Unlock()
		m.rig.mu.Lock()
		m.probes[m.addr] = false
		m.rig.mu.Unlock()
		what := well
		if m.plan != nil {
			what = m.plan(n)
		}
		m.agent(f, what)
		return
	}
	m.mu.Lock()
	m.own++
	if m.dirty {
		m.Errorf("%s starts from a disk that is not fit to run", m.addr)
	}
	m.mu.Unlock()
	for { // PXELINUX asks each time that the box starts; people restart it when it is armed
		if d := m.server(); d != nil {
			d.DefaultAsked(m.addr, time.Now())
		}
		m.pause(3 * time.Second)
		m.rig.mu.Lock()
		m.probes[m.addr] = true
		m.rig.mu.Unlock()
		for range 20 {
			if _, armed := m.boots.get(m.addr); armed || m.pause(time.Second) != nil {
				return
			}
		}
	}
}

// ask repeats a request until it is answered.
func (m *machine) ask(f func(d *Dispatch) error) error {
	for range 600 {
		d := m.server()
		if d != nil {
			if err := f(d); err == nil {
				return nil
			} else if errors.Is(err, errNoSession) {
				return err
			}
		}
		if err := m.pause(time.Second); err != nil {
			return err
		}
	}
	return errors.New("the server is away for too long")
}

func (m *machine) agent(f bootFile, what fate) {
	h := wire.Hello{Protocol: wire.Version, Box: m.addr, Arming: f.job.Arming, Secret: f.secret, Token: rand.Text()}
	from := m.addr.IP()
	for {
		var w *wire.Welcome
		if m.ask(func(d *Dispatch) (err error) { w, err = d.Hello(ctx, &h, from); return err }) != nil {
			return
		}
		switch w.Word {
		case job.Work:
			m.act(&h, w.Job, from, what)
			return
		case job.Hold:
			if m.pause(30*time.Second) != nil {
				return
			}
		case job.Refuse:
			m.Errorf("the agent of %s is refused: %s", m.addr, w.Text)
			m.pause(time.Minute)
			return
		default:
			return
		}
	}
}

// act does a job.
func (m *machine) act(h *wire.Hello, j *wire.Job, from netip.Addr, what fate) {
	n := uint64(0)
	report := func(writes bool) (word job.Word) {
		n++
		m.ask(func(d *Dispatch) error {
			told, err := d.Report(ctx, h.Token, from, &wire.Report{Number: n, Writes: writes, Step: wire.StepRead})
			if err == nil {
				word = told.Word
			}
			return err
		})
		return word
	}
	r := &wire.Result{Outcome: box.Done, Class: job.ClassImage, Text: "So it was."}
	word := report(false)
	if word == job.GoOn && j.Action == box.Restore {
		if word = report(true); word == job.GoOn {
			m.mu.Lock()
			m.dirty = true
			m.mu.Unlock()
		}
	}
	switch {
	case word != job.GoOn:
	case what == dies:
		return
	case what == hangs:
		m.pause(time.Hour)
		return
	case what == fails:
		r.Outcome = box.Failed
	case what == rescue:
		r.Outcome = box.Rescuing
	case what == stuck:
		for word == job.GoOn && m.pause(5*time.Second) == nil {
			word = report(false)
		}
	case j.Action == box.Restore:
		if j.Record == nil {
			m.Errorf("%s has no backup to restore", m.addr)
		}
		m.mu.Lock()
		m.dirty = false
		m.mu.Unlock()
		r.Receipts = receiptsOf(j.Record)
	case j.Action == box.Backup:
		if j.Committed == nil {
			m.store.add(m.addr, h.Arming, "sda")
		}
	}
	if word == job.Stop {
		r.Outcome = job.Cancelled
	}
	for {
		err := m.ask(func(d *Dispatch) error {
			told, err := d.Result(ctx, h.Token, from, r)
			if err == nil {
				word = told.Word
			}
			return err
		})
		if err != nil || word == job.Restart || word == job.Refuse {
			return
		}
		switch word {
		case job.Retry:
			m.pause(10 * time.Second)
			return
		case job.GoOn: // a rescue
			for word == job.GoOn && m.pause(5*time.Second) == nil {
				word = report(false)
			}
			return
		case job.Hold:
			m.pause(30 * time.Second)
		}
	}
}

// box starts to live.
func (r *rig) lives(a box.Addr, plan func(n int) fate) *machine {
	m := &machine{rig: r, addr: a, plan: plan, reset: make(chan struct{})}
	go m.live()
	return m
}

func (m *machine) off() {
	m.mu.Lock()
	m.stop = true
	m.mu.Unlock()
	close(m.reset)
	synctest.Wait()
}

// admin repeats what an admin asks for until the server takes or refuses it.
func (r *rig) admin(f func(d *Dispatch) error) {
	r.Helper()
	for range 600 {
		var err error
		if d := r.server(); d != nil {
			if err = f(d); err == nil || errors.As(err, new(*problem.Error)) {
				return
			}
		}
		time.Sleep(time.Second)
	}
	r.Fatal("the admin gets no answer")
}

// asks asks for a job by a key, until it is there.
func (r *rig) asks(a box.Addr, action box.Action, key string, change ...func(*Request)) (id string) {
	r.Helper()
	q := Request{Boxes: []box.Addr{a}, Action: action, By: "ann", Key: key}
	for _, c := range change {
		c(&q)
	}
	r.admin(func(d *Dispatch) error {
		all, err := d.Add(ctx, q)
		if err == nil {
			id = all[0].ID
		} else if errors.As(err, new(*problem.Error)) {
			r.Errorf("a job of %s is refused: %v", a, err)
		}
		return err
	})
	return id
}

// comes waits until a job is in a state.
func (r *rig) comes(id string, s job.State) (j Status) {
	r.Helper()
	for range 3 * 3600 {
		if d := r.server(); d != nil {
			var err error
			if j, err = d.Job(ctx, id); err == nil && j.State == s && (s != job.Ended || j.Settled) {
				return j
			}
		}
		time.Sleep(time.Second)
	}
	r.Fatalf("the job is %s (%s), and never %s\n%s", j.State, j.Text, s, r.log)
	return j
}

// story is what happens to one box, whatever becomes of the server meanwhile.
type story struct {
	name string
	tell func(r *rig, a box.Addr)
}

var stories = []story{
	{"backup", func(r *rig, a box.Addr) {
		m := r.lives(a, nil)
		defer m.off()
		j := r.comes(r.asks(a, box.Backup, "1"), job.Ended)
		if n := r.store.of(j.Arming); j.Outcome != box.Done || n != 1 || j.Backup == "" {
			r.Errorf("the backup ends as %q, and there are %d", j.Outcome, n)
		}
	}},
	{"backup that loses power", func(r *rig, a box.Addr) {
		m := r.lives(a, func(n int) fate {
			return map[int]fate{1: dies, 2: fails}[n]
		})
		defer m.off()
		j := r.comes(r.asks(a, box.Backup, "1"), job.Ended)
		if n := r.store.of(j.Arming); j.Outcome != box.Done || n != 1 {
			r.Errorf("the backup ends as %q (%s), and there are %d", j.Outcome, j.Text, n)
		}
	}},
	{"restore that shows the box up", func(r *rig, a box.Addr) {
		r.store.add(a, "", "sda")
		m := r.lives(a, nil)
		defer m.off()
		j := r.comes(r.asks(a, box.Restore, "1", waitUp), job.Ended)
		if j.Outcome != box.Done || j.Up != job.UpYes {
			r.Errorf("the restore ends as %q, up: %s", j.Outcome, j.Up)
		}
	}},
	{"restore that is held and released", func(r *rig, a box.Addr) {
		r.store.add(a, "", "sda")
		m := r.lives(a, func(n int) fate { return fails })
		defer m.off()
		id := r.asks(a, box.Restore, "1")
		r.comes(id, job.Held)
		m.mu.Lock()
		m.dirty = false // an admin has put it right
		m.mu.Unlock()
		r.admin(func(d *Dispatch) error { _, err := d.Release(ctx, a, "ann"); return err })
		j := r.comes(id, job.Ended)
		if j.Outcome != box.Failed || !j.Released {
			r.Errorf("the restore ends as %q", j.Outcome)
		}
	}},
	{"restore that is taken over", func(r *rig, a box.Addr) {
		r.store.add(a, "", "sda")
		m := r.lives(a, func(n int) fate {
			if n <= 3 {
				return fails
			}
			return well
		})
		defer m.off()
		first := r.asks(a, box.Restore, "1")
		r.comes(first, job.Held)
		second := r.asks(a, box.Restore, "2")
		j := r.comes(second, job.Ended)
		if j.Outcome != box.Done || !j.TookOver || !j.AllDisks {
			r.Errorf("the second restore ends as %q (%s)", j.Outcome, j.Text)
		}
		r.comes(first, job.Ended)
	}},
	{"restore that is silent once", func(r *rig, a box.Addr) {
		r.store.add(a, "", "sda")
		m := r.lives(a, func(n int) fate { return map[int]fate{1: hangs}[n] })
		defer m.off()
		id := r.asks(a, box.Restore, "1")
		for range 1000 { // somebody switches it off and on at last
			if d := r.server(); d != nil {
				if j, err := d.Job(ctx, id); err == nil && j.Attempt == 2 {
					break
				}
			}
			time.Sleep(time.Second)
		}
		m.reset <- struct{}{}
		if j := r.comes(id, job.Ended); j.Outcome != box.Done {
			r.Errorf("the restore ends as %q", j.Outcome)
		}
	}},
	{"restore that is cancelled", func(r *rig, a box.Addr) {
		r.store.add(a, "", "sda")
		m := r.lives(a, func(n int) fate { return stuck })
		defer m.off()
		id := r.asks(a, box.Restore, "1")
		for !r.comes(id, job.Running).Wrote {
			time.Sleep(time.Second)
		}
		r.admin(func(d *Dispatch) error { _, err := d.Cancel(ctx, id, "ann"); return err })
		j := r.comes(id, job.Held)
		if j.Outcome != job.Cancelled {
			r.Errorf("the restore is held as %q", j.Outcome)
		}
		m.mu.Lock()
		m.dirty = false
		m.mu.Unlock()
		r.admin(func(d *Dispatch) error { _, err := d.Release(ctx, a, "ann"); return err })
		r.comes(id, job.Ended)
	}},
	{"rescue", func(r *rig, a box.Addr) {
		m := r.lives(a, func(n int) fate { return rescue })
		defer m.off()
		id := r.asks(a, box.Rescue, "1")
		r.comes(id, job.Rescue)
		r.admin(func(d *Dispatch) error { _, err := d.Finish(ctx, a, "ann"); return err })
		if j := r.comes(id, job.Ended); j.Outcome != box.Done {
			r.Errorf("the rescue ends as %q", j.Outcome)
		}
	}},
}

// tells runs a story with servers that are killed as knives say, one after the other.
// It returns how many calls the first one made.
func (s story) tells(t *testing.T, l *ledger.Ledger, a box.Addr, knives ...*knife) (calls int) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, l)
		// The power command restarts nothing: a machine starts by itself when it is armed.
		r.power()
		r.start(knives[0])
		first := knives[0]
		stop := r.watch(knives[1:]...)
		defer func() {
			stop()
			if !r.k.isDead() {
				r.d.Close()
			}
			if t.Failed() {
				t.Log(r.log.String())
			}
		}()
		s.tell(r, a)
		time.Sleep(time.Minute) // the last effects
		synctest.Wait()
		calls = first.n
		if f, armed := r.boots.get(a); armed {
			t.Errorf("the box is still armed by job %s", f.job.ID)
		}
		err := r.ledger.View(ctx, func(tx *ledger.Tx) error {
			jobs, _, err := tx.Jobs(ledger.JobFilter{Box: a}, ledger.Page{})
			for _, j := range jobs {
				sessions, err := tx.Sessions(j.ID)
				if j.Ended.IsZero() || len(sessions) > 0 || err != nil {
					t.Errorf("job %s has ended: %v, and has %d sessions, %v", j.ID, !j.Ended.IsZero(), len(sessions), err)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return calls
}

// TestKilledAnywhere kills the server at each of its calls, before and after the call
// is carried out. Whatever it was about to do, the job must end as it does without a
// kill, and the box must have the boot file that it must have.
func TestKilledAnywhere(t *testing.T) {
	l, n := openLedger(t), 0
	every := testenv.Effort(9, 1)
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			n++
			calls := s.tells(t, l, boxAddr(1<<8+n), &knife{})
			if calls < 8 {
				t.Fatalf("the story has only %d calls", calls)
			}
			for at := 1; at <= calls && !t.Failed(); at++ {
				for _, after := range []bool{false, true} {
					if n++; n%every != 0 {
						continue
					}
					s.tells(t, l, boxAddr(1<<8+n), &knife{at: at, after: after})
					if t.Failed() {
						t.Fatalf("the server was killed at call %d of %d, after it: %v", at, calls, after)
					}
				}
			}
			for range 24 / every { // and the next server too
				n++
				first := &knife{at: 1 + mathrand.IntN(calls), after: n%2 == 0}
				second := &knife{at: 1 + mathrand.IntN(6), after: n%4 < 2}
				s.tells(t, l, boxAddr(1<<8+n), first, second)
				if t.Failed() {
					t.Fatalf("the servers were killed at calls %d, %v and %d, %v", first.at, first.after, second.at, second.after)
				}
			}
		})
	}
}

// TestManyBoxes lets many boxes live at once, while servers come and go.
func TestManyBoxes(t *testing.T) {
	const boxes = fewBoxes + 8
	bubble(t, func(r *rig) {
		r.cfg.Most = boxes / 2
		knives := make([]*knife, 8)
		for i := range knives {
			knives[i] = &knife{at: 20 + mathrand.IntN(60), after: i%2 == 0}
		}
		r.start(knives[0])
		stop := r.watch(knives[1:]...)
		defer stop()
		var machines []*machine
		var ids []string
		for n := range boxes {
			a := boxAddr(1<<8 + n)
			r.store.add(a, "", "sda")
			m := r.lives(a, func(k int) fate { return map[int]fate{1 + n%4: fails}[k] })
			defer m.off()
			machines = append(machines, m)
			ids = append(ids, r.asks(a, []box.Action{box.Backup, box.Restore}[n%2], "1"))
		}
		for n, id := range ids {
			j := r.comes(id, job.Ended)
			if j.Outcome != box.Done {
				t.Errorf("job %d ends as %q (%s)", n, j.Outcome, j.Text)
			}
			if made := r.store.of(j.Arming); j.Action == box.Backup && made != 1 {
				t.Errorf("job %d has made %d backups", n, made)
			}
			r.armed(machines[n].addr, false)
		}
	})
}

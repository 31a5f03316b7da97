package dispatch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/wire"
	"testbox-imaging/internal/words"
)

// These bound what admins can ask for.
const (
	maxBoxes  = 2000  // in one Add
	maxOpen   = 20000 // jobs that have not ended
	maxOfBox  = 100   // the same of one box
	maxNames  = 32    // disks that are named
	maxImage  = 100   // bytes of Options.Image
	idLetters = 8
)

// Request asks for one job for each of some boxes.
type Request struct {
	Boxes   []box.Addr
	Action  box.Action
	Options Options
	By      string // who asks
	// Key makes it safe to repeat the request. If the same person asked for a job of
	// a box with the same key, that job is returned and no other one is made. With ""
	// each request is a new one.
	Key    string
	WaitUp bool // the job ends only when the box's own system is seen
	// From, Until and Yields are those of job.Order.
	From, Until time.Time
	Yields      bool
}

// Added is a job that was asked for.
type Added struct {
	Status
	Made bool // by this call; else an earlier one with the same key has made it
}

// Status is a job as others see it. Its Seed is always zero.
type Status struct {
	job.Job
	Options Options
	// Wait says what a queued job waits for. It is nil for other jobs, and for one at
	// which the queue has not looked yet.
	Wait *job.Wait
	// Progress is the agent's last report, without its lines. It is nil if there was
	// none since the server's start.
	Progress *wire.Report
	Backup   string          // id of the backup that was made or used, as BOX@ID if it is of another box
	Receipts []image.Receipt // of the last result
	Warnings []string        // of the last result
	HostKeys []string        // of the ssh server, if the box is up for rescue; as box.HostKey.String has them
	Sent     int64           // bytes of objects that crossed the network
	Faults   []RoomFault     // what other boxes say of this one that restored the same image
	Dropped  bool            // other boxes are not told of this one any more, since it sent wrong bytes
}

// statusOf is a job by its document.
func statusOf(doc document) Status {
	s := Status{Job: doc.Job, Options: doc.Options, Backup: doc.Made, Receipts: doc.Receipts, Warnings: doc.Warnings, Sent: doc.Sent}
	s.Seed = job.Seed{}
	if doc.Job.State == job.Rescue {
		s.HostKeys = doc.HostKeys
	}
	if doc.Image != nil {
		s.Backup = doc.Image.of(doc.Job.Box)
	}
	return s
}

// status is a job in memory. The mutex is held.
func (t *task) status() Status {
	s := statusOf(t.doc)
	s.Heard, s.Wait, s.Sent = t.job.Heard, t.wait, t.sent
	s.Faults, s.Dropped = t.peers.faults(), t.peers.dropped
	if t.job.State == job.Running {
		s.Progress = t.progress
	}
	return s
}

func (d *Dispatch) statusOf(t *task) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return t.status()
}

// origin is what the audit log says of a change, beside who made it.
type origin struct{ from, why string }

type originKey struct{}

// WithWhy adds to a context what the audit log says of a change by an admin: from
// where it came (an address, or "socket"), and why.
func WithWhy(ctx context.Context, from, why string) context.Context {
	return context.WithValue(ctx, originKey{}, origin{from, why})
}

// entry makes an entry of the audit log for what an admin does.
func (d *Dispatch) entry(ctx context.Context, by, what, on, text string) ledger.Entry {
	o, _ := ctx.Value(originKey{}).(origin)
	if o.why != "" {
		text = strings.TrimPrefix(text+": "+o.why, ": ")
	}
	return ledger.Entry{Time: d.cfg.Now(), Who: by, From: o.from, What: what, On: on, Why: text}
}

// check refuses a request that makes no sense.
func (d *Dispatch) check(r Request) error {
	_, err := box.ParseAction(string(r.Action))
	if err != nil {
		return problem.Wrongf("%w", err)
	}
	backup := r.Action == box.Backup || r.Action == box.BackupAgain
	switch o := r.Options; {
	case len(r.Boxes) == 0:
		return problem.Wrongf("no box is named")
	case len(r.Boxes) > maxBoxes:
		return problem.Wrongf("one request can be for %d boxes, and not for %d; make several requests", maxBoxes, len(r.Boxes))
	case r.By == "":
		return problem.Wrongf("it is not said who asks for the job")
	case r.WaitUp && d.cfg.Probe == nil:
		return problem.Wrongf("this server has no way to find out whether a box is up; ask for the job without waiting for that")
	case len(o.Disks) > maxNames:
		return problem.Wrongf("a job can name %d disks, and not %d; put them into %s of the box", maxNames, len(o.Disks), box.DisksFile)
	case o.Image != "" && !usesImage(r.Action):
		return problem.Wrongf("a %s uses no backup, so none can be named", r.Action)
	case o.From != "" && !usesImage(r.Action):
		return problem.Wrongf("a %s uses no backup, so it uses none of another box either", r.Action)
	case o.From != "" && (!image.ValidBox(o.From) || strings.Contains(o.Image, "@")):
		return problem.Wrongf("%.100q and %.100q name no backup of one other box; with a box, give the id of its backup alone", o.From, o.Image)
	case len(o.Hooks) > 0 && r.Action != box.Restore:
		return problem.Wrongf("hooks change a restored system, and are not for a %s", r.Action)
	case len(o.Image) > maxImage:
		return problem.Wrongf("%.100q... is no backup", o.Image)
	case o.AcceptFailing && !backup:
		return problem.Wrongf("accepting a failing disk is for a backup, and not for a %s", r.Action)
	case o.AllUsed && !backup:
		return problem.Wrongf("reading all of each disk is for a backup, and not for a %s", r.Action)
	case len(o.Map) > 0 && !usesImage(r.Action):
		return problem.Wrongf("a %s writes and compares no images, so none can be mapped to a disk", r.Action)
	case o.ShrinkTable && !usesImage(r.Action):
		return problem.Wrongf("a %s writes and compares no images, so no partition table can be made to fit", r.Action)
	case len(o.Map) > maxNames:
		return problem.Wrongf("a job can map %d images, and not %d", maxNames, len(o.Map))
	case len(o.Disks) > 0 && (r.Action == box.Rescue || r.Action == box.RefreshInfo):
		return problem.Wrongf("a %s uses no disks, so none can be named", r.Action)
	}
	if _, err := match.Select(r.Options.Disks); err != nil {
		return problem.Wrongf("the disks: %w", err)
	}
	if _, err := match.ParseMap(r.Options.Map); err != nil {
		return problem.Wrongf("the map: %w", err)
	}
	if _, err := box.CheckHooks(r.Options.Hooks); err != nil {
		return problem.Wrongf("%w", err)
	}
	seen := map[box.Addr]bool{}
	for _, b := range r.Boxes {
		if b.IsZero() || seen[b] {
			return problem.Wrongf("a box has no address, or %s is named twice", b)
		}
		if b.String() == r.Options.From {
			return problem.Wrongf("%s is a box of the request, and also the one whose backup is used; leave it out of one of the two", b)
		}
		seen[b] = true
	}
	return nil
}

// Check returns an error of package problem if Add would refuse a request now.
func (d *Dispatch) Check(ctx context.Context, r Request) error {
	err := d.checkRequest(ctx, r)
	for _, addr := range r.Boxes {
		if err == nil {
			err = d.checkRoomOf(addr)
		}
	}
	return err
}

// checkRequest is Check without what does not hold for a request that was made before.
func (d *Dispatch) checkRequest(ctx context.Context, r Request) error {
	err := d.check(r)
	if err == nil {
		err = d.cfg.Boots.CheckBoxes(r.Boxes)
	}
	if err == nil {
		err = d.checkNames(ctx, r)
	}
	if err == nil {
		err = d.checkImages(ctx, r)
	}
	return err
}

// checkNames refuses to give boxes a host name that have none.
func (d *Dispatch) checkNames(ctx context.Context, r Request) error {
	if !slices.Contains(r.Options.Hooks, box.HookHostname) {
		return nil
	}
	return d.book.View(ctx, func(tx *ledger.Tx) error {
		for _, addr := range r.Boxes {
			b, err := d.boxOf(tx, addr)
			if err != nil {
				return err
			}
			if !box.ValidHost(b.Name) {
				return problem.Refusef("%s has no name, so the hook %s cannot give it one; `testbox box set %s --name NAME` does", addr,
					box.HookHostname, addr)
			}
		}
		return nil
	})
}

// Add makes the jobs that a request asks for, all of them or none. The statuses
// are in the order of the boxes.
func (d *Dispatch) Add(ctx context.Context, r Request) ([]Status, error) {
	added, err := d.AddAll(ctx, []Request{r}, nil)
	if err != nil {
		return nil, err
	}
	all := make([]Status, len(added))
	for i, a := range added {
		all[i] = a.Status
	}
	return all, nil
}

// AddAll makes the jobs that several requests ask for, all of them or none. more is made
// durable together with them; nil if nothing is. It is given the jobs in the order of the
// requests and of their boxes, as AddAll returns them.
func (d *Dispatch) AddAll(ctx context.Context, requests []Request, more func(*ledger.Tx, []Added) error) ([]Added, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.work.Done()
	for i := range requests {
		r := &requests[i]
		r.Options.Disks, r.Options.Map = slices.Clone(r.Options.Disks), slices.Clone(r.Options.Map)
		if hooks, err := box.CheckHooks(r.Options.Hooks); err == nil { // else check says why
			r.Options.Hooks = hooks
		}
		if err := d.checkRequest(ctx, *r); err != nil {
			return nil, err
		}
	}
	var docs []document
	var all []Added
	err := d.book.Update(ctx, func(tx *ledger.Tx) error {
		docs, all = nil, nil
		var fresh []box.Addr
		for _, r := range requests {
			for _, addr := range r.Boxes {
				doc, made, err := d.addJob(ctx, tx, r, addr)
				if err != nil {
					return err
				}
				docs, all = append(docs, doc), append(all, Added{statusOf(doc), made})
				if made {
					fresh = append(fresh, addr)
				}
			}
		}
		if err := d.checkRoom(fresh); err != nil || more == nil {
			return err
		}
		return more(tx, all)
	})
	if err != nil {
		return nil, err
	}
	for i, doc := range docs {
		if all[i].Made {
			d.add(doc)
			d.watching.changed(doc.Job.ID)
		}
	}
	d.Look()
	return all, nil
}

// checkImages refuses a restore or a verify for which there is no backup. A box that
// has a job already may have a backup when its turn comes.
func (d *Dispatch) checkImages(ctx context.Context, r Request) error {
	if !usesImage(r.Action) {
		return nil
	}
	for _, addr := range r.Boxes {
		if d.open(addr) > 0 {
			continue
		}
		one := r
		one.Boxes = []box.Addr{addr}
		if _, err := d.Meant(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// Meant is the backup that a job of a request would use now, which is about one box. An error of
// package problem says why there is none.
func (d *Dispatch) Meant(ctx context.Context, r Request) (*image.Record, error) {
	record, refusal, err := d.choose(ctx, r.Boxes[0], document{Options: r.Options})
	if err == nil && refusal != "" {
		err = problem.Refusef("%s", strings.TrimSuffix(refusal, "."))
	}
	return record, err
}

// open is how many jobs of a box have not ended.
func (d *Dispatch) open(addr box.Addr) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[addr]; l != nil {
		for _, t := range l.tasks {
			if t.job.State != job.Ended {
				n++
			}
		}
	}
	return n
}

// checkRoom refuses too many jobs.
func (d *Dispatch) checkRoom(fresh []box.Addr) error {
	d.mu.Lock()
	open := 0
	for t := range maps.Values(d.tasks) {
		if t.job.State != job.Ended {
			open++
		}
	}
	d.mu.Unlock()
	for _, addr := range fresh {
		if open++; open > maxOpen {
			return problem.Refusef("there would be more than %d jobs that have not ended; cancel some, or wait", maxOpen)
		}
		if err := d.checkRoomOf(addr); err != nil {
			return err
		}
	}
	return nil
}

// checkRoomOf refuses one more job of a box that has too many.
func (d *Dispatch) checkRoomOf(addr box.Addr) error {
	if n := d.open(addr); n >= maxOfBox {
		return problem.Refusef("%s has %s that have not ended; cancel some, or wait", addr, words.Count(n, "job"))
	}
	return nil
}

// addJob adds the job of one box, or returns the one that the same request made
// before.
func (d *Dispatch) addJob(ctx context.Context, tx *ledger.Tx, r Request, addr box.Addr) (doc document, fresh bool, err error) {
	if r.Key != "" {
		all, _, err := tx.Jobs(ledger.JobFilter{Box: addr, By: r.By, Key: r.Key}, ledger.Page{Limit: 1})
		if err != nil {
			return doc, false, err
		}
		if len(all) > 0 {
			if doc, err = parseDocument(all[0].Doc); err != nil {
				return doc, false, fmt.Errorf("job %s: %w", all[0].ID, err)
			}
			if doc.Job.Action != r.Action || doc.Job.WaitUp != r.WaitUp || !sameOptions(doc.Options, r.Options) {
				return doc, false, problem.Refusef("%s has asked for another job of %s with this key, which is job %s; use a new key",
					r.By, addr, doc.Job.ID)
			}
			return doc, false, nil
		}
	}
	b, err := tx.Box(addr)
	if errors.Is(err, ledger.ErrNotFound) {
		b = ledger.Box{Address: addr, Health: ledger.Good}
		err = tx.PutBox(b)
	}
	if err != nil {
		return doc, false, err
	}
	power := false
	if d.cfg.Power != nil {
		groups, err := tx.Groups()
		if err != nil {
			return doc, false, err
		}
		power = d.cfg.Power.Has(b, groups)
	}
	now := d.cfg.Now()
	order := job.Order{ID: newID(now), Box: addr, Action: r.Action, By: r.By, WaitUp: r.WaitUp, Power: power, Arming: box.NewArming(),
		From: r.From, Until: r.Until, Yields: r.Yields}
	var seed job.Seed
	rand.Read(seed[:]) // never fails, according to crypto/rand
	doc = document{Format: docFormat, Job: job.New(order, seed, now), Key: r.Key, Options: r.Options}
	if doc.Job.Asked, err = after(tx, addr, doc.Job.Asked); err != nil {
		return doc, false, err
	}
	row, err := doc.row()
	if err == nil {
		err = tx.AddJob(row)
	}
	if err == nil {
		err = tx.AddAudit(d.entry(ctx, r.By, "add a job", order.ID, fmt.Sprintf("%s of %s%s", r.Action, addr, fromText(r.Options))))
	}
	if err == nil && r.Options.From != "" { // so that the other box's history has it too
		err = tx.AddAudit(d.entry(ctx, r.By, "use a box's backup for another", r.Options.From,
			fmt.Sprintf("%s of %s, job %s", r.Action, addr, order.ID)))
	}
	return doc, true, err
}

// fromText says in the audit log what a job does beyond the box's own backup.
func fromText(o Options) (text string) {
	if o.From != "" {
		text = " from a backup of " + o.From
	}
	if len(o.Hooks) > 0 {
		text += ", with hooks " + box.JoinHooks(o.Hooks)
	}
	return text
}

// after is when a job was asked for. It is later than for all jobs that its box has, since
// that is their order in the queue and in lists, and somebody may set the clock back.
func after(tx *ledger.Tx, addr box.Addr, now time.Time) (time.Time, error) {
	last, err := tx.LastJobs([]box.Addr{addr})
	if before := last[addr].Created; err == nil && !now.After(before) {
		now = before.Add(time.Microsecond)
	}
	return now, err
}

// newID makes the id of a job. It begins with the time, for people.
func newID(now time.Time) string {
	return now.UTC().Format("20060102-150405-") + strings.ToLower(rand.Text()[:idLetters])
}

// Cancel ends a job. A running agent is told with its next report. The error is a
// refusal if the job cannot be cancelled, and matches ledger.ErrNotFound if there
// is none.
func (d *Dispatch) Cancel(ctx context.Context, id, by string) (Status, error) {
	d.mu.Lock()
	t := d.tasks[id]
	d.mu.Unlock()
	if t == nil {
		if _, err := d.Job(ctx, id); err != nil {
			return Status{}, err
		}
		return Status{}, problem.Refusef("the job has ended")
	}
	return d.order(ctx, t, job.Cancel{By: by}, by, "cancel a job", id)
}

// Release lets a held box start from its disks as they are.
func (d *Dispatch) Release(ctx context.Context, addr box.Addr, by string) (Status, error) {
	t := d.of(addr, job.Held)
	if t == nil {
		return Status{}, problem.Refusef("%s is not held", addr)
	}
	return d.order(ctx, t, job.Release{By: by}, by, "release a box", addr.String())
}

// Finish ends the rescue of a box.
func (d *Dispatch) Finish(ctx context.Context, addr box.Addr, by string) (Status, error) {
	t := d.of(addr, job.Rescue)
	if t == nil {
		return Status{}, problem.Refusef("%s is not up for rescue", addr)
	}
	return d.order(ctx, t, job.Finish{By: by}, by, "finish a rescue", addr.String())
}

// Running is how many boxes are at work on an action.
func (d *Dispatch) Running(a box.Action) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tasks {
		if t.job.State == job.Running && t.job.Action == a {
			n++
		}
	}
	return n
}

// AtWork is how many boxes are at work.
func (d *Dispatch) AtWork() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tasks {
		if t.job.State == job.Running {
			n++
		}
	}
	return n
}

// of returns the job of a box that is in a state, or nil.
func (d *Dispatch) of(addr box.Addr, s job.State) *task {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[addr]; l != nil {
		for _, t := range l.tasks {
			if t.job.State == s {
				return t
			}
		}
	}
	return nil
}

// order carries out what an admin asks of a job. It is durable on return. What cannot
// be done then, such as a boot file, is tried again.
func (d *Dispatch) order(ctx context.Context, t *task, e job.Event, by, what, on string) (Status, error) {
	if by == "" {
		return Status{}, problem.Wrongf("it is not said who asks for this")
	}
	done, err := d.turn(ctx, t)
	if err != nil {
		return Status{}, err
	}
	defer done()
	m := d.happens(t, e)
	if why := m.ignored(); why != "" {
		return Status{}, problem.Refusef("%s", why)
	}
	entry := d.entry(ctx, by, what, on, "")
	m.more = func(tx *ledger.Tx) error { return tx.AddAudit(entry) }
	if err := d.commit(m); err != nil {
		return Status{}, err
	}
	d.carry(m) // what fails is noted
	return d.statusOf(t), nil
}

// Job returns a job. The error matches ledger.ErrNotFound if there is none.
func (d *Dispatch) Job(ctx context.Context, id string) (s Status, err error) {
	d.mu.Lock()
	if t := d.tasks[id]; t != nil && !(t.job.State == job.Ended && t.job.Settled) {
		defer d.mu.Unlock()
		return t.status(), nil
	}
	d.mu.Unlock()
	err = d.book.View(ctx, func(tx *ledger.Tx) error {
		row, err := tx.Job(id)
		if err != nil {
			return err
		}
		s, err = d.statusOfRow(row)
		return err
	})
	return s, err
}

// statusOfRow is a job by the ledger, and by what is known of it in memory.
func (d *Dispatch) statusOfRow(row ledger.Job) (Status, error) {
	doc, err := parseDocument(row.Doc)
	if err != nil {
		return Status{}, fmt.Errorf("job %s: %w", row.ID, err)
	}
	s := statusOf(doc)
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[row.ID]; t != nil && t.job.Step == s.Step && t.job.State != job.Ended {
		s = t.status()
	}
	return s, nil
}

// Jobs lists jobs, the latest first. If next is not "", there is another page. A job
// that has ended counts as open until its last effects were carried out.
func (d *Dispatch) Jobs(ctx context.Context, f ledger.JobFilter, p ledger.Page) (all []Status, next string, err error) {
	if len(f.States) > 0 && !slices.Contains(f.States, string(job.Ended)) {
		f.Open = true // of them the ledger has an index, and all others have ended
	}
	err = d.book.View(ctx, func(tx *ledger.Tx) error {
		var rows []ledger.Job
		if rows, next, err = tx.Jobs(f, p); err != nil {
			return err
		}
		all = make([]Status, len(rows))
		for i, row := range rows {
			if all[i], err = d.statusOfRow(row); err != nil {
				return err
			}
		}
		return nil
	})
	return all, next, err
}

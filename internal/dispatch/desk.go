package dispatch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/wire"
)

var (
	_ boxapi.Authority = (*Dispatch)(nil)
	_ boxapi.Desk      = (*Dispatch)(nil)
)

// errNoSession is for a token that the server does not know, or that came from
// another address.
var errNoSession = fmt.Errorf("there is no such session: %w", fs.ErrNotExist)

// sessionOf is what the server keeps of a token.
func sessionOf(token string) job.Session { return sha256.Sum256([]byte(token)) }

// addrOf is the box that has an address, or no box.
func addrOf(from netip.Addr) box.Addr {
	a, err := box.ParseAddr(from.Unmap().String())
	if err != nil {
		return box.Addr{}
	}
	return a
}

// known returns the job of a token. The session may have ended.
func (d *Dispatch) known(token string, from netip.Addr) (*task, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	h := d.session[sessionOf(token)]
	if h == nil || addrOf(from) != h.t.job.Box {
		return nil, errNoSession
	}
	if working(h.t.job) != (job.Session{}) {
		h.token = token // it is not known after a restart of the server
	}
	return h.t, nil
}

// ofAnother reports whether a token has or had a session of another job. With two
// jobs for one token, nobody could say what it may do.
func (d *Dispatch) ofAnother(t *task, token string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.session[sessionOf(token)]
	return h != nil && h.t != t
}

// Grant implements boxapi.Authority. It looks at nothing but memory.
func (d *Dispatch) Grant(_ context.Context, token string, from netip.Addr) (boxapi.Grant, error) {
	t, err := d.known(token, from)
	if err != nil {
		return boxapi.Grant{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	j := t.job
	if j.State != job.Running || j.Session != sessionOf(token) {
		return boxapi.Grant{}, errNoSession
	}
	g := boxapi.Grant{Box: j.Box.String(), Job: j.ID, Arming: j.Arming, Backup: j.Action == box.Backup || j.Action == box.BackupAgain}
	if g.Backup {
		g.Add = d.withFirmware(j)
	}
	if use := t.doc.Image; use != nil && usesImage(j.Action) {
		g.MayRead = func(box, id, _ string) bool { return box == use.Box && id == use.ID }
	}
	return g, nil
}

// BoxOf says which box has a session with this token now, and for which action.
func (d *Dispatch) BoxOf(token string) (of box.Addr, action box.Action, at bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.session[sessionOf(token)]
	if h == nil || h.t.job.State != job.Running || h.t.job.Session != sessionOf(token) {
		return of, "", false
	}
	return h.t.job.Box, h.t.job.Action, true
}

// usesImage reports whether an action reads a backup.
func usesImage(a box.Action) bool { return a == box.Restore || a == box.Verify }

// request takes the lane of a session's job for one request of the agent.
func (d *Dispatch) request(ctx context.Context, token string, from netip.Addr) (t *task, done func(), err error) {
	t, err = d.known(token, from)
	if err != nil {
		return nil, nil, err
	}
	done, err = d.turn(ctx, t)
	return t, done, err
}

// turn takes the lane of a job for a call from outside.
func (d *Dispatch) turn(ctx context.Context, t *task) (done func(), err error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, laneTime, errBoxBusy)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	if err := t.lane.lock(ctx); err != nil {
		d.work.Done()
		return nil, err
	}
	return func() {
		t.lane.unlock()
		d.work.Done()
	}, nil
}

// Report takes a sign of life of an agent. It is written into the ledger only if it
// says more than that. The lines go into the box's log when all else of the report
// was done. A report that is repeated after a restart of the server may write its
// lines twice, since its number is known in memory only.
func (d *Dispatch) Report(ctx context.Context, token string, from netip.Addr, r *wire.Report) (*wire.Told, error) {
	t, done, err := d.request(ctx, token, from)
	if err != nil {
		return nil, err
	}
	defer done()
	session := sessionOf(token)
	live := working(t.job) == session
	word, err := d.take(d.happens(t, job.Report{Session: session, Writes: r.Writes}))
	if err != nil {
		return nil, err
	}
	if live && t.job.Session == session && r.Number > t.number {
		t.number = r.Number
		d.openLog(t, "")
		t.log.write(r.Lines)
		progress := *r
		progress.Lines = nil
		d.mu.Lock()
		t.progress = &progress
		d.mu.Unlock()
		d.hearDeaf(t, r.Room)
		d.watching.changed(t.job.ID)
	}
	return &wire.Told{Word: word, Time: d.cfg.Now().UTC()}, nil
}

// Inventory stores a file of the inventory of a box durably.
func (d *Dispatch) Inventory(ctx context.Context, token string, from netip.Addr, name string, data []byte) error {
	t, done, err := d.request(ctx, token, from)
	if err != nil {
		return err
	}
	defer done()
	switch {
	case working(t.job) != sessionOf(token):
		return errNoSession
	case !wire.ValidInventory(name) || len(data) > wire.MaxInventory:
		text := fmt.Sprintf("no file of an inventory is called %.40q, or it has more than %d bytes", name, wire.MaxInventory)
		return &wire.Problem{Code: wire.CodeRefused, Text: text}
	case d.cfg.Area == nil:
		return errors.New("the server has no folders of boxes")
	}
	if name == box.FirmwareFile {
		if err := d.takeNote(t.job, data); err != nil {
			return err
		}
	}
	folder, err := d.cfg.Area.Box(t.job.Box)
	if err == nil && name == box.InfoJSON {
		if err := d.compareDisks(t.job, folder, data); err != nil {
			return err
		}
		d.keepBefore(t.job, folder, data)
	}
	if err == nil {
		err = folder.WriteFile(name, data)
	}
	if err != nil {
		// The agent goes on without an inventory. It would repeat the request for ten
		// minutes if the server only said that it is busy.
		d.log(slog.LevelError, t.job.ID, "a file of an inventory is not written", "job", t.job.ID, "file", name, "error", err)
		return &wire.Problem{Code: wire.CodeFailed, Text: wire.Clean(err.Error())}
	}
	if name == box.InfoText {
		t.informed = t.job.Session
	}
	return nil
}

// Result takes how an agent's action ended. It is durable when the agent is
// answered, and the boot file is what it must be.
func (d *Dispatch) Result(ctx context.Context, token string, from netip.Addr, r *wire.Result) (*wire.Told, error) {
	t, done, err := d.request(ctx, token, from)
	if err != nil {
		return nil, err
	}
	defer done()
	e := job.Result{Session: sessionOf(token), Outcome: r.Outcome, Class: r.Class, Text: r.Text}
	doc, counts := t.doc, working(t.job) == e.Session
	worn := "" // what is wrong with the box's disks
	if counts {
		if e, err = d.proved(ctx, t, &doc, e, r.Receipts); err != nil {
			return nil, err
		}
		var slow []string
		if doc.Slow, slow, err = d.slowDisks(ctx, t.job, e.Outcome, r.Receipts); err != nil {
			return nil, err
		}
		worn = strings.Join(slow, "; ")
		hooked, err := d.hooked(ctx, t, e.Outcome)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		peers := t.peers.warnings()
		d.mu.Unlock()
		doc.Receipts, doc.Warnings = evidence(r.Receipts, slices.Concat(slow, peers, r.Warnings, hooked))
		doc.HostKeys = r.HostKeys
		d.mu.Lock()
		doc.Sent = t.sent
		d.mu.Unlock()
	}
	m := d.happens(t, e)
	if counts {
		m.doc = &doc
	}
	if worn != "" {
		m.more = func(tx *ledger.Tx) error { return d.suspect(tx, m.next, worn) }
	}
	if err := d.commit(m); err != nil {
		return nil, err
	}
	if counts {
		d.recordLast(t)
	}
	word, err := d.carry(m)
	if err != nil {
		return nil, err
	}
	return &wire.Told{Word: word, Time: d.cfg.Now().UTC()}, nil
}

// Committed returns the backup of a box that an arming has made, or nil. It is
// boxapi.Config.Committed.
func (d *Dispatch) Committed(ctx context.Context, of string, arming box.Arming) (*image.Record, error) {
	addr, err := box.ParseAddr(of)
	if err != nil {
		return nil, err
	}
	all, err := d.cfg.Backups.Of(ctx, addr)
	if err != nil {
		return nil, err
	}
	return madeBy(all, arming), nil
}

// madeBy returns the one of these backups that an arming has made, or nil.
func madeBy(all []*image.Record, arming box.Arming) *image.Record {
	if i := slices.IndexFunc(all, func(r *image.Record) bool { return r.Arming == arming }); i >= 0 {
		return all[i]
	}
	return nil
}

// ArmedBy reports whether an arming is that of a job which has not ended, or has ended not
// long ago.
func (d *Dispatch) ArmedBy(arming box.Arming) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.armings[arming] != nil
}

// recordLast writes last-action.json into the folder of a box whose action is done.
// It is for people, so that an error keeps nothing from being done.
func (d *Dispatch) recordLast(t *task) {
	j := t.job
	if d.cfg.Area == nil || j.Outcome != box.Done && j.Outcome != box.BadSectors && j.Outcome != box.Differs {
		return
	}
	folder, err := d.cfg.Area.Box(j.Box)
	if err == nil {
		now := d.cfg.Now().UTC()
		err = folder.SetLast(sharedir.LastAction{Arming: j.Arming, Action: j.Action, Outcome: j.Outcome, Time: now, Receipts: t.doc.Receipts,
			Restored: &sharedir.Restored{Arming: j.Arming, Time: now, From: t.doc.Options.From, Hooks: t.doc.Options.Hooks}})
	}
	if err != nil {
		d.cfg.Log.Error("the record of what was done is not written", "job", j.ID, "error", err)
	}
}

// Sent counts bytes of objects that crossed the network for a session token.
func (d *Dispatch) Sent(token string, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.session[sessionOf(token)]; h != nil {
		h.t.sent += bytes
	}
}

// DefaultAsked takes note that a box asked for the default boot file. It returns
// at once.
func (d *Dispatch) DefaultAsked(addr box.Addr, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[addr]
	if l == nil {
		return
	}
	for _, t := range l.tasks {
		if t.job.State == job.Restarting {
			t.asked = at
			kick(d.clockKick)
		}
	}
}

// prepared is what a job needs to be done.
type prepared struct {
	record    *image.Record // of a restore or a verify
	image     *imageRef     // names it
	known     []*image.Record
	committed *image.Record
	list      *string // the text of disk-devices.lst
	scope     scope   // of a restore
}

// These bound what a welcome has of earlier backups.
const (
	mostKnown  = 16
	knownBytes = 8 << 20
)

// prepare finds what a job needs. refusal says why it can never be done so. An error
// means that it is not known now.
func (d *Dispatch) prepare(ctx context.Context, j job.Job, doc document) (p prepared, refusal string, err error) {
	if j.Action == box.Rescue || j.Action == box.RefreshInfo {
		return p, "", nil // they use no disks, and a broken list must not keep people from a box
	}
	if p.list, refusal, err = d.readList(j.Box); err != nil || refusal != "" {
		return p, refusal, err
	}
	switch {
	case usesImage(j.Action):
		if p.record, refusal, err = d.choose(ctx, j.Box, doc); err != nil || refusal != "" {
			return p, refusal, err
		}
		p.image = &imageRef{p.record.Box, p.record.ID}
		p.scope = scopeOf(p.record, doc.Options, p.list)
	case j.Action == box.Backup || j.Action == box.BackupAgain:
		all, err := d.cfg.Backups.Of(ctx, j.Box)
		if err != nil {
			return p, "", fmt.Errorf("list the backups of %s: %w", j.Box, err)
		}
		p.committed = madeBy(all, j.Arming)
		size := 0
		for i, r := range all {
			if size += len(r.Marshal()); i < mostKnown && size <= knownBytes {
				p.known = append(p.known, r)
			}
		}
	}
	return p, "", nil
}

// readList reads disk-devices.lst. One that cannot be used must not be taken for one
// that is not there, which means all disks.
func (d *Dispatch) readList(addr box.Addr) (text *string, refusal string, err error) {
	if d.cfg.Area == nil {
		return nil, "", nil
	}
	data, err := d.cfg.Area.Look(addr).ReadDisks()
	switch {
	case errors.Is(err, sharedir.ErrNoDisks):
		return nil, "", nil
	case err != nil:
		return nil, fmt.Sprintf("%s of this box cannot be read: %v", box.DisksFile, err), nil
	case len(data) > wire.MaxDisksFile:
		return nil, fmt.Sprintf("%s of this box has %d bytes, and may have at most %d.", box.DisksFile, len(data), wire.MaxDisksFile), nil
	}
	s := string(bytes.ToValidUTF8(data, []byte("\uFFFD"))) // what is no UTF-8 would be changed on its way, and names no disk
	return &s, "", nil
}

// choose finds the backup that a job uses. The first attempt chooses it, and all
// others use the same. Another box's backup needs Options.From, whatever machine is
// accepted.
func (d *Dispatch) choose(ctx context.Context, addr box.Addr, doc document) (r *image.Record, refusal string, err error) {
	name := doc.Options.Image
	if from := doc.Options.From; from != "" {
		name = from + "@" + name
	}
	if doc.Image != nil {
		name = doc.Image.Box + "@" + doc.Image.ID
	}
	r, err = d.cfg.Backups.Find(ctx, addr, name)
	var unfit *problem.Error
	switch {
	case errors.Is(err, fs.ErrNotExist) && doc.Image != nil:
		return nil, fmt.Sprintf("The backup %s of %s, which this job began with, was deleted.", doc.Image.ID, doc.Image.Box), nil
	case errors.Is(err, fs.ErrNotExist) && doc.Options.From != "":
		return nil, fmt.Sprintf("There is no backup %.100s of %s to use for %s.", cmp.Or(doc.Options.Image, "at all"), doc.Options.From,
			addr), nil
	case errors.Is(err, fs.ErrNotExist) && name == "":
		return nil, fmt.Sprintf("There is no backup of %s to use.", addr), nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Sprintf("There is no backup %.100q.", name), nil
	case errors.As(err, &unfit):
		return nil, fmt.Sprintf("The backup cannot be used: %v.", unfit), nil
	case err != nil:
		return nil, "", fmt.Errorf("look for the backup %s of %s: %w", name, addr, err)
	case r.Box != addr.String() && r.Box != doc.Options.From && doc.Image == nil: // else it was chosen in an earlier attempt
		return nil, fmt.Sprintf("The backup %s is of %s, and not of %s. --from %s --image %s uses it all the same.",
			r.ID, r.Box, addr, r.Box, r.ID), nil
	}
	return r, "", nil
}

// maxScoped is how many disks a backup has of which is remembered what a restore of it
// writes to.
const maxScoped = 100

// scopeOf is what a restore of a backup may write to.
func scopeOf(r *image.Record, opt Options, list *string) scope {
	s := scope{Box: r.Box, Disks: slices.Sorted(slices.Values(opt.Disks)), Map: slices.Sorted(slices.Values(opt.Map))}
	for _, disk := range r.Disks {
		s.Names = append(s.Names, disk.Name)
	}
	slices.Sort(s.Names)
	if len(s.Names) > maxScoped {
		return scope{Unknown: true}
	}
	if list != nil {
		sum := sha256.Sum256([]byte(*list))
		s.List = hex.EncodeToString(sum[:])
	}
	return s
}

// Hello takes the first word of an agent.
func (d *Dispatch) Hello(ctx context.Context, h *wire.Hello, from netip.Addr) (*wire.Welcome, error) {
	d.mu.Lock()
	t := d.armings[h.Arming]
	d.mu.Unlock()
	if t == nil || t.job.Box != h.Box {
		d.log(slog.LevelWarn, from.String(), "a box comes with an arming that the server does not know", "box", h.Box.String(),
			"arming", string(h.Arming), "from", from.String())
		return d.welcome(job.Refuse, "The server has no such job. Disarm the box, or ask for a new job."), nil
	}
	done, err := d.turn(ctx, t)
	if err != nil {
		return nil, err
	}
	defer done()
	if d.ofAnother(t, h.Token) {
		return d.welcome(job.Restart, "This token is that of another job. An agent draws a new one at each start of the box."), nil
	}
	e := job.Hello{Secret: h.Secret, From: addrOf(from), Session: sessionOf(h.Token), Protocol: h.Protocol}
	m := d.happens(t, e)
	var p prepared
	var known ledger.Box
	if m.word() == job.Work { // whoever has no secret learns nothing, and costs nothing
		if known, err = d.box(ctx, t.job); err != nil {
			return nil, err
		}
		why := stranger(known, h)
		if why != "" && !t.doc.Options.AcceptMachine {
			e.Stranger = why
			m = d.happens(t, e)
		}
		if m.word() == job.Work {
			if p, err = d.employ(ctx, m, known, h, why != ""); err != nil {
				return nil, err
			}
		}
	}
	word, err := d.take(m)
	if err != nil {
		return nil, err
	}
	if word != job.Work {
		return d.welcome(word, t.job.Text), nil
	}
	d.mu.Lock()
	if hold := d.session[e.Session]; hold != nil && hold.t == t {
		hold.token = h.Token
	}
	d.mu.Unlock()
	w := d.welcome(word, "")
	w.Job = d.errand(t, p, known)
	return w, nil
}

// log writes a line that somebody in the lab has caused, who can do so again and again. The
// next lines of this text about the same sender are left out for a while.
func (d *Dispatch) log(level slog.Level, sender, text string, args ...any) {
	if more, ok := d.spare.Take(sender + " " + text); ok {
		d.cfg.Log.Log(d.ctx, level, text+more, args...)
	}
}

func (d *Dispatch) welcome(w job.Word, text string) *wire.Welcome {
	return &wire.Welcome{Word: w, Text: text, Time: d.cfg.Now().UTC()}
}

// employ prepares the work for an agent whose hello is taken. If there can be none, it
// lets the job end as if the agent had refused it. The box's marks are learnt together
// with the first hello of a session.
func (d *Dispatch) employ(ctx context.Context, m *move, known ledger.Box, h *wire.Hello, another bool) (prepared, error) {
	t := m.t
	p, refusal, err := d.prepare(ctx, m.next, t.doc)
	if err != nil {
		return p, err
	}
	if refusal == "" && m.next.TookOver && m.next.AllDisks && !p.scope.coversAll(t.doc.Owes) {
		refusal = fmt.Sprintf("%s of this box was changed since the job began. Ask for the restore again.", box.DisksFile)
	}
	if refusal != "" {
		class := job.ClassImage
		if p.record != nil || !usesImage(m.next.Action) {
			class = job.ClassAdmin
		}
		r := job.Result{Session: m.next.Session, Outcome: box.Refused, Class: class, Text: wire.Clean(refusal)}
		m.next, m.fx = job.Next(m.next, r, d.cfg.Now(), d.cfg.Limits)
		return p, nil
	}
	if doc := t.doc; p.image != nil && (doc.Image == nil || m.next.Action == box.Restore && !slices.ContainsFunc(doc.Scopes, p.scope.equal)) {
		doc.Image = p.image
		if m.next.Action == box.Restore {
			doc.Scopes = append(slices.Clone(doc.Scopes), p.scope)
		}
		m.doc = &doc
	}
	if m.next.Session != t.job.Session {
		at := d.cfg.Now()
		m.more = func(tx *ledger.Tx) error { return teach(tx, known.Address, h, another, at) }
	}
	return p, nil
}

// errand is what an agent is to do.
func (d *Dispatch) errand(t *task, p prepared, known ledger.Box) *wire.Job {
	j := t.job
	w := &wire.Job{ID: j.ID, Action: j.Action, Attempt: j.Attempt, Host: known.Name, Selection: p.list, AllUsed: t.doc.Options.AllUsed,
		Record: p.record, Known: p.known, Committed: p.committed}
	if d.cfg.Area == nil {
		return w
	}
	folder, err := d.cfg.Area.Box(j.Box)
	if err != nil {
		d.log(slog.LevelError, j.ID, "the folder of a box cannot be used", "box", j.Box.String(), "error", err)
		return w
	}
	_, err = durable.Size(durable.OS{}, folder.Path(box.InfoText))
	w.Inventory = !errors.Is(err, fs.ErrNotExist)
	d.openLog(t, known.Name)
	if err := folder.SetNames(known.Name); err != nil && known.Name != "" {
		t.log.say(false, fmt.Sprintf("name files: %v", err))
	}
	return w
}

// Package schedule has what a server does again and again to its boxes, such as the backups
// of each night. A Plan is what the configuration says. The ledger has an Entry for each, which
// says until when its starts are settled, and whether it is paused.
//
// Look says what is due. It is pure: package calendar says when, and the caller makes the jobs,
// and makes the new Entry durable together with them. So a start is made once, and one that
// is not made is told to somebody.
package schedule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/calendar"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/words"
)

// Config is a schedule as the configuration has it.
type Config struct {
	When   string // as in package calendar
	Zone   string
	Window []string
	Spread time.Duration
	Late   time.Duration
	Action box.Action
	Boxes  []string // boxes, groups and labels, as admins name them
}

// Plan is a Config that was understood.
type Plan struct {
	Name string
	Config
	times *calendar.Schedule
}

// Actions are those that a schedule may ask for. A restore would overwrite what somebody works
// with, and a rescue would keep a box up for nobody.
var Actions = []box.Action{box.Backup, box.Verify, box.RefreshInfo}

// Max is how many schedules a server has at most.
const Max = 64

const maxWords = 200

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,49}$`)

// New understands a schedule. Errors are of package problem.
func New(name string, c Config) (*Plan, error) {
	if !nameForm.MatchString(name) {
		return nil, problem.Wrongf("%.80q cannot be the name of a schedule; use at most 50 small letters, digits, '.', '_' and '-'", name)
	}
	p := &Plan{Name: name, Config: c}
	wrong := func(format string, args ...any) error {
		return problem.Wrongf("the schedule "+name+": "+format, args...)
	}
	switch {
	case !slices.Contains(Actions, c.Action):
		return nil, wrong("its action is %.40q; write one of %q", c.Action, Actions)
	case len(c.Boxes) == 0:
		return nil, wrong(`it names no boxes; write boxes = ["group:NAME"], or addresses, names and label:NAME`)
	case len(c.Boxes) > maxWords:
		return nil, wrong("it names %d boxes and groups, and may name at most %d; make a group of them", len(c.Boxes), maxWords)
	}
	for _, word := range c.Boxes {
		if word == "" || len(word) > 253 || strings.TrimSpace(word) != word {
			return nil, wrong("%.80q names no box and no group", word)
		}
	}
	var err error
	p.times, err = calendar.Parse(calendar.Spec{Cron: c.When, Zone: c.Zone, Windows: c.Window, Spread: c.Spread, Late: c.Late})
	if err != nil {
		return nil, wrong("%w", err)
	}
	return p, nil
}

// By is who asks for the jobs of a schedule. No user has such a name.
func (p *Plan) By() string { return "schedule " + p.Name }

// Key is the idempotency key of a start.
func (p *Plan) Key(start time.Time) string {
	return start.UTC().Format(time.RFC3339) + " " + string(p.Action)
}

// StartOf is the start of which a key is. It is the zero time if that is none.
func (p *Plan) StartOf(key string) time.Time {
	text, _, _ := strings.Cut(key, " ")
	start, _ := time.Parse(time.RFC3339, text)
	return start
}

// of is the calendar of one box.
func (p *Plan) of(a box.Addr) *calendar.Schedule { return p.times.For(p.Name + "/" + a.String()) }

// Next is the next start of a box after a moment.
func (p *Plan) Next(a box.Addr, after time.Time) time.Time { return p.of(a).Next(after) }

// First is the next start after a moment, without the spread.
func (p *Plan) First(after time.Time) time.Time { return p.times.Next(after) }

// In is a moment by the clock of the schedule's zone.
func (p *Plan) In(t time.Time) time.Time { return p.times.In(t) }

// LateText says how late a job may begin.
func (p *Plan) LateText() string { return words.Duration(cmp.Or(p.Late, calendar.DefaultLate)) }

// SpreadText says over how much time the boxes begin.
func (p *Plan) SpreadText() string { return words.Duration(p.Spread) }

// Describe says in words when the next starts are.
func (p *Plan) Describe(after time.Time) string { return p.times.Describe(after, 2) }

// timing is all that decides when the starts of a plan are, and what they are of.
func (p *Plan) timing() string {
	return fmt.Sprintf("%s of %q; windows %q; spread %s; late %s; action %s", p.When, p.Zone, p.Window, p.Spread, p.Late, p.Action)
}

// Entry is what a ledger has of a schedule.
type Entry struct {
	Name string
	Last time.Time // until then all starts are settled
	State
}

// State is the part of an Entry that the ledger has as JSON. Its form is in docs/format.md.
type State struct {
	Timing string    `json:"timing,omitempty"` // of the plan to which Last belongs
	Pause  *Pause    `json:"pause,omitempty"`
	Start  time.Time `json:"start,omitzero"` // the last start of which jobs were made
	Made   int       `json:"made,omitempty"` // jobs at that look
	Missed *Note     `json:"missed,omitempty"`
	Left   *Note     `json:"left,omitempty"` // of the last look at which something was due
}

// Pause says that no starts are made.
type Pause struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"`
}

// Note is a sentence that people must be told.
type Note struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// maxNote is how many bytes a note has.
const maxNote = 4000

// NewNote makes a note, and cuts off what is too long.
func NewNote(at time.Time, text string) *Note {
	if len(text) > maxNote {
		text = strings.ToValidUTF8(text[:maxNote], "") + "..."
	}
	return &Note{at.UTC(), text}
}

// Entries reads all entries of a ledger, by their names. A state that cannot be read pauses its
// schedule, since it may have been paused.
func Entries(tx *ledger.Tx) (map[string]Entry, error) {
	rows, err := tx.Schedules()
	if err != nil {
		return nil, err
	}
	all := map[string]Entry{}
	for _, row := range rows {
		e := Entry{Name: row.Name, Last: row.LastRun}
		if err := json.Unmarshal(row.Settings, &e.State); err != nil {
			e.State = State{Pause: &Pause{By: "server", Since: row.LastRun, Why: fmt.Sprintf("what the ledger has of it cannot be read: %v", err)}}
		}
		all[e.Name] = e
	}
	return all, nil
}

// Put stores the entry of a plan.
func (p *Plan) Put(tx *ledger.Tx, e Entry) error {
	state, err := json.Marshal(e.State)
	if err != nil {
		return err
	}
	target := strings.Join(p.Boxes, " ")
	if len(target) > ledger.MaxText {
		target = strings.ToValidUTF8(target[:ledger.MaxText-3], "") + "..."
	}
	return tx.PutSchedule(ledger.Schedule{Name: p.Name, Spec: p.times.String(), Target: target, Settings: state, LastRun: e.Last})
}

// Sync brings the ledger up to the plans of the configuration. A plan that is new, or that has other
// times or another action than before, begins now. It says what it did.
func Sync(tx *ledger.Tx, plans []*Plan, now time.Time) (did []string, err error) {
	known, err := Entries(tx)
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		e, has := known[p.Name]
		delete(known, p.Name)
		switch {
		case !has:
			did = append(did, fmt.Sprintf("The schedule %s is new.", p.Name))
		case e.Timing != p.timing():
			did = append(did, fmt.Sprintf("The schedule %s has other times or another action than before.", p.Name))
		default:
			continue
		}
		e.Last, e.Timing = now, p.timing()
		if err := p.Put(tx, e); err != nil {
			return nil, err
		}
	}
	var gone []string
	for name := range known {
		gone = append(gone, name)
	}
	slices.Sort(gone)
	for _, name := range gone {
		did = append(did, fmt.Sprintf("The schedule %s is not in the configuration any more.", name))
		if err := tx.DeleteSchedule(name); err != nil {
			return nil, err
		}
	}
	return did, nil
}

// Box is a box for which a job is to be made.
type Box struct {
	Address      box.Addr
	Start, Until time.Time
}

// Left is a box, or a word of the configuration, that is due and gets no job.
type Left struct {
	What string // an address, or a word of the configuration
	Why  string
}

// Found is what a look at a schedule finds.
type Found struct {
	Due     []Box
	Left    []Left
	Missed  calendar.Missed // of all boxes together
	Missing int             // boxes that missed starts
	SetBack bool            // the clock was put back so far that starts may be made once more
	Next    time.Time       // nothing is due before it
	// Settled says that Last is to be made durable, together with the jobs.
	Settled bool
	Last    time.Time
}

// Quiet returns when the next look is needed, if nothing has become due for any box since the last
// look. It is much cheaper than Look.
func (p *Plan) Quiet(looked, now time.Time) (next time.Time, quiet bool) {
	if looked.IsZero() || now.Before(looked) {
		return time.Time{}, false
	}
	// The start of a box is at most the spread later than that of the schedule itself.
	next = p.times.Next(looked.Add(-p.Spread - time.Second))
	return next, next.After(now)
}

// Look says what is due now. last is that of the entry, boxes are those of the plan, and open
// are the jobs of this schedule that have not ended.
func (p *Plan) Look(last, now time.Time, boxes []ledger.Box, open map[box.Addr]string) Found {
	all := p.times.Due(last, now)
	f := Found{Next: all.Next, SetBack: all.SetBack, Last: all.Last, Settled: all.SetBack || last.IsZero()}
	if f.Settled || now.Before(last) {
		return f
	}
	if len(boxes) == 0 { // else a box that comes later would get what was due before
		f.Settled = !all.Start.IsZero() || all.Missed.Count > 0
		f.Missed = all.Missed
		return f
	}
	for _, b := range boxes {
		d := p.of(b.Address).Due(last, now)
		if d.Next.Before(f.Next) {
			f.Next = d.Next
		}
		if d.Missed.Count > 0 {
			f.Missing++
			f.Missed = together(f.Missed, d.Missed)
		}
		f.Settled = f.Settled || d.Missed.Count > 0 || !d.Start.IsZero()
		switch why := Unfit(b); {
		case d.Start.IsZero():
		case why != "":
			f.Left = append(f.Left, Left{b.Address.String(), why})
		case open[b.Address] != "":
			f.Left = append(f.Left, Left{b.Address.String(), fmt.Sprintf("the job %s of this schedule has not ended", open[b.Address])})
		default:
			f.Due = append(f.Due, Box{b.Address, d.Start, d.Until})
		}
	}
	return f
}

// together are the missed starts of two boxes.
func together(a, b calendar.Missed) calendar.Missed {
	if a.Count == 0 {
		return b
	}
	if b.First.Before(a.First) {
		a.First = b.First
	}
	if b.Last.After(a.Last) {
		a.Last = b.Last
	}
	a.Count, a.More = max(a.Count, b.Count), a.More || b.More
	return a
}

// Unfit says why a box gets no jobs of schedules, and "" if it does. One that is only suspect
// does, since its backup may be wanted soon.
func Unfit(b ledger.Box) string {
	unfit := map[ledger.Health]string{ledger.Bad: "it is bad", ledger.Maintenance: "it is in maintenance", ledger.Retired: "it is retired"}
	text := unfit[b.Health]
	if text != "" && b.Reason != "" {
		text += fmt.Sprintf(" (%s)", b.Reason)
	}
	return text
}

// MissedText says in a sentence what was missed, and "" if nothing was.
func (f *Found) MissedText() string {
	text := f.Missed.String()
	if text != "" && f.Missing > 1 {
		text += fmt.Sprintf(" That is so of %s.", words.Count(f.Missing, "box", "boxes"))
	}
	return text
}

// maxSaid is how many boxes that were left out are named.
const maxSaid = 20

// LeftText says in a sentence what was left out, and "" if nothing was.
func LeftText(left []Left) string {
	if len(left) == 0 {
		return ""
	}
	var parts []string
	for _, l := range left[:min(len(left), maxSaid)] {
		parts = append(parts, fmt.Sprintf("%s, since %s", l.What, strings.TrimSuffix(l.Why, ".")))
	}
	if more := len(left) - maxSaid; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return "Left out: " + strings.Join(parts, "; ") + "."
}

// ErrChanged is the error of Settle if somebody has paused or resumed the schedule meanwhile.
var ErrChanged = errors.New("the schedule was changed meanwhile")

// Settle makes what was found durable in the ledger, in the transaction that makes the jobs. before is the
// entry on which the look was based, and made is how many jobs are made.
func (p *Plan) Settle(tx *ledger.Tx, before Entry, f Found, made int, now time.Time) error {
	all, err := Entries(tx)
	if err != nil {
		return err
	}
	e, has := all[p.Name]
	if !has || !e.Last.Equal(before.Last) || (e.Pause == nil) != (before.Pause == nil) {
		return ErrChanged
	}
	e.Last, e.Left = f.Last, nil
	audit := func(what, why string) {
		if err == nil && why != "" {
			err = tx.AddAudit(ledger.Entry{Time: now, Who: p.By(), What: what, On: p.Name, Why: why})
		}
	}
	for _, b := range f.Due {
		if b.Start.After(e.Start) || f.SetBack {
			e.Start = b.Start.UTC()
		}
	}
	if len(f.Due) > 0 {
		e.Made = made
	}
	if text := f.MissedText(); text != "" {
		e.Missed = NewNote(now, text)
		audit("missed", text)
	}
	if text := LeftText(f.Left); text != "" {
		e.Left = NewNote(now, text)
		audit("leave boxes out", text)
	}
	if f.SetBack {
		audit("clock was set back", SetBackText(before.Last, now))
	}
	if err != nil {
		return err
	}
	return p.Put(tx, e)
}

// SetBackText says that the clock was put back.
func SetBackText(last, now time.Time) string {
	return fmt.Sprintf("The clock was set back from %s to %s. Starts between the two are made once more, unless they have a job already.",
		last.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
}

// SetPause pauses a schedule, or lets it go on if pause is nil. What would have been its starts while it was
// paused is not made up for.
func (p *Plan) SetPause(tx *ledger.Tx, pause *Pause, now time.Time) error {
	all, err := Entries(tx)
	if err != nil {
		return err
	}
	e, has := all[p.Name]
	switch {
	case !has:
		return problem.Refusef("the ledger does not have the schedule %s; restart the server", p.Name)
	case pause != nil && e.Pause != nil:
		return problem.Refusef("the schedule %s is paused already, by %s", p.Name, e.Pause.By)
	case pause == nil && e.Pause == nil:
		return problem.Refusef("the schedule %s is not paused", p.Name)
	case pause == nil:
		e.Last, e.Timing = now, p.timing()
	}
	e.Pause = pause
	return p.Put(tx, e)
}

// Members finds the boxes of a schedule, and says which of its words mean none. find finds the boxes of
// a word. Its errors of package problem say that there are none.
func Members(tx *ledger.Tx, p *Plan, find func(*ledger.Tx, string) ([]ledger.Box, error)) (all []ledger.Box, lost []Left, err error) {
	seen := map[box.Addr]bool{}
	for _, word := range p.Boxes {
		some, err := find(tx, word)
		var none *problem.Error
		if errors.As(err, &none) {
			lost = append(lost, Left{word, err.Error()})
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, b := range some {
			if !seen[b.Address] {
				seen[b.Address] = true
				all = append(all, b)
			}
		}
	}
	return all, lost, nil
}

package job

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
)

var write = flag.Bool("write", false, "write the tables of docs/jobs.md anew instead of comparing them")

var (
	start  = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	limits = Limits{Attempts: 3, Silence: 5 * time.Minute, Arming: time.Hour, Up: 20 * time.Minute, Protocol: 7}
	here   = addr("10.40.41.42")
	there  = addr("10.40.41.43")
	seed   = Seed{1, 2, 3}
	first  = Session{11}
	second = Session{12}
)

func addr(s string) box.Addr {
	a, err := box.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

// situation is a job in a state, with what decides about its next one.
type situation struct {
	name string // what is special in it; "" is the usual job of the state
	job  Job
}

// situations are the jobs of a state that behave in different ways. The usual
// one is a restore in its first attempt, of a box with a power command, that has
// written nothing yet.
func situations(s State) (all []situation) {
	usual := New(Order{ID: "1", Box: here, Action: box.Restore, By: "ann", Power: true, Arming: "0123456789abcdef"}, seed, start)
	usual.State, usual.Step = s, 5
	add := func(name string, changes ...func(*Job)) {
		j := usual
		for _, change := range changes {
			change(&j)
		}
		all = append(all, situation{name, j})
	}
	last := func(j *Job) { j.Attempt, j.Secrets, j.Session = 3, max(j.Secrets, 2), second }
	wrote := func(j *Job) { j.Wrote = true }
	cancelled := func(j *Job) { j.Cancel, j.Text, j.Deadline = true, "Cancelled by ann.", start.Add(limits.Silence) }
	action := func(a box.Action) func(*Job) { return func(j *Job) { j.Action = a } }
	tookOver := func(j *Job) { j.TookOver = true }
	powerless := func(j *Job) { j.Power, j.Cycle = false, false }
	waits := func(j *Job) { j.WaitUp = true }
	inTime := func(j *Job) { j.Until = start.Add(limits.Arming / 2) }
	switch s {
	case Queued:
		add("")
		add("it was armed before", func(j *Job) { j.Attempt, j.Secrets, j.Session = 1, 1, second })
		add("must begin in time", inTime)
		add("must begin in time, it was armed before", inTime, func(j *Job) { j.Attempt, j.Secrets, j.Session = 1, 1, second })
		add("no power command", powerless)
	case Armed:
		usual.Attempt, usual.Deadline, usual.Cycle = 1, start.Add(limits.Arming), true
		add("")
		later := func(j *Job) { j.Attempt, j.Secrets, j.Session = 2, 1, second }
		add("a later attempt", later)
		add("a disk was written", later, wrote)
		add("must begin in time", inTime, func(j *Job) { j.Deadline = j.Until })
		add("must begin in time, no power command", inTime, powerless, func(j *Job) { j.Deadline = j.Until })
		add("must begin in time, a later attempt", inTime, later)
		add("no power command", powerless)
	case Running:
		usual.Attempt, usual.Secrets, usual.Session, usual.Heard = 1, 1, second, start
		add("")
		add("the last attempt", last)
		add("a disk was written", wrote)
		add("the last attempt, a disk was written", last, wrote)
		add("told to stop", cancelled)
		add("told to stop, a disk was written", cancelled, wrote)
		add("--wait=up", waits)
		add("a verify", action(box.Verify))
		add("a rescue", action(box.Rescue))
		add("a verify of a held box", action(box.Verify), tookOver)
		add("a restore of some disks of a held box", tookOver)
		add("a restore of all disks of a held box", tookOver, func(j *Job) { j.AllDisks = true })
		add("no power command", powerless)
	case Restarting:
		usual.Attempt, usual.Secrets, usual.Session, usual.Wrote = 1, 1, second, true
		usual.Outcome, usual.WaitUp, usual.Deadline = box.Done, true, start.Add(limits.Up)
		add("")
		disarmed := func(j *Job) { j.Disarmed, j.Settled = start.Add(time.Second), true }
		add("disarmed", disarmed)
		add("disarmed, its own system starts", disarmed, func(j *Job) { j.Default = start.Add(30 * time.Second) })
		add("power was asked for", func(j *Job) { j.Half, j.Cycle = true, true })
		add("no power command", powerless)
	case Held:
		usual.Attempt, usual.Secrets, usual.Session, usual.Wrote = 3, 3, second, true
		usual.Outcome, usual.Class = box.Failed, ClassNetwork
		add("")
	case Rescue:
		usual.Attempt, usual.Secrets, usual.Session, usual.Action = 1, 1, second, box.Rescue
		add("")
		add("--wait=up", waits)
		add("of a held box", tookOver)
	case Ended:
		usual.Attempt, usual.Secrets, usual.Session, usual.Seed = 1, 1, second, Seed{}
		usual.Outcome, usual.Up = box.Done, UpNotAsked
		add("")
		add("another job took over", func(j *Job) { j.Wrote, j.Outcome = true, box.Failed })
	}
	return all
}

// happening is an event with its circumstances.
type happening struct {
	name string // what is special in it
	at   time.Duration
	make func(j Job) Event // nil if this cannot happen to the job
}

// kind has all happenings of one type of event.
type kind struct {
	name string
	all  []happening
}

func kinds() []kind {
	is := func(e Event) func(Job) Event { return func(Job) Event { return e } }
	soon := time.Minute
	hello := func(change func(j Job, e *Hello)) func(Job) Event {
		return func(j Job) Event {
			e := Hello{Secret: seed.Secret(j.Secrets + 1), From: here, Session: first, Protocol: limits.Protocol}
			change(j, &e)
			if e.Secret == "" {
				return nil
			}
			return e
		}
	}
	result := func(o box.Outcome) func(Job) Event {
		return func(j Job) Event {
			return Result{Session: second, Outcome: o, Class: ClassImage, Text: "The agent said so."}
		}
	}
	used := func(n int) func(j Job, e *Hello) { // n counts back from the last one
		return func(j Job, e *Hello) {
			if e.Secret = ""; j.Secrets > n {
				e.Secret = seed.Secret(j.Secrets - n)
			}
		}
	}
	return []kind{
		{"slot", []happening{
			{"the box is free", soon, is(Slot{})},
			{"the box is free, too late", 2 * time.Hour, is(Slot{})},
			{"the box is held", soon, is(Slot{TakesOver: true, AllDisks: true})},
		}},
		{"new job", []happening{{"", soon, is(NewJob{"2"})}}},
		{"cancel", []happening{{"", soon, is(Cancel{"ann"})}}},
		{"release", []happening{{"", soon, is(Release{"ann"})}}},
		{"finish", []happening{{"", soon, is(Finish{"ann"})}}},
		{"hello", []happening{
			{"unused secret", soon, hello(func(j Job, e *Hello) {})},
			{"unused secret, too late", 2 * time.Hour, hello(func(j Job, e *Hello) {})},
			{"unused secret, other protocol", soon, hello(func(j Job, e *Hello) { e.Protocol = 6 })},
			{"unused secret, another machine", soon, hello(func(j Job, e *Hello) { e.Stranger = "The UUID is another one." })},
			{"the last used secret, same session", soon, hello(func(j Job, e *Hello) { used(0)(j, e); e.Session = second })},
			{"the last used secret, other session", soon, hello(used(0))},
			{"the secret of an earlier attempt", soon, hello(used(1))},
			{"not a secret", soon, hello(func(j Job, e *Hello) { e.Secret = "1-00112233445566778899aabbccddeeff" })},
			{"a genuine secret, other address", soon, hello(func(j Job, e *Hello) { e.From = there })},
		}},
		{"report", []happening{
			{"its session", soon, is(Report{Session: second})},
			{"its session, about to write", soon, is(Report{Session: second, Writes: true})},
			{"other session", soon, is(Report{Session: first, Writes: true})},
		}},
		{"result", []happening{
			{"done", soon, result(box.Done)},
			{"done with bad sectors", soon, result(box.BadSectors)},
			{"disk and image differ", soon, result(box.Differs)},
			{"refused", soon, result(box.Refused)},
			{"failed", soon, result(box.Failed)},
			{"cancelled", soon, result(Cancelled)},
			{"expired", soon, result(box.Expired)},
			{"up for rescue", soon, result(box.Rescuing)},
			{"an unknown word", soon, result("finished")},
			{"other session", soon, is(Result{Session: first, Outcome: box.Done})},
		}},
		{"tick", []happening{
			{"a minute later", soon, is(Tick{})},
			{"half of the time is over", 0, is(Tick{})}, // see when
			{"the time is over", 0, is(Tick{Waits: "Somebody has reserved this box."})},
		}},
		{"default asked", []happening{
			{"later than the state began", soon, is(DefaultAsked{start.Add(40 * time.Second)})},
			{"before that", soon, is(DefaultAsked{start})},
		}},
		{"probed", []happening{
			{"sent after the default was asked for", soon, is(Probed{start.Add(50 * time.Second)})},
			{"sent before", soon, is(Probed{start.Add(20 * time.Second)})},
		}},
		{"power failed", []happening{
			{"of this step", soon, func(j Job) Event { return PowerFailed{j.Step, "no route"} }},
			{"of an earlier step", soon, func(j Job) Event { return PowerFailed{j.Step - 1, "no route"} }},
		}},
		{"arm failed", []happening{
			{"of this step", soon, func(j Job) Event { return ArmFailed{j.Step, "disk full"} }},
			{"of an earlier step", soon, func(j Job) Event { return ArmFailed{j.Step - 1, "disk full"} }},
		}},
		{"settled", []happening{
			{"of this step", soon, func(j Job) Event { return Settled{j.Step, start.Add(time.Second)} }},
			{"of an earlier step", soon, func(j Job) Event { return Settled{j.Step - 1, start.Add(time.Second)} }},
		}},
	}
}

// when is the time of a happening.
func (h happening) when(j Job) time.Time {
	switch {
	case h.at != 0:
		return start.Add(h.at)
	case strings.HasPrefix(h.name, "half") && !j.Deadline.IsZero():
		return start.Add(j.Deadline.Sub(start) / 2)
	case strings.HasPrefix(h.name, "half"):
		return start.Add(limits.Silence / 2)
	case !j.Deadline.IsZero():
		return j.Deadline
	case j.State == Queued && !j.Until.IsZero():
		return j.Until
	}
	return start.Add(limits.Silence)
}

// told says what a job remembers, as far as that changed within a state.
func told(j, k Job) string {
	var all []string
	say := func(yes bool, what string) {
		if yes {
			all = append(all, what)
		}
	}
	say(j.Attempt != k.Attempt && k.Attempt > 1, fmt.Sprint("attempt ", k.Attempt))
	say(j.Outcome != k.Outcome, string(k.Outcome))
	say(j.Class != k.Class && k.Class != "", "class "+string(k.Class))
	say(j.Up != k.Up && k.Up != UpNotAsked, "up: "+string(k.Up))
	if j.State == k.State && j.Attempt == k.Attempt {
		say(j.Cancel != k.Cancel, "the agent is to stop")
		say(j.Wrote != k.Wrote, "a disk was written")
		say(j.Default != k.Default, "the default was asked for")
		say(j.Disarmed != k.Disarmed, "it is disarmed")
		say(j.Half != k.Half, "half of the time is over")
		say(!j.ByHand && k.ByHand, "people must restart the box")
		say(j.Step != k.Step && j.Text != k.Text && j.Cancel == k.Cancel, "why")
		say(!j.Settled && k.Settled, "it is settled")
	}
	return strings.Join(all, ", ")
}

// cell is what the table says of an event in a situation.
type cell struct{ next, effects string }

func walk(t *testing.T, j Job, h happening, e Event) (Job, cell) {
	k, fx := Next(j, e, h.when(j), limits)
	check(t, j, k, e, fx)
	var c cell
	var names []string
	for _, f := range fx {
		names = append(names, f.String())
	}
	c.effects = strings.Join(names, "; ")
	if j.Heard = k.Heard; j == k {
		c.next = "the same"
		return k, c
	}
	c.next = string(k.State)
	if what := told(j, k); what != "" {
		c.next += " (" + what + ")"
	}
	return k, c
}

// check holds a cell to what is so in all cells.
func check(t *testing.T, j, k Job, e Event, fx []Effect) {
	t.Helper()
	count := map[string]int{}
	for _, f := range fx {
		count[reflect.TypeOf(f).Name()]++
	}
	agents := 0
	switch e.(type) {
	case Hello, Report, Result:
		agents = 1
	}
	if count["Answer"] != agents {
		t.Errorf("%s, %#v: %d answers to an agent", j.State, e, count["Answer"])
	}
	j.Heard = k.Heard
	_, settles := e.(Settled)
	switch {
	case settles && k.Step != j.Step, !settles && j != k && k.Step != j.Step+1, j == k && k.Step != j.Step:
		t.Errorf("%s, %#v: step %d leads to step %d", j.State, e, j.Step, k.Step)
	case !settles && j != k && (count["Notify"] != 1 || k.Settled || count["Ignored"] != 0):
		t.Errorf("%s, %#v: a change is not told, or counts as settled: %v", j.State, e, fx)
	case j == k && (count["Notify"]+count["PowerCycle"]+count["Suspect"]+count["Probe"] != 0 || count["Ignored"] != 1-agents):
		t.Errorf("%s, %#v: no change has the effects %v", j.State, e, fx)
	}
	for _, f := range fx {
		if i, is := f.(Ignored); is && i.Because == "" {
			t.Errorf("%s, %#v: ignored without a reason", j.State, e)
		}
	}
}

// row is a line of a state's table. Several happenings and situations can have
// the same one.
type row struct {
	cell
	happenings []string            // in their order
	situations map[string][]string // of each happening
}

// when says in words when a row is so.
func (r row) when() string {
	var lines, at []string
	merged := map[string][]string{} // happenings with the same situations
	for _, h := range r.happenings {
		key := strings.Join(r.situations[h], " / ")
		if merged[key] == nil {
			at = append(at, key)
		}
		merged[key] = append(merged[key], h)
	}
	for _, key := range at {
		line := strings.Join(merged[key], " / ")
		if key != "" {
			line = strings.TrimPrefix(line+" -- "+key, " -- ")
		}
		lines = append(lines, line)
	}
	if len(lines) > 1 && lines[0] == "" {
		lines[0] = "usually"
	}
	return strings.Join(lines, "<br>")
}

// table makes the table of a state, and adds the next states to the overview.
func table(t *testing.T, s State, overview map[string][]string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "### %s\n\n| event | when | next state | effects |\n|---|---|---|---|\n", s)
	for _, k := range kinds() {
		var rows []*row
		for _, h := range k.all {
			cells := map[string]cell{} // by situation
			for _, sit := range situations(s) {
				e := h.make(sit.job)
				if e == nil {
					continue
				}
				next, c := walk(t, sit.job, h, e)
				to := string(next.State)
				if c.next == "the same" {
					to = ""
				} else if next.State == s {
					to = "stays"
				}
				if to != "" && !slices.Contains(overview[k.name], to) {
					overview[k.name] = append(overview[k.name], to)
				}
				// What is as in the usual situation, or as in one with less that is special, is not said again.
				parts := strings.Split(sit.name, ", ")
				_, usual := cells[""]
				if cells[""] == c || usual && len(parts) > 1 && slices.ContainsFunc(parts, func(p string) bool { return cells[p] == c }) {
					continue
				}
				cells[sit.name] = c
				i := slices.IndexFunc(rows, func(r *row) bool { return r.cell == c })
				if i < 0 {
					i, rows = len(rows), append(rows, &row{c, nil, map[string][]string{}})
				}
				if r := rows[i]; r.situations[h.name] == nil {
					r.happenings = append(r.happenings, h.name)
				}
				if rows[i].situations[h.name] == nil {
					rows[i].situations[h.name] = []string{}
				}
				if sit.name != "" {
					rows[i].situations[h.name] = append(rows[i].situations[h.name], sit.name)
				}
			}
		}
		if len(rows) == 0 {
			t.Errorf("nothing is known of %s in state %s", k.name, s)
		}
		for _, r := range rows {
			fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", k.name, r.when(), r.next, r.effects)
		}
	}
	return out.String()
}

// TestTable walks all states and events, and compares what Next does with the
// tables of docs/jobs.md. `go test ./internal/job -run TestTable -write` writes
// them anew.
func TestTable(t *testing.T) {
	var states strings.Builder
	overview := map[State]map[string][]string{}
	for _, s := range States {
		overview[s] = map[string][]string{}
		states.WriteString("\n" + table(t, s, overview[s]))
	}
	var out strings.Builder
	out.WriteString("\n| event |")
	for _, s := range States {
		fmt.Fprintf(&out, " %s |", s)
	}
	out.WriteString("\n|---" + strings.Repeat("|---", len(States)) + "|\n")
	for _, k := range kinds() {
		fmt.Fprintf(&out, "| %s |", k.name)
		for _, s := range States {
			cell := strings.Join(overview[s][k.name], ", ")
			if cell == "" {
				cell = "-"
			}
			fmt.Fprintf(&out, " %s |", cell)
		}
		out.WriteString("\n")
	}
	const path, begin = "../../docs/jobs.md", "<!-- The test TestTable of package job makes the rest of this file. -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(text), begin)
	if !found {
		t.Fatalf("%s has no line %q", path, begin)
	}
	want := head + begin + out.String() + states.String()
	if *write {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not what Next does; look at the difference after `go test ./internal/job -run TestTable -write`", path)
	}
}

// TestTableHasAllEvents: no type of event is missing from the tables.
func TestTableHasAllEvents(t *testing.T) {
	src, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	if all, walked := strings.Count(string(src), ") event() "), len(kinds()); all != walked || all == 0 {
		t.Errorf("there are %d types of events, and the tables have %d", all, walked)
	}
}

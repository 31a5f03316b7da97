package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"testbox-imaging/internal/box"
)

// asked is a queued job. Jobs with a lower number were asked for earlier.
func asked(n int, b box.Addr, a box.Action) Job {
	return New(Order{ID: fmt.Sprint(n), Box: b, Action: a, By: "ann"}, seed, start.Add(time.Duration(n)*time.Second))
}

// at is a job in a state.
func at(s State, j Job) Job {
	j.State, j.Attempt = s, 1
	return j
}

func nth(n int) box.Addr { return addr(fmt.Sprintf("10.40.%d.%d", n/250, 1+n%250)) }

func ids(begin []Grant) (all []string) {
	for _, g := range begin {
		all = append(all, g.ID)
	}
	return all
}

func TestQueueReasons(t *testing.T) {
	one := asked(1, here, box.Backup)
	for name, c := range map[string]struct {
		lab    Lab
		reason Reason
		text   string // a part of it
	}{
		"nothing":                  {Lab{}, "", ""},
		"maintenance":              {Lab{Closed: "The server is in maintenance."}, ForServer, "maintenance"},
		"no maintenance system":    {Lab{Boxes: map[box.Addr]BoxFacts{here: {NoSystem: "It is being built."}}}, ForSystem, "built"},
		"window":                   {Lab{Boxes: map[box.Addr]BoxFacts{here: {Opens: start.Add(time.Hour)}}}, ForWindow, "13:00"},
		"window is open":           {Lab{Boxes: map[box.Addr]BoxFacts{here: {Opens: start}}}, "", ""},
		"holder":                   {Lab{Boxes: map[box.Addr]BoxFacts{here: {Holder: "bob"}}}, ForHolder, "bob"},
		"holder, with an end":      {Lab{Boxes: map[box.Addr]BoxFacts{here: {Holder: "bob", HeldUntil: start.Add(1)}}}, ForHolder, "bob"},
		"holder, over":             {Lab{Boxes: map[box.Addr]BoxFacts{here: {Holder: "bob", HeldUntil: start}}}, "", ""},
		"the holder's job":         {Lab{Boxes: map[box.Addr]BoxFacts{here: {Holder: "ann"}}}, "", ""},
		"the box is held":          {Lab{Jobs: []Job{at(Held, asked(0, here, box.Restore))}}, ForHeld, "Job 0"},
		"the box is armed":         {Lab{Jobs: []Job{at(Armed, asked(0, here, box.Verify))}}, ForJob, "Job 0"},
		"the box restarts":         {Lab{Jobs: []Job{at(Restarting, asked(0, here, box.Restore))}}, ForJob, "Job 0"},
		"the box is in rescue":     {Lab{Jobs: []Job{at(Rescue, asked(0, here, box.Rescue))}}, ForJob, "Job 0"},
		"an earlier job":           {Lab{Jobs: []Job{asked(0, here, box.Restore)}}, ForJob, "Job 0"},
		"a later job":              {Lab{Jobs: []Job{asked(2, here, box.Restore)}}, "", ""},
		"another box":              {Lab{Jobs: []Job{at(Running, asked(0, there, box.Restore))}, Most: 2}, "", ""},
		"no place":                 {Lab{Jobs: []Job{at(Running, asked(0, there, box.Restore))}, Most: 1}, ForPlace, "1 box"},
		"held takes no place":      {Lab{Jobs: []Job{at(Held, asked(0, there, box.Restore))}, Most: 1}, "", ""},
		"rescue takes no place":    {Lab{Jobs: []Job{at(Rescue, asked(0, there, box.Rescue))}, Most: 1}, "", ""},
		"restarting takes a place": {Lab{Jobs: []Job{at(Restarting, asked(0, there, box.Restore))}, Most: 1}, ForPlace, "1 box"},
		"no place in the group": {Lab{Jobs: []Job{at(Armed, asked(0, there, box.Restore))}, Groups: map[string]int{"rack": 1},
			Boxes: map[box.Addr]BoxFacts{here: {Groups: []string{"rack"}}, there: {Groups: []string{"rack"}}}}, ForGroup, "rack"},
		"a group named twice": {Lab{Groups: map[string]int{"rack": 2}, Jobs: []Job{at(Armed, asked(0, there, box.Restore))},
			Boxes: map[box.Addr]BoxFacts{here: {Groups: []string{"rack"}}, there: {Groups: []string{"rack", "rack"}}}}, "", ""},
		"group is closed": {Lab{Groups: map[string]int{"rack": 0}, Boxes: map[box.Addr]BoxFacts{here: {Groups: []string{"rack"}}}},
			ForClosed, "rack"},
	} {
		c.lab.Jobs = append(c.lab.Jobs, one)
		begin, wait := Give(c.lab, start)
		if begins := slices.Contains(ids(begin), "1"); begins != (c.reason == "") {
			t.Errorf("%s: that it begins is %v", name, begins)
		}
		i := slices.IndexFunc(wait, func(w Wait) bool { return w.ID == "1" })
		if c.reason != "" && (i < 0 || wait[i].Reason != c.reason || !strings.Contains(wait[i].Text, c.text)) {
			t.Errorf("%s: it waits for %+v", name, wait)
		}
	}
}

// A held box is for a restore and for people. An own job of the held one's is
// named, so that it makes way.
func TestQueueTakesOver(t *testing.T) {
	for _, a := range box.Actions {
		begin, _ := Give(Lab{Jobs: []Job{at(Held, asked(0, here, box.Restore)), asked(1, here, a)}}, start)
		if may := a == box.Restore || a == box.Rescue; may != slices.Equal(begin, []Grant{{"1", "0"}}) || !may && len(begin) > 0 {
			t.Errorf("%s of a held box: %v", a, begin)
		}
	}
	lab := Lab{Jobs: []Job{at(Held, asked(0, there, box.Restore)), asked(1, here, box.Restore)}}
	if begin, _ := Give(lab, start); begin[0].TakesOver != "" {
		t.Error("a job takes over another box's")
	}
}

func TestQueueOrder(t *testing.T) {
	lab := Lab{Most: 2}
	for _, n := range []int{3, 1, 4, 2} {
		lab.Jobs = append(lab.Jobs, asked(n, nth(n), box.Backup))
	}
	begin, wait := Give(lab, start)
	if !slices.Equal(ids(begin), []string{"1", "2"}) || len(wait) != 2 || wait[0].ID != "3" || wait[0].Place != 1 || wait[1].Place != 2 {
		t.Errorf("%v begin, %v wait", begin, wait)
	}
	// Who waits for something else than a place lets others of the box go first, who waits for a place does not.
	lab = Lab{Jobs: []Job{asked(1, here, box.Backup), asked(2, here, box.Backup)}, Boxes: map[box.Addr]BoxFacts{here: {Holder: "bob"}}}
	lab.Jobs[1].By = "bob"
	if begin, _ := Give(lab, start); !slices.Equal(ids(begin), []string{"2"}) {
		t.Errorf("%v begin while the box is bob's", begin)
	}
}

// A box in two groups needs a place in both. Others must not take them in turns,
// each time before both are free.
func TestQueueTwoGroups(t *testing.T) {
	lab := Lab{Groups: map[string]int{"rack": 1, "kind": 1}, Boxes: map[box.Addr]BoxFacts{
		nth(1): {Groups: []string{"rack", "kind"}}, nth(2): {Groups: []string{"rack"}}, nth(4): {Groups: []string{"kind"}}}}
	lab.Jobs = []Job{at(Running, asked(0, nth(4), box.Backup)), asked(1, nth(1), box.Backup), asked(2, nth(2), box.Backup)}
	begin, wait := Give(lab, start)
	if len(begin) != 0 || len(wait) != 2 || wait[1].Reason != ForGroup {
		t.Errorf("%v begin, %v wait; the place in the rack is the first one's", begin, wait)
	}
}

// TestQueueStarting: few boxes start at once. One that was armed some time ago counts no more, and neither does one that
// somebody else switches on.
func TestQueueStarting(t *testing.T) {
	powered := func(n int) Job {
		j := asked(n, nth(n), box.Backup)
		j.Power = true
		return j
	}
	since := func(at time.Time, j Job) Job {
		j.Since = at
		return j
	}
	now := start.Add(time.Hour)
	lab := Lab{Starting: 2, Jobs: []Job{powered(5), powered(6), powered(7), asked(8, nth(8), box.Backup)}}
	for name, c := range map[string]struct {
		others []Job
		begin  []string
	}{
		"none":            {nil, []string{"5", "6", "8"}},
		"one starts":      {[]Job{since(now.Add(1-StartTime), at(Armed, powered(1)))}, []string{"5", "8"}},
		"two start":       {[]Job{since(now, at(Armed, powered(1))), since(now, at(Armed, powered(2)))}, []string{"8"}},
		"one never comes": {[]Job{since(now, at(Armed, powered(1))), since(now.Add(-StartTime), at(Armed, powered(2)))}, []string{"5", "8"}},
		"one works":       {[]Job{since(now, at(Armed, powered(1))), since(now, at(Running, powered(2)))}, []string{"5", "8"}},
		"by hand":         {[]Job{since(now, at(Armed, asked(1, nth(1), box.Backup)))}, []string{"5", "6", "8"}},
	} {
		lab := lab
		lab.Jobs = append(slices.Clone(c.others), lab.Jobs...)
		begin, wait := Give(lab, now)
		if !slices.Equal(ids(begin), c.begin) {
			t.Errorf("%s: %v begin", name, begin)
		}
		for _, w := range wait {
			if w.Reason != ForPower || w.Text != "The server may have 2 boxes starting at once." {
				t.Errorf("%s: %+v", name, w)
			}
		}
	}
	// Who waits for that keeps the place in its group.
	lab = Lab{Starting: 1, Groups: map[string]int{"rack": 1}, Boxes: map[box.Addr]BoxFacts{
		nth(5): {Groups: []string{"rack"}}, nth(8): {Groups: []string{"rack"}}}}
	lab.Jobs = []Job{since(now, at(Armed, powered(1))), powered(5), asked(8, nth(8), box.Backup)}
	if begin, wait := Give(lab, now); len(begin) != 0 || wait[0].Reason != ForPower || wait[1].Reason != ForGroup {
		t.Errorf("%v begin, %v wait", begin, wait)
	}
}

// TestQueueStarvesNobody runs a lab for some time. New jobs come in faster than
// they can be done, and those that are at work take as long as is worst for the
// others.
func TestQueueStarvesNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lab := Lab{Most: rapid.IntRange(1, 4).Draw(t, "most"), Boxes: map[box.Addr]BoxFacts{}, Groups: map[string]int{},
			Starting: rapid.IntRange(0, 2).Draw(t, "starting")}
		names := []string{"a", "b", "c"}
		for _, g := range names {
			if rapid.Bool().Draw(t, "limited") {
				lab.Groups[g] = rapid.IntRange(1, 2).Draw(t, "limit")
			}
		}
		const boxes, rounds, longest = 8, 60, 4
		for n := range boxes {
			var in []string
			for _, g := range names {
				if rapid.Bool().Draw(t, "in") {
					in = append(in, g)
				}
			}
			lab.Boxes[nth(n)] = BoxFacts{Groups: in}
		}
		left, latest, n := map[string]int{}, map[string]int{}, 0
		for round := range rounds {
			for range rapid.IntRange(1, 3).Draw(t, "new jobs") {
				j := asked(n, nth(rapid.IntRange(0, boxes-1).Draw(t, "box")), box.Backup)
				j.Power = rapid.Bool().Draw(t, "power")
				// At worst all that were there before are done one after the other.
				latest[j.ID] = round + longest*(len(lab.Jobs)+1)
				lab.Jobs = append(lab.Jobs, j)
				n++
			}
			begin, wait := Give(lab, start)
			for i, w := range wait {
				if w.Place != i+1 || w.Reason == "" || w.Text == "" {
					t.Fatalf("%+v", w)
				}
			}
			var next []Job
			for _, j := range lab.Jobs {
				if slices.Contains(ids(begin), j.ID) {
					j.State, j.Since, left[j.ID] = Armed, start, rapid.IntRange(1, longest).Draw(t, "takes")
				} else if j.State == Armed && rapid.Bool().Draw(t, "comes") {
					j.State = Running
				}
				next = append(next, j)
			}
			lab.Jobs = next
			holdsLimits(t, lab)
			for _, j := range lab.Jobs {
				if j.State == Queued && round > latest[j.ID] {
					t.Fatalf("job %s should have begun in round %d, and this is %d", j.ID, latest[j.ID], round)
				}
			}
			if len(begin) == 0 && !slices.ContainsFunc(lab.Jobs, atWork) {
				t.Fatalf("nothing is at work, and nothing begins: %+v", wait)
			}
			lab.Jobs = slices.DeleteFunc(lab.Jobs, func(j Job) bool {
				left[j.ID]--
				return atWork(j) && left[j.ID] <= 0
			})
		}
	})
}

func atWork(j Job) bool { return j.State == Armed || j.State == Running }

func holdsLimits(t *rapid.T, lab Lab) {
	all, starting, groups, boxes := 0, 0, map[string]int{}, map[box.Addr]bool{}
	for _, j := range lab.Jobs {
		if !atWork(j) {
			continue
		}
		if j.State == Armed && j.Power {
			starting++
		}
		if boxes[j.Box] {
			t.Fatalf("%s has two jobs", j.Box)
		}
		boxes[j.Box] = true
		all++
		for _, g := range lab.Boxes[j.Box].Groups {
			groups[g]++
		}
	}
	for g, most := range lab.Groups {
		if groups[g] > most {
			t.Fatalf("%d boxes of group %s are at work", groups[g], g)
		}
	}
	if all > lab.Most {
		t.Fatalf("%d boxes are at work", all)
	}
	if lab.Starting > 0 && starting > lab.Starting {
		t.Fatalf("%d boxes are starting", starting)
	}
}

// TestQueueFirstGoes: the job that was asked for first begins as soon as those
// that are at work are done, whatever else is asked for meanwhile.
func TestQueueFirstGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lab := Lab{Most: 2, Groups: map[string]int{"a": 1, "b": 1}, Boxes: map[box.Addr]BoxFacts{nth(0): {Groups: []string{"a", "b"}}}}
		for n := 1; n < 9; n++ {
			lab.Boxes[nth(n)] = BoxFacts{Groups: [][]string{{"a"}, {"b"}, {}}[n%3]}
		}
		lab.Jobs = []Job{at(Running, asked(1, nth(3), box.Backup)), at(Running, asked(2, nth(4), box.Backup)), asked(3, nth(0), box.Backup)}
		n := 4
		for range 20 {
			for range 3 {
				lab.Jobs = append(lab.Jobs, asked(n, nth(rapid.IntRange(1, 8).Draw(t, "box")), box.Backup))
				n++
			}
			// One of those that are at work is done.
			i := rapid.IntRange(0, 1).Draw(t, "who is done")
			for k, j := range lab.Jobs {
				if j.State == Running {
					if i == 0 {
						lab.Jobs = slices.Delete(lab.Jobs, k, k+1)
						break
					}
					i--
				}
			}
			begin, _ := Give(lab, start)
			for k, j := range lab.Jobs {
				if slices.Contains(ids(begin), j.ID) {
					lab.Jobs[k].State = Running
				}
			}
			if slices.Contains(ids(begin), "3") {
				return
			}
			if !slices.ContainsFunc(lab.Jobs, func(j Job) bool { return j.ID == "1" || j.ID == "2" }) {
				t.Fatal("those that were at work are done, and the first of the queue does not begin")
			}
		}
	})
}

// TestQueueYields: what people ask for goes before what yields, also on the same box.
func TestQueueYields(t *testing.T) {
	yields := func(j Job) Job { j.Yields = true; return j }
	lab := Lab{Most: 1, Jobs: []Job{yields(asked(1, nth(1), box.Backup)), yields(asked(2, nth(2), box.Backup)), asked(3, nth(2), box.Restore)}}
	begin, wait := Give(lab, start)
	if !slices.Equal(ids(begin), []string{"3"}) || len(wait) != 2 || wait[0].ID != "1" || wait[1].Reason != ForJob {
		t.Errorf("%v begin, %v wait", begin, wait)
	}
	lab.Jobs = []Job{yields(asked(1, nth(1), box.Backup)), at(Running, yields(asked(2, nth(2), box.Backup))), asked(3, nth(3), box.Restore)}
	if begin, _ := Give(lab, start); len(begin) != 0 {
		t.Errorf("%v begin, although a job that yields is at work", begin)
	}
}

// TestQueueInTime: a job begins within its time, and neither before nor after it.
func TestQueueInTime(t *testing.T) {
	j := asked(0, here, box.Backup)
	j.From, j.Until = start.Add(time.Hour), start.Add(2*time.Hour)
	for _, c := range []struct {
		at     time.Duration
		begins bool
	}{{0, false}, {time.Hour - 1, false}, {time.Hour, true}, {2*time.Hour - 1, true}, {2 * time.Hour, false}, {48 * time.Hour, false}} {
		begin, wait := Give(Lab{Jobs: []Job{j}}, start.Add(c.at))
		if len(begin) == 1 != c.begins || len(wait) == 1 && wait[0].Reason != ForWindow {
			t.Errorf("%s later: %v begin, %v wait", c.at, begin, wait)
		}
	}
}

// TestQueueIdle: what people ask for does not wait for the places of boxes that are armed for a job that yields, and that
// nobody restarts. Jobs that yield do.
func TestQueueIdle(t *testing.T) {
	armed := asked(1, nth(1), box.Backup)
	armed.Yields, armed.State, armed.Since = true, Armed, start
	person, other := asked(2, nth(2), box.Restore), asked(3, nth(2), box.Backup)
	other.Yields = true
	in := map[box.Addr]BoxFacts{nth(1): {Groups: []string{"rack"}}, nth(2): {Groups: []string{"rack"}}}
	for name, lab := range map[string]Lab{"in all": {Most: 1}, "in a group": {Groups: map[string]int{"rack": 1}}} {
		for _, c := range []struct {
			name   string
			change func(*Job)
			after  time.Duration
			begins bool
		}{
			{"nobody restarts it", func(*Job) {}, 0, true},
			{"it comes soon", func(j *Job) { j.Power = true }, StartTime - 1, false},
			{"it does not come", func(j *Job) { j.Power = true }, StartTime, true},
			{"its power command failed", func(j *Job) { j.Power, j.ByHand = true, true }, 0, true},
			{"it is at work", func(j *Job) { j.State = Running }, time.Hour, false},
			{"somebody asked for it", func(j *Job) { j.Yields = false }, time.Hour, false},
		} {
			first := armed
			c.change(&first)
			lab.Boxes = in
			lab.Jobs = []Job{first, person}
			if begin, _ := Give(lab, start.Add(c.after)); (len(begin) == 1) != c.begins {
				t.Errorf("%s, %s: %v", name, c.name, begin)
			}
			lab.Jobs = []Job{first, other}
			if begin, _ := Give(lab, start.Add(c.after)); len(begin) != 0 {
				t.Errorf("%s, %s: a job that yields begins", name, c.name)
			}
		}
	}
}

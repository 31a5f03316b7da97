package api_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/testenv"
)

// TestJobs: jobs are asked for, listed, followed and cancelled.
func TestJobs(t *testing.T) {
	r := newRig(t)
	r.group("rack3")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1", Groups: []string{"rack3"}, MACs: []string{"52:54:00:00:00:01"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "web-2", Groups: []string{"rack3"}, Labels: []string{"ssd"}})
	c := r.root()
	var list api.JobList
	ask := api.NewJobs{Action: box.Restore, Targets: []string{"rack3", "52-54-00-00-00-01"}, Key: "k", Options: api.Options{Image: "x"}}
	c.want(201, "POST", "/api/v1/jobs", ask, &list)
	if len(list.Jobs) != 2 || list.Jobs[0].Name != "web-1" || list.Jobs[1].Box != "10.0.0.2" || list.Jobs[0].Options.Image != "x" {
		t.Fatalf("the jobs are %+v", list)
	}
	first := list.Jobs[0]
	var again api.JobList
	c.want(201, "POST", "/api/v1/jobs", ask, &again)
	if again.Jobs[0].ID != first.ID || again.Jobs[1].ID != list.Jobs[1].ID {
		t.Errorf("the repeated request made %+v", again)
	}
	var one api.Job
	c.want(200, "GET", "/api/v1/jobs/"+first.ID, nil, &one)
	if one.ID != first.ID || one.State != job.Queued || !one.Bootable {
		t.Errorf("%+v", one)
	}
	c.want(200, "POST", "/api/v1/jobs/"+first.ID+"/cancel", api.Reason{Why: "a mistake"}, &one)
	if one.State != job.Ended || one.Outcome != job.Cancelled {
		t.Errorf("%+v", one)
	}
	for query, want := range map[string]int{"": 2, "?open=true": 1, "?state=ended": 1, "?state=ended,queued": 2, "?box=web-2": 1,
		"?by=nobody": 0, "?key=k": 2} {
		c.want(200, "GET", "/api/v1/jobs"+query, nil, &list)
		if len(list.Jobs) != want {
			t.Errorf("jobs%s: %d", query, len(list.Jobs))
		}
	}
	c.want(200, "GET", "/api/v1/jobs?limit=1", nil, &list)
	next := list.Next
	c.want(200, "GET", "/api/v1/jobs?limit=1&after="+next, nil, &again)
	if len(list.Jobs) != 1 || len(again.Jobs) != 1 || next == "" || list.Jobs[0].ID == again.Jobs[0].ID {
		t.Errorf("the pages are %+v and %+v", list, again)
	}
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"label:ssd", "10.0.0.77"}}, &list)
	if len(list.Jobs) != 2 || list.Jobs[1].Box != "10.0.0.77" {
		t.Errorf("%+v", list)
	}
	for _, targets := range [][]string{{"rack4"}, {"group:rack4"}, {"label:x"}, {"box:rack3"}, {"group:"}, {"127.0.0.1"}, {""}, {"../x"}} {
		status, b := c.do("POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: targets})
		if status != 400 && status != 404 {
			t.Errorf("%q: %d %s", targets, status, b)
		}
	}
}

// TestEmptyWord: no word is no box, also where there is only one box that it could be.
func TestEmptyWord(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	for _, word := range []string{"", "box:", "group:", "label:"} {
		r.root().refused(api.CodeWrong, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{word}})
	}
}

// TestNoAddressOfABox: an address that no machine can have is said to be that.
func TestNoAddressOfABox(t *testing.T) {
	r := newRig(t)
	for _, word := range []string{"127.0.0.1", "224.0.0.5", "0.1.2.3", "255.255.255.255", "fe80::1"} {
		p := r.root().refused(api.CodeWrong, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{word}})
		if !strings.Contains(p.Detail, "is not the address of a testbox") && !strings.Contains(p.Detail, "is not an IPv4 address") {
			t.Errorf("%s: %s", word, p.Detail)
		}
	}
}

// TestAmbiguous: a word that means a box and a group is refused.
func TestAmbiguous(t *testing.T) {
	r := newRig(t)
	r.group("web")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web"})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Groups: []string{"web"}})
	c := r.root()
	p := c.refused(api.CodeWrong, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"web"}})
	if !strings.Contains(p.Detail, "box:web or group:web") {
		t.Error(p.Detail)
	}
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"group:web"}}, &list)
	if len(list.Jobs) != 1 || list.Jobs[0].Box != "10.0.0.2" {
		t.Errorf("%+v", list)
	}
}

// TestWait: a job is waited for until it can go no further by itself.
func TestWait(t *testing.T) {
	r := newRig(t)
	c := r.root()
	for _, state := range []job.State{job.Ended, job.Held, job.Rescue} {
		var list api.JobList
		c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
		id := list.Jobs[0].ID
		go func() {
			for _, change := range []func(*dispatch.Status){
				func(st *dispatch.Status) { st.State = job.Armed },
				func(st *dispatch.Status) { st.State = state },
				func(st *dispatch.Status) { st.Settled = true },
			} {
				time.Sleep(30 * time.Millisecond)
				r.runner.set(t, id, change)
			}
		}()
		start := time.Now()
		var one api.Job
		c.want(200, "GET", "/api/v1/jobs/"+id+"?wait=30", nil, &one)
		if took := time.Since(start); one.State != state || !one.Settled || took < 50*time.Millisecond || took > 10*time.Second {
			t.Errorf("after %v it is %s, not %s", took, one.State, state)
		}
	}
	var list api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
	var one api.Job
	c.want(200, "GET", "/api/v1/jobs/"+list.Jobs[0].ID+"?wait="+testenv.Effort("1", "3"), nil, &one) // longer than other answers may take
	if one.State != job.Queued {
		t.Errorf("%+v", one)
	}
}

// TestAddAndWait: a request for jobs can wait for all of them, longer than other answers
// and bodies may take, and a repeated one waits for the jobs that there are.
func TestAddAndWait(t *testing.T) {
	r := newRig(t)
	c := r.root()
	q := api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1", "10.0.0.2"}, Key: "k"}
	var early, again, all api.JobList
	c.want(201, "POST", "/api/v1/jobs?wait=1", q, &early)
	if len(early.Jobs) != 2 || early.Jobs[0].State != job.Queued {
		t.Fatalf("%+v", early.Jobs)
	}
	ends := func(n int) {
		r.runner.set(t, early.Jobs[n].ID, func(st *dispatch.Status) { st.State, st.Outcome, st.Settled = job.Ended, box.Done, true })
	}
	start, after := time.Now(), testenv.Effort(300*time.Millisecond, 2500*time.Millisecond)
	go func() {
		ends(1)
		time.Sleep(after)
		ends(0)
	}()
	c.want(201, "POST", "/api/v1/jobs?wait=60", q, &again)
	if took := time.Since(start); took < after || took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	for n, j := range again.Jobs {
		if !j.Resting() || j.Outcome != box.Done || j.ID != early.Jobs[n].ID {
			t.Errorf("job %d is %+v", n, j)
		}
	}
	c.want(400, "POST", "/api/v1/jobs?wait=3601", q, nil)
	c.want(200, "GET", "/api/v1/jobs", nil, &all)
	if len(all.Jobs) != 2 {
		t.Errorf("there are %d jobs", len(all.Jobs))
	}
}

// TestBoxes: boxes are added, found, changed and forgotten, and all of it is in the
// audit log.
func TestBoxes(t *testing.T) {
	r := newRig(t)
	c := r.root()
	c.want(200, "PUT", "/api/v1/groups/rack%203", api.SetGroup{}, nil)
	var b api.Box
	c.want(201, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.1", Name: "web-1", MACs: []string{"52:54:00:00:00:01"},
		UUID: "01234567-89ab-cdef-0123-456789abcdef", Groups: []string{"rack 3"}}, &b)
	if b.Health != ledger.Good || b.FirstSeen.IsZero() || b.Last != nil {
		t.Errorf("%+v", b)
	}
	c.refused(api.CodeRefused, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.1"})
	c.refused(api.CodeRefused, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.2", Name: "WEB-1"})
	c.want(201, "POST", "/api/v1/boxes", api.NewBox{Address: "10.0.0.2"}, nil)
	for _, word := range []string{"10.0.0.1", "web-1", "WEB-1", "52:54:00:00:00:01", "52-54-00-00-00-01",
		"01234567-89AB-CDEF-0123-456789abcdef"} {
		c.want(200, "GET", "/api/v1/boxes/"+word, nil, &b)
		if b.Address != "10.0.0.1" {
			t.Errorf("%s finds %+v", word, b)
		}
	}
	labels, name, disks, health, why := []string{"ssd", "a b"}, "web-9", "sda\n", "bad", "its fan is loud"
	b = api.Box{}
	set := api.SetBox{Labels: &labels, Name: &name, Disks: &disks, Health: &health, HealthReason: &why}
	c.want(200, "PATCH", "/api/v1/boxes/web-1", set, &b)
	if b.Name != name || len(b.Labels) != 2 || b.Disks == nil || *b.Disks != disks || b.Health != ledger.Bad || b.HealthReason != why ||
		len(b.Groups) != 1 {
		t.Errorf("%+v", b)
	}
	none := ""
	b = api.Box{}
	c.want(200, "PATCH", "/api/v1/boxes/web-9", api.SetBox{Disks: &none, Why: "all again"}, &b)
	if b.Disks != nil || b.Health != ledger.Bad {
		t.Errorf("%+v", b)
	}
	c.refused(api.CodeWrong, "PATCH", "/api/v1/boxes/web-9", api.SetBox{})
	c.refused(api.CodeWrong, "PATCH", "/api/v1/boxes/web-9", api.SetBox{Health: &health})
	c.refused(api.CodeWrong, "PATCH", "/api/v1/boxes/web-9", `{"health":"dead","healthReason":"x"}`)
	c.refused(api.CodeNotFound, "PATCH", "/api/v1/boxes/web-9", api.SetBox{Groups: &[]string{"nowhere"}})
	b = api.Box{}
	c.want(200, "POST", "/api/v1/boxes/web-9/accept", api.Reason{Why: "a new board"}, &b)
	if len(b.MACs) != 0 || b.UUID != "" {
		t.Errorf("%+v", b)
	}
	var jobs api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"web-9"}}, &jobs)
	var list api.BoxList
	c.want(200, "GET", "/api/v1/boxes", nil, &list)
	if len(list.Boxes) != 2 || list.Boxes[0].Last == nil || list.Boxes[0].Last.State != job.Queued ||
		list.Boxes[0].Last.Action != box.Backup || list.Boxes[1].Last != nil {
		t.Errorf("%+v", list)
	}
	for query, want := range map[string]int{"?health=bad": 1, "?health=good": 1, "?label=ssd": 1, "?group=rack%203": 1, "?group=x": 0,
		"?state=queued": 1, "?state=ended": 0, "?name=web-9": 1, "?limit=1": 1} {
		c.want(200, "GET", "/api/v1/boxes"+query, nil, &list)
		if len(list.Boxes) != want {
			t.Errorf("boxes%s: %d", query, len(list.Boxes))
		}
	}
	c.refused(api.CodeWrong, "GET", "/api/v1/boxes?heatlh=bad", nil)
	c.refused(api.CodeWrong, "GET", "/api/v1/boxes?limit=1001", nil)
	c.refused(api.CodeWrong, "GET", "/api/v1/boxes?after=zz", nil)
	c.refused(api.CodeRefused, "DELETE", "/api/v1/boxes/web-9", nil)
	c.want(204, "DELETE", "/api/v1/boxes/10.0.0.2?why=scrapped", nil, nil)
	c.refused(api.CodeNotFound, "GET", "/api/v1/boxes/10.0.0.2", nil)
	if r.runner.looks == 0 {
		t.Error("the queue was not told to look")
	}
	var log api.Entries
	c.want(200, "GET", "/api/v1/audit", nil, &log)
	var lines []string
	for _, e := range log.Entries {
		if e.From != "socket" || e.Who != r.me || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
		lines = append(lines, e.What+"|"+e.On+"|"+e.Why)
	}
	want := []string{"forget box|10.0.0.2|scrapped", "accept machine|10.0.0.1|a new board", "set box|10.0.0.1|disks ; all again",
		"set box|10.0.0.1|name web-9; labels ssd,a b; health bad its fan is loud; disks sda", "add box|10.0.0.2|", "add box|10.0.0.1|",
		"set group|rack 3|"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit log is\n%s", strings.Join(lines, "\n"))
	}
}

// TestHold: a box that somebody has reserved is not for others, and an admin can break
// that.
func TestHold(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		for _, n := range []string{"ann", "bob"} {
			if err := tx.PutUser(ledger.User{Name: n, Role: ledger.Operator}); err != nil {
				return err
			}
		}
		return nil
	}))
	ann := r.with(r.token(ledger.Token{User: "ann", Role: ledger.Operator}))
	bob := r.with(r.token(ledger.Token{User: "bob", Role: ledger.Operator}))
	var b api.Box
	until := r.clock().Add(time.Hour)
	ann.want(200, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{Reason: "a long test", Expires: until}, &b)
	if b.Holder == nil || b.Holder.Name != "ann" || b.Holder.Reason != "a long test" || !b.Holder.Expires.Equal(until) {
		t.Fatalf("%+v", b)
	}
	ask := api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}, Key: "x"}
	var jobs api.JobList
	ann.want(201, "POST", "/api/v1/jobs", ask, &jobs)
	for _, c := range []*client{bob, r.root()} {
		if p := c.refused(api.CodeRefused, "POST", "/api/v1/jobs", ask); !strings.Contains(p.Detail, "ann has reserved") {
			t.Error(p.Detail)
		}
	}
	b = api.Box{}
	ann.want(200, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{For: 3600}, &b)
	if b.Holder == nil || b.Holder.Expires.Sub(until).Abs() > time.Second || b.Holder.For != 0 {
		t.Errorf("%+v", b.Holder)
	}
	ann.refused(api.CodeWrong, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{For: 3600, Expires: until})
	ann.refused(api.CodeWrong, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{For: -1})
	bob.refused(api.CodeForbidden, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{})
	bob.refused(api.CodeForbidden, "DELETE", "/api/v1/boxes/10.0.0.1/holder", nil)
	bob.refused(api.CodeForbidden, "POST", "/api/v1/jobs/"+jobs.Jobs[0].ID+"/cancel", api.Reason{})
	bob.refused(api.CodeForbidden, "POST", "/api/v1/boxes/10.0.0.1/release", api.Reason{})
	bob.refused(api.CodeForbidden, "POST", "/api/v1/boxes/10.0.0.1/finish", api.Reason{})
	ann.refused(api.CodeForbidden, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{Name: "bob"})
	ann.refused(api.CodeWrong, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{Expires: r.clock()})
	r.pass(2 * time.Hour)
	b = api.Box{}
	bob.want(200, "GET", "/api/v1/boxes/10.0.0.1", nil, &b)
	if b.Holder != nil {
		t.Errorf("it is held although that is over: %+v", b.Holder)
	}
	bob.want(201, "POST", "/api/v1/jobs", ask, nil)
	bob.want(200, "PUT", "/api/v1/boxes/10.0.0.1/holder", api.Holder{}, nil)
	// A repeated request is no new one.
	ann.want(201, "POST", "/api/v1/jobs", ask, nil)
	r.root().want(200, "DELETE", "/api/v1/boxes/10.0.0.1/holder?why=urgent", nil, nil)
	var log api.Entries
	r.root().want(200, "GET", "/api/v1/audit?what=unhold+box&on=10.0.0.1", nil, &log)
	if len(log.Entries) != 1 || log.Entries[0].Why != "it was held by bob; urgent" {
		t.Errorf("%+v", log)
	}
}

// TestRuns: two runs of one token never have one box, whatever the role of the token. Who
// says no run takes from the runs of the same token, and of no other one.
func TestRuns(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	const holder = "/api/v1/boxes/10.0.0.1/holder"
	ask := api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}, Key: "x"}
	for _, role := range []ledger.Role{ledger.Operator, ledger.Admin} {
		name := string(role)
		person := r.with(r.token(ledger.Token{Name: name, Role: role}))
		stranger := r.with(r.token(ledger.Token{Name: name + "s", Role: ledger.Operator}))
		one, two := person.as("1"), person.as("2")
		var b api.Box
		one.want(200, "PUT", holder, api.Holder{Expires: r.clock().Add(time.Hour)}, &b)
		if b.Holder == nil || b.Holder.Name != "token "+name+"#1" {
			t.Fatalf("%+v", b.Holder)
		}
		var jobs api.JobList
		one.want(201, "POST", "/api/v1/jobs", ask, &jobs)
		one.want(200, "PUT", holder, api.Holder{Expires: r.clock().Add(2 * time.Hour)}, nil)
		for _, other := range []*client{two, stranger, stranger.as("1"), r.root().as("1")} {
			other.refused(api.CodeForbidden, "PUT", holder, api.Holder{})
			other.refused(api.CodeForbidden, "PUT", holder, api.Holder{Name: "token " + name + "#1"})
			other.refused(api.CodeForbidden, "DELETE", holder, nil)
			other.refused(api.CodeForbidden, "POST", "/api/v1/jobs/"+jobs.Jobs[0].ID+"/cancel", api.Reason{})
			other.refused(api.CodeRefused, "POST", "/api/v1/jobs", ask)
		}
		person.refused(api.CodeRefused, "POST", "/api/v1/jobs", ask)
		if role == ledger.Operator {
			person.refused(api.CodeForbidden, "PUT", holder, api.Holder{})
		}
		one.refused(api.CodeForbidden, "PUT", holder, api.Holder{Name: "token " + name})
		person.want(200, "DELETE", holder, nil, nil)
		two.want(200, "PUT", holder, api.Holder{}, nil)
		one.refused(api.CodeForbidden, "DELETE", holder, nil) // what a clean-up that comes too late does
		two.want(200, "DELETE", holder, nil, nil)
		var all api.JobList
		r.root().want(200, "GET", "/api/v1/jobs?key=x&by="+url.QueryEscape("token "+name+"#1"), nil, &all)
		if len(all.Jobs) != 1 {
			t.Errorf("%+v", all)
		}
	}
	for _, bad := range []string{"", "a b", "a#b", "-a", strings.Repeat("a", 81), "\u00e4"} {
		r.root().as(bad).refused(api.CodeWrong, "GET", "/api/v1/me", nil)
	}
	r.root().refused(api.CodeWrong, "POST", "/api/v1/tokens", api.NewToken{Name: "ci#1", Role: "operator"})
}

// TestRetired: a retired box gets no jobs, and a group's jobs pass it by.
func TestRetired(t *testing.T) {
	r := newRig(t)
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Groups: []string{"rack"}})
	c := r.root()
	c.want(200, "PATCH", "/api/v1/boxes/10.0.0.1", `{"health":"retired","healthReason":"old"}`, nil)
	c.refused(api.CodeRefused, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}})
	var jobs api.JobList
	c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"rack"}}, &jobs)
	if len(jobs.Jobs) != 1 || jobs.Jobs[0].Box != "10.0.0.2" {
		t.Errorf("%+v", jobs)
	}
	p := c.refused(api.CodeRefused, "PATCH", "/api/v1/boxes/10.0.0.2", `{"health":"retired","healthReason":"old"}`)
	if !strings.Contains(p.Error(), "cancel it or wait") {
		t.Errorf("a box that may be armed is retired: %v", p)
	}
	c.want(200, "PATCH", "/api/v1/boxes/10.0.0.2", `{"health":"bad","healthReason":"hot"}`, nil)
}

// TestEnded: whoever wants to know of the end of a job is told once, and only when the
// box is not armed any more.
func TestEnded(t *testing.T) {
	told := make(chan api.Job, 10)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Ended = func(j api.Job) { told <- j } })
	var list api.JobList
	r.root().want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, &list)
	id := list.Jobs[0].ID
	for _, set := range []func(*dispatch.Status){
		func(st *dispatch.Status) { st.State = job.Armed },
		func(st *dispatch.Status) { st.State, st.Outcome = job.Ended, box.Done },
		func(st *dispatch.Status) { st.Settled = true },
		func(st *dispatch.Status) { st.Text = "once more" },
	} {
		r.runner.set(t, id, set)
	}
	select {
	case j := <-told:
		if j.ID != id || !j.Settled || j.Outcome != box.Done {
			t.Errorf("told of %+v", j)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	select {
	case j := <-told:
		t.Errorf("told once more of %+v", j)
	case <-time.After(200 * time.Millisecond):
	}
}

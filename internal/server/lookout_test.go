package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sight"
)

// lookRig is a server without listeners, whose ledger and boot files are real.
type lookRig struct {
	*lookout
	t    *testing.T
	told []sight.Event
	at   time.Time
}

func newLookRig(t *testing.T, path string, boxes ...ledger.Box) *lookRig {
	t.Helper()
	l, err := ledger.Open(t.Context(), path, ledger.Options{})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, l.Update(t.Context(), func(tx *ledger.Tx) error {
		for _, b := range boxes {
			b.Health = ledger.Good
			if err := tx.PutBox(b); err != nil {
				return err
			}
		}
		return nil
	}))
	s := &server{Parts: Parts{Config: &Config{}, Place: newBoots(t).place, Log: slog.New(slog.NewTextHandler(io.Discard, nil))},
		ledger: l, roster: newRoster(), sights: &sight.List{}}
	must(t, s.roster.follow(t.Context(), l))
	must(t, s.loadSights(t.Context()))
	r := &lookRig{t: t, at: time.Now().UTC().Truncate(time.Second)}
	r.lookout = &lookout{server: s, tell: func(e sight.Event) { r.told = append(r.told, e) }, now: func() time.Time { return r.at }}
	return r
}

// starts is one start of a machine.
func (r *lookRig) starts(address, mac string) {
	id := sight.Identity{Addr: netip.MustParseAddr(address), MAC: mac}
	for _, name := range []string{"pxelinux.0", "pxelinux.cfg/default"} {
		r.sights.Saw(id, sight.Ask{Time: r.at, Over: "tftp", Asked: name, Given: name})
	}
	r.sights.AskedDefault(id.Addr, r.at)
}

func (r *lookRig) box(address string) (b ledger.Box, has bool) {
	r.t.Helper()
	must(r.t, r.ledger.View(r.t.Context(), func(tx *ledger.Tx) error {
		all, _, err := tx.Boxes(ledger.BoxFilter{}, ledger.Page{})
		for _, v := range all {
			if v.Address.String() == address {
				b, has = v, true
			}
		}
		return err
	}))
	return b, has
}

func (r *lookRig) kinds() (out []sight.Kind) {
	r.events()
	for _, e := range r.told {
		out = append(out, e.Kind)
	}
	r.told = nil
	return out
}

const macA, macB, macC = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"

// TestKnow: a machine is a box by its network card, by its UUID, and by its address as long
// as nothing speaks against it.
func TestKnow(t *testing.T) {
	other := "00020003-0004-0005-0006-000700080009"
	r := newLookRig(t, filepath.Join(t.TempDir(), "ledger.db"), ledger.Box{Address: addr(t, "10.0.0.1"), MACs: []string{macA}, UUID: testUUID},
		ledger.Box{Address: addr(t, "10.0.0.2")}, ledger.Box{Address: addr(t, "10.0.0.3"), MACs: []string{macA, macB}})
	for _, c := range []struct{ addr, mac, uuid, want string }{
		{"10.0.0.1", "", "", "10.0.0.1"},
		{"10.0.0.1", macA, "", "10.0.0.1 sure"},
		{"10.0.0.3", macA, "", "10.0.0.3 sure"}, // two boxes have the card
		{"10.0.0.9", macB, "", "10.0.0.3 sure"},
		{"10.0.0.1", macC, "", ""}, // another machine at its address
		{"10.0.0.1", macC, testUUID, "10.0.0.1 sure"},
		{"10.0.0.1", "", other, ""},
		{"10.0.0.2", macC, other, "10.0.0.2"}, // nothing is known of this box
		{"10.0.0.9", "", "", ""},
		{"", macB, "", "10.0.0.3 sure"},
	} {
		id := sight.Identity{MAC: c.mac, UUID: c.uuid}
		if c.addr != "" {
			id.Addr = netip.MustParseAddr(c.addr)
		}
		k := r.know(id)
		got := ""
		if k.Box.IsValid() {
			got = k.Box.String()
		}
		if k.Sure {
			got += " sure"
		}
		if got != c.want || k.Here.IsValid() != (c.addr != "" && c.addr != "10.0.0.9") {
			t.Errorf("%+v is %q, %v", c, got, k.Here)
		}
	}
}

// TestSightsSurvive: what was seen outlives a restart of the server, and goes to the ledger
// in one change.
func TestSightsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	r := newLookRig(t, path, ledger.Box{Address: addr(t, "10.0.0.1"), MACs: []string{macA}})
	r.starts("10.0.0.7", macA)
	r.starts("10.0.0.1", macB)
	if got := r.kinds(); !slices.Equal(got, []sight.Kind{sight.Moved, sight.New, sight.Shared}) {
		t.Errorf("%v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.save(ctx) // fails, and is made up for
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.run(ended) // the server ends
	if b, _ := r.box("10.0.0.1"); !b.LastSeen.Equal(r.at) {
		t.Errorf("%+v", b)
	}
	must(t, r.ledger.Close())
	next := newLookRig(t, path)
	if b, _ := next.sights.OfBox(netip.MustParseAddr("10.0.0.1")); b.Moved.String() != "10.0.0.7" || b.Other != macB || !b.Last.Equal(r.at) {
		t.Errorf("%+v", b)
	}
	if all := next.sights.Unknown(); len(all) != 1 || all[0].MAC != macB || len(all[0].Asks) != 2 {
		t.Errorf("%+v", all)
	}
	next.starts("10.0.0.1", macB)
	if got := next.kinds(); len(got) != 0 {
		t.Errorf("%v is told again", got)
	}
	must(t, next.ledger.Update(t.Context(), func(tx *ledger.Tx) error { // an admin adds the machine
		return tx.PutBox(ledger.Box{Address: addr(t, "10.0.0.2"), MACs: []string{macB}, Health: ledger.Good, LastSeen: next.at})
	}))
	next.save(t.Context())
	must(t, next.ledger.View(t.Context(), func(tx *ledger.Tx) error {
		all, err := tx.Machines()
		if len(all) != 0 {
			t.Errorf("%+v", all)
		}
		return err
	}))
	if b, has := next.sights.OfBox(netip.MustParseAddr("10.0.0.2")); !has || !b.Last.Equal(next.at) {
		t.Errorf("%+v", b)
	}
	must(t, next.ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.DeleteBox(addr(t, "10.0.0.2")) }))
	if _, has := next.sights.OfBox(netip.MustParseAddr("10.0.0.2")); has {
		t.Error("a box that is gone is remembered")
	}
}

// TestSightsHostile: a machine that tells all that it can is saved like others.
func TestSightsHostile(t *testing.T) {
	r := newLookRig(t, filepath.Join(t.TempDir(), "ledger.db"))
	for i := range 100 {
		text := fmt.Sprintf("%02d%s", i, strings.Repeat(`<"\`, 400))
		r.sights.Saw(sight.Identity{Addr: netip.MustParseAddr("10.0.0.1"), MAC: macA, UUID: text, Arch: text},
			sight.Ask{Time: r.at, Over: text, Asked: text, Given: text})
	}
	r.starts("10.0.0.2", macB)
	r.save(t.Context())
	must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error {
		all, err := tx.Machines()
		if len(all) != 2 || len(all[0].Doc) > sight.MaxDocument {
			t.Errorf("%d machines are saved", len(all))
		}
		return err
	}))
}

// TestSightsUnreadable: rows that cannot be read do no harm.
func TestSightsUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	r := newLookRig(t, path, ledger.Box{Address: addr(t, "10.0.0.1"), Sight: []byte(`{"gaps": "x"}`)})
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutMachine(ledger.Machine{Name: macA, Doc: []byte(`{"mac": 7}`)})
	}))
	must(t, r.ledger.Close())
	next := newLookRig(t, path)
	next.save(t.Context())
	must(t, next.ledger.View(t.Context(), func(tx *ledger.Tx) error {
		all, err := tx.Machines()
		if len(all) != 0 {
			t.Errorf("%+v", all)
		}
		return err
	}))
}

// TestQuiet: a box that should have been seen is silent, unless it is off on purpose or its
// agent is at work.
func TestQuiet(t *testing.T) {
	r := newLookRig(t, filepath.Join(t.TempDir(), "ledger.db"))
	at := r.at.Add(-100 * time.Hour)
	for i, health := range []ledger.Health{ledger.Good, ledger.Suspect, ledger.Maintenance, ledger.Good} {
		must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: addr(t, fmt.Sprintf("10.0.0.%d", i+1)), Health: health, LastSeen: at,
				Sight: []byte(`{"gaps":[3600000000000,3600000000000,3600000000000,3600000000000,3600000000000,3600000000000]}`)})
		}))
	}
	must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.AddJob(ledger.Job{ID: "j", Box: addr(t, "10.0.0.4"), State: string(job.Rescue), Created: at, Doc: []byte("{}")})
	}))
	r.at = r.at.Add(25 * time.Hour)
	r.quiet(t.Context())
	r.events()
	var boxes []string
	for _, e := range r.told {
		boxes = append(boxes, string(e.Kind)+" "+e.Box.String())
	}
	slices.Sort(boxes)
	if got := strings.Join(boxes, ", "); got != "silent 10.0.0.1, silent 10.0.0.2" {
		t.Error(got)
	}
}

// TestLost: a box is lost if its agent has ended and its loader asks for nothing after that.
func TestLost(t *testing.T) {
	r := newLookRig(t, filepath.Join(t.TempDir(), "ledger.db"), ledger.Box{Address: addr(t, "10.0.0.1"), MACs: []string{macA}},
		ledger.Box{Address: addr(t, "10.0.0.2"), MACs: []string{macB}})
	r.starts("10.0.0.1", macA)
	r.starts("10.0.0.2", macB)
	made := r.at
	set := func(state job.State, then func(tx *ledger.Tx, j ledger.Job) error) {
		for _, a := range []string{"10.0.0.1", "10.0.0.2"} {
			must(t, r.ledger.Update(t.Context(), func(tx *ledger.Tx) error {
				return then(tx, ledger.Job{ID: "j" + a, Box: addr(t, a), State: string(state), Created: made, Doc: []byte("{}")})
			}))
		}
	}
	set(job.Running, func(tx *ledger.Tx, j ledger.Job) error { return tx.AddJob(j) })
	r.at = r.at.Add(time.Minute)
	r.quiet(t.Context())
	set(job.Ended, func(tx *ledger.Tx, j ledger.Job) error { return tx.UpdateJob(j) })
	r.at = r.at.Add(time.Minute)
	r.quiet(t.Context())
	r.at = r.at.Add(10 * time.Minute)
	r.starts("10.0.0.2", macB)
	for range 25 {
		r.at = r.at.Add(time.Minute)
		r.quiet(t.Context())
	}
	r.events()
	if len(r.told) != 1 || r.told[0].Kind != sight.Silent || !r.told[0].Lost || r.told[0].Box.String() != "10.0.0.1" {
		t.Errorf("it is told that %+v", r.told)
	}
}

// TestEnrol: rules make boxes of machines that are really there, and of no others. They fill
// groups up to a number, and the audit log says what they did.
func TestEnrol(t *testing.T) {
	r := newLookRig(t, filepath.Join(t.TempDir(), "ledger.db"), ledger.Box{Address: addr(t, "10.0.0.1"), MACs: []string{macA}})
	r.Config.Enrol = []Enrol{{Subnet: "10.0.0.0/24", MAC: "52:54:00", Groups: []string{"lab"}, Most: 3},
		{MAC: "02", Groups: []string{"virtual"}}}
	for _, rule := range r.Config.Enrol {
		must(t, rule.check())
	}
	r.starts("10.0.0.7", macB)
	for _, m := range [][2]string{ // none of these is enrolled, but the one of the second rule
		{"10.0.0.1", macC},                                                     // at the address of a box
		{"10.0.1.7", "52:54:00:00:00:0d"},                                      // in another subnet
		{"10.0.0.8", "52:55:00:00:00:0e"},                                      // of another maker
		{"10.9.9.9", "02:00:00:00:00:01"},                                      // of the second rule
		{"10.0.0.10", "52:54:00:00:00:10"}, {"10.0.0.10", "52:54:00:00:00:11"}, // two with one address
	} {
		r.starts(m[0], m[1])
	}
	took := sight.Identity{Addr: netip.MustParseAddr("10.0.0.9"), MAC: "52:54:00:00:00:0f"}
	r.sights.Saw(took, sight.Ask{Time: r.at, Over: "tftp", Asked: "x"}) // it took nothing
	r.enrol(t.Context())
	r.enrol(t.Context())
	b, has := r.box("10.0.0.7")
	if !has || !slices.Equal(b.MACs, []string{macB}) || !slices.Equal(b.Groups, []string{"lab"}) ||
		b.Health != ledger.Good || !b.LastSeen.Equal(r.at) {
		t.Errorf("%+v", b)
	}
	if b, _ := r.box("10.9.9.9"); !slices.Equal(b.Groups, []string{"virtual"}) {
		t.Errorf("%+v", b)
	}
	must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error {
		all, _, err := tx.Boxes(ledger.BoxFilter{}, ledger.Page{})
		if len(all) != 3 {
			t.Errorf("%+v", all)
		}
		jobs, _, err2 := tx.Jobs(ledger.JobFilter{}, ledger.Page{})
		audit, _, err3 := tx.Audit(ledger.AuditFilter{What: "enrol box", On: "10.0.0.7"}, ledger.Page{})
		if len(jobs) != 0 || len(audit) != 1 || audit[0].Who != "server" || !strings.Contains(audit[0].Why, "10.0.0.0/24 and 52:54:00") {
			t.Errorf("%+v, %+v", jobs, audit)
		}
		for _, err := range []error{err, err2, err3} {
			must(t, err)
		}
		return nil
	}))
	for i := range 8 {
		r.starts(fmt.Sprintf("10.0.0.%d", 100+i), fmt.Sprintf("52:54:00:00:01:%02x", i))
	}
	r.enrol(t.Context())
	must(t, r.ledger.View(t.Context(), func(tx *ledger.Tx) error {
		all, _, err := tx.Boxes(ledger.BoxFilter{Group: "lab"}, ledger.Page{})
		if len(all) != 3 {
			t.Errorf("the rule has put %d boxes into a group of 3 at most", len(all))
		}
		return err
	}))
}

// A rule does not undo what an admin said of a machine in the same moment.
func TestEnrolledByAdmin(t *testing.T) {
	r := newLookRig(t, filepath.Join(t.TempDir(), "ledger.db"),
		ledger.Box{Address: addr(t, "10.0.0.7"), Name: "web-1", MACs: []string{macB}})
	m := sight.Machine{Identity: sight.Identity{Addr: netip.MustParseAddr("10.0.0.7"), MAC: macC}, First: r.at, Last: r.at}
	must(t, r.enrolOne(t.Context(), Enrol{MAC: "52", Groups: []string{"lab"}}, addr(t, "10.0.0.7"), m))
	if b, has := r.box("10.0.0.7"); !has || b.Name != "web-1" || !slices.Equal(b.MACs, []string{macB}) || len(b.Groups) != 0 {
		t.Errorf("%+v", b)
	}
}

func TestEnrolRules(t *testing.T) {
	head := "[[enrol]]\n"
	for text, want := range map[string]string{
		head + `groups = ["a"]`:                                          "every machine",
		head + `subnet = "10.0.0.1/24"` + "\n" + `groups = ["a"]`:        "no subnet",
		head + `subnet = "fd00::/64"` + "\n" + `groups = ["a"]`:          "no subnet",
		head + `mac = "5254"` + "\n" + `groups = ["a"]`:                  "no beginning of a MAC",
		head + `mac = "52:54"`:                                           "no groups",
		head + `mac = "52:54"` + "\n" + `groups = [" a"]`:                "space",
		head + `mac = "52:54"` + "\nmost = -1\n" + `groups = ["a"]`:      "most",
		head + `mac = "52:54"` + "\narm = true\n" + `groups = ["a"]`:     "no key enrol.arm",
		strings.Repeat(head+`mac = "52"`+"\n"+`groups = ["a"]`+"\n", 17): "at most 16",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	cfg, err := ParseConfig([]byte(head + `mac = "52:54:0A"` + "\n" + `groups = ["a", "b"]` + "\nmost = 7\n"))
	must(t, err)
	again, err := ParseConfig(ConfigText(cfg))
	if err != nil || len(again.Enrol) != 1 || again.Enrol[0].Most != 7 || !slices.Equal(again.Enrol[0].Groups, []string{"a", "b"}) {
		t.Errorf("%+v, %v", again, err)
	}
	id := sight.Identity{Addr: netip.MustParseAddr("10.0.0.1"), MAC: "52:54:0a:00:00:01"}
	if !cfg.Enrol[0].matches(id) || (Enrol{MAC: "52:54:0b"}).matches(id) || (Enrol{MAC: "52:54", Subnet: "10.0.1.0/24"}).matches(id) {
		t.Error("a rule takes the wrong machines")
	}
}

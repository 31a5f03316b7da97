package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// restoring are so many boxes that restore the same backup. The first is called web-1, and so on.
func restoring(r *rig, n int) (all []*agent) {
	r.Helper()
	r.start(&knife{})
	for i := range n {
		a := boxAddr(i + 1)
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: a, Name: fmt.Sprintf("web-%d", i+1), Health: ledger.Good})
		})
		r.store.add(a, "", "sda")
		r.add(a, box.Restore)
		all = append(all, r.boot(a).works())
	}
	return all
}

// saysOf takes what a box says of another one.
func saysOf(r *rig, by, of *agent, f room.Fault) {
	r.server().RoomNews(boxapi.RoomNews{By: by.hello.Token, Of: of.hello.Token, Fault: f})
	synctest.Wait()
}

func statusAt(r *rig, a *agent) Status {
	r.Helper()
	s, err := r.server().Job(ctx, a.work.ID)
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// TestRoomNews: boxes that others complain of are named, with who says so, in the log, in the status of their jobs and in
// the warnings of their results. However often a box says something, it is taken once.
func TestRoomNews(t *testing.T) {
	bubble(t, func(r *rig) {
		all := restoring(r, 5)
		changes, stop := r.server().Watch()
		defer stop()
		for n := range 100 {
			saysOf(r, all[1], all[0], room.Garbage)
			saysOf(r, all[1], all[2], room.Stalls)
			saysOf(r, all[3], all[2], room.Stalls)
			saysOf(r, all[1], all[4], room.Slow)
			changed := 0
			for more := true; more; synctest.Wait() {
				select {
				case <-changes:
					changed++
				default:
					more = false
				}
			}
			if changed > 0 != (n == 0) {
				t.Fatalf("when it is said for the %d. time, %d jobs change", n+1, changed)
			}
		}
		for _, want := range []string{"The box 10.1.0.1 (web-1) sends wrong bytes, says 10.1.0.2 (web-2).",
			"The box 10.1.0.3 (web-3) sends nothing, or next to nothing, says 10.1.0.2 (web-2).",
			"The box 10.1.0.5 (web-5) is much slower than others, says 10.1.0.2 (web-2)."} {
			if n := strings.Count(r.log.String(), want); n != 1 {
				t.Errorf("the log says %d times: %s\n%s", n, want, r.log)
			}
		}
		if alarms := r.audit("alarm"); len(alarms) != 1 || alarms[0].On != "10.1.0.1" ||
			!strings.Contains(alarms[0].Why, "says 10.1.0.2 (web-2)") {
			t.Errorf("alarms: %+v", alarms)
		}
		if b := r.box(all[0].addr); b.Health != ledger.Good {
			t.Errorf("by the word of one box the health is %s: %s", b.Health, b.Reason)
		}
		for i, want := range []string{"[{garbage 1}]", "[]", "[{stalls 2}]", "[]", "[{slow 1}]"} {
			if got := statusAt(r, all[i]); fmt.Sprint(got.Faults) != want || got.Dropped {
				t.Errorf("box %d: %v, dropped %v", i+1, got.Faults, got.Dropped)
			}
			all[i].reports(true)
			all[i].ends(box.Done)
		}
		for i, want := range []string{"[1 other box says that this one sends wrong bytes.]", "[]",
			"[2 other boxes say that this one sends nothing, or next to nothing.]", "[]", "[]"} {
			if got := statusAt(r, all[i]); fmt.Sprint(got.Warnings) != want || got.Outcome != box.Done {
				t.Errorf("box %d ends with %v, %s", i+1, got.Warnings, got.Outcome)
			}
		}
	})
}

// TestRoomDropped: a box of which nobody is told any more is suspect.
func TestRoomDropped(t *testing.T) {
	bubble(t, func(r *rig) {
		all := restoring(r, 3)
		saysOf(r, all[1], all[0], room.Garbage)
		saysOf(r, all[2], all[0], room.Garbage)
		for range 10 {
			r.server().RoomNews(boxapi.RoomNews{Of: all[0].hello.Token, Fault: room.Garbage, Dropped: true})
			synctest.Wait()
		}
		if b := r.box(all[0].addr); b.Health != ledger.Suspect || !strings.Contains(b.Reason, all[0].work.ID) {
			t.Errorf("the health is %s: %s", b.Health, b.Reason)
		}
		if s := statusAt(r, all[0]); !s.Dropped || fmt.Sprint(s.Faults) != "[{garbage 2}]" || s.State != job.Running {
			t.Errorf("the job is %+v", s)
		}
		if alarms := r.audit("alarm"); len(alarms) != 3 {
			t.Errorf("alarms: %+v", alarms)
		}
		all[0].reports(true)
		all[0].ends(box.Done)
		if s := statusAt(r, all[0]); len(s.Warnings) != 2 || !strings.Contains(s.Warnings[1], "two of them got wrong bytes") {
			t.Errorf("it ends with %q", s.Warnings)
		}
	})
}

// TestRoomSmears: a box that accuses more others than it is believed makes only itself suspect, and fills no log.
func TestRoomSmears(t *testing.T) {
	bubble(t, func(r *rig) {
		all := restoring(r, 12)
		evil := all[0]
		for range 3 {
			for _, a := range all {
				saysOf(r, evil, a, room.Garbage)
				saysOf(r, evil, a, room.Slow)
				saysOf(r, evil, a, room.Away)
				saysOf(r, evil, a, "nonsense")
			}
		}
		accused := map[string]int{}
		for _, a := range all {
			for _, f := range statusAt(r, a).Faults {
				accused[string(f.Fault)] += f.Boxes
			}
			if b := r.box(a.addr); (b.Health == ledger.Suspect) != (a == evil) {
				t.Errorf("%s is %s: %s", b.Name, b.Health, b.Reason)
			}
		}
		if accused["garbage"] != room.MaxAccused || accused["slow"] != maxComplaints || len(accused) != 2 {
			t.Errorf("it is believed of %v", accused)
		}
		if n := strings.Count(r.log.String(), "\n"); n > 80 {
			t.Errorf("the log has %d lines", n)
		}
		evil.reports(true)
		evil.ends(box.Done)
		if got := statusAt(r, evil).Warnings; len(got) != 2 || !strings.Contains(got[0], "more than 3 others that each sends wrong bytes") {
			t.Errorf("it ends with %q", got)
		}
		for _, n := range []boxapi.RoomNews{{}, {By: evil.hello.Token, Of: "nobody"},
			{By: "nobody", Of: all[1].hello.Token, Fault: room.Garbage}} {
			r.server().RoomNews(n)
		}
	})
}

// TestRoomDeaf: where a firewall keeps boxes from each other, the log says so once.
func TestRoomDeaf(t *testing.T) {
	bubble(t, func(r *rig) {
		all := restoring(r, 3)
		for range 5 {
			for i, a := range all {
				a.number++
				report := &wire.Report{Number: a.number, Room: &wire.RoomState{Boxes: 3 - 2*(i/2), Deaf: i > 0}} // the last is alone
				if _, err := r.server().Report(ctx, a.hello.Token, a.from, report); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := strings.Count(r.log.String(), "firewall"); n != 1 || !strings.Contains(r.log.String(), "job="+all[1].work.ID) {
			t.Errorf("the log says it %d times: %s", n, r.log)
		}
		if s := statusAt(r, all[1]); s.Progress == nil || s.Progress.Room == nil || !s.Progress.Room.Deaf {
			t.Errorf("the job is %+v", s)
		}
	})
}

package proc

import (
	"os"
	"strings"
	"testing"
)

// TestServedSchedule: a schedule that is due within the next minute has a box backed up once, although the server is
// killed in between. It stays paused over that. A box that does not come in time is not armed any more, and that is said.
func TestServedSchedule(t *testing.T) {
	t.Parallel()
	const each = "when = \"* * * * *\"\naction = \"backup\"\nzone = \"UTC\"\n"
	s := newServerSite(t, "[schedules.often]\n"+each+"boxes = [\"group:rack\"]\n"+
		"[schedules.never]\n"+each+"boxes = [\"label:off\"]\nlate = \"1m\"\n")
	b, off := s.box(11, disk("sda", scattered(1))), s.box(12)
	s.does(done, []string{"group", "set", "rack"})
	s.does(done, []string{"box", "add", b.addr, "--groups", "rack"})
	s.does(done, []string{"box", "add", off.addr, "--labels", "off"})
	s.does(done, []string{"box", "show", b.addr}, "next backup: ", "by the schedule often")

	s.until("the boxes are armed", 3*serverLimit, func() bool { return b.armed() || off.armed() })
	s.until("the box is armed", serverLimit, b.armed)
	s.does(done, []string{"schedule", "pause", "often", "--why", "once is enough"}, "paused: ", "once is enough")
	s.kill()
	s.start()
	b.boot()
	b.start().ends(done)
	s.does(done, []string{"schedule", "list"}, "paused", "1 done")
	of := func(addr string) (all []servedJob) {
		for _, j := range s.jobs(s.does(done, []string{"jobs", "--all", "--limit", "100", "--json"})) {
			if j.Box == addr {
				all = append(all, j)
			}
		}
		return all
	}
	if all := of(b.addr); len(all) != 1 || all[0].Outcome != "done" {
		t.Errorf("%+v", all)
	}
	s.does(done, []string{"image", "list", b.addr}, "sda")

	s.until("the box that is off is left alone", 3*serverLimit, func() bool {
		all := of(off.addr)
		return len(all) > 0 && all[len(all)-1].State == "ended"
	})
	all := of(off.addr)
	if first := all[len(all)-1]; first.Outcome != "expired" || !strings.Contains(first.Text, "when this job had to begin") {
		t.Errorf("%+v", first)
	}
	s.does(done, []string{"schedule", "pause", "never"})
	s.does(done, []string{"audit"}, "job did not begin", "pause a schedule")
	for _, j := range of(off.addr) {
		s.command("cancel", j.ID) // the latest may have been made since
	}
	s.until("the box that is off is not armed", serverLimit, func() bool {
		_, err := os.Stat(off.bootFile())
		return os.IsNotExist(err)
	})

	ran := s.does(done, []string{"schedule", "run", "often", "--json"})
	b.boot()
	b.start().ends(done)
	if all := of(b.addr); len(all) != 2 || all[0].Outcome != "done" || !strings.Contains(ran, all[0].ID) {
		t.Errorf("%+v of %s", all, ran)
	}
	s.does(0, []string{"schedule", "resume", "often"}, "next: ")
	s.does(2, []string{"schedule", "pause", "no-such-one"}, "there is no schedule")
	s.end()
}

package agent

import (
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// TestTrackReadsWhatTheAgentSays: the log of real runs gives their outcome.
func TestTrackReadsWhatTheAgentSays(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	check := func(want box.Outcome, cmdline string) {
		t.Helper()
		b.want(b.run(cmdline), want)
		var tr Track
		for _, line := range strings.Split(strings.TrimSpace(b.read(folder+"maintenance.log")), "\n") {
			tr.Add(line)
		}
		if !tr.Ended || tr.Outcome != want || !strings.Contains(cmdline, string(tr.Arming)) ||
			!strings.HasPrefix(tr.End, string(tr.Action)+": ") {
			t.Errorf("a run that ends %q is read as %+v", want, tr)
		}
	}
	check(box.Refused, b.arm(box.Restore, nil))
	check(box.Done, b.arm(box.Backup, nil))
	b.wreck("vda")
	check(box.Differs, b.arm(box.Verify, nil))
	check(box.Expired, b.arm(box.Verify, func(c *bootcfg.Cmdline) { c.Expires = c.Expires.AddDate(2001, 0, 0) }))
}

// TestTrackOutcomes: every outcome is read, in the words of say, and no other
// line is taken for one.
func TestTrackOutcomes(t *testing.T) {
	const at = "2026-11-22T08:00:00+00:00: 10.88.0.11: "
	track := func(lines ...string) Track {
		tr := Track{}
		for _, l := range lines {
			tr.Add(l)
		}
		return tr
	}
	begin := at + "info: restore, arming 0123456789abcdef"
	for _, o := range box.Outcomes() {
		for _, more := range []string{"", ": why", ", why"} {
			if tr := track(begin, at+"error: restore: "+string(o)+more); !tr.Ended || tr.Outcome != o {
				t.Errorf("%q%s is read as %+v", o, more, tr)
			}
		}
	}
	for _, text := range []string{"restore: doned", "backup: done", "sda: restore: done", "restore: image checked", "restore",
		"the agent was here"} {
		if tr := track(begin, at+"info: "+text); tr.Ended {
			t.Errorf("%q is taken for an end", text)
		}
	}
	if tr := track(begin, at+"info: restore: done", "==================== x", at+"info: hello"); tr.Ended || tr.Arming != "" {
		t.Errorf("a new session goes on with the one before: %+v", tr)
	}
	if tr := track(at + "info: restore: done"); tr.Ended {
		t.Error("an end without a beginning counts")
	}
	for _, text := range []string{"the agent was killed by signal 9 (killed)", "the agent exited with status 2: panic: x",
		"no progress for 10m0s; rebooting"} {
		if tr := track(begin, at+"error: "+text); !tr.Ended || tr.Outcome != box.Failed {
			t.Errorf("%q is read as %+v", text, tr)
		}
	}
	if got := fmt.Sprint(track(begin, "\x1b[31mred").Last); got != `\x1b[31mred` {
		t.Errorf("a line reaches the terminal as %q", got)
	}
}

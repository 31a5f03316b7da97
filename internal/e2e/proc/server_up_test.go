package proc

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// tftp gets a file from the server as the box's loader does.
func (b *servedBox) tftp(name string) (string, error) {
	b.t.Helper()
	argv := b.host.in("curl", "--silent", "--show-error", "--max-time", "60", "tftp://"+serverIP+"/"+name)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// ignorePings makes the box's kernel answer no echo request from now on.
func (b *servedBox) ignorePings() {
	b.t.Helper()
	argv := b.host.in("sh", "-c", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
	run(b.t, "", argv[0], argv[1:]...)
}

// TestServedUp: a box gets its boot file by TFTP, and nobody else does. With --wait=up a
// job ends when the box's own system answers, and the box had asked for the default boot
// file before. An answer alone is not enough, since the maintenance system answers too.
func TestServedUp(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "curl")
	s := newServerSite(t, "[jobs]\nup = \"1m\"\n")
	b, other := s.box(11, disk("sda", scattered(1))), s.box(12)
	b.act(done, "backup")

	w := s.waits("restore", b.addr, "--wait=up", "--json")
	b.boot()
	name := "pxelinux.cfg/" + filepath.Base(b.bootFile())
	want, err := os.ReadFile(b.bootFile())
	must(t, err)
	if got, err := b.tftp(name); err != nil || got != string(want) {
		t.Errorf("the box gets its boot file as %q, %v", got, err)
	}
	if got, err := other.tftp(name); err == nil || strings.Contains(got, "APPEND") {
		t.Errorf("another box gets the boot file: %q", got)
	}
	if got, err := other.tftp("pxelinux.cfg/default"); err != nil || !strings.Contains(got, "LOCALBOOT") {
		t.Errorf("another box gets the default boot file as %q, %v", got, err)
	}
	b.start().ends(done)
	state := func() string {
		jobs := s.jobs(s.does(done, []string{"jobs", b.addr, "--json"}))
		if len(jobs) == 0 {
			return "" // ended
		}
		return jobs[0].State
	}
	restarting := func() bool { return state() == "restarting" }
	s.until("the box restarts", serverLimit, restarting)
	time.Sleep(8 * time.Second) // it answers pings all the time, and it is asked every five seconds
	if !restarting() {
		t.Error("the job ended although the box did not start its own system")
	}
	if _, err := b.tftp("pxelinux.cfg/default"); err != nil {
		t.Fatal(err)
	}
	if jobs := w.ends(t, "a restore of a box that is up again", done); len(jobs) != 1 || jobs[0].Outcome != "done" || jobs[0].Up != "yes" {
		t.Errorf("%+v", jobs)
	}

	const notUp = 10
	w = s.waits("refresh-info", b.addr, "--wait=up", "--json")
	b.boot()
	b.start().ends(done)
	s.until("the box restarts again", serverLimit, restarting)
	// It answers no ping from before it asks for the default boot file. Afterwards would
	// be too late, since the server may ask at that very moment.
	b.ignorePings()
	if _, err := b.tftp("pxelinux.cfg/default"); err != nil {
		t.Fatal(err)
	}
	s.until("the time for the box's own system is over", 3*serverLimit, func() bool { return !restarting() })
	if jobs := w.ends(t, "a box that does not come up", notUp); len(jobs) != 1 || jobs[0].Outcome != "done" || jobs[0].Up != "no" {
		t.Errorf("%+v", jobs)
	}
}

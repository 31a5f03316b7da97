package proc

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/testenv"
)

// mac is the hardware address of the box's network card.
func (b *servedBox) mac() string {
	b.t.Helper()
	argv := b.host.in("ip", "-j", "link", "show", "eth0")
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	must(b.t, err)
	var links []struct{ Address string }
	must(b.t, json.Unmarshal(out, &links))
	return links[0].Address
}

// loads asks for boot files as PXELINUX does, and is given the default.
func (b *servedBox) loads() {
	b.t.Helper()
	b.tftp("pxelinux.cfg/01-" + strings.ReplaceAll(b.mac(), ":", "-")) // is not there
	if _, err := b.tftp("pxelinux.cfg/default"); err != nil {
		b.t.Fatal(err)
	}
}

func (s *serverSite) seen(args ...string) (boxes []api.Box) {
	s.t.Helper()
	must(s.t, json.Unmarshal([]byte(s.does(done, append(append([]string{"boxes"}, args...), "--json"))), &boxes))
	return boxes
}

func (s *serverSite) strangers() (machines []api.Machine) {
	s.t.Helper()
	must(s.t, json.Unmarshal([]byte(s.does(done, []string{"boxes", "--new", "--json"})), &machines))
	return machines
}

// TestServedFirstSight: a machine that nobody knows is listed once it has asked for its boot
// files, also after a restart of the server. It becomes a box, gets a job, and is found
// again at another address. A rule takes another machine, and arms nothing.
func TestServedFirstSight(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "curl")
	s := newServerSite(t, "[[enrol]]\nmac = \"52:54:00\"\ngroups = [\"auto\"]\n")
	b, other := s.box(11, disk("sda", scattered(1))), s.box(12)
	other.host.ip(t, "link set eth0 address 52:54:00:12:34:56")
	mac := b.mac()
	if all := s.strangers(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	b.loads()
	for range 2 {
		all := s.strangers()
		if len(all) != 1 || all[0].MAC != mac || all[0].Address != b.addr || all[0].OwnDisk.IsZero() || len(all[0].Asked) != 2 ||
			all[0].Asked[0].Given != "" || all[0].Asked[1].Given != "pxelinux.cfg/default" {
			t.Fatalf("%+v", all)
		}
		s.end()
		s.start()
	}
	s.does(done, []string{"box", "add", mac, "--name", "fresh"}, b.addr, mac)
	if all := s.strangers(); len(all) != 0 {
		t.Errorf("a box is listed as new: %+v", all)
	}
	b.act(done, "backup")

	other.loads()
	s.until("the rule enrols the machine", serverLimit, func() bool { return len(s.seen("--group", "auto")) == 1 })
	auto := s.seen("--group", "auto")[0]
	if auto.Address != other.addr || !slices.Equal(auto.MACs, []string{"52:54:00:12:34:56"}) || auto.Last != nil || other.armed() {
		t.Errorf("%+v", auto)
	}
	s.does(done, []string{"audit"}, "enrol box", other.addr)

	const moved = "10.88.0.31"
	b.host.ip(t, "addr del "+b.addr+"/24 dev eth0")
	b.host.ip(t, "addr add "+moved+"/24 dev eth0")
	b.loads()
	for range 2 {
		box := s.seen()[0]
		if box.Address != b.addr || box.Moved == nil || box.Moved.Address != moved || box.LastSeen.IsZero() {
			t.Fatalf("%+v", box)
		}
		s.end()
		s.start()
	}
	if !strings.Contains(s.said(), "asks from another address") {
		t.Error("the log does not say that the box moved")
	}
	if all := s.strangers(); len(all) != 0 {
		t.Errorf("the box is a stranger at its new address: %+v", all)
	}

	jobs := s.does(done, []string{"jobs", b.addr, "--all", "--json"})
	s.does(done, []string{"box", "readdress", "fresh", moved, "--why", "a new rack"}, moved, "last backup")
	was := b.addr
	b.addr = moved
	if box := s.seen()[1]; box.Address != moved || box.Moved != nil || box.Name != "fresh" || box.Last == nil || box.LastBackup == nil {
		t.Errorf("%+v", box)
	}
	if now := s.does(done, []string{"jobs", b.addr, "--all", "--json"}); strings.ReplaceAll(jobs, was, moved) != now {
		t.Errorf("its jobs were\n%s\nand are\n%s", jobs, now)
	}
	s.does(done, []string{"log", moved, "--all"}, "backup")
	b.act(done, "restore")
}

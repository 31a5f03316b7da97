package proc

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/testenv"
)

// found is what `testbox doctor --json` says in a host.
type found []struct{ Severity, Check, Text, Do string }

func (f found) has(severity, check, text string) bool {
	for _, one := range f {
		if one.Severity == severity && one.Check == check && strings.Contains(one.Text, text) {
			return true
		}
	}
	return false
}

func (s *serverSite) doctor(h host, args ...string) found {
	s.t.Helper()
	argv := h.in(append([]string{s.prog.testbox, "doctor", "--json"}, args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = s.env()
	out, err := cmd.Output()
	var all struct{ Findings found }
	if cmd.ProcessState == nil || json.Unmarshal(out, &all) != nil {
		s.t.Fatalf("the doctor says nothing: %v\n%s", err, out)
	}
	bad := false
	for _, one := range all.Findings {
		bad = bad || one.Severity == "problem"
	}
	if code := cmd.ProcessState.ExitCode(); bad != (code == 1) {
		s.t.Errorf("exit code %d of %v", code, all)
	}
	return all.Findings
}

// finds fails unless the doctor finds it.
func (s *serverSite) finds(f found, severity, check, text string) {
	s.t.Helper()
	if !f.has(severity, check, text) {
		s.t.Errorf("no %s of %s with %q: %+v", severity, check, text, f)
	}
}

// labDHCP starts a DHCP server of the lab on a host of its own.
func (s *serverSite) labDHCP(address string, args ...string) {
	s.t.Helper()
	h := newHost(s.t)
	s.join(h, address)
	argv := h.in(append([]string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
		"--bind-interfaces",
		"--user=root", "--pid-file=", "--no-ping", "--dhcp-leasefile=" + filepath.Join(tempDir(s.t), "leases"),
		"--dhcp-range=10.88.0.50,10.88.0.60,1h"}, args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, cmd.Start())
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s.until("dnsmasq runs", serverLimit, func() bool {
		argv := h.in("cat", "/proc/net/udp")
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		return err == nil && strings.Contains(string(out), ":0043 ")
	})
}

// TestDoctor breaks what a server and its boxes need, one thing after the other.
func TestDoctor(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "dnsmasq", "nft")
	s := newServerSite(t, "")
	config := "--config=" + s.config()
	tftp := filepath.Join(s.state, "testbox-tftp")
	boxes := newHost(t)
	s.join(boxes, "10.88.0.30")

	f := s.doctor(s.host, config)
	s.finds(f, "warning", "no-dhcp", "no DHCP server")
	s.finds(f, "fine", "tftp", "10.88.0.1:69")
	s.finds(f, "fine", "loader", "")
	s.finds(f, "fine", "server", "TFTP is on")
	s.finds(f, "fine", "keys", "")
	s.finds(f, "fine", "firewall", "")

	// One box is asked of the server, and costs no search for DHCP servers.
	s.finds(s.doctor(s.host, config, "10.88.0.77"), "problem", "box", "10.88.0.77")

	s.labDHCP("10.88.0.2", "--dhcp-boot=pxelinux.0,,10.88.0.1")
	f = s.doctor(s.host, config)
	if s.finds(f, "fine", "dhcp", ""); t.Failed() {
		t.FailNow()
	}
	s.labDHCP("10.88.0.3", "--dhcp-boot=grub.0,,10.88.0.9", "--pxe-service=x86PC,menu,0", "--pxe-prompt=Which,5")
	run(t, "", s.host.in("nft")[0], append(s.host.in("nft")[1:], "add", "table", "inet", "f")...)
	run(t, "", s.host.in("nft")[0], append(s.host.in("nft")[1:],
		"add chain inet f in { type filter hook input priority 0; policy accept; }")...)
	run(t, "", s.host.in("nft")[0], append(s.host.in("nft")[1:], "add rule inet f in iifname != lo udp dport 69 drop")...)
	must(t, os.WriteFile(filepath.Join(tftp, "pxelinux.cfg/0A58"), []byte("DEFAULT menu.c32\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(tftp, "pxelinux.cfg/01-52-54-00-00-00-01"), []byte("x"), 0o644))
	must(t, os.Truncate(filepath.Join(tftp, "ldlinux.c32"), 5000))
	must(t, os.Chmod(filepath.Join(s.state, "tls/agents.key"), 0o644))
	f = s.doctor(s.host, config)
	s.finds(f, "problem", "two-dhcp", "10.88.0.2, 10.88.0.3")
	s.finds(f, "problem", "firewall", "69")
	s.finds(f, "problem", "boot-files", "0A58")
	s.finds(f, "warning", "shadow", "01-52-54-00-00-00-01")
	s.finds(f, "problem", "loader", "two versions")
	s.finds(f, "problem", "server-files", "can be read by others")

	// Another machine of the boxes' network sees what boxes see.
	f = s.doctor(boxes, "--config=/nowhere.toml", "--boot-files="+filepath.Join(tftp, "pxelinux.cfg"))
	s.finds(f, "problem", "tftp", "no TFTP server answers")

	s.end()
	s.finds(s.doctor(s.host, config), "problem", "server", "")
}

package proc

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/testenv/testkey"
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
	s.finds(f, "fine", "keys", "boot files")
	s.finds(f, "fine", "keys", "agents.crt")
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
	other, _, err := testkey.New()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.state, "tls/agents.crt"),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate[0]}), 0o644))
	must(t, os.WriteFile(filepath.Join(tftp, "pxelinux.cfg/default"), []byte("DEFAULT menu.c32\n"), 0o644))
	ledger := filepath.Join(s.state, "ledger-copy.db")
	must(t, os.WriteFile(ledger, nil, 0o600))
	must(t, os.Chtimes(ledger, time.Time{}, time.Now().Add(-100*time.Hour)))
	f = s.doctor(s.host, config)
	s.finds(f, "problem", "two-dhcp", "10.88.0.2, 10.88.0.3")
	s.finds(f, "problem", "next-server", "10.88.0.9")
	s.finds(f, "problem", "boot-file", "grub.0")
	s.finds(f, "problem", "option-43", "a boot menu")
	s.finds(f, "problem", "firewall", "69")
	s.finds(f, "problem", "boot-files", "0A58")
	s.finds(f, "warning", "shadow", "01-52-54-00-00-00-01")
	s.finds(f, "problem", "loader", "two versions")
	s.finds(f, "problem", "server-files", "can be read by others")
	s.finds(f, "problem", "keys", "nobody who knows the one takes the other")
	s.finds(f, "problem", "boot-files", "default does not clearly boot the local disk")
	s.finds(f, "problem", "ledger-copy", "is of")

	// Another machine of the boxes' network sees what boxes see.
	f = s.doctor(boxes, "--config=/nowhere.toml", "--boot-files="+filepath.Join(tftp, "pxelinux.cfg"))
	s.finds(f, "problem", "tftp", "no TFTP server answers")

	s.end()
	s.finds(s.doctor(s.host, config), "problem", "server", "")
	s.host.ip(t, "addr del 10.88.0.1/24 dev br0")
	boxes.ip(t, "neigh flush all")
	f = s.doctor(boxes, "--config=/nowhere.toml", "--boot-files="+filepath.Join(tftp, "pxelinux.cfg"))
	s.finds(f, "problem", "pxe-e11", "no machine of this network has the address 10.88.0.1")
}

// TestDoctorProxy: a server of ours that tells boxes what to start has the port of DHCP, so it hears the other servers. Another machine
// hears both.
func TestDoctorProxy(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "dnsmasq")
	s := newServerSite(t, "[dhcp]\nmode = \"proxy\"\ninterfaces = [\"br0\"]\n")
	config := "--config=" + s.config()
	boxes := newHost(t)
	s.join(boxes, "10.88.0.30")
	elsewhere := []string{"--config=/nowhere.toml", "--boot-files=" + filepath.Join(s.state, "testbox-tftp/pxelinux.cfg")}
	heard := func(severity, check, text string) {
		t.Helper()
		var f found
		for end := time.Now().Add(2 * serverLimit); !f.has(severity, check, text); {
			if time.Now().After(end) {
				t.Fatalf("no %s of %s with %q: %+v", severity, check, text, f)
			}
			f = s.doctor(s.host, config)
		}
		for _, one := range f {
			if one.Check == "dhcp" && one.Severity == "not looked at" {
				t.Errorf("the server has the port and has asked: %+v", one)
			}
		}
	}
	heard("warning", "no-dhcp", "no server was heard")

	s.labDHCP("10.88.0.2")
	s.end()
	s.start()
	heard("fine", "dhcp", "do not get in its way")
	s.finds(s.doctor(boxes, elsewhere...), "fine", "dhcp", "names the right files")

	s.labDHCP("10.88.0.3", "--dhcp-boot=grub.0,,10.88.0.9", "--pxe-service=x86PC,menu,0", "--pxe-prompt=Which,5")
	s.end()
	s.start()
	heard("problem", "two-dhcp", "10.88.0.2, 10.88.0.3")
	f := s.doctor(s.host, config)
	s.finds(f, "problem", "option-43", "10.88.0.3")
	s.finds(f, "problem", "boot-file", "beside ours")
	s.finds(s.doctor(boxes, elsewhere...), "problem", "option-43", "10.88.0.3")
}

// exports starts an NFS server of a version on a host, for these areas of a root.
func exports(t testing.TB, h host, root, version, access string, anon int, areas ...string) {
	t.Helper()
	conf := "NFS_CORE_PARAM { Protocols = " + version + "; Enable_NLM = false; Enable_RQUOTA = false; }\n" +
		"NFSV4 { Graceless = true; Only_Numeric_Owners = true; }\n"
	portmapper := "rpcbind"
	if version == "4" {
		portmapper = "true"
	}
	for i, area := range areas {
		conf += fmt.Sprintf("EXPORT { Export_Id = %[1]d; Path = %[2]q; Pseudo = %[2]q; Access_Type = %[3]s; Squash = Root_Squash; "+
			"Anonymous_Uid = %[4]d; Anonymous_Gid = %[4]d; SecType = sys; FSAL { Name = VFS; } }\n",
			i+1, filepath.Join(root, area), access, anon)
	}
	file := filepath.Join(tempDir(t), "ganesha.conf")
	must(t, os.WriteFile(file, []byte(conf), 0o644))
	// rpcbind has a socket in /run, so /run is another one. A namespace of processes ends both programs with the first one.
	argv := h.in("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
		"mount -t tmpfs none /run && "+portmapper+" && exec ganesha.nfsd -F -f "+file+" -L "+file+".log -p "+file+".pid")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if log, err := os.ReadFile(file + ".log"); t.Failed() {
			t.Logf("the NFS server: %v\n%s", err, log)
		}
	})
}

// TestDoctorExports mounts the areas of share mode from a real NFS server, right and wrong. Each server has a
// network of its own, since ports stay taken for a minute after a server.
func TestDoctorExports(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tools(t, "ganesha.nfsd", "rpcbind", "unshare", "ip", "nsenter")
	prog, err := built()
	must(t, err)
	root := tempDir(t)
	must(t, os.Chmod(root, 0o755))
	run(t, "", prog.testbox, "share", "init", "--server", "10.88.0.1", root)
	must(t, addMaintenance(filepath.Join(root, "testbox-tftp"), bootcfg.FormRAM))
	both := []string{"testbox-tftp", "testbox-backup"}
	for name, c := range map[string]struct {
		version        string // "" is no server
		access         string
		anon           int
		areas          []string
		severity, text string
	}{
		"no server":    {"", "", 0, nil, "problem", "does not answer"},
		"right":        {"3", "RW", 65534, both, "fine", "boxes can mount"},
		"version 4":    {"4", "RW", 65534, both, "fine", "boxes can mount"},
		"4, read-only": {"4", "RO", 65534, both, "problem", "may not write"},
		"read-only":    {"3", "RO", 65534, both, "problem", "may not write"},
		"another user": {"3", "RW", 12345, both, "problem", "belongs to another user"},
		"one area":     {"3", "RW", 65534, both[:1], "problem", "cannot mount 10.88.0.1:" + filepath.Join(root, "testbox-backup")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.ip(t, "link set lo up")
			h.ip(t, "addr add 10.88.0.1/24 dev lo")
			if c.version != "" {
				exports(t, h, root, c.version, c.access, c.anon, c.areas...)
			}
			s := &serverSite{t: t, prog: prog, state: root, host: h}
			var f found
			for end := time.Now().Add(3 * serverLimit); ; {
				f = s.doctor(h, "10.88.0.30", "--config=/nowhere.toml", "--boot-files="+filepath.Join(root, "testbox-tftp/pxelinux.cfg"))
				if f.has(c.severity, "exports", c.text) {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("no %s of exports with %q: %+v", c.severity, c.text, f)
				}
			}
		})
	}
}

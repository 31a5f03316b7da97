package proc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/testenv"
)

// walkLimit is far more than a command of the walk needs.
const walkLimit = 3 * time.Minute

// walkOf is what a newcomer types: the commands of the section of the document, one a line.
func walkOf(t *testing.T, file, heading string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Top(), file))
	must(t, err)
	_, rest, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", file, heading)
	}
	begun := false
	for line := range strings.Lines(rest) {
		command, code := strings.CutPrefix(line, "    ")
		if command, _, _ = strings.Cut(command, " #"); code {
			commands, begun = append(commands, strings.TrimSpace(command)), true
		} else if begun {
			return commands
		}
	}
	t.Fatalf("%s has no commands in %q", file, heading)
	return nil
}

// newcomer is somebody at a fresh machine, whose folders /etc, /run and /var/lib are
// their own, and whose only card is that of the boxes' network.
type newcomer struct {
	*serverSite
	etc, lib string
	token    string // that setup printed
}

func newNewcomer(t *testing.T) *newcomer {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "ip", "nsenter", "setpriv", "mount")
	prog, err := built()
	must(t, err)
	n := &newcomer{serverSite: &serverSite{t: t, prog: prog}, etc: tempDir(t), lib: tempDir(t)}
	n.state, n.log = filepath.Join(n.lib, "testbox"), filepath.Join(tempDir(t), "server.log")
	run(t, "", "cp", "-a", "/etc/.", n.etc)
	must(t, os.RemoveAll(filepath.Join(n.etc, "testbox")))
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	n.host = host{cmd}
	for _, command := range []string{"link set lo up", bridge, "addr add 10.40.0.1/16 dev br0", "link set br0 up"} {
		n.host.ip(t, command)
	}
	for at, dir := range map[string]string{"/etc": n.etc, "/run": tempDir(t), "/var/lib": n.lib} {
		n.must("mount", "--bind", dir, at)
	}
	t.Cleanup(n.kill)
	return n
}

// in is a command that the newcomer types. ctx bounds it.
func (n *newcomer) in(ctx context.Context, argv ...string) *exec.Cmd {
	pid := n.host.cmd.Process.Pid
	enter := []string{fmt.Sprintf("--net=/proc/%d/ns/net", pid), fmt.Sprintf("--mount=/proc/%d/ns/mnt", pid)}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(n.prog.testbox)+":"+os.Getenv("PATH"), "XDG_CACHE_HOME="+n.lib)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (n *newcomer) must(argv ...string) {
	n.t.Helper()
	if out, err := n.in(n.t.Context(), argv...).CombinedOutput(); err != nil {
		n.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// types runs a command, which must end with the code and print each of says.
func (n *newcomer) types(code int, command string, says ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), walkLimit)
	defer cancel()
	cmd := n.in(ctx, strings.Fields(command)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		n.t.Fatalf("%s: %v, and %d was expected:\n%s\nthe server says\n%s", command, err, code, out, n.said())
	}
	for _, want := range says {
		if !strings.Contains(string(out), want) {
			n.t.Errorf("%s does not say %q:\n%s", command, want, out)
		}
	}
	return string(out)
}

func (n *newcomer) serve() {
	n.t.Helper()
	out, err := os.Create(n.log)
	must(n.t, err)
	defer out.Close()
	n.proc = n.in(context.WithoutCancel(n.t.Context()), "testbox", "server")
	n.proc.Stdout, n.proc.Stderr = out, out
	must(n.t, n.proc.Start())
	n.until("the server is ready", serverLimit, func() bool { return strings.Contains(n.said(), "The server is ready.") })
}

// boxAt plugs a box in that has an address of the newcomer's network.
func (n *newcomer) boxAt(addr string, disks ...*testDisk) *servedBox {
	n.t.Helper()
	b := &servedBox{site: n.serverSite, host: newHost(n.t)}
	b.testBox = &testBox{t: n.t, prog: n.prog, dir: tempDir(n.t), root: n.state, uuid: boxUUID, key: addr, addr: addr, host: boxHost,
		disks: disks}
	for _, d := range disks {
		d.attach(n.t)
	}
	must(n.t, os.MkdirAll(b.path("proc"), 0o755))
	must(n.t, os.WriteFile(b.path("proc", "cpuinfo"), []byte("processor\t: 0\nmodel name\t: Test CPU\n"), 0o644))
	b.plug()
	n.plug(b.host)
	for _, command := range []string{"link set lo up", "addr add " + addr + "/16 dev eth0", "link set eth0 up"} {
		b.host.ip(n.t, command)
	}
	return b
}

// waits types a command with --wait, and has the box start meanwhile.
func (n *newcomer) waits(b *servedBox, command string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), walkLimit)
	defer cancel()
	var out bytes.Buffer
	cmd := n.in(ctx, strings.Fields(command)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	must(n.t, cmd.Start())
	b.boot()
	said := b.start().ends(done)
	if err := cmd.Wait(); err != nil {
		n.t.Fatalf("%s: %v\n%s\nthe agent said\n%s", command, err, out.String(), said)
	}
}

// browser speaks with the server from the newcomer's machine.
func (n *newcomer) browser() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.host.dial,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// get asks the server's API with the token.
func (n *newcomer) get(path, token string) (status int) {
	n.t.Helper()
	c := n.browser()
	q, err := http.NewRequest("GET", "https://10.40.0.1:8443"+path, nil)
	must(n.t, err)
	q.Header.Set("Authorization", "Bearer "+token)
	a, err := c.Do(q)
	must(n.t, err)
	defer a.Body.Close()
	io.Copy(io.Discard, a.Body)
	return a.StatusCode
}

// page logs in to the server's page with the token, and returns the list of boxes.
func (n *newcomer) page() string {
	n.t.Helper()
	c := n.browser()
	var err error
	c.Jar, err = cookiejar.New(nil)
	must(n.t, err)
	const at = "https://10.40.0.1:8443/"
	before, text := n.read(c.Get(at))
	if before != "/login" || strings.Contains(text, "10.40.41.42") {
		n.t.Errorf("somebody who is not logged in is at %s:\n%s", before, text)
	}
	after, text := n.read(c.PostForm(at+"login", url.Values{"token": {n.token}}))
	if after != "/" {
		n.t.Errorf("the login with the token that setup printed leads to %s:\n%s", after, text)
	}
	return text
}

// read is where an answer came from in the end, and its text.
func (n *newcomer) read(a *http.Response, err error) (path, text string) {
	n.t.Helper()
	must(n.t, err)
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	must(n.t, err)
	return a.Request.URL.Path, string(b)
}

// TestNewcomersWalk types what README.md says to do on real machines, in this order, and
// nothing else but what the commands say themselves.
func TestNewcomersWalk(t *testing.T) {
	t.Parallel()
	commands := walkOf(t, "README.md", "## On real machines")
	n := newNewcomer(t)
	sda := disk("sda", scattered(1))
	var b *servedBox
	before := ""
	seen := map[string]bool{}
	for _, command := range commands {
		words := strings.Fields(command)
		if words[0] != "testbox" {
			continue // how the programs come to the machine, which they have
		}
		seen[words[1]] = true
		switch words[1] {
		case "setup":
			n.setUp(command)
			b = n.boxAt("10.40.41.42", sda)
		case "backup":
			n.waits(b, command)
			before = sda.hash(t)
		case "restore":
			sda.wreck(t)
			n.waits(b, command)
			if sda.hash(t) != before {
				t.Error("the restored disk is not what it was")
			}
		case "log":
			n.types(done, strings.TrimSuffix(command, " --follow"), "restore: done")
		default:
			n.types(done, command)
		}
	}
	n.types(done, "testbox doctor -v 10.40.41.42", "fine: restore: a restore would be taken now", "fine: backup: ", "warning: starts: ")
	if text := n.page(); !strings.Contains(text, "10.40.41.42") {
		t.Errorf("the page does not list the box:\n%s", text)
	}
	for _, want := range []string{"setup", "backup", "restore", "jobs", "log"} {
		if !seen[want] {
			t.Errorf("README.md does not have testbox %s among %q", want, commands)
		}
	}
}

// setUp types `testbox setup` until nothing is missing, and does what it says. This machine
// has no systemd, and no network but that of the boxes.
func (n *newcomer) setUp(command string) {
	n.t.Helper()
	n.types(done, command+" --show", "10.40.0.1 of the card br0", "Nothing was changed")
	if _, err := os.Stat(n.state); err == nil {
		n.t.Error("--show made the state folder")
	}
	out := n.types(failed, command, "[done] state folder", "[MISSING] maintenance system", "[MISSING] server", "`testbox server &`",
		"dhcp-boot=pxelinux.0,,10.40.0.1")
	if strings.Contains(out, "is ready") {
		n.t.Errorf("setup says that all is ready:\n%s", out)
	}
	must(n.t, addMaintenance(filepath.Join(n.state, bootcfg.TFTPArea), bootcfg.FormRAM))
	n.serve()
	out = n.types(done, command, "[so] state folder", "[so] TFTP pxelinux.0", "https://10.40.0.1:8443/ answers", "The server is ready")
	token := regexp.MustCompile(`(?m)^    (\S{20,})$`).FindStringSubmatch(out)
	if token == nil {
		n.t.Fatalf("setup says no token:\n%s", out)
	}
	n.token = token[1]
	if code := n.get("/api/v1/me", token[1]); code != http.StatusOK {
		n.t.Errorf("with the token that setup printed the server answers %d", code)
	}
	if code := n.get("/api/v1/me", token[1]+"x"); code != http.StatusUnauthorized {
		n.t.Errorf("with another token the server answers %d", code)
	}
	if list := n.types(done, "testbox boxes --new"); strings.Contains(list, "10.40.0.1 ") {
		n.t.Errorf("the server takes itself for a new machine:\n%s", list)
	}
	n.again(command)
}

// again: setup changes nothing that is there, and repairs what is damaged.
func (n *newcomer) again(command string) {
	n.t.Helper()
	boot := filepath.Join(n.state, bootcfg.TFTPArea, bootcfg.ConfigDir)
	kept := map[string]string{}
	for _, path := range []string{filepath.Join(n.etc, "testbox/server.toml"), filepath.Join(boot, "site.conf")} {
		text, err := os.ReadFile(path)
		must(n.t, err)
		kept[path] = string(text) + "\n# by hand\n"
		must(n.t, os.WriteFile(path, []byte(kept[path]), 0o644))
	}
	for _, path := range []string{"tls/api.key", "tls/agents.key"} {
		text, err := os.ReadFile(filepath.Join(n.state, path))
		must(n.t, err)
		kept[filepath.Join(n.state, path)] = string(text)
	}
	loader := filepath.Join(n.state, bootcfg.TFTPArea, "pxelinux.0")
	must(n.t, os.WriteFile(loader, []byte("damaged"), 0o644))
	tokens := n.types(done, "testbox token list")
	n.types(done, command, "[done] state folder", "[so] admin", "[so] TFTP pxelinux.0", "The server is ready")
	out := n.types(done, command, "[so] state folder", "[so] admin")
	if strings.Contains(out, "[done]") {
		n.t.Errorf("nothing was to be done:\n%s", out)
	}
	for path, want := range kept {
		if text, err := os.ReadFile(path); err != nil || string(text) != want {
			n.t.Errorf("%s has changed: %v", path, err)
		}
	}
	if now := n.types(done, "testbox token list"); now != tokens {
		n.t.Errorf("the tokens were\n%s\nand are\n%s", tokens, now)
	}
}

// TestSetupHearsDHCP has another DHCP server in the boxes' network.
func TestSetupHearsDHCP(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "dnsmasq")
	n := newNewcomer(t)
	other := newHost(t)
	n.plug(other)
	for _, command := range []string{"link set lo up", "addr add 10.40.0.254/16 dev eth0", "link set eth0 up"} {
		other.ip(t, command)
	}
	for _, k := range []struct {
		boot, says string
	}{
		{"", "The DHCP server 10.40.0.254 gives the addresses and names no boot server"},
		{"pxelinux.0,,10.40.0.9", "The server 10.40.0.254 sends machines that start to another boot server"},
		{"pxelinux.0,,10.40.0.1", "The DHCP server 10.40.0.254 names this machine as the boot server already"},
	} {
		argv := other.in("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--no-ping",
			"--dhcp-range=10.40.7.1,10.40.7.99,255.255.0.0", "--leasefile-ro", "--pid-file=", "--user=root")
		if k.boot != "" {
			argv = append(argv, "--dhcp-boot="+k.boot)
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		must(t, cmd.Start())
		// The server may be late, and setup asks for 5 seconds.
		var out string
		for end := time.Now().Add(serverLimit); !strings.Contains(out, k.says) && time.Now().Before(end); {
			out = n.types(done, "testbox setup --show")
		}
		if !strings.Contains(out, k.says) {
			t.Errorf("with dhcp-boot %q setup does not say %q:\n%s", k.boot, k.says, out)
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// TestSetupOddMachines has setup say what it would do on machines with other cards, ports and disks.
func TestSetupOddMachines(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tools(t, "ip", "nsenter", "unshare", "mount")
	prog, err := built()
	must(t, err)
	card := func(name, rest string) []string {
		return []string{"link add " + name + " type veth peer name peer-" + name, "link set peer-" + name + " up", "link set " + name + " up",
			strings.ReplaceAll(rest, "CARD", name)}
	}
	one := card("e0", "addr add 10.1.0.1/24 dev CARD")
	for name, c := range map[string]struct {
		ip   []string
		code int
		says []string
	}{
		"no card": {nil, wrongUse, []string{"no network card is up and has an IPv4 address (there is no card but the loopback)"}},
		"down":    {[]string{"link add br0 type bridge", "addr add 10.1.0.1/24 dev br0"}, wrongUse, []string{"(br0 is down)"}},
		"IPv6 only": {card("e0", "addr add fd00::5/64 dev CARD nodad"), wrongUse,
			[]string{"only addresses of IPv6. Boxes start by IPv4", "e0 has no IPv4 address"}},
		"two cards": {append(card("e1", "addr add 10.2.0.1/24 dev CARD"), one...), wrongUse,
			[]string{"testbox setup --address 10.1.0.1    # card e0, network 10.1.0.0/24", "testbox setup --address 10.2.0.1 "}},
		"one came by DHCP": {append(card("e1", "addr add 10.2.0.1/24 valid_lft 3600 preferred_lft 3600 dev CARD"), one...), done,
			[]string{"[chosen] address: 10.1.0.1 of the card e0", "The others came by DHCP"}},
		"by DHCP": {card("e0", "addr add 10.2.0.1/24 valid_lft 3600 preferred_lft 3600 dev CARD"), done,
			[]string{"[hint] address: It came by DHCP and may change"}},
		"no cable": {[]string{"link add e0 type veth peer name off", "link set e0 up", "addr add 10.1.0.1/24 dev e0"}, done,
			[]string{"The card e0 has no link"}},
		"one address": {card("e0", "addr add 10.1.0.1/32 dev CARD"), done, []string{"10.1.0.1/32 has no room for boxes"}},
		"ports": {one, failed, []string{"[MISSING] port 69: UDP port 69 is in use by \"", "[MISSING] port 8443: TCP port 8443 is in use by \"",
			"2 things are missing: port 8443, port 69"}},
		"little room": {one, failed, []string{"[MISSING] state: ", "too little to work with", "1 thing is missing: state"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.ip(t, "link set lo up")
			for _, command := range c.ip {
				h.ip(t, command)
			}
			dir := tempDir(t)
			room := filepath.Join(dir, "room")
			command := prog.testbox + " setup --show --config " + filepath.Join(dir, "server.toml") + " --state " + room + "/state"
			switch name {
			case "ports":
				var udp net.PacketConn
				var tcp net.Listener
				must(t, h.inside(func() error {
					var noUDP, noTCP error
					udp, noUDP = net.ListenPacket("udp4", ":69")
					tcp, noTCP = net.Listen("tcp", ":8443")
					return errors.Join(noUDP, noTCP)
				}))
				defer udp.Close()
				defer tcp.Close()
			case "little room":
				command = "mkdir " + room + " && mount -t tmpfs -o size=20m none " + room + " && " + command
			}
			argv := h.in("unshare", "--mount", "sh", "-c", command)
			cmd := exec.Command(argv[0], argv[1:]...)
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.code {
				t.Fatalf("%v, and %d was expected:\n%s", cmd.ProcessState, c.code, out)
			}
			for _, want := range c.says {
				if !strings.Contains(string(out), want) {
					t.Errorf("setup does not say %q:\n%s", want, out)
				}
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) > 1 || len(names) == 1 && names[0].Name() != "room" {
				t.Errorf("--show made something: %v, %v", names, err)
			}
		})
	}
}

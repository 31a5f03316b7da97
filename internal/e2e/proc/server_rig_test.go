package proc

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/testenv"
)

// The tests of server mode run the real server, the real agent and the real
// commands as processes. The server and each box are hosts of their own, in network
// namespaces that are joined by a bridge in the server's.
//
//	test ── testbox backup BOX --wait ── Unix socket ──┐
//	  │                                                v
//	  │                 10.88.0.1  testbox server ── state folder
//	  │                                ^ HTTPS
//	  └── testbox-maintenance ─────────┘
//	           10.88.0.11 ── dev/sda ──> /dev/loopN

const serverIP = "10.88.0.1"

// host is a network namespace with a process that keeps it.
type host struct {
	cmd *exec.Cmd
}

func newHost(t testing.TB) host {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return host{cmd}
}

// in is the beginning of a command that runs in the host, or where the test runs if
// there is no host.
func (h host) in(argv ...string) []string {
	if h.cmd == nil {
		return argv
	}
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", h.cmd.Process.Pid)}, argv...)
}

func (h host) ip(t testing.TB, command string) {
	t.Helper()
	argv := h.in(append([]string{"ip"}, strings.Fields(command)...)...)
	run(t, "", argv[0], argv[1:]...)
}

// inside does something in the network of the host. A socket belongs to the network in which it was made,
// whoever uses it afterwards.
func (h host) inside(do func() error) error {
	// The thread must not end, since processes that it has started would end with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = do()
	if backErr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); backErr != nil {
		panic(backErr) // anything that this thread does from now on would be in the wrong network
	}
	return err
}

// serverSite is a storage server with its network.
type serverSite struct {
	t     testing.TB
	prog  programs
	state string
	host  host
	lan   host // has the bridge, if it is not the server's host that has it
	ports int
	proc  *exec.Cmd // nil if the server does not run
	log   string    // path of what the server prints
}

// bridge makes the server's bridge. A bridge without an address of its own takes that of one of its
// ports, so a host that is plugged in could change it, and all others would send to the old one for
// half a minute.
const bridge = "link add br0 address 02:00:00:00:88:01 type bridge"

// newServerSite makes a state folder and starts a server. config is more text of the
// configuration.
func newServerSite(t testing.TB, config string) *serverSite {
	t.Helper()
	return newServerSiteIn(t, tempDir(t), config)
}

func newServerSiteIn(t testing.TB, state, config string) *serverSite {
	t.Helper()
	s := initServer(t, state, config)
	s.host = newHost(t)
	for _, command := range []string{"link set lo up", bridge, "addr add " + serverIP + "/24 dev br0", "link set br0 up"} {
		s.host.ip(t, command)
	}
	s.start()
	return s
}

// initServer makes the state folder of a server that has no host of its own.
func initServer(t testing.TB, state, config string) *serverSite {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "ip", "nsenter", "setpriv")
	prog, err := built()
	must(t, err)
	s := &serverSite{t: t, prog: prog, state: state, log: filepath.Join(state, "server.log")}
	if !strings.Contains(config, "api = ") {
		config = "api = \"\"\n" + config
	}
	text := fmt.Sprintf("state = %q\nsocket = %q\n%s", s.state, s.socket(), config)
	must(t, os.WriteFile(s.config(), []byte(text), 0o644))
	run(t, "", prog.testbox, "server", "init", "--address", serverIP, "--config", s.config())
	must(t, addMaintenance(filepath.Join(s.state, bootcfg.TFTPArea), bootcfg.FormRAM))
	t.Cleanup(s.kill)
	return s
}

func (s *serverSite) config() string { return filepath.Join(s.state, "server.toml") }
func (s *serverSite) socket() string { return filepath.Join(s.state, "testbox.sock") }

// serverLimit is far more than a server needs to start or to end.
const serverLimit = time.Minute

// start starts the server and waits until it is ready.
func (s *serverSite) start() {
	s.t.Helper()
	out, err := os.OpenFile(s.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	must(s.t, err)
	defer out.Close()
	before := strings.Count(s.said(), "The server is ready.")
	argv := s.host.in(s.prog.testbox, "server", "--config", s.config())
	s.proc = exec.Command(argv[0], argv[1:]...)
	s.proc.Stdout, s.proc.Stderr = out, out
	s.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, s.proc.Start())
	s.until("the server is ready", serverLimit, func() bool { return strings.Count(s.said(), "The server is ready.") > before })
}

// kill ends the server as a power cut does.
func (s *serverSite) kill() {
	if s.proc != nil {
		s.proc.Process.Kill()
		s.proc.Wait()
		s.proc = nil
	}
}

// end ends the server as systemd does.
func (s *serverSite) end() {
	s.t.Helper()
	must(s.t, s.proc.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- s.proc.Wait() }()
	select {
	case err := <-ended:
		if s.proc = nil; err != nil {
			s.t.Fatalf("the server did not end well: %v\n%s", err, s.said())
		}
	case <-time.After(serverLimit):
		s.t.Fatalf("the server did not end:\n%s", s.said())
	}
}

// said is what the server has printed.
func (s *serverSite) said() string {
	text, _ := os.ReadFile(s.log)
	return string(text)
}

// until waits for a condition.
func (s *serverSite) until(what string, limit time.Duration, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %v; the server says\n%s", what, limit, s.said())
		}
	}
}

// commanded is how a command of an admin ended.
type commanded struct {
	code int
	out  string
}

// env is the environment of an admin on the server.
func (s *serverSite) env() []string {
	return append(os.Environ(), "TESTBOX_SERVER="+s.socket(), "TESTBOX_STORE="+filepath.Join(s.state, "store"))
}

// command runs a command of an admin on the server.
func (s *serverSite) command(args ...string) commanded {
	s.t.Helper()
	cmd := exec.Command(s.prog.testbox, args...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return commanded{cmd.ProcessState.ExitCode(), string(out)}
}

// does runs a command that must end with the code, and print each of says.
func (s *serverSite) does(code int, args []string, says ...string) string {
	s.t.Helper()
	c := s.command(args...)
	if c.code != code {
		s.t.Fatalf("testbox %s ended with %d instead of %d:\n%s\nthe server says\n%s", strings.Join(args, " "), c.code, code, c.out, s.said())
	}
	for _, want := range says {
		if !strings.Contains(c.out, want) {
			s.t.Errorf("testbox %s does not say %q:\n%s", strings.Join(args, " "), want, c.out)
		}
	}
	return c.out
}

// servedJob is what --json prints of a job.
type servedJob struct {
	ID, Box, State, Outcome, Class, Text, Backup, Up string
	Settled                                          bool
	Attempt                                          int
	Sent                                             int64
	Wait                                             *struct{ Reason, Text string }
	Receipts                                         []struct {
		Read, Written, Skipped, Verified int64
		FromServer, FromPeers            int64
		Hooks                            []struct{ Hook string }
	}
	Warnings []string
	Room     struct {
		Faults []struct{ Fault room.Fault }
	}
}

// jobs parses what a command with --json printed.
func (s *serverSite) jobs(out string) (jobs []servedJob) {
	s.t.Helper()
	from := strings.Index(out, "[")
	if from < 0 || json.NewDecoder(strings.NewReader(out[from:])).Decode(&jobs) != nil {
		s.t.Fatalf("these are no jobs in JSON:\n%s", out)
	}
	return jobs
}

// servedBox is a box of a server. It has a host of its own.
type servedBox struct {
	*testBox
	site *serverSite
	host host
	port string   // of the bridge, to which it is connected
	args []string // more of the agent
}

// box plugs a box in. number is the last part of its address.
func (s *serverSite) box(number int, disks ...*testDisk) *servedBox {
	s.t.Helper()
	b := &servedBox{site: s, host: newHost(s.t)}
	b.testBox = &testBox{
		t: s.t, prog: s.prog, dir: tempDir(s.t), root: s.state, uuid: boxUUID, host: boxHost, disks: disks,
	}
	b.key = fmt.Sprintf("10.88.0.%d", number)
	b.addr = b.key
	if number != 11 {
		b.uuid = fmt.Sprintf("3e2b7d54-90c1-4f6e-8a55-0c1d2e3f4a%02x", number)
	}
	for _, d := range disks {
		d.attach(s.t)
	}
	must(s.t, os.MkdirAll(b.path("proc"), 0o755))
	must(s.t, os.WriteFile(b.path("proc", "cpuinfo"), []byte("processor\t: 0\nmodel name\t: Test CPU\n"), 0o644))
	b.plug()
	b.port = s.join(b.host, b.addr)
	return b
}

// join connects a host to the bridge. It returns the name of the bridge's port.
func (s *serverSite) join(h host, addr string) (port string) {
	s.t.Helper()
	port = s.plug(h)
	for _, command := range []string{"link set lo up", "addr add " + addr + "/24 dev eth0", "link set eth0 up"} {
		h.ip(s.t, command)
	}
	return port
}

// plug puts a card into a host, with a cable to the bridge. It returns the name of the bridge's port.
func (s *serverSite) plug(h host) (port string) {
	s.t.Helper()
	lan := s.lan
	if lan.cmd == nil {
		lan = s.host
	}
	s.ports++
	port = fmt.Sprintf("port%d", s.ports)
	lan.ip(s.t, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", port, h.cmd.Process.Pid))
	lan.ip(s.t, "link set "+port+" master br0 up")
	return port
}

// cut takes the box off the network, or connects it again.
func (b *servedBox) cut(off bool) {
	b.t.Helper()
	b.host.ip(b.t, "link set eth0 "+map[bool]string{true: "down", false: "up"}[off])
}

func (b *servedBox) bootFile() string {
	var a, c, d, e int
	fmt.Sscanf(b.addr, "%d.%d.%d.%d", &a, &c, &d, &e)
	return filepath.Join(b.root, bootcfg.TFTPArea, bootcfg.ConfigDir, fmt.Sprintf("%02X%02X%02X%02X", a, c, d, e))
}

func (b *servedBox) folder(name string) string {
	return filepath.Join(b.root, bootcfg.BackupArea, b.addr, name)
}

func (b *servedBox) armed() bool {
	_, err := os.Stat(b.bootFile())
	return err == nil
}

// boot waits until the box is armed, and is the loader: it reads the boot file.
func (b *servedBox) boot() {
	b.t.Helper()
	var text []byte
	b.site.until("box "+b.addr+" is armed", serverLimit, func() bool {
		var err error
		text, err = os.ReadFile(b.bootFile())
		return err == nil
	})
	m := appendLine.FindSubmatch(text)
	if m == nil {
		b.t.Fatalf("boot file without APPEND:\n%s", text)
	}
	must(b.t, os.WriteFile(b.path("cmdline"), append(m[1], " "+bootIF+"\n"...), 0o644))
	// What is in memory does not outlive a start.
	must(b.t, os.RemoveAll(b.path("run")))
	must(b.t, os.Mkdir(b.path("run"), 0o700))
}

// start starts the agent in the box's host.
func (b *servedBox) start() *agent { b.t.Helper(); return b.startIn(b.host) }

func (b *servedBox) startIn(h host) *agent {
	b.t.Helper()
	a := &agent{t: b.t, lines: make(chan string, 1000), ended: make(chan struct{})}
	argv := h.in(append([]string{"setpriv", "--bounding-set=-sys_boot", b.prog.agent, "run", "--ssh", b.path("ssh"),
		"--cmdline", b.path("cmdline"), "--sys", b.path("sys"), "--proc", b.path("proc"), "--dev", b.path("dev"), "--run", b.path("run"),
		"--address", b.addr, "--host", boxHost}, b.args...)...)
	a.cmd = exec.Command(argv[0], argv[1:]...)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.cmd.Stderr = &lineWriter{emit: a.line}
	a.cmd.Stdout = a.cmd.Stderr // the same writer: one goroutine copies both
	must(b.t, a.cmd.Start())
	go func() {
		a.cmd.Wait()
		close(a.lines)
		close(a.ended)
	}()
	return a
}

// ask asks the server for an action, and returns the job's id.
func (b *servedBox) ask(action string, flags ...string) string {
	b.t.Helper()
	out := b.site.does(done, append([]string{action, b.addr, "--json"}, flags...))
	return b.site.jobs(out)[0].ID
}

// job is the job as it is now.
func (b *servedBox) job(id string) servedJob {
	b.t.Helper()
	return b.site.jobs(b.site.does(done, []string{"jobs", "--json", id}))[0]
}

// act asks for an action and does it. The agent must end with the code, and the
// box must not be armed any more.
func (b *servedBox) act(code int, action string, flags ...string) (servedJob, string) {
	b.t.Helper()
	id := b.ask(action, flags...)
	b.boot()
	out := b.start().ends(code)
	j := b.job(id)
	if j.State != "ended" || b.armed() {
		b.t.Fatalf("the job is %+v, the box is armed: %v; the agent said\n%s\nthe server says\n%s", j, b.armed(), out, b.site.said())
	}
	return j, out
}

// waitLine waits for a line of the agent.
func (a *agent) waitLine(re string) string {
	a.t.Helper()
	want := regexp.MustCompile(re)
	limit := time.After(runLimit)
	for {
		select {
		case line, more := <-a.lines:
			if want.MatchString(line) {
				return line
			}
			if !more {
				a.t.Fatalf("the agent never said %s:\n%s", re, a.out.String())
			}
		case <-limit:
			a.t.Fatalf("the agent did not say %s within %v", re, runLimit)
		}
	}
}

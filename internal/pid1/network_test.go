package pid1

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/kmod"
	"testbox-imaging/internal/testenv"
)

// insideEnv tells the test's program that it runs in namespaces of its own;
// its value is the folder of the test.
const insideEnv = "PID1_TEST_INSIDE"

// runInside runs this test once more, in new namespaces (flags of unshare(1)),
// with dir as insideEnv; there, the test named passes must pass.
func runInside(t *testing.T, dir, passes string, namespaces ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", append(namespaces, self, "-test.run", "^"+t.Name()+"$", "-test.v")...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+passes) {
		t.Errorf("inside: %v", err)
	}
}

// The card's address by hand; the server's end of the cable is 10.99.0.1.
var cardMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x42}

// TestNetwork brings up real cards:
//
//	namespaces of the test [ eth7, the card; eth8, not plugged in ] == cable == [ srv0, dnsmasq ] namespace of the server
//
// The test's namespaces are for network and host name.
func TestNetwork(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		t.Run("DHCP", insideDHCP)
		t.Run("late", insideLate)
		t.Run("any card", insideAnyCard)
		t.Run("static", insideStatic)
		return
	}
	testenv.Root(t)
	testenv.Tools(t, "ip", "unshare", "dnsmasq")
	dir := t.TempDir()
	server := fmt.Sprintf("tbxpid1-%d", os.Getpid())
	run(t, "ip", "netns", "add", server)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", server).Run() })
	t.Setenv("PID1_TEST_SERVER", server)
	runInside(t, dir, "TestNetwork/static", "--net", "--uts")
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// inside makes a card whose cable leads nowhere, and the card with its cable.
func inside(t *testing.T) (dir, server string) {
	t.Helper()
	dir, server = secondCard(t)
	newCard(t, server)
	plugIn(t, server)
	return dir, server
}

func secondCard(t *testing.T) (dir, server string) {
	t.Helper()
	dir, server = os.Getenv(insideEnv), os.Getenv("PID1_TEST_SERVER")
	run(t, "ip", "link", "add", "eth8", "type", "veth", "peer", "name", "off0", "netns", server)
	t.Cleanup(func() { exec.Command("ip", "link", "del", "eth8").Run() })
	return dir, server
}

func newCard(t *testing.T, server string) {
	t.Helper()
	run(t, "ip", "link", "add", "eth7", "address", cardMAC.String(), "type", "veth", "peer", "name", "srv0", "netns", server)
	t.Cleanup(func() { exec.Command("ip", "link", "del", "eth7").Run() })
}

// plugIn gives the card its link.
func plugIn(t *testing.T, server string) {
	t.Helper()
	run(t, "ip", "-n", server, "addr", "add", "10.99.0.1/22", "dev", "srv0")
	run(t, "ip", "-n", server, "link", "set", "srv0", "up")
}

// startDHCP starts the server at the other end of the cable.
func startDHCP(t *testing.T, dir, server string) {
	t.Helper()
	dns := exec.Command("ip", "netns", "exec", server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
		"--interface=srv0",
		"--bind-interfaces", "--user=root", "--pid-file=", "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--no-ping",
		"--dhcp-range=10.99.0.10,10.99.3.200,255.255.252.0,1h",
		"--dhcp-option=option:mtu,1400", "--dhcp-option=option:dns-server,10.99.0.53", "--domain=lab.example",
		"--dhcp-option=option:router,10.99.0.1")
	if err := dns.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Process.Kill(); dns.Wait() })
}

func testSystem(t *testing.T, cmd *bootcfg.Cmdline) *system {
	s := &system{cmd: cmd, con: newConsole(), live: newPulse(time.Minute)}
	s.drivers = newModules(&kmod.Table{}, os.DirFS(os.Getenv(insideEnv)), nil, s.say, func() {})
	s.con.add(os.Stdout)
	t.Cleanup(func() { s.con.drain(time.Second) })
	return s
}

func insideDHCP(t *testing.T) {
	dir, server := inside(t)
	startDHCP(t, dir, server)
	armed, _ := box.ParseAddr("10.99.2.42")
	s := testSystem(t, &bootcfg.Cmdline{BootIF: cardMAC, Address: armed, Host: "box42", Net: bootcfg.IPConfig{DHCP: true}})
	got, err := s.network(t.Context())
	if err != nil || got != armed.IP() {
		t.Fatalf("address %v, %v; want the armed one, %v", got, err, armed)
	}
	checkCard(t, "10.99.2.42/22", 1400)
	if string(s.resolv) != "nameserver 10.99.0.53\nsearch lab.example\n" {
		t.Errorf("resolv.conf is %q", s.resolv)
	}
	if name, _ := os.Hostname(); name != "box42" {
		t.Errorf("host name is %q", name)
	}
}

// insideLate is a slow start: the card that booted gets its driver late, its
// link later, and its switch port lets packets through last of all. Another
// card has a link from the start, and nobody there.
func insideLate(t *testing.T) {
	dir, server := secondCard(t)
	run(t, "ip", "link", "set", "eth8", "up")
	run(t, "ip", "-n", server, "link", "set", "off0", "up")
	s := testSystem(t, &bootcfg.Cmdline{BootIF: cardMAC, Net: bootcfg.IPConfig{DHCP: true}})
	done := make(chan error, 1)
	go func() { _, err := s.network(t.Context()); done <- err }()

	time.Sleep(500 * time.Millisecond)
	newCard(t, server)
	time.Sleep(2500 * time.Millisecond)
	plugIn(t, server)
	time.Sleep(time.Second)
	startDHCP(t, dir, server)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute): // the wait for an answer is 2 s, then 4, then 8
		t.Fatal("no address")
	}
}

// insideAnyCard: without BOOTIF, all cards with a link get their turn.
func insideAnyCard(t *testing.T) {
	_, server := inside(t)
	run(t, "ip", "-n", server, "link", "set", "off0", "up")
	s := testSystem(t, &bootcfg.Cmdline{Net: bootcfg.IPConfig{DHCP: true}})
	seen := map[string]bool{}
	for range 4 {
		c, err := s.findCard(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[c.Attrs().Name] = true
	}
	if len(seen) != 2 {
		t.Errorf("tried %v", seen)
	}
}

func insideStatic(t *testing.T) {
	inside(t)
	conf, err := bootcfg.ParseIPConfig("10.99.1.7:10.99.0.1:10.99.0.1:255.255.252.0:maintenance:eth7")
	if err != nil {
		t.Fatal(err)
	}
	// Without BOOTIF: the named card; without a name too: the one with a link.
	for _, device := range []string{"eth7", ""} {
		conf.Device = device
		s := testSystem(t, &bootcfg.Cmdline{Net: conf})
		got, err := s.network(t.Context())
		if err != nil || got != netip.MustParseAddr("10.99.1.7") {
			t.Fatalf("address %v, %v", got, err)
		}
		checkCard(t, "10.99.1.7/22", 1500)
	}
}

func checkCard(t *testing.T, address string, mtu int) {
	t.Helper()
	l, err := netlink.LinkByName("eth7")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != address || l.Attrs().MTU != mtu {
		t.Errorf("eth7 has %v and MTU %d, %v; want %s and %d", addrs, l.Attrs().MTU, err, address, mtu)
	}
	routes, err := netlink.RouteGet(net.IPv4(192, 0, 2, 1))
	if err != nil || len(routes) != 1 || routes[0].Gw.String() != "10.99.0.1" {
		t.Errorf("the way out is %v, %v", routes, err)
	}
}

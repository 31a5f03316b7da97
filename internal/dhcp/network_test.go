package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/testenv"
)

// insideEnv tells the test's program that it runs in a network namespace of its
// own. Its value begins the names of the other namespaces.
const insideEnv = "DHCP_TEST_INSIDE"

// TestNetwork has real cards, a real dnsmasq and real clients:
//
//	namespace of the test [ br0, 10.77.0.1 ] == cable == [ eth0 ] namespace of a box
//	                              |            == cable == [ eth0 ] namespace of another box
//	                              |            == cable == [ eth0, 10.77.0.2 ] namespace of the lab's server
//	                      [ far0, 10.88.0.1 ] == cable == [ far1 ] namespace of the first box
func TestNetwork(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		bringUp(t)
		t.Run("dnsmasq's proxy", insideCompare)
		t.Run("beside dnsmasq", insideBeside)
		t.Run("looks for others", insideLook)
		t.Run("two cards", insideCards)
		t.Run("relay", insideRelay)
		t.Run("dnsmasq's relay", insideRealRelay)
		t.Run("udhcpc", insideUdhcpc)
		t.Run("our client", insideOurClient)
		t.Run("taken", insideTaken)
		t.Run("flood", insideFlood)
		return
	}
	testenv.Root(t)
	testenv.Tools(t, "ip", "unshare", "dnsmasq", "busybox")
	prefix := fmt.Sprintf("tbxdhcp-%d-", os.Getpid())
	for _, n := range []string{"box", "other", "lab"} {
		run(t, "ip", "netns", "add", prefix+n)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", prefix+n).Run() })
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", self, "-test.run", "^TestNetwork$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+prefix)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNetwork/flood") {
		t.Errorf("inside: %v", err)
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func ns(name string) string { return os.Getenv(insideEnv) + name }

func bringUp(t *testing.T) {
	do := func(line string) { t.Helper(); run(t, "ip", strings.Fields(line)...) }
	do("link set lo up")
	do("link add br0 type bridge forward_delay 0")
	do("addr add 10.77.0.1/24 dev br0")
	do("link set br0 up")
	for i, n := range []string{"box", "other", "lab"} {
		do(fmt.Sprintf("link add port%d type veth peer name eth0 address 52:54:00:00:00:%02x netns %s", i, 0x10+i, ns(n)))
		do(fmt.Sprintf("link set port%d master br0 up", i))
		do("-n " + ns(n) + " link set eth0 up")
	}
	do("-n " + ns("lab") + " addr add 10.77.0.2/24 dev eth0")
	do("link add far0 type veth peer name far1 netns " + ns("box"))
	do("addr add 10.88.0.1/24 dev far0")
	do("link set far0 up")
	do("-n " + ns("box") + " link set far1 up")
}

// in runs f in a namespace. Sockets that it opens stay there.
func in[T any](t testing.TB, name string, f func() (T, error)) T {
	t.Helper()
	var v T
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		h, err := os.Open("/run/netns/" + ns(name))
		if err == nil {
			defer h.Close()
			if err = unix.Setns(int(h.Fd()), unix.CLONE_NEWNET); err == nil {
				v, err = f()
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return v
}

// socket opens a UDP socket on a card in a namespace.
func socket(t testing.TB, name, card, address string) *net.UDPConn {
	t.Helper()
	c := in(t, name, func() (*net.UDPConn, error) {
		l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), card) })
			return err
		}}
		c, err := l.ListenPacket(t.Context(), "udp4", address)
		if err != nil {
			return nil, err
		}
		return c.(*net.UDPConn), nil
	})
	t.Cleanup(func() { c.Close() })
	return c
}

type heard struct {
	*dhcpv4.DHCPv4
	from netip.AddrPort
}

// collect reads answers until there were n, or for a while.
func collect(t testing.TB, c *net.UDPConn, n int, wait time.Duration) []heard {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(wait))
	var all []heard
	buf := make([]byte, 2000)
	for len(all) < n {
		k, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		m, err := dhcpv4.FromBytes(slices.Clone(buf[:k]))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, heard{m, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())})
	}
	return all
}

func say(t testing.TB, c *net.UDPConn, p []byte, to string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(p, netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// by finds the answer of a server.
func by(all []heard, server string) *dhcpv4.DHCPv4 {
	for _, h := range all {
		if h.ServerIdentifier().String() == server {
			return h.DHCPv4
		}
	}
	return nil
}

// serve runs our server until the returned function is called, which returns
// what Serve returned.
func serve(t testing.TB, s *Server) (stop func() error) {
	t.Helper()
	if s.Decide == nil {
		s.Decide = bootAll
	}
	if s.Trouble == nil {
		s.Trouble = func(err error) { t.Logf("trouble: %v", err) }
	}
	var conns []*net.UDPConn
	for _, port := range []int{portServer, portBoot} {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conns[0], conns[1]) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		err := <-done
		for _, c := range conns {
			c.Close()
		}
		return err
	}
	t.Cleanup(func() { stop() })
	for range 1000 {
		s.mu.Lock()
		running := s.main != nil && s.boot != nil
		s.mu.Unlock()
		if running {
			return stop
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the server does not start")
	return nil
}

func dnsmasq(t testing.TB, args ...string) {
	t.Helper()
	args = append([]string{"netns", "exec", ns("lab"), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
		"--interface=eth0", "--bind-interfaces", "--user=root", "--pid-file=", "--no-ping",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases")}, args...)
	cmd := exec.Command("ip", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 100 { // until it has its sockets
		out, _ := exec.Command("ip", "netns", "exec", ns("lab"), "cat", "/proc/net/udp").Output()
		if strings.Contains(string(out), ":0043 ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("dnsmasq does not start")
}

// dnsmasq's own proxy is asked the same. What boots a machine must be the same
// in both answers.
func insideCompare(t *testing.T) {
	dnsmasq(t, "--dhcp-range=10.77.0.0,proxy", "--dhcp-boot=pxelinux.0", "--dhcp-match=set:efi,option:client-arch,7",
		"--pxe-service=tag:efi,X86-64_EFI,x,pxelinux.0")
	serve(t, &Server{})
	for _, name := range []string{"ipxe-bios-discover", "intel-bios-discover", "edk2-x64-discover"} {
		c := socket(t, "box", "eth0", "0.0.0.0:68")
		say(t, c, specimen(t, name), "255.255.255.255:67")
		all := collect(t, c, 2, 3*time.Second)
		ours, theirs := by(all, "10.77.0.1"), by(all, "10.77.0.2")
		if ours == nil || theirs == nil {
			t.Fatalf("%s: %d answers", name, len(all))
		}
		same(t, name, ours, theirs)
		if ours.ServerIPAddr.String() != "10.77.0.1" {
			t.Errorf("%s: siaddr %v", name, ours.ServerIPAddr)
		}
		// dnsmasq tells BIOS machines no siaddr and UEFI machines no file in the
		// first answer. We tell both, as shim and others need.
		if ours.BootFileName == "" || theirs.BootFileName != "" && ours.BootFileName != theirs.BootFileName {
			t.Errorf("%s: ours has file %q, theirs has siaddr %v and file %q", name, ours.BootFileName, theirs.ServerIPAddr, theirs.BootFileName)
		}
		if !bytes.HasPrefix(ours.Options[43], theirs.Options[43][:min(3, len(theirs.Options[43]))]) {
			t.Errorf("%s: option 43 is %x, dnsmasq's %x", name, ours.Options[43], theirs.Options[43])
		}
		c.Close()
	}
	run(t, "ip", "-n", ns("box"), "addr", "add", "10.77.0.20/24", "dev", "eth0")
	defer run(t, "ip", "-n", ns("box"), "addr", "flush", "dev", "eth0")
	c := socket(t, "box", "eth0", "10.77.0.20:4011")
	p := specimen(t, "edk2-x64-4011")
	copy(p[12:16], []byte{10, 77, 0, 20}) // ciaddr
	var all []heard
	for _, to := range []string{"10.77.0.1:4011", "10.77.0.2:4011"} {
		say(t, c, p, to)
		got := collect(t, c, 1, 3*time.Second)
		if len(got) != 1 || got[0].from.String() != to {
			t.Fatalf("%s: %v", to, got)
		}
		all = append(all, got...)
	}
	ours, theirs := by(all, "10.77.0.1"), by(all, "10.77.0.2")
	same(t, "port 4011", ours, theirs)
	if ours.BootFileName != theirs.BootFileName || ours.ServerIPAddr.String() != "10.77.0.1" || theirs.ServerIPAddr.String() != "10.77.0.2" {
		t.Errorf("ours: %v\ndnsmasq's: %v", ours.Summary(), theirs.Summary())
	}
}

func same(t testing.TB, what string, ours, theirs *dhcpv4.DHCPv4) {
	t.Helper()
	for name, f := range map[string]func(*dhcpv4.DHCPv4) string{
		"kind":   func(m *dhcpv4.DHCPv4) string { return m.MessageType().String() },
		"xid":    func(m *dhcpv4.DHCPv4) string { return m.TransactionID.String() },
		"chaddr": func(m *dhcpv4.DHCPv4) string { return m.ClientHWAddr.String() },
		"yiaddr": func(m *dhcpv4.DHCPv4) string { return m.YourIPAddr.String() },
		"97":     func(m *dhcpv4.DHCPv4) string { return string(m.Options[97]) },
		"60":     func(m *dhcpv4.DHCPv4) string { return string(m.Options[60]) },
	} {
		if a, b := f(ours), f(theirs); a != b {
			t.Errorf("%s: %s is %q, dnsmasq's %q", what, name, a, b)
		}
	}
	if len(theirs.Options[43]) == 0 && len(ours.Options[43]) != 0 {
		t.Errorf("%s: option 43 is %x, dnsmasq has none", what, ours.Options[43])
	}
}

// dnsmasq is the lab's DHCP server. A UEFI machine gets its address there and
// its boot file here.
func insideBeside(t *testing.T) {
	dnsmasq(t, "--dhcp-range=10.77.0.100,10.77.0.120,1h", "--dhcp-option=option:router,10.77.0.254")
	events := make(chan Event, 10)
	serve(t, &Server{Seen: func(e Event) { events <- e }})
	c := socket(t, "box", "eth0", "0.0.0.0:68")
	p := specimen(t, "edk2-x64-discover")
	say(t, c, p, "255.255.255.255:67")
	all := collect(t, c, 2, 3*time.Second)
	ours, theirs := by(all, "10.77.0.1"), by(all, "10.77.0.2")
	if ours == nil || theirs == nil || !ours.YourIPAddr.IsUnspecified() || theirs.YourIPAddr.IsUnspecified() {
		t.Fatalf("%d answers", len(all))
	}
	if e := <-events; !e.Given || e.Answer != "OFFER" || e.Boot.File != "pxelinux.0" || e.Arch != X64 || e.UUID == [16]byte{} ||
		e.Interface != "br0" {
		t.Errorf("told %+v", e)
	}
	m, _ := dhcpv4.FromBytes(p)
	req, err := dhcpv4.NewRequestFromOffer(theirs, dhcpv4.WithOptionCopied(m, dhcpv4.OptionClassIdentifier),
		dhcpv4.WithOptionCopied(m, dhcpv4.OptionClientSystemArchitectureType))
	if err != nil {
		t.Fatal(err)
	}
	say(t, c, req.ToBytes(), "255.255.255.255:67")
	all = collect(t, c, 2, time.Second)
	if len(all) != 1 || by(all, "10.77.0.2") == nil || all[0].MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("the request of an address was answered by %v", all)
	}
	if e := <-events; e.Chosen != ip("10.77.0.2") || e.Answer != "" {
		t.Errorf("told %+v", e)
	}
}

// A DHCP server refuses to start beside another one, and a proxy tells what the
// other one offers.
func insideLook(t *testing.T) {
	lab := testLab()
	lab.FS, lab.Leases = durable.OS{}, filepath.Join(t.TempDir(), "leases")
	dnsmasq(t, "--dhcp-range=10.77.0.100,10.77.0.120,1h", "--dhcp-option=option:router,10.77.0.254", "--dhcp-boot=grubx64.efi,,10.77.0.9",
		"--dhcp-option=60,PXEClient")
	s := &Server{Decide: bootAll, Lab: lab, lookTime: 2 * time.Second}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: portServer})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Serve(t.Context(), c, nil)
	c.Close()
	var others *OthersError
	if !errors.As(err, &others) || !strings.Contains(err.Error(), "10.77.0.2 on br0") {
		t.Fatalf("beside another server: %v", err)
	}
	proxy := &Server{lookTime: 2 * time.Second}
	serve(t, proxy)
	found, err := proxy.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, as := range []string{"machine", "BIOS", "UEFI"} {
		i := slices.IndexFunc(found, func(f Found) bool { return f.As == as })
		if i < 0 {
			t.Errorf("nothing was found as %s: %+v", as, found)
			continue
		}
		if f := found[i]; f.Server != ip("10.77.0.2") || !f.Address.IsValid() || !slices.Equal(f.Router, []netip.Addr{ip("10.77.0.254")}) ||
			f.NextServer != ip("10.77.0.9") || f.File+f.BootFile != "grubx64.efi" || f.Class != "PXEClient" {
			t.Errorf("found %+v", f)
		}
	}
}

func insideCards(t *testing.T) {
	serve(t, &Server{})
	for card, want := range map[string]string{"eth0": "10.77.0.1", "far1": "10.88.0.1"} {
		c := socket(t, "box", card, "0.0.0.0:68")
		say(t, c, specimen(t, "intel-bios-discover"), "255.255.255.255:67")
		all := collect(t, c, 2, time.Second)
		if len(all) != 1 || all[0].from.String() != want+":67" || all[0].ServerIPAddr.String() != want ||
			all[0].ServerIdentifier().String() != want {
			t.Errorf("%s: %v", card, all)
		}
		c.Close()
	}
}

func insideRelay(t *testing.T) {
	serve(t, &Server{})
	c := socket(t, "lab", "eth0", "10.77.0.2:67")
	m, _ := dhcpv4.FromBytes(specimen(t, "intel-bios-discover"))
	m.GatewayIPAddr = net.IP{10, 77, 0, 2}
	m.Options[82] = []byte{1, 2, 'p', '1'}
	say(t, c, m.ToBytes(), "10.77.0.1:67")
	all := collect(t, c, 2, time.Second)
	if len(all) != 1 || all[0].from.String() != "10.77.0.1:67" || !bytes.Equal(all[0].Options[82], m.Options[82]) ||
		all[0].BootFileName != "pxelinux.0" {
		t.Errorf("the relay got %v", all)
	}
}

// dnsmasq is the relay of a network that the server has no card in. udhcpc gets
// an address there, and renews it past the relay.
func insideRealRelay(t *testing.T) {
	do := func(line string) { t.Helper(); run(t, "ip", strings.Fields(line)...) }
	do("-n " + ns("lab") + " link add rel0 type veth peer name rel1 netns " + ns("other"))
	do("-n " + ns("lab") + " addr add 10.99.0.1/24 dev rel0")
	do("-n " + ns("lab") + " link set rel0 up")
	do("-n " + ns("other") + " link set rel1 up")
	do("route add 10.99.0.0/24 via 10.77.0.2")
	run(t, "ip", "netns", "exec", ns("lab"), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	dnsmasq(t, "--interface=rel0", "--dhcp-relay=10.99.0.1,10.77.0.1")
	s := besides(t.TempDir())
	events := make(chan Event, 10)
	s.Seen = func(e Event) { events <- e }
	serve(t, s)
	c := in(t, "other", func() (*nclient4.Client, error) {
		return nclient4.New("rel1", nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	})
	defer c.Close()
	lease, err := c.Request(t.Context())
	if err != nil || !strings.HasPrefix(lease.ACK.YourIPAddr.String(), "10.99.0.10") {
		t.Fatalf("lease %v, %v", lease, err)
	}
	if e := <-events; e.Relay != ip("10.99.0.1") || e.Answer != "OFFER" {
		t.Errorf("told %+v", e)
	}
	do("-n " + ns("other") + " addr add " + lease.ACK.YourIPAddr.String() + "/24 dev rel1")
	do("-n " + ns("other") + " route add default via 10.99.0.1")
	renew, err := dhcpv4.NewRenewFromAck(lease.ACK)
	if err != nil {
		t.Fatal(err)
	}
	u := socket(t, "other", "rel1", lease.ACK.YourIPAddr.String()+":68")
	say(t, u, renew.ToBytes(), "10.77.0.1:67")
	if all := collect(t, u, 1, 2*time.Second); len(all) != 1 || all[0].MessageType() != dhcpv4.MessageTypeAck ||
		!all[0].YourIPAddr.Equal(lease.ACK.YourIPAddr) {
		t.Errorf("the renewal was answered by %v", all)
	}
}

// besides makes a DHCP server that does not look for others, which would take
// its time in each test.
func besides(dir string) *Server {
	lab := testLab()
	lab.FS, lab.Leases, lab.Beside = durable.OS{}, filepath.Join(dir, "leases"), true
	lab.Subnets[0].First, lab.Subnets[0].Last = ip("10.77.0.100"), ip("10.77.0.110")
	return &Server{Lab: lab}
}

// udhcpc gets an address, and after a restart of the server the same one. The
// server starts alone here, as it does in a lab.
func insideUdhcpc(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	text := "#!/bin/sh\n[ $1 = bound ] && echo $ip $router $dns $domain $lease >>" + dir + "/bound\nexit 0\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	udhcpc := func(box string) string {
		os.Remove(dir + "/bound")
		run(t, "ip", "netns", "exec", ns(box), "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "2", "-s", script)
		p, err := os.ReadFile(dir + "/bound")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(p))
	}
	start := func() func() error {
		s := besides(dir)
		s.Lab.Beside, s.lookTime = false, time.Second
		stop := serve(t, s)
		for range 1000 {
			s.mu.Lock()
			quiet := s.quiet
			s.mu.Unlock()
			if !quiet {
				return stop
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("it does not start to answer")
		return nil
	}
	stop := start()
	first, other := udhcpc("box"), udhcpc("other")
	if !strings.HasPrefix(first, "10.77.0.1") || !strings.HasSuffix(first, " 10.77.0.1 10.77.0.53 lab.example 3600") || first == other {
		t.Fatalf("udhcpc got %q, another one %q", first, other)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	start()
	if again := udhcpc("other"); again != other {
		t.Errorf("after the restart it got %q, before %q", again, other)
	}
	if again := udhcpc("box"); again != first {
		t.Errorf("after the restart it got %q, before %q", again, first)
	}
}

// The DHCP client of our own maintenance system gets, renews and releases a
// lease.
func insideOurClient(t *testing.T) {
	s := besides(t.TempDir())
	stop := serve(t, s)
	c := in(t, "box", func() (*nclient4.Client, error) {
		return nclient4.New("eth0", nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	})
	defer c.Close()
	lease, err := c.Request(t.Context(), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP{10, 77, 0, 105})))
	if err != nil || lease.ACK.YourIPAddr.String() != "10.77.0.105" {
		t.Fatalf("lease %v, %v", lease, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	again := &Server{Lab: s.Lab}
	serve(t, again)
	run(t, "ip", "-n", ns("box"), "addr", "add", "10.77.0.105/24", "dev", "eth0")
	defer run(t, "ip", "-n", ns("box"), "addr", "flush", "dev", "eth0")
	if _, err := c.Renew(t.Context(), lease); err != nil {
		t.Errorf("renew after a restart: %v", err)
	}
	if l := again.Leases(); len(l) != 1 || l[0].Address != ip("10.77.0.105") {
		t.Errorf("leases %v", l)
	}
	// The client's own Release has the sender 0.0.0.0, which Linux does not let in.
	release, err := dhcpv4.NewReleaseFromACK(lease.ACK)
	if err != nil {
		t.Fatal(err)
	}
	say(t, socket(t, "box", "eth0", "10.77.0.105:68"), release.ToBytes(), "10.77.0.1:67")
	for range 100 {
		if len(again.Leases()) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the lease was not released")
}

// A machine has taken an address of the range for itself. Nobody is offered it.
func insideTaken(t *testing.T) {
	run(t, "ip", "-n", ns("other"), "addr", "add", "10.77.0.103/24", "dev", "eth0")
	defer run(t, "ip", "-n", ns("other"), "addr", "flush", "dev", "eth0")
	trouble := make(chan error, 10)
	s := besides(t.TempDir())
	s.Trouble = func(err error) { trouble <- err }
	serve(t, s)
	c := in(t, "box", func() (*nclient4.Client, error) {
		return nclient4.New("eth0", nclient4.WithTimeout(3*time.Second), nclient4.WithRetry(3))
	})
	defer c.Close()
	offer, err := c.DiscoverOffer(t.Context(), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP{10, 77, 0, 103})))
	if err != nil {
		t.Fatal(err)
	}
	lease, err := c.RequestFromOffer(t.Context(), offer)
	if err != nil || lease.ACK.YourIPAddr.String() == "10.77.0.103" {
		t.Fatalf("lease %v, %v", lease, err)
	}
	select {
	case err := <-trouble:
		if !strings.Contains(err.Error(), "52:54:00:00:00:11 uses 10.77.0.103") {
			t.Error(err)
		}
	default:
		t.Error("nobody is told")
	}
}

// A flood costs neither goroutines nor memory without bound, and a box with a
// fixed address gets through.
func insideFlood(t *testing.T) {
	s := besides(t.TempDir())
	serve(t, s)
	c := socket(t, "box", "eth0", "0.0.0.0:68")
	before := runtime.NumGoroutine()
	most := 0
	for i := range 20000 {
		hw := net.HardwareAddr{2, 1, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		say(t, c, discover(hw, pxe(BIOS)).ToBytes(), "255.255.255.255:67")
		if i%500 == 0 {
			most = max(most, runtime.NumGoroutine())
		}
	}
	if most > before+maxProbes+10 {
		t.Errorf("%d goroutines, %d before", most, before)
	}
	for range 10 {
		m := discover(box1)
		say(t, c, m.ToBytes(), "255.255.255.255:67")
		for _, h := range collect(t, c, 10000, time.Second) {
			if h.TransactionID == m.TransactionID && h.YourIPAddr.String() == "10.77.0.11" {
				return
			}
		}
	}
	t.Error("the box got no address")
}

package proc

import (
	"debug/pe"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/testenv/testpe"
)

// firmware is a network card of a machine whose PXE ROM asks what to start.
type firmware struct {
	t    testing.TB
	host host
	mac  net.HardwareAddr
	conn *net.UDPConn // port 68
}

// machine plugs a machine in that has no address yet.
func (s *serverSite) machine(mac string) *firmware {
	s.t.Helper()
	m := &firmware{t: s.t, host: newHost(s.t)}
	var err error
	m.mac, err = net.ParseMAC(mac)
	must(s.t, err)
	s.plug(m.host)
	m.host.ip(s.t, "link set eth0 address "+mac+" up")
	m.conn = m.host.listen(s.t, "0.0.0.0:68")
	return m
}

// listen opens a UDP socket on the card of a host.
func (h host) listen(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "eth0") })
		return err
	}}
	var c net.PacketConn
	must(t, h.inside(func() (err error) { c, err = l.ListenPacket(t.Context(), "udp4", address); return err }))
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func (m *firmware) say(p *dhcpv4.DHCPv4) {
	m.t.Helper()
	if _, err := m.conn.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67")); err != nil {
		m.t.Fatal(err)
	}
}

// message makes one that asks what a machine of this architecture is to start.
func (m *firmware) message(kind dhcpv4.MessageType, arch iana.Arch, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m.t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(m.mac), dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(fmt.Sprintf("PXEClient:Arch:%05d:UNDI:002001", arch))),
		dhcpv4.WithOption(dhcpv4.OptClientArch(arch))}, mods...)...)
	must(m.t, err)
	return p
}

// asks sends a message until there are n answers, and returns them by their servers.
func (m *firmware) asks(p *dhcpv4.DHCPv4, n int) map[string]*dhcpv4.DHCPv4 {
	m.t.Helper()
	all := map[string]*dhcpv4.DHCPv4{}
	for try := 0; try < 10 && len(all) < n; try++ {
		m.say(p)
		m.hears(p, all, n, 3*time.Second)
	}
	if len(all) < n {
		m.t.Fatalf("%d instead of %d answers to %s", len(all), n, p.Summary())
	}
	return all
}

// hears collects answers until there are n, or for a while.
func (m *firmware) hears(p *dhcpv4.DHCPv4, all map[string]*dhcpv4.DHCPv4, n int, wait time.Duration) {
	m.conn.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 2000)
	for len(all) < n {
		k, _, err := m.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		a, err := dhcpv4.FromBytes(slices.Clone(buf[:k]))
		if err == nil && a.OpCode == dhcpv4.OpcodeBootReply && a.TransactionID == p.TransactionID {
			all[a.ServerIdentifier().String()] = a
		}
	}
}

// boots has the machine get an address from a server, and returns that. The offer of
// serverIP names the boot file.
func (m *firmware) boots(arch iana.Arch, from string, servers int) string {
	m.t.Helper()
	offers := m.asks(m.message(dhcpv4.MessageTypeDiscover, arch), servers)
	if boot := offers[serverIP]; boot == nil || boot.BootFileName != "pxelinux.0" || boot.ServerIPAddr.String() != serverIP {
		m.t.Fatalf("the server does not say what to start: %v", offers)
	}
	offer := offers[from]
	if offer == nil {
		m.t.Fatalf("%s offers nothing: %v", from, offers)
	}
	ack := m.asks(m.message(dhcpv4.MessageTypeRequest, arch, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))), 1)[from]
	if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck {
		m.t.Fatalf("%s does not give the address that it offered: %v", from, ack)
	}
	return ack.YourIPAddr.String()
}

// keeps asks for an address that the machine had before its restart.
func (m *firmware) keeps(addr string) dhcpv4.MessageType {
	m.t.Helper()
	p := m.message(dhcpv4.MessageTypeRequest, iana.INTEL_X86PC, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(addr))))
	return m.asks(p, 1)[serverIP].MessageType()
}

// dnsmasq starts the lab's own DHCP server on another host, which is 10.88.0.2.
func (s *serverSite) dnsmasq(more ...string) (stop func()) {
	s.t.Helper()
	h := newHost(s.t)
	s.join(h, "10.88.0.2")
	argv := h.in(append([]string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
		"--bind-interfaces", "--user=root", "--pid-file=", "--no-ping", "--dhcp-leasefile=" + filepath.Join(tempDir(s.t), "leases"),
		"--dhcp-range=10.88.0.50,10.88.0.60,1h"}, more...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, cmd.Start())
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	s.t.Cleanup(stop)
	s.until("dnsmasq runs", serverLimit, func() bool {
		argv := h.in("cat", "/proc/net/udp")
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		return err == nil && strings.Contains(string(out), ":0043 ")
	})
	return stop
}

// part is what the status says of a part of the server.
type part struct {
	Name, State, Text string
	At, Missing       []string
}

func (s *serverSite) part(name string) (p part) {
	s.t.Helper()
	c := s.command("server", "status", "--json")
	var st struct{ Parts []part }
	from := strings.Index(c.out, "{")
	if from < 0 || json.NewDecoder(strings.NewReader(c.out[from:])).Decode(&st) != nil {
		s.t.Fatalf("this is no status (exit code %d):\n%s\nthe server says\n%s", c.code, c.out, s.said())
	}
	for _, p = range st.Parts {
		if p.Name == name {
			return p
		}
	}
	s.t.Fatalf("the status says nothing of %s:\n%s", name, c.out)
	return p
}

// TestServedProxyDHCP: the lab's own DHCP server gives the addresses, and ours says what to
// start. It sends no machine to a file that is not there.
func TestServedProxyDHCP(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "curl", "dnsmasq")
	s := newServerSite(t, "[dhcp]\nmode = \"proxy\"\ninterfaces = [\"br0\"]\n")
	s.until("the status says that there is no DHCP server", serverLimit, func() bool {
		return strings.Contains(s.part("ProxyDHCP").Text, "none was heard")
	})
	stop := s.dnsmasq()
	m := s.machine("52:54:00:88:00:21")
	addr := m.boots(iana.INTEL_X86PC, "10.88.0.2", 2)
	if !strings.HasPrefix(addr, "10.88.0.5") && addr != "10.88.0.60" {
		t.Errorf("the lab's server gave %s", addr)
	}
	m.host.ip(t, "addr add "+addr+"/24 dev eth0")
	b := &servedBox{testBox: &testBox{t: t}, host: m.host}
	for name, want := range map[string]string{"pxelinux.0": "PXELINUX", "pxelinux.cfg/default": "LOCALBOOT"} {
		if got, err := b.tftp(name); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %.80q, %v", name, got, err)
		}
	}

	discover := m.message(dhcpv4.MessageTypeDiscover, iana.EFI_X86_64)
	if got := m.asks(discover, 1); got[serverIP] != nil {
		t.Errorf("a UEFI machine is sent to a file that is not there: %s", got[serverIP].Summary())
	}
	s.until("the log names the file that is missing", serverLimit, func() bool { return strings.Contains(s.said(), "missing=shimx64.efi") })
	keys, area := testpe.NewSite(), filepath.Join(s.state, "testbox-tftp")
	must(t, os.WriteFile(filepath.Join(area, "uefi-trust.pem"), keys.Firmware.PEM(), 0o644))
	must(t, os.WriteFile(filepath.Join(area, "shimx64.efi"), keys.Shim(pe.IMAGE_FILE_MACHINE_AMD64, "5"), 0o644))
	must(t, os.WriteFile(filepath.Join(area, "grubx64.efi"), keys.GRUB(pe.IMAGE_FILE_MACHINE_AMD64, "2.12", "7"), 0o644))
	s.until("the loaders that came are given", serverLimit, func() bool {
		all := map[string]*dhcpv4.DHCPv4{}
		m.say(discover)
		m.hears(discover, all, 2, time.Second)
		return all[serverIP] != nil && all[serverIP].BootFileName == "shimx64.efi"
	})

	// GRUB would ask dnsmasq for its configuration, and stop at its prompt.
	s.end()
	s.start()
	s.until("the status says that GRUB would go astray", serverLimit, func() bool {
		return strings.Contains(strings.Join(s.part("ProxyDHCP").Missing, " "), "sends UEFI machines to 10.88.0.2")
	})
	if got := m.asks(discover, 1); got[serverIP] != nil {
		t.Errorf("a UEFI machine is sent to a GRUB that finds no configuration: %s", got[serverIP].Summary())
	}
	s.end()
	stop()
	s.dnsmasq("--dhcp-boot=,," + serverIP) // as the status says
	s.start()
	s.until("UEFI machines are told again", serverLimit, func() bool {
		all := map[string]*dhcpv4.DHCPv4{}
		m.say(discover)
		m.hears(discover, all, 2, time.Second)
		return all[serverIP] != nil && all[serverIP].BootFileName == "shimx64.efi"
	})
	s.until("the status says which DHCP server there is", serverLimit, func() bool {
		p := s.part("ProxyDHCP")
		return p.State == "on" && strings.Contains(p.Text, "heard 10.88.0.2 on br0") && len(p.Missing) == 0 &&
			slices.Equal(p.At, []string{"br0 (" + serverIP + ")"})
	})
	s.does(done, []string{"server", "status"}, "ProxyDHCP", "heard 10.88.0.2 on br0", serverIP+":69")
}

// TestServedDHCP: the server is the only DHCP server of a lab. It does not start beside
// another one. What it gave survives its death, and a flood hurts nobody.
func TestServedDHCP(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "dnsmasq")
	const known, stranger, third = "52:54:00:88:00:31", "52:54:00:88:00:32", "52:54:00:88:00:33"
	s := newServerSite(t, `[dhcp]
mode = "full"
interfaces = ["br0"]
[[dhcp.subnets]]
network = "10.88.0.0/24"
range = "10.88.0.100-10.88.0.110"
routers = ["`+serverIP+`"]
`)
	s.end()
	stop := s.dnsmasq()
	s.start()
	s.until("it refuses beside another server", serverLimit, func() bool { return s.part("DHCP").State == "failed" })
	if p := s.part("DHCP"); !strings.Contains(strings.Join(p.Missing, " "), "there is another DHCP server: 10.88.0.2 on br0") {
		t.Errorf("it says %q", p.Missing)
	}
	s.does(failed, []string{"server", "status"}, "failed", "there is another DHCP server: 10.88.0.2 on br0", "beside = true")
	if !strings.Contains(s.said(), "DHCP does not start.") {
		t.Error("the log does not say that DHCP does not start")
	}
	m := s.machine(stranger)
	if got := m.asks(m.message(dhcpv4.MessageTypeDiscover, iana.INTEL_X86PC), 1); got[serverIP] != nil {
		t.Error("it offers addresses beside another server")
	}
	stop()
	s.until("it answers when the other server is gone", serverLimit, func() bool { return s.part("DHCP").State == "on" })

	s.does(done, []string{"box", "add", "10.88.0.105", "--mac", known})
	s.does(2, []string{"box", "accept", "10.88.0.105"}, "--mac MAC") // it would get another address
	b := s.machine(known)
	if addr := b.boots(iana.INTEL_X86PC, serverIP, 1); addr != "10.88.0.105" {
		t.Errorf("the box got %s", addr)
	}
	addr := m.boots(iana.INTEL_X86PC, serverIP, 1)
	if !strings.HasPrefix(addr, "10.88.0.1") || addr == "10.88.0.105" {
		t.Errorf("a stranger got %s", addr)
	}
	flood := m.message(dhcpv4.MessageTypeDiscover, iana.INTEL_X86PC)
	flood.ClientHWAddr = slices.Clone(flood.ClientHWAddr)
	for range 20000 {
		for i := range 5 {
			flood.ClientHWAddr[i+1] = byte(rand.IntN(256))
		}
		m.say(flood)
	}
	s.does(done, []string{"boxes"}, "10.88.0.105")
	if addr := b.boots(iana.INTEL_X86PC, serverIP, 1); addr != "10.88.0.105" {
		t.Errorf("after a flood the box got %s", addr)
	}
	s.kill()
	s.start()
	s.until("it answers again", serverLimit, func() bool { return s.part("DHCP").State == "on" })
	if got := m.keeps(addr); got != dhcpv4.MessageTypeAck {
		t.Errorf("after the server was killed, the stranger that keeps its address is told %v", got)
	}
	o := s.machine(third)
	if got := o.keeps(addr); got != dhcpv4.MessageTypeNak {
		t.Errorf("another one that wants this address is told %v", got)
	}
	if got := b.keeps("10.88.0.105"); got != dhcpv4.MessageTypeAck {
		t.Errorf("the box is told %v", got)
	}
}

package server

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// listenEnv makes a copy of the test's program print what it listens on.
const listenEnv = "TESTBOX_TEST_LISTEN"

func TestMain(m *testing.M) {
	socket := os.Getenv(listenEnv)
	if socket == "" {
		os.Exit(m.Run())
	}
	cfg := DefaultConfig()
	cfg.Socket, cfg.Agents, cfg.API, cfg.TFTP, cfg.HTTP = socket, "127.0.0.1:0", "", "", ""
	cfg.DHCP.Mode = os.Getenv(listenEnv + "_DHCP")
	dhcpAt, bootAt = "127.0.0.1:0", "127.0.0.1:0"
	l, err := listen(&cfg)
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	said := fmt.Sprint(l.agents.Addr(), " ", l.api != nil, " ", l.socket.Addr())
	if l.tftp != nil {
		said += " " + l.tftp.LocalAddr().String()
	}
	if l.http != nil {
		said += " http " + l.http.Addr().String()
	}
	if l.dhcp != nil {
		said += fmt.Sprint(" ", l.dhcp.LocalAddr(), " ", l.boot.LocalAddr())
	}
	fmt.Println(said)
}

// underSystemd runs the copy with open sockets, as systemd starts a service.
func underSystemd(t *testing.T, socket, names string, given ...any) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, self)
	cmd.Env = append(os.Environ(), listenEnv+"="+socket, fmt.Sprintf("LISTEN_FDS=%d", len(given)), "LISTEN_FDNAMES="+names)
	for _, l := range given {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		must(t, err)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out))
}

func TestSocketsOfSystemd(t *testing.T) {
	dir := t.TempDir()
	agents, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer agents.Close()
	api, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer api.Close()
	given, err := net.Listen("unix", filepath.Join(dir, "given"))
	must(t, err)
	defer given.Close()
	own := filepath.Join(dir, "own")
	if got, want := underSystemd(t, own, "socket:agents:api", given, agents, api),
		fmt.Sprint(agents.Addr(), " true ", given.Addr()); got != want {
		t.Errorf("with all sockets it listens at %q, not %q", got, want)
	}
	if got := underSystemd(t, own, "agents", agents); got != fmt.Sprint(agents.Addr(), " false ", own) {
		t.Errorf("with one socket it listens at %q", got)
	}
	if got := underSystemd(t, own+"2", "agents:agents", agents, api); !strings.Contains(got, "error: systemd opened 2 sockets") {
		t.Errorf("with two sockets of one name: %q", got)
	}
	boot, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer boot.Close()
	want := fmt.Sprint(agents.Addr(), " false ", own+"3 ", boot.LocalAddr())
	if got := underSystemd(t, own+"3", "tftp:agents", boot, agents); got != want {
		t.Errorf("with a socket for TFTP: %q, not %q", got, want)
	}
	if got := underSystemd(t, own+"5", "agents:http", agents, api); got != fmt.Sprint(agents.Addr(), " false ", own+"5 http ", api.Addr()) {
		t.Errorf("with a socket for HTTP: %q", got)
	}
	second, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer second.Close()
	if got, want := underSystemd(t, own+"8", "proxydhcp:agents:dhcp", boot, agents, second),
		fmt.Sprint(agents.Addr(), " false ", own+"8"); got != want {
		t.Errorf("with sockets for DHCP, which is off: %q, not %q", got, want)
	}
	t.Setenv(listenEnv+"_DHCP", dhcpProxy)
	if got, want := underSystemd(t, own+"6", "proxydhcp:agents:dhcp", boot, agents, second),
		fmt.Sprint(agents.Addr(), " false ", own+"6 ", second.LocalAddr(), " ", boot.LocalAddr()); got != want {
		t.Errorf("with sockets for DHCP: %q, not %q", got, want)
	}
	if got := underSystemd(t, own+"7", "dhcp", agents); !strings.Contains(got, "error: the socket dhcp that systemd opened") {
		t.Errorf("with a socket of TCP for DHCP: %q", got)
	}
	if got := underSystemd(t, own+"4", "tftp", agents); !strings.Contains(got, "error: the socket tftp that systemd opened") {
		t.Errorf("with a socket of TCP for TFTP: %q", got)
	}
}

package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"testbox-imaging/internal/ledger"
)

// What jobs.probe can be besides "tcp:PORT".
const (
	probePing = "ping"
	probeNone = ""
)

// probePort returns the port of a probe "tcp:PORT".
func probePort(s string) (port uint16, ok bool) {
	text, ok := strings.CutPrefix(s, "tcp:")
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), ok && err == nil && n > 0
}

func validProbe(s string) bool {
	_, tcp := probePort(s)
	return s == probePing || s == probeNone || tcp
}

// errMayNotPing says what to do where the system does not let the server ping.
var errMayNotPing = errors.New("the server may not ping boxes; give it the right by AmbientCapabilities=CAP_NET_RAW in its unit, " +
	"or take the group of its user into the range of the sysctl net.ipv4.ping_group_range, or make jobs.probe a port like tcp:22")

// newProbe returns how the own system of a box is asked for a sign of life. It is nil if
// that is not wanted. After an error it is nil too.
func newProbe(how string) (func(context.Context, ledger.Box) error, error) {
	if how == probeNone {
		return nil, nil
	}
	if port, ok := probePort(how); ok {
		return func(ctx context.Context, b ledger.Box) error {
			return dialPort(ctx, b.Address.String(), port)
		}, nil
	}
	c, err := listenPing()
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errMayNotPing, err)
	}
	c.Close()
	return func(ctx context.Context, b ledger.Box) error { return ping(ctx, b.Address.IP().AsSlice()) }, nil
}

// dialPort makes a connection of TCP and ends it.
func dialPort(ctx context.Context, addr string, port uint16) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", net.JoinHostPort(addr, strconv.Itoa(int(port))))
	if err == nil {
		c.Close()
	}
	return err
}

// listenPing opens a socket for ICMP. Most systems let every user do so (ip(7),
// ping_group_range). Where they do not, root may use a raw socket.
func listenPing() (*icmp.PacketConn, error) {
	c, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if errors.Is(err, os.ErrPermission) {
		return icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	}
	return c, err
}

// pingEvery is how long an answer is waited for before the question is asked again.
const pingEvery = time.Second

// ping waits for an answer to an echo request (RFC 792), until ctx ends.
func ping(ctx context.Context, ip net.IP) error {
	c, err := listenPing()
	if err != nil {
		return err
	}
	defer c.Close()
	var to net.Addr = &net.UDPAddr{IP: ip}
	if _, raw := c.LocalAddr().(*net.IPAddr); raw {
		to = &net.IPAddr{IP: ip}
	}
	word := []byte(rand.Text())
	for seq := 1; ctx.Err() == nil; seq++ {
		// The kernel puts its own ID into a request of a socket that is not raw.
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq, Data: word}}
		packet, err := m.Marshal(nil)
		if err != nil {
			return err
		}
		c.WriteTo(packet, to) // a box that is not there yet makes errors, and is asked again
		if answered(ctx, c, ip, word) {
			return nil
		}
	}
	return context.Cause(ctx)
}

// answered waits a while for the answer to an echo request.
func answered(ctx context.Context, c *icmp.PacketConn, ip net.IP, word []byte) bool {
	until := time.Now().Add(pingEvery)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	c.SetReadDeadline(until)
	buf := make([]byte, 1500)
	for time.Now().Before(until) {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil { // such as an ICMP error that came back
			time.Sleep(10 * time.Millisecond)
			continue
		}
		m, err := icmp.ParseMessage(1, buf[:n]) // 1 is ICMP for IPv4
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply || !ipOf(from).Equal(ip) {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && bytes.Equal(echo.Data, word) {
			return true
		}
	}
	return false
}

func ipOf(a net.Addr) net.IP {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.IP
	case *net.IPAddr:
		return a.IP
	}
	return nil
}

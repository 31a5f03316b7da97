package server

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
)

// A box whose port is asked is up if it takes the connection.
func TestProbePort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	probe, err := newProbe("tcp:" + strconv.Itoa(port))
	must(t, err)
	here := ledger.Box{Address: addr(t, "10.0.0.7")}
	dial := func() error { return dialPort(t.Context(), "127.0.0.1", uint16(port)) }
	if err := dial(); err != nil {
		t.Errorf("a port that is open: %v", err)
	}
	l.Close()
	if err := dial(); err == nil {
		t.Error("a port that is closed counts as up")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := probe(ctx, here); !errors.Is(err, context.Canceled) {
		t.Errorf("a probe that has no time: %v", err)
	}
}

// This machine answers a ping.
func TestPing(t *testing.T) {
	c, err := listenPing()
	if err != nil {
		t.Skipf("this user may not ping: %v", err)
	}
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := ping(ctx, net.IPv4(127, 0, 0, 1)); err != nil {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := ping(ctx, net.IPv4(127, 0, 0, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a ping that has no time: %v", err)
	}
}

func TestValidProbe(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "ping": true, "tcp:22": true, "tcp:65535": true, "tcp:0": false, "tcp:": false, "tcp:65536": false, "tcp:-1": false,
		"udp:22": false, "22": false, "Ping": false,
	} {
		if got := validProbe(s); got != want {
			t.Errorf("%q is valid: %v", s, got)
		}
	}
	if probe, err := newProbe(""); probe != nil || err != nil {
		t.Errorf("no probe is wanted: %v", err)
	}
}

// TestUpPart: the status says whether jobs can wait until their boxes are up, and why not.
func TestUpPart(t *testing.T) {
	cfg := DefaultConfig()
	s := &server{Parts: Parts{Config: &cfg}, sockets: &listeners{}}
	if p := s.upPart(); p.State != api.PartOff || !strings.Contains(p.Text, "another TFTP server") {
		t.Errorf("without TFTP: %+v", p)
	}
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer c.Close()
	s.sockets.tftp = c.(*net.UDPConn)
	if p := s.upPart(); p.State != api.PartOn || !strings.Contains(p.Text, "by ping") {
		t.Errorf("with a probe: %+v", p)
	}
	s.noProbe = errMayNotPing
	if p := s.upPart(); p.State != api.PartFailed || len(p.Missing) != 1 || !strings.Contains(p.Missing[0], "CAP_NET_RAW") {
		t.Errorf("without the right to ping: %+v", p)
	}
	cfg.Jobs.Probe = probeNone
	if p := s.upPart(); p.State != api.PartOff || !strings.Contains(p.Text, "no probe") {
		t.Errorf("without a probe: %+v", p)
	}
}

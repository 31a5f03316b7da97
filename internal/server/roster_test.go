package server

import (
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/tftp"
)

const testUUID = "564d4a2c-11f5-8e2b-9ead-beef00112233"

func addrsOf(all []*known) string {
	var texts []string
	for _, k := range all {
		texts = append(texts, k.Addr.String())
	}
	return strings.Join(texts, " ")
}

// TestRoster: the roster has what the ledger has, at the start and after each change.
func TestRoster(t *testing.T) {
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	update := func(change func(tx *ledger.Tx) error) { t.Helper(); must(t, l.Update(t.Context(), change)) }
	put := func(b ledger.Box) { t.Helper(); update(func(tx *ledger.Tx) error { return tx.PutBox(b) }) }
	one := ledger.Box{Address: addr(t, "10.0.0.7"), Name: "seven", Health: ledger.Good, UUID: strings.ToUpper(testUUID),
		MACs: []string{"52-54-00-00-00-01", "52:54:00:00:00:02"}}
	put(one)
	r := newRoster()
	must(t, r.follow(t.Context(), l))
	check := func(when, at, mac1, mac2, uuid string) {
		t.Helper()
		got := ""
		if k := r.at(netip.MustParseAddr("::ffff:10.0.0.7")); k != nil {
			got = k.Name
		}
		if got != at || addrsOf(r.withMAC("52:54:00:00:00:01")) != mac1 || addrsOf(r.withMAC("52:54:00:00:00:02")) != mac2 ||
			addrsOf(r.withUUID(testUUID)) != uuid {
			t.Errorf("%s: %q, %v, %v, %v", when, got, r.withMAC("52:54:00:00:00:01"), r.withMAC("52:54:00:00:00:02"), r.withUUID(testUUID))
		}
	}
	check("at the start", "seven", "10.0.0.7", "10.0.0.7", "10.0.0.7")
	if got := addrsOf(r.withUUID("2c4a4d56-f511-2b8e-9ead-beef00112233")); got != "10.0.0.7" {
		t.Errorf("the UUID in the order of its bytes: %q", got)
	}
	two := ledger.Box{Address: addr(t, "10.0.0.8"), Health: ledger.Retired, MACs: []string{"52:54:00:00:00:02"},
		UUID: "00020003-0004-0005-0006-000700080009"}
	put(two)
	check("with a second box that has the same card", "seven", "10.0.0.7", "10.0.0.7 10.0.0.8", "10.0.0.7")
	if k := r.at(netip.MustParseAddr("10.0.0.8")); k == nil || !k.Retired || r.count() != 2 || len(r.withUUID(two.UUID)) != 0 {
		t.Errorf("%+v, %d, %v", k, r.count(), r.withUUID(two.UUID))
	}
	before := r.withMAC("52:54:00:00:00:02")
	one.Name, one.UUID, one.MACs = "new", "", []string{"52:54:00:00:00:01"}
	put(one)
	if before[0] == nil || before[1] == nil || addrsOf(before) != "10.0.0.7 10.0.0.8" {
		t.Error("a list that was asked for earlier has changed")
	}
	check("changed", "new", "10.0.0.7", "10.0.0.8", "")
	update(func(tx *ledger.Tx) error { return tx.DeleteBox(one.Address) })
	check("forgotten", "", "", "10.0.0.8", "")
	must(t, l.Close())
	if err := newRoster().follow(t.Context(), l); err == nil {
		t.Error("a ledger that cannot be read gives an empty roster")
	}
}

// TestRosterAtOnce: many ask while boxes change. It is for the race detector.
func TestRosterAtOnce(t *testing.T) {
	r := newRoster()
	b := ledger.Box{Address: addr(t, "10.0.0.7"), MACs: []string{"a"}}
	other := ledger.Box{Address: addr(t, "10.0.0.8"), MACs: []string{"a"}}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				for _, k := range r.withMAC("a") {
					_ = k.Name
				}
			}
		})
	}
	for range 500 {
		r.change([]ledger.Box{b, other}, nil)
		r.change(nil, []box.Addr{b.Address})
	}
	all.Wait()
	if got := addrsOf(r.withMAC("a")); got != "10.0.0.8" {
		t.Error(got)
	}
}

func testSights(boxes ...ledger.Box) *server {
	s := &server{roster: newRoster(), sights: &sight.List{}}
	s.roster.change(boxes, nil)
	return s
}

// TestSightsOfFiles: what a loader asks for by TFTP says which machine it is.
func TestSightsOfFiles(t *testing.T) {
	s := testSights(ledger.Box{Address: addr(t, "10.0.0.9"), UUID: testUUID})
	from := netip.MustParseAddr("10.0.0.7")
	s.sawFile("tftp", from, "/pxelinux.0", nil)
	s.sawFile("tftp", from, "pxelinux.cfg/2c4a4d56-f511-2b8e-9ead-beef00112233", fs.ErrNotExist)
	s.sawFile("tftp", from, "pxelinux.cfg/01-52-54-00-00-00-01", fs.ErrNotExist)
	s.sawFile("tftp", from, "pxelinux.cfg/0A000007", fs.ErrNotExist)
	s.sawFile("tftp", from, "pxelinux.cfg/0A0000", fs.ErrNotExist)
	s.sawFile("http", from, "/pxelinux.cfg//default", nil)
	all := s.sights.Machines()
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	m := all[0]
	if m.Addr != from || m.MAC != "52:54:00:00:00:01" || m.UUID != testUUID || m.Default.IsZero() {
		t.Errorf("%+v", m)
	}
	var asks []string
	for _, a := range m.Asks {
		asks = append(asks, a.Over+" "+a.Asked+" "+a.Given)
	}
	want := []string{"tftp pxelinux.0 pxelinux.0", "tftp pxelinux.cfg/2c4a4d56-f511-2b8e-9ead-beef00112233 ",
		"tftp pxelinux.cfg/01-52-54-00-00-00-01 ", "tftp pxelinux.cfg/0A000007 ", "http pxelinux.cfg/default pxelinux.cfg/default"}
	if strings.Join(asks, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", asks)
	}
}

// TestSightsOfTFTP: a request by TFTP counts, and the question for a file's size does not.
func TestSightsOfTFTP(t *testing.T) {
	s := testSights()
	s.Log = slog.New(slog.DiscardHandler)
	n, err := newNetboot(s, t.TempDir())
	must(t, err)
	defer n.close()
	for i, probe := range []bool{true, false} {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1024)
		n.done(tftp.Transfer{Request: tftp.Request{Name: "pxelinux.0", Client: from}, Probe: probe})
	}
	if all := s.sights.Machines(); len(all) != 1 || all[0].Addr.String() != "10.0.0.1" || all[0].Asks[0].Given != "pxelinux.0" {
		t.Errorf("%+v", all)
	}
}

// TestSightsOfDHCP: firmware says in DHCP which machine it runs on. Systems that renew an
// address count for boxes that are known alone.
func TestSightsOfDHCP(t *testing.T) {
	mac, err := net.ParseMAC("52:54:00:00:00:01")
	must(t, err)
	other, err := net.ParseMAC("52:54:00:00:00:02")
	must(t, err)
	s := testSights(ledger.Box{Address: addr(t, "10.0.0.9"), MACs: []string{other.String()}})
	ip := netip.MustParseAddr("10.0.0.7")
	uuid := [16]byte{0x2c, 0x4a, 1}
	rom := dhcp.Machine{MAC: mac, UUID: uuid, PXE: true, Arch: dhcp.X64}
	s.sawDHCP(dhcp.Event{Machine: rom, Asked: "DISCOVER", Answer: "OFFER", Boot: dhcp.Boot{File: "f"}, Given: true})
	rom.Address = ip
	s.sawDHCP(dhcp.Event{Machine: rom, Asked: "REQUEST", Chosen: netip.MustParseAddr("10.0.0.1")})
	s.sawDHCP(dhcp.Event{Machine: dhcp.Machine{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}}, Asked: "REQUEST", Answer: "ACK", Address: ip})
	s.sawDHCP(dhcp.Event{Machine: dhcp.Machine{MAC: other, Address: ip}, Asked: "REQUEST", Answer: "NAK"})
	s.sawDHCP(dhcp.Event{Machine: dhcp.Machine{MAC: other}, Asked: "REQUEST", Answer: "ACK", Address: netip.MustParseAddr("10.0.0.9")})
	all := s.sights.Machines()
	if len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	if m := all[0]; m.MAC != other.String() || m.Addr.String() != "10.0.0.9" || m.Twin != "" || m.Asks[len(m.Asks)-1].Given != "10.0.0.9" {
		t.Errorf("%+v", m)
	}
	m := all[1]
	if m.MAC != mac.String() || m.Addr != ip || m.UUID != "2c4a0100-0000-0000-0000-000000000000" || m.Arch != "UEFI x86-64" || m.Twin != "" ||
		m.Asks[0].Asked != "DISCOVER for UEFI x86-64" || m.Asks[0].Given != "f" || m.Asks[1].Given != "" {
		t.Errorf("%+v", m)
	}
	if time.Since(m.Last) > time.Minute {
		t.Error(m.Last)
	}
}

package sight

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// check holds the list against itself.
func (l *List) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	ranked := 0
	for m := range l.of {
		if m.MAC != "" && l.byMAC[m.MAC] != m {
			t.Fatalf("%+v is not found by its MAC", m.Machine)
		}
		here := 0
		for _, e := range l.byAddr[m.Addr] {
			if e == m {
				here++
			}
		}
		if m.Addr.IsValid() != (here == 1) {
			t.Fatalf("%+v is %d times at its address", m.Machine, here)
		}
		if m.in != nil {
			ranked++
		}
		if len(m.Asks) > maxAsks || len(m.MAC) > maxText || len(m.UUID) > maxText || len(m.Arch) > maxText {
			t.Fatalf("%+v is too large", m.Machine)
		}
		doc, err := m.Document()
		var again Machine
		if err != nil || json.Unmarshal(doc, &again) != nil || len(doc) > MaxDocument {
			t.Fatalf("%d bytes, %v: %s", len(doc), err, doc)
		}
	}
	if n := l.claims.Len() + l.proven.Len(); n != ranked || n > MaxMachines {
		t.Fatalf("%d of %d machines are ranked", n, ranked)
	}
	for mac, m := range l.byMAC {
		if mac == "" || !l.of[m] {
			t.Fatalf("%q leads to a machine that is gone", mac)
		}
	}
	for addr, all := range l.byAddr {
		for _, m := range all {
			if !l.of[m] || m.Addr != addr {
				t.Fatalf("%v leads to a machine that is gone", addr)
			}
		}
		if len(all) == 0 || len(all) > maxHere+2 { // those of boxes stay
			t.Fatalf("%v has %d machines", addr, len(all))
		}
	}
}

// FuzzSaw: whatever machines say, in whatever order, the list stays whole and small.
func FuzzSaw(f *testing.F) {
	f.Add([]byte{0x64, 1, 1, 1}, strings.Repeat(`"`, 200))
	f.Add([]byte{1, 1, 0, 2, 1, 1, 0x11, 3, 9, 0, 0xff, 200}, "pxelinux.0\x00\xff<\"\\")
	f.Fuzz(func(t *testing.T, ops []byte, text string) {
		l := known()
		now := begin
		var saved []Saved
		for len(ops) >= 4 {
			op, a, m, step := ops[0], ops[1], ops[2], ops[3]
			ops = ops[4:]
			now = now.Add(time.Duration(int8(step)) * time.Minute) // clocks are set back, too
			id := Identity{UUID: []string{"", "aaaa", text}[op/8%3], Arch: text}
			if a != 0 {
				id.Addr = netip.AddrFrom4([4]byte{10, 40, 41, a % 24})
			}
			if m != 0 {
				id.MAC = []string{macA, macB, text, "02:00:00:00:00:" + string("0123456789abcdef"[m%16])}[m/16%4]
			}
			switch op % 8 {
			case 0:
				l.AskedDefault(id.Addr, now)
			case 1:
				l.Quiet(now, all, none)
			case 2:
				put, drop := l.Unsaved()
				if l.UnsavedBoxes(); op >= 128 {
					l.Unsave(put, drop)
				}
				saved = append(saved, put...)
			case 3:
				l.Load(saved[:min(len(saved), 1)], now)
			default:
				l.Saw(id, Ask{Time: now, Over: []string{"dhcp", "tftp"}[op/32%2], Asked: text, Given: []string{"", text}[op/64%2]})
			}
			l.Events()
			l.check(t)
		}
		l.Machines()
		l.Unknown()
		l.Count()
	})
}

package efi

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestNetworkFirst: the network comes first, and what is so already is not written.
func TestNetworkFirst(t *testing.T) {
	const card = "52:54:00:00:00:02"
	vars := func(o []byte, more map[string][]byte) map[string][]byte {
		v := map[string][]byte{"BootOrder": o, "Boot0001": pxe(1), "Boot0002": pxe(2), "Boot0003": onDisk(espGUID, `\a`), "Boot0004": shell()}
		for name, b := range more {
			v[name] = b
		}
		return v
	}
	current := func(n Number) map[string][]byte { return map[string][]byte{"BootCurrent": order(n)} }
	inactive := map[string][]byte{"Boot0002": option(0, "x", join(macNode(2), endNode))}
	setup := map[string][]byte{"Boot0005": shell(), "BootCurrent": order(2)}
	setup["Boot0005"][1] |= optionApp >> 8
	v6 := option(1, "PXEv6", join(pciRoot, macNode(2), aNode(typeMessaging, subIPv6, make([]byte, 56)), endNode))
	http := option(1, "HTTPv4", join(pciRoot, macNode(2), ipv4, aNode(typeMessaging, subURI, nil), endNode))
	for _, c := range []struct {
		name   string
		vars   map[string][]byte
		card   string
		result Result
		want   []Number
	}{
		{"kept", vars(order(2, 3), current(2)), "", OrderKept, []Number{2, 3}},
		{"the disk is first", vars(order(3, 4, 2), current(2)), "", OrderRepaired, []Number{2, 3, 4}},
		{"not in the order", vars(order(3, 4), current(2)), "", OrderRepaired, []Number{2, 3, 4}},
		{"setup is first", vars(order(5, 2, 3), setup), "", OrderKept, []Number{5, 2, 3}},
		{"a shell is first", vars(order(4, 2, 3), current(2)), "", OrderRepaired, []Number{2, 4, 3}},
		{"no order", vars(nil, current(2)), "", OrderRepaired, []Number{2, 1, 3}},
		{"by IPv4", vars(order(3, 5, 6, 2), map[string][]byte{"Boot0005": v6, "Boot0006": http}), card, OrderRepaired, []Number{2, 3, 5, 6}},
		{"by HTTP", vars(order(5, 3, 6), map[string][]byte{"Boot0005": v6, "Boot0006": http, "Boot0002": shell()}), card, OrderRepaired,
			[]Number{6, 5, 3}},
		{"by IPv6 alone", vars(order(3, 5), map[string][]byte{"Boot0005": v6, "Boot0002": shell()}), card, OrderNone, []Number{3, 5}},
		{"twice in the order", vars(order(3, 2, 3, 2), current(2)), "", OrderRepaired, []Number{2, 3}},
		{"another card is first", vars(order(1, 2, 3), current(2)), "", OrderKept, []Number{1, 2, 3}},
		{"another card, then the disk", vars(order(1, 3, 2), current(2)), "", OrderRepaired, []Number{2, 1, 3}},
		{"an entry that is gone is first", vars(order(9, 2), current(2)), "", OrderRepaired, []Number{2, 9}},
		{"by the card", vars(order(3, 1, 2), nil), card, OrderRepaired, []Number{2, 3, 1}},
		{"booted from the disk's entry", vars(order(3, 1, 2), current(3)), card, OrderRepaired, []Number{2, 3, 1}},
		{"of no known card", vars(order(3, 1, 2), nil), "52:54:00:00:00:09", OrderNone, []Number{3, 1, 2}},
		{"no card", vars(order(3, 1, 2), nil), "", OrderNone, []Number{3, 1, 2}},
		{"not active", vars(order(3, 2), inactive), card, OrderNone, []Number{3, 2}},
		{"an order that cannot be", vars([]byte{1, 0, 2}, current(2)), "", OrderFailed, nil},
	} {
		d := folder(t, c.vars)
		s := d.State()
		is, _ := os.ReadFile(d.path("BootOrder", Global))
		n := d.PutNetworkFirst(s, c.card, nil)
		if n.Result != c.result || !slices.Equal(s.Order, c.want) {
			t.Errorf("%s: %+v, the order is %v", c.name, n, s.Order)
		}
		wrote, _ := os.ReadFile(d.path("BootOrder", Global))
		if changed := string(is) != string(wrote); changed != (n.Wrote != nil) || changed != (c.result == OrderRepaired) {
			t.Errorf("%s: changed %v, says %v", c.name, changed, n.Wrote)
		}
		if n.Bad() != (c.result != OrderKept && c.result != OrderRepaired) || n.Bad() && n.Text == "" {
			t.Errorf("%s: %+v", c.name, n)
		}
		if again := d.PutNetworkFirst(d.State(), c.card, nil); !n.Bad() && again.Result != OrderKept {
			t.Errorf("%s, again: %+v", c.name, again)
		}
	}
}

// TestIgnored: an order that did not stay until the next start is told of.
func TestIgnored(t *testing.T) {
	d := folder(t, map[string][]byte{"BootOrder": order(3, 1), "BootCurrent": order(1), "Boot0001": pxe(1), "Boot0003": onDisk(espGUID, `\a`)})
	start := func(before *Note) *Note {
		s := d.State()
		return &Note{Format: NoteFormat, Time: time.Unix(1000, 0), NetworkFirst: d.PutNetworkFirst(s, "", before), State: *s}
	}
	first := start(nil)
	if r := first.NetworkFirst.Result; r != OrderRepaired {
		t.Fatal(r)
	}
	if kept := start(first); kept.NetworkFirst.Result != OrderKept {
		t.Error(kept.NetworkFirst)
	}
	put(t, d, "BootOrder-"+Global, order(3, 1))
	second := start(first)
	if n := second.NetworkFirst; n.Result != OrderIgnored || !strings.Contains(n.Text, "1970-01-01") ||
		!slices.Equal(second.State.Order, []Number{1, 3}) {
		t.Errorf("%+v", n)
	}
	for _, n := range []Number{7, 8} { // the firmware has made its entry for the network anew, and has put it last
		os.Remove(d.path("Boot"+second.State.Order[0].String(), Global))
		put(t, d, "Boot"+n.String()+"-"+Global, pxe(1))
		put(t, d, "BootOrder-"+Global, order(3, n))
		put(t, d, "BootCurrent-"+Global, order(n))
		if second = start(second); second.NetworkFirst.Result != OrderIgnored {
			t.Errorf("%+v", second.NetworkFirst)
		}
	}
	put(t, d, "Boot0001-"+Global, pxe(1))
	put(t, d, "BootCurrent-"+Global, order(1))
	put(t, d, "BootOrder-"+Global, order(4, 1, 3)) // a system that was installed has put itself first
	put(t, d, "Boot0004-"+Global, onDisk(espGUID, `\b`))
	if n := start(second).NetworkFirst; n.Result != OrderRepaired {
		t.Errorf("%+v", n)
	}
}

// TestOrderRapid: every entry of the order is there once, the network is first, the
// rest is as it was, and nothing is written a second time.
func TestOrderRapid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []Number{1, 2, 3, 4, 5, 6}
		was := rapid.SliceOfN(rapid.SampledFrom(all), 0, 12).Draw(t, "order")
		n := rapid.SampledFrom(all).Draw(t, "first")
		is := putFirst(n, was)
		var rest []Number
		for _, o := range was {
			if o != n && !slices.Contains(rest, o) {
				rest = append(rest, o)
			}
		}
		if is[0] != n || !slices.Equal(is[1:], rest) {
			t.Fatalf("%v became %v", was, is)
		}
		if again := putFirst(n, is); !slices.Equal(again, is) {
			t.Fatalf("%v became %v", is, again)
		}
	})
}

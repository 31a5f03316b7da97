package setting

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
)

func TestParseKeep(t *testing.T) {
	for text, want := range map[string]Keep{
		"all":                               {All: true},
		"last=3":                            {Last: 3},
		"daily=7,last=3":                    {Last: 3, Daily: 7},
		"last=1,daily=2,weekly=3,monthly=4": {Last: 1, Daily: 2, Weekly: 3, Monthly: 4},
		"last=100000":                       {Last: MaxKeep},
	} {
		k, err := ParseKeep(text)
		if err != nil || k != want {
			t.Errorf("%q: %+v, %v", text, k, err)
		}
		if again, err := ParseKeep(k.String()); err != nil || again != k {
			t.Errorf("%q becomes %q: %v", text, k, err)
		}
	}
	for _, text := range []string{"", "All", "last", "last=", "last=0", "last=-1", "last=+1", "last=1.5", "last=100001", "last=99999999999",
		"last=1,last=2", "last=1,", ",last=1", "all,last=1", "last=1,all", "last = 1", "hourly=3", "last=1;daily=2", "default"} {
		if k, err := ParseKeep(text); err == nil {
			t.Errorf("%q is taken for %+v", text, k)
		}
	}
}

func TestParse(t *testing.T) {
	for _, text := range []string{"", "{}", `{"most":0}`, `{"power":"none"}`, `{"most":3,"power":"bmc","keep":"last=3,daily=7"}`} {
		s, err := Parse(json.RawMessage(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if b, err := s.JSON(); err != nil || string(b) != text && text != "" {
			t.Errorf("%s becomes %s, %v", text, b, err)
		}
	}
	for _, text := range []string{"x", "[]", "1", `{"other":1}`, `{"most":-1}`, `{"most":100001}`, `{"most":"3"}`, `{"power":1}`, `{"power":"a b"}`,
		`{"power":"default"}`, `{"power":"` + strings.Repeat("a", 65) + `"}`, `{"keep":"x"}`, `{"keep":""}`, `{"keep":{}}`, `{} {}`, `{}x`} {
		if s, err := Parse(json.RawMessage(text)); err == nil {
			t.Errorf("%s is taken for %+v", text, s)
		}
	}
	if _, err := OfBox(ledger.Box{Settings: []byte(`{"most":1}`)}); err == nil {
		t.Error("a box has most")
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]struct {
		most    int
		limited bool
	}{"{}": {0, false}, `{"most":3}`: {3, true}, `{"most":0}`: {0, true}, `{"most":3,"other":1}`: {0, true}, "x": {0, true}} {
		if most, limited := Places(ledger.Group{Settings: []byte(text)}); most != want.most || limited != want.limited {
			t.Errorf("%s: %d, %v", text, most, limited)
		}
	}
}

func TestFor(t *testing.T) {
	all := []ledger.Group{
		{Name: "a", Settings: []byte(`{"power":"bmc","keep":"last=3,daily=2"}`)},
		{Name: "b", Settings: []byte(`{"power":"bmc","keep":"daily=7"}`)},
		{Name: "c", Settings: []byte(`{"power":"pdu","keep":"all"}`)},
		{Name: "d", Settings: []byte(`{}`)},
		{Name: "e", Settings: []byte(`{"power":"none"}`)},
		{Name: "x", Settings: []byte(`{"other":1}`)},
	}
	site := Site{Power: "bmc", Keep: Keep{Last: 9}, Powers: []string{"bmc", "pdu"}}
	const unread = `the settings of the group x cannot be read: json: unknown field "other"; ` + "`testbox group set` makes them anew"
	for _, c := range []struct {
		box, groups               string
		site                      Site
		power, why, keep, keepWhy string
	}{
		{`{}`, "", Site{}, "", "", "all", ""},
		{`{}`, "", site, "bmc", "in the configuration", "last=9", "in the configuration"},
		{`{}`, "d", site, "bmc", "in the configuration", "last=9", "in the configuration"},
		{`{}`, "a", site, "bmc", "for the group a", "last=3,daily=2", "for the group a"},
		{`{}`, "a,b,d", site, "bmc", "for the groups a and b", "last=3,daily=7", "for the groups a and b"},
		{`{}`, "b,c", site, "", "the group b says bmc, and the group c says pdu; say by `testbox box set --power` which it is",
			"all", "for the groups b and c"},
		{`{}`, "a,e", site, "", "the group a says bmc, and the group e says none; say by `testbox box set --power` which it is",
			"last=3,daily=2", "for the group a"},
		{`{}`, "e", site, "", "for the group e", "last=9", "in the configuration"},
		{`{"power":"pdu"}`, "a,b", site, "pdu", "for the box", "last=3,daily=7", "for the groups a and b"},
		{`{"power":"none","keep":"last=1"}`, "a,c", site, "", "for the box", "last=1", "for the box"},
		{`{"power":"old"}`, "", site, "", "there is no power command old in the configuration, which is set for the box",
			"last=9", "in the configuration"},
		// What cannot be read does no harm.
		{`{}`, "a,x", site, "", unread, "all", unread},
		{`{"power":"pdu","keep":"last=1"}`, "x", site, "pdu", "for the box", "last=1", "for the box"},
		{`{}`, "no", site, "", "there is no group no", "all", "there is no group no"},
		{`{"most":1}`, "a", site, "", "?", "all", "?"},
		{`x`, "a", site, "", "?", "all", "?"},
	} {
		b := ledger.Box{Settings: []byte(c.box)}
		if c.groups != "" {
			b.Groups = strings.Split(c.groups, ",")
		}
		e := For(b, all, c.site)
		if c.why == "?" && strings.Contains(e.PowerWhy, "cannot be read") && e.KeepWhy == e.PowerWhy {
			e.PowerWhy, e.KeepWhy = "?", "?"
		}
		if e.Power != c.power || e.PowerWhy != c.why || e.Keep.String() != c.keep || e.KeepWhy != c.keepWhy {
			t.Errorf("%s in %q: %+v", c.box, c.groups, e)
		}
	}
}

// TestPeers: what is set for a box goes before its groups, these before its network, and this before all. One of several
// groups is enough to switch peers off, and so is what cannot be read.
func TestPeers(t *testing.T) {
	all := []ledger.Group{{Name: "on", Settings: []byte(`{"peers":"on"}`)}, {Name: "off", Settings: []byte(`{"peers":"off"}`)},
		{Name: "none"}, {Name: "x", Settings: []byte(`{"peers":"perhaps"}`)}}
	network := Site{PeersOff: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("10.0.0.0/24")}}
	for _, c := range []struct {
		box, groups string
		site        Site
		want        bool
		why         string
	}{
		{`{}`, "none", Site{}, true, ""},
		{`{}`, "", Site{NoPeers: true}, false, "in the configuration"},
		{`{}`, "", network, false, "for the network 10.0.0.0/24 in the configuration"},
		{`{}`, "", Site{PeersOff: network.PeersOff[:1]}, true, ""},
		{`{}`, "none,on", network, true, "for the group on"},
		{`{}`, "on", Site{NoPeers: true}, true, "for the group on"},
		{`{}`, "on,off", Site{}, false, "for the group off"},
		{`{"peers":"on"}`, "off", network, true, "for the box"},
		{`{"peers":"off"}`, "on", Site{}, false, "for the box"},
		{`{"peers":"on"}`, "x", Site{}, true, "for the box"},
		{`{}`, "x", Site{}, false, "cannot be read"},
		{`{"peers":""}`, "", Site{}, true, ""},
		{`{"peers":"maybe"}`, "on", Site{}, false, "cannot be read"},
	} {
		b := ledger.Box{Address: testAddr(t), Settings: []byte(c.box)}
		if c.groups != "" {
			b.Groups = strings.Split(c.groups, ",")
		}
		e := For(b, all, c.site)
		if e.Peers != c.want || !strings.Contains(e.PeersWhy, c.why) || c.why == "" && e.PeersWhy != "" {
			t.Errorf("%s in %q: %v, %s", c.box, c.groups, e.Peers, e.PeersWhy)
		}
	}
}

func testAddr(t *testing.T) box.Addr {
	a, err := box.ParseAddr("10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"bmc", "ssh-reboot", "PDU.3_a"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "none", "default", "a b", "a\n", "a\x1b", "\xff", strings.Repeat("a", 65)} {
		if CheckName(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// FuzzParse: what is read can be written, and is read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "{}", `{"peers":"off"}`, `{"most":3,"power":"bmc","keep":"last=3,daily=7"}`, `{"keep":"all"}`, `{"keep":"last=1,last=2"}`, `{"power":"none"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(json.RawMessage(text))
		if err != nil {
			return
		}
		b, err := s.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b)
		if err != nil || again.Power != s.Power || again.Peers != s.Peers || again.Keep != s.Keep || (again.Most == nil) != (s.Most == nil) {
			t.Fatalf("%q becomes %s: %+v, %v", text, b, again, err)
		}
	})
}

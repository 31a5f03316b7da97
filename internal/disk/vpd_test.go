package disk

import (
	"strings"
	"testing"
)

func TestWWNChoice(t *testing.T) {
	naa5, naa6, naa3 := des(3, unhex("5000c50012345678")), des(3, unhex("600508b1001c0123456789abcdef0123")), des(3, unhex("3000000012345678"))
	eui8, eui16 := des(2, unhex("0025385000000001")), des(2, unhex("00000000000000010025385000000002"))
	uuid := des(10, "\x10\x00"+unhex("00112233445566778899aabbccddeeff"))
	for name, c := range map[string]struct{ body, want string }{
		"nothing":            {"", ""},
		"NAA 5":              {naa5, "naa.5000c50012345678"},
		"longest wins":       {naa5 + naa6, "naa.600508b1001c0123456789abcdef0123"},
		"in any order":       {naa6 + naa5, "naa.600508b1001c0123456789abcdef0123"},
		"NAA before EUI":     {eui8 + naa5, "naa.5000c50012345678"},
		"long EUI":           {naa5 + eui16, "eui.00000000000000010025385000000002"},
		"local NAA last":     {naa3 + eui8, "eui.0025385000000001"},
		"local NAA":          {naa3, "naa.3000000012345678"},
		"UUID":               {uuid, "uuid.00112233-4455-6677-8899-aabbccddeeff"},
		"first of two":       {naa5 + des(3, unhex("5000c50099999999")), "naa.5000c50012345678"},
		"name string":        {des(8, "naa.5000C50012345678\x00\x00"), "naa.5000c50012345678"},
		"iSCSI name":         {des(8, "iqn.2001-04.com.example:x"), ""},
		"T10 is no WWN":      {des(1, "ATA     MODEL   SERIAL"), ""},
		"of the port":        {string([]byte{1, 0x13, 0, 8}) + unhex("5000c50012345678"), ""},
		"of the target":      {string([]byte{1, 0x23, 0, 8}) + unhex("5000c50012345678"), ""},
		"all zero":           {des(3, strings.Repeat("\x00", 8)), ""},
		"EUI of zeros":       {des(2, strings.Repeat("\x00", 8)) + naa3, "naa.3000000012345678"},
		"cut designator":     {naa5 + "\x01\x03\x00\x10abc", "naa.5000c50012345678"},
		"NAA of wrong width": {des(3, unhex("5000c500123456")), ""},
	} {
		if got := parseVPD83([]byte(vpd(0x83, c.body))).wwn(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestVPDPages(t *testing.T) {
	for page, want := range map[string]string{
		vpd(0x80, "  S1  "): "S1", vpd(0x83, "S1"): "", "": "", "\x00\x80": "", "\x00\x80\x00\x08S1": "S1", "\x00\x80\x00\x02S123": "S1",
	} {
		if got := parseVPD80([]byte(page)); got != want {
			t.Errorf("%q: %q, want %q", page, got, want)
		}
	}
	page := page89("WDC WD40EFRX-68N32N0", "WD-WCC7K0AAAAAA")
	if got := parseVPD89([]byte(page)); got != (ataInfo{"WDC WD40EFRX-68N32N0", "WD-WCC7K0AAAAAA"}) {
		t.Errorf("%+v", got)
	}
	if got := parseVPD89([]byte(page[:400])); got != (ataInfo{}) {
		t.Errorf("of a short page: %+v", got)
	}
}

// FuzzVPD: whatever a disk answers, what comes out is printable, bounded, and
// no identity that is none.
func FuzzVPD(f *testing.F) {
	for _, v := range lab() {
		if len(v) > 4 && v[0] == 0 {
			f.Add([]byte(v))
		}
	}
	f.Add([]byte("\x00\x83\xff\xff\x01\x03\x00\xff"))
	f.Fuzz(func(t *testing.T, page []byte) {
		info := parseVPD89(page)
		names := parseVPD83(page)
		for _, s := range []string{parseVPD80(page), info.model, info.serial, names.wwn()} {
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || s != strings.TrimSpace(s) || len(s) > len(page)*2+10 {
				t.Fatalf("%q of %q", s, page)
			}
		}
		total := 0
		for _, d := range names {
			total += 4 + len(d.id)
		}
		if total > len(page) {
			t.Fatalf("%d bytes of designators in a page of %d", total, len(page))
		}
		if w := names.wwn(); w != "" && wwnOf(w) != w {
			t.Fatalf("the name %q is not spelled as the kernel spells it", w)
		}
		n := &node{name: "sda", dir: "devices/x/0:0:0:0/block/sda", sys: tree{}.fs()}
		for _, l := range n.links(Disk{Name: "sda"}, ids{page83: names, ata: info}) {
			if strings.ContainsAny(l, " \n") || strings.Count(l, "/") != 1 {
				t.Fatalf("the link %q", l)
			}
		}
	})
}

package kmod

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const sample = `testbox-modules 1
module scsi_common
module scsi_mod scsi_common
module libata scsi_mod scsi_common
module ahci libata
module usbcore
module usb_storage usbcore scsi_mod
module nfsv3
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias usb:v04B[0-8]p????d* usb_storage
load nfsv3
`

func TestRoundTrip(t *testing.T) {
	tab, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if got := tab.Marshal(); string(got) != sample {
		t.Errorf("got\n%s", got)
	}
	if got := tab.Order("ahci"); !slices.Equal(got, []string{"scsi_common", "scsi_mod", "libata", "ahci"}) {
		t.Errorf("order is %v", got)
	}
	if tab.Order("none") != nil {
		t.Error("a module that is not there has an order")
	}
	for alias, want := range map[string]string{
		"pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01": "ahci",
		"usb:v04B4p6830d0240dc00":                               "usb_storage",
		"usb:v04B9p6830d0240dc00":                               "",
		"":                                                      "",
	} {
		if got := strings.Join(tab.Match(alias), " "); got != want {
			t.Errorf("%s wants %q, want %q", alias, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"other format":     "testbox-modules 2\n",
		"cut":              "testbox-modules 1\nmodule a",
		"needs unknown":    "testbox-modules 1\nmodule a b\n",
		"needs itself":     "testbox-modules 1\nmodule a a\n",
		"twice":            "testbox-modules 1\nmodule a\nmodule a\n",
		"path for a name":  "testbox-modules 1\nmodule ../a\n",
		"alias of nothing": "testbox-modules 1\nalias pci:* a\n",
		"load of nothing":  "testbox-modules 1\nload a\n",
		"blank line":       "testbox-modules 1\n\n",
		"two blanks":       "testbox-modules 1\nmodule  a\n",
		"unknown word":     "testbox-modules 1\nblacklist a\n",
		"long name":        "testbox-modules 1\nmodule " + strings.Repeat("a", maxName+1) + "\n",
	} {
		if tab, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: gave %+v", name, tab)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		p, s string
		want bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*b*c", "aXbYbc", true},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"[abc]x", "bx", true}, {"[a-c]x", "dx", false}, {"[!a-c]x", "dx", true},
		{"[]]", "]", true}, {"[", "[", true}, {"[!", "[!", true}, {"acpi*:PNP0103:*", "acpi:PNP0103:", true}, {"a/b*", "a/bc/d", true},
	} {
		if glob(c.p, c.s) != c.want {
			t.Errorf("glob(%q, %q) is not %v", c.p, c.s, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample), "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01")
	f.Add([]byte("testbox-modules 1\nmodule a\nmodule b a\nalias [!x]*[ b\nload a\n"), "y")
	f.Fuzz(func(t *testing.T, data []byte, modalias string) {
		tab, err := Parse(data)
		if err != nil {
			return
		}
		if !bytes.Equal(tab.Marshal(), data) {
			t.Fatal("the table is not what was read")
		}
		for _, name := range append(tab.Match(modalias), tab.Load...) {
			order := tab.Order(name)
			if len(order) == 0 || order[len(order)-1] != name {
				t.Fatalf("order of %s is %v", name, order)
			}
			done := map[string]bool{}
			for _, n := range order {
				m := tab.Modules[slices.IndexFunc(tab.Modules, func(m Module) bool { return m.Name == n })]
				for _, need := range m.Needs {
					if !done[need] {
						t.Fatalf("%s comes before %s, which it needs", n, need)
					}
				}
				done[n] = true
			}
		}
	})
}

// FuzzGlob holds glob to what is plainly true of any pattern.
func FuzzGlob(f *testing.F) {
	f.Add("a*b", "ab")
	f.Add("[a-z]?*", "xyz")
	f.Fuzz(func(t *testing.T, p, s string) {
		m := glob(p, s)
		if !strings.ContainsAny(p, "*?[") && m != (p == s) {
			t.Fatalf("%q is plain, and matches %q: %v", p, s, m)
		}
		if m && !glob(p+"*", s+"tail") {
			t.Fatalf("%q matches %q, but not with a tail", p, s)
		}
	})
}

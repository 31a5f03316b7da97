package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	ip := netip.MustParseAddr
	good := Found{Interface: "eth0", As: "BIOS", Server: ip("10.1.0.1"), Address: ip("10.1.0.50"), Mask: net.CIDRMask(24, 32),
		NextServer: ip("10.1.0.2"), File: "pxelinux.0"}
	plain := good
	plain.NextServer, plain.File = netip.Addr{}, ""
	change := func(f Found, change func(*Found)) Found {
		change(&f)
		return f
	}
	other := change(good, func(f *Found) { f.Server = ip("10.1.0.3") })
	ours := Found{Interface: "eth0", As: "BIOS", Server: ip("10.1.0.2"), File: "pxelinux.0", NextServer: ip("10.1.0.2"), Class: "PXEClient",
		Vendor: []byte{6, 1, 8, 255}}
	theirs := change(ours, func(f *Found) { f.Server = ip("10.1.0.8") })
	menu := []byte{6, 1, 3, 9, 2, 0, 0, 255}
	for name, c := range map[string]struct {
		who         Who
		found       []Found
		check, text string // "" is no fault
	}{
		"right":     {Others, []Found{good}, "", ""},
		"elsewhere": {Others, []Found{change(good, func(f *Found) { f.NextServer = ip("10.1.0.9") })}, "next-server", "10.1.0.9"},
		"by option 66": {Others, []Found{change(good, func(f *Found) { f.NextServer, f.TFTPServer = netip.Addr{}, "10.1.0.8" })},
			"next-server", "10.1.0.8"},
		"by both options": {Others, []Found{change(plain, func(f *Found) { f.TFTPServer, f.BootFile = "10.1.0.2", "pxelinux.0\x00" })}, "", ""},
		"none named":      {Others, []Found{change(good, func(f *Found) { f.NextServer = netip.Addr{} })}, "next-server", "to 10.1.0.1"},
		"no file":         {Others, []Found{change(good, func(f *Found) { f.File = "" })}, "boot-file", "names no boot file"},
		"wrong file":      {Others, []Found{change(good, func(f *Found) { f.File = "grub\x1b.efi" })}, "boot-file", `grub\x1b.efi`},
		"option 60":       {Others, []Found{change(good, func(f *Found) { f.Class = "PXEClient" })}, "option-60", "PXEClient"},
		"a menu":          {Others, []Found{change(good, func(f *Found) { f.Vendor = menu })}, "option-43", "boot menu"},
		"far away":        {Others, []Found{change(good, func(f *Found) { f.Address = ip("10.2.0.50") })}, "pxe-e11", "another network"},
		"far, routed": {Others, []Found{change(good, func(f *Found) { f.Address, f.Router = ip("10.2.0.50"), []netip.Addr{ip("10.2.0.1")} })},
			"", ""},
		"two":                {Others, []Found{good, other}, "two-dhcp", "10.1.0.1, 10.1.0.3"},
		"two networks":       {Others, []Found{good, change(other, func(f *Found) { f.Interface = "eth1" })}, "", ""},
		"nobody":             {Others, nil, NoDHCP, "no DHCP server has offered"},
		"our proxy":          {Others, []Found{plain, ours}, "", ""},
		"UEFI, right":        {Others, []Found{change(good, func(f *Found) { f.As, f.File = "UEFI", "shimx64.efi" })}, "", ""},
		"UEFI, by option 67": {Others, []Found{change(good, func(f *Found) { f.As, f.File, f.BootFile = "UEFI", "", "shimx64.efi" })}, "", ""},
		"UEFI, folder": {Others, []Found{change(good, func(f *Found) { f.As, f.File, f.BootFile = "UEFI", "", "a/shimx64.efi" })},
			"uefi-boot-file", "in option 67 alone"},
		"UEFI gets BIOS": {Others, []Found{change(good, func(f *Found) { f.As = "UEFI" })}, "uefi-boot-file", "none of ours"},
		"UEFI, no file":  {Others, []Found{change(good, func(f *Found) { f.As, f.File = "UEFI", "" })}, "uefi-boot-file", "start their disk"},
		"UEFI elsewhere": {Others, []Found{change(good, func(f *Found) {
			f.As, f.File, f.NextServer = "UEFI", "shimx64.efi", ip("10.1.0.9")
		})}, "next-server", "10.1.0.9"},
		"their proxy": {Others, []Found{plain, change(ours, func(f *Found) { f.Server, f.NextServer = ip("10.1.0.8"), ip("10.1.0.8") })},
			"next-server", "10.1.0.8"},

		"beside ours":     {Proxy, []Found{plain}, "", ""},
		"with ours heard": {Proxy, []Found{plain, ours}, "", ""},
		"a file":          {Proxy, []Found{good}, "boot-file", "beside ours"},
		"a proxy":         {Proxy, []Found{plain, theirs}, "two-dhcp", "ProxyDHCP server, 10.1.0.8 on eth0"},
		"UEFI, option 60": {Proxy, []Found{change(plain, func(f *Found) { f.As, f.Class = "UEFI", "PXEClient" })},
			"option-60", "to UEFI machines"},
		"a menu of theirs": {Proxy, []Found{change(plain, func(f *Found) { f.Vendor = menu })}, "option-43", "boot menu"},
		"two give": {Proxy, []Found{plain, change(plain, func(f *Found) { f.Server = ip("10.1.0.3") })},
			"two-dhcp", "10.1.0.1, 10.1.0.3"},
		"UEFI to dnsmasq": {Proxy, []Found{change(plain, func(f *Found) { f.As, f.NextServer = "UEFI", ip("10.1.0.1") })},
			UEFINextServer, "stops at its prompt"},
		"UEFI, no next-server":  {Proxy, []Found{change(plain, func(f *Found) { f.As = "UEFI" })}, UEFINextServer, "to 10.1.0.1"},
		"UEFI to us":            {Proxy, []Found{change(plain, func(f *Found) { f.As, f.NextServer = "UEFI", ip("10.1.0.2") })}, "", ""},
		"UEFI to another of us": {Proxy, []Found{change(plain, func(f *Found) { f.As, f.NextServer = "UEFI", ip("10.1.0.4") })}, "", ""},
		"nobody gives":          {Proxy, []Found{ours}, NoDHCP, "no server was heard"},

		"alone":                     {Ours, nil, "", ""},
		"not alone":                 {Ours, []Found{good}, "two-dhcp", "another DHCP server, 10.1.0.1 on eth0"},
		"a proxy besides":           {Ours, []Found{theirs}, "two-dhcp", "ProxyDHCP server, 10.1.0.8 on eth0"},
		"beside others":             {Beside, []Found{good, other}, "", ""},
		"beside others and a proxy": {Beside, []Found{good, theirs}, "two-dhcp", "ProxyDHCP server, 10.1.0.8 on eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			all := Judge(c.found, Want{Server: ip("10.1.0.2"), Loaders: []string{"pxelinux.0"}, UEFI: []string{"shimx64.efi"},
				Mine: []netip.Addr{ip("10.1.0.4")}, Who: c.who})
			if c.check == "" && len(all) > 0 || c.check != "" && len(all) == 0 {
				t.Fatalf("%+v", all)
			}
			for _, f := range all {
				if c.check != f.Check {
					continue
				}
				unsure := []string{NoDHCP, "option-60", "uefi-boot-file"}
				if !strings.Contains(f.Text, c.text) || f.Do == "" || f.Sure == slices.Contains(unsure, f.Check) {
					t.Errorf("%+v", f)
				}
				return
			}
			if c.check != "" {
				t.Errorf("%+v", all)
			}
		})
	}
	// The same fault in several offers is said once.
	uefi := change(plain, func(f *Found) { f.As, f.Vendor = "UEFI", menu })
	if all := Judge([]Found{change(uefi, func(f *Found) { f.As = "BIOS" }), uefi}, Want{Who: Proxy}); len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

// TestMenu: discovery control alone changes nothing, and absurd lengths do no harm.
func TestMenu(t *testing.T) {
	for _, v := range [][]byte{{6, 1, 8, 255}, {9}, {9, 200, 1}, {0, 0, 0}, nil} {
		if menu := pxeMenu(v); menu != "" {
			t.Errorf("%v: %q", v, menu)
		}
	}
}

package efi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEntries: entries are told apart by their device paths.
func TestEntries(t *testing.T) {
	nvme := aNode(typeMessaging, subNVMe, []byte{1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1})
	lenovo := aNode(typeMessaging, subMsgVendor, append(guidBytes(lenovoPXE.vendor),
		0x78, 0xa8, 0x4a, 0xaf, 0x2b, 0x2a, 0xfc, 0x4e, 0xa7, 0x9c, 0xf5, 0xcc, 0x8f, 0x3d, 0x38, 0x03))
	sata := aNode(typeMessaging, subSATA, []byte{1, 0, 0xff, 0xff, 0, 0})
	mbr := aNode(typeMedia, subHardDrive, join(make([]byte, 20), []byte{0x78, 0x56, 0x34, 0x12}, make([]byte, 12), []byte{1, 1}))
	for _, c := range []struct {
		name         string
		option       []byte
		kind         Kind
		path, file   string
		mac, uri     string
		active       bool
		guid, mbrSig string
	}{
		{name: "pxe", option: pxe(1), kind: NetworkEntry, path: "PciRoot(0x0)/Pci(0x3,0x0)/MAC(52:54:00:00:00:01)/IPv4(0.0.0.0)",
			mac: "52:54:00:00:00:01", active: true},
		{name: "http", kind: NetworkEntry, option: option(0, "HTTP",
			join(macNode(2), ipv4, aNode(typeMessaging, subURI, []byte("http://x/y.efi")), endNode)),
			path: "MAC(52:54:00:00:00:02)/IPv4(0.0.0.0)/Uri(http://x/y.efi)", mac: "52:54:00:00:00:02", uri: "http://x/y.efi"},
		{name: "file", option: onDisk(espGUID, `\EFI\debian\shimx64.efi`), kind: DiskEntry, active: true, guid: espGUID,
			path: "HD(1,GPT," + espGUID + `,0x800,0x186a0)/File(\EFI\debian\shimx64.efi)`, file: `\EFI\debian\shimx64.efi`},
		{name: "file in pieces", kind: DiskEntry, active: true, file: `\EFI\a\b.efi`, path: `File(\EFI)/File(a)/File(\b.efi)`,
			option: option(1, "x", join(aNode(typeMedia, subFile, utf(`\EFI`)), aNode(typeMedia, subFile, utf(`a`)),
				aNode(typeMedia, subFile, utf(`\b.efi`)), endNode))},
		{name: "MBR", kind: DiskEntry, active: true, mbrSig: "12345678", path: "HD(0,MBR,12345678,0x0,0x0)",
			option: option(1, "x", join(mbr, endNode))},
		{name: "nvme", kind: DiskEntry, active: true, path: "PciRoot(0x0)/NVMe(0x1,01-02-03-04-05-06-07-08)",
			option: option(1, "x", join(pciRoot, nvme, endNode))},
		{name: "sata", kind: DiskEntry, active: true, path: "Sata(0x1,0xffff,0x0)", option: option(1, "x", join(sata, endNode))},
		{name: "shell", option: shell(), kind: FirmwareEntry, active: true,
			path: "Fv(00000000-0000-0000-0000-000000000000)/FvFile(00000000-0000-0000-0000-000000000000)"},
		{name: "application", kind: FirmwareEntry, option: option(optionApp, "Setup", join(pciRoot, endNode)), path: "PciRoot(0x0)"},
		{name: "Lenovo", kind: NetworkEntry, active: true, option: option(1, "PXE BOOT", join(lenovo, endNode)),
			path: "VenMsg(" + lenovoPXE.vendor + ")"},
		{name: "BBS network", kind: NetworkEntry, active: true, path: "BBS(0x6)",
			option: option(1, "x", join(aNode(typeBBS, 1, []byte{6, 0, 0, 0, 0}), endNode))},
		{name: "iSCSI", kind: DiskEntry, active: true, path: "MAC(52:54:00:00:00:01)/IPv4(0.0.0.0)/Path(3,19)", mac: "52:54:00:00:00:01",
			option: option(1, "x", join(macNode(1), ipv4, aNode(typeMessaging, subISCSI, make([]byte, 14)), endNode))},
		{name: "unknown", kind: OtherEntry, active: true, path: "Path(9,9)", option: option(1, "x", join(aNode(9, 9, nil), endNode))},
	} {
		e, err := parseOption(7, c.option)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		guid, sig := "", ""
		if p := e.Partition; p != nil {
			guid, sig = p.GUID, p.MBR
		}
		if e.Kind != c.kind || e.Path != c.path || e.File != c.file || e.MAC != c.mac || e.URI != c.uri || e.Active != c.active ||
			guid != c.guid || sig != c.mbrSig || !bytes.Equal(e.Option, c.option) || e.Number != 7 {
			t.Errorf("%s: %+v, %+v", c.name, e, e.Partition)
		}
	}
}

// TestDamagedEntries: what cannot be read is an error, and what can be read is there.
func TestDamagedEntries(t *testing.T) {
	long := []byte{}
	for range maxNodes + 1 {
		long = append(long, pciRoot...)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "short": {1, 0, 0, 0, 0}, "no end of the name": {1, 0, 0, 0, 0, 0, 'a', 0, 'b', 0},
		"path too long": option(1, "x", nil)[:8], "no end": option(1, "x", pciRoot), "node of 3 bytes": option(1, "x", []byte{1, 1, 3, 0}),
		"node behind the end": option(1, "x", []byte{1, 1, 9, 0, 0}),
		"short partition":     option(1, "x", join(aNode(typeMedia, 1, []byte{1}), endNode)),
		"too many nodes":      option(1, "x", append(long, endNode...)),
	} {
		if name == "path too long" {
			b[4] = 9
		}
		if _, err := parseOption(1, b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	e, err := parseOption(1, option(1, "a\x1b[2J\u202eb", join(pciRoot, aNode(typeMessaging, subURI, []byte("http://\x00\xff")), endNode)))
	if err != nil || e.Name != "a?[2J?b" || e.URI != "http://??" {
		t.Errorf("%v, %q, %q", err, e.Name, e.URI)
	}
	if big, _ := parseOption(1, option(1, "x", endNode, make([]byte, maxOption)...)); big.Option != nil || big.Name != "x" {
		t.Error("a long option is kept")
	}
}

// TestState: the state of made-up variables, and its JSON.
func TestState(t *testing.T) {
	d := folder(t, map[string][]byte{
		"BootOrder": order(3, 1), "BootCurrent": order(1), "Boot0001": pxe(1), "Boot0003": onDisk(espGUID, `\EFI\x.efi`), "Boot0000": shell(),
		"SecureBoot": {1}, "SetupMode": {0}, "Timeout": {3, 0}, "Boot00zz": {1}, "Boot0004": {1},
		"db-" + imageSecurity: make([]byte, 3000), "Password-" + Global: []byte("secret"), "Setup-" + shim: []byte("secret"),
	})
	s := d.State()
	if !d.Mounted() || Dir(t.TempDir()).Mounted() || Dir("/nowhere").Mounted() {
		t.Error("what is mounted is not told")
	}
	if s.Kind != UEFI || s.SecureBoot != "on" || !slices.Equal(s.Order, []Number{3, 1}) ||
		s.Current == nil || *s.Current != 1 || s.Next != nil ||
		len(s.Entries) != 4 || s.Entry(3).File != `\EFI\x.efi` || len(s.Ordered()) != 2 || s.Ordered()[1].Kind != NetworkEntry {
		t.Errorf("%+v", s)
	}
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "boot entry 0004") {
		t.Errorf("problems are %q", s.Problems)
	}
	values := map[string]string{}
	for _, v := range s.Variables {
		values[v.Name] = v.Value
	}
	if want := map[string]string{"Timeout": "0300", "SecureBoot": "01", "SetupMode": "00", "db": ""}; !reflect.DeepEqual(values, want) {
		t.Errorf("variables are %v", values)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	n := &Note{Format: NoteFormat, Time: time.Unix(1000, 0).UTC(), State: *s, NetworkFirst: &NetworkFirst{Result: OrderKept}}
	text := n.Marshal()
	again, err := ParseNote(text)
	if err != nil || !reflect.DeepEqual(n, again) || bytes.Contains(text, []byte("c2VjcmV0")) || !bytes.Contains(text, []byte(`"0003"`)) {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestNothing: a folder without variables, and one that is not there.
func TestNothing(t *testing.T) {
	for _, d := range []Dir{Dir(t.TempDir()), "/nowhere"} {
		s := d.State()
		if s.Kind != UEFI || s.SecureBoot != "" || s.Entries != nil || s.Check() != nil || len(s.Problems) > 1 {
			t.Errorf("%+v", s)
		}
		if n := d.PutNetworkFirst(s, "", nil); n.Result != OrderNone {
			t.Errorf("%+v", n)
		}
	}
}

// TestStateRefused: a state that no firmware has is refused.
func TestStateRefused(t *testing.T) {
	d := folder(t, map[string][]byte{"BootOrder": order(1), "Boot0001": onDisk(espGUID, `\a`), "Boot0002": pxe(1), "Timeout": {1, 0}})
	for name, spoil := range map[string]func(*State){
		"kind": func(s *State) { s.Kind = "x" }, "bits": func(s *State) { s.Bits = 8 },
		"order":   func(s *State) { s.Order = make([]Number, MaxEntries+1) },
		"vendor":  func(s *State) { s.Vendor = "a\nb" },
		"problem": func(s *State) { s.Problems = []string{"\x1b"} },
		"twice":   func(s *State) { s.Entries[1].Number = 1 },
		"name":    func(s *State) { s.Entries[0].Name = strings.Repeat("x", 1000) },
		"class":   func(s *State) { s.Entries[0].Kind = "x" },
		"option":  func(s *State) { s.Entries[0].Option = make([]byte, maxOption+1) },
		"disk":    func(s *State) { s.Entries[0].Partition.Disk = "\x1b" },
		"hash":    func(s *State) { s.Variables[0].SHA256 = "zz" },
		"value":   func(s *State) { s.Variables[0].Value = "zz" },
		"format":  func(s *State) { s.NVMe = []Namespace{{Format: 1}} },
		"block":   func(s *State) { s.NVMe = []Namespace{{Formats: []LBAFormat{{Block: -1}}}} },
	} {
		s := d.State()
		spoil(s)
		if s.Check() == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := ParseNote((&Note{Format: NoteFormat, State: *s}).Marshal()); err == nil {
			t.Errorf("%s: taken in a note", name)
		}
	}
	for _, text := range []string{"", "{}", `{"format":2,"state":{"kind":"UEFI"}}`,
		`{"format":1,"state":{"kind":"UEFI"},"networkFirst":{"result":"x"}}`,
		`{"format":1,"state":{"kind":"UEFI","order":["00f"]}}`, strings.Repeat(" ", MaxNote+1)} {
		if _, err := ParseNote([]byte(text)); err == nil {
			t.Errorf("%.60s: taken", text)
		}
	}
	if _, err := ParseNote([]byte(`{"format":1,"later":1,"state":{"kind":"UEFI","later":2}}`)); err != nil {
		t.Errorf("a field of a later version: %v", err)
	}
}

// TestHugeState: firmware that says too much still has a state that can be recorded.
func TestHugeState(t *testing.T) {
	for name, entry := range map[string][]byte{
		"long data": option(1, "x", join(hd(1, 1, 1, espGUID), endNode), make([]byte, maxOption-200)...),
		"long texts": option(1, strings.Repeat("\u4e00", 900), join(aNode(typeMedia, subFile, utf(strings.Repeat("\u4e00", 900))),
			aNode(typeMessaging, subURI, bytes.Repeat([]byte{'<'}, 2000)), endNode)),
	} {
		vars := map[string][]byte{}
		for n := range MaxEntries + 10 {
			vars["Boot"+Number(n).String()] = entry
		}
		s := folder(t, vars).State()
		if err := s.Check(); err != nil || len(s.Problems) < 2 || len(s.Entries) == 0 {
			t.Errorf("%s: %v, %d entries, %q", name, err, len(s.Entries), s.Problems)
		}
	}
}

func FuzzOption(f *testing.F) {
	f.Add(pxe(1))
	f.Add(onDisk(espGUID, `\EFI\x.efi`))
	f.Add(shell())
	f.Add(option(1, "x", join(aNode(typeMessaging, subIPv6, make([]byte, 40)), aNode(typeBBS, 1, make([]byte, 5)), endNode)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, _ := parseOption(1, b)
		s := State{Kind: UEFI, Entries: []Entry{e}}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(s)
		if err != nil || len(text) > MaxState/MaxEntries*4 {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
	})
}

func FuzzNote(f *testing.F) {
	d := folder(f, map[string][]byte{"BootOrder": order(2, 1), "Boot0001": onDisk(espGUID, `\a`), "Boot0002": pxe(1)})
	s := d.State()
	f.Add((&Note{Format: NoteFormat, State: *s, NetworkFirst: &NetworkFirst{Result: OrderIgnored, Wrote: []Number{1}}}).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNote(b)
		if err != nil {
			return
		}
		again, err := ParseNote(n.Marshal())
		if err != nil || !bytes.Equal(again.Marshal(), n.Marshal()) {
			t.Fatalf("%v", err)
		}
	})
}

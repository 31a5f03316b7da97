package match

import (
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/disk"
)

func namesOf(disks []disk.Disk) string {
	var s []string
	for _, d := range disks {
		s = append(s, d.Name)
	}
	return strings.Join(s, " ")
}

func TestParseList(t *testing.T) {
	for text, want := range map[string]string{
		"sda":                      "sda",
		"sda\nsdb\n":               "sda sdb",
		"sda sdb\tnvme0n1,vda\r\n": "sda sdb nvme0n1 vda",
		"# the system\nsda # and its disk\n#sdb\n": "sda",
		"WD-WCC#7":                       "WD-WCC#7",
		"/dev/disk/by-id/wwn-0x5000c500": "/dev/disk/by-id/wwn-0x5000c500",
		"\xef\xbb\xbfsda\r\nsdb\r\n":     "sda sdb",
		"sda\nsda\n":                     "sda sda",
	} {
		sel, err := ParseList([]byte(text))
		if err != nil || strings.Join(sel, " ") != want {
			t.Errorf("%q: %q, %v; want %q", text, sel, err, want)
		}
	}
	for text, part := range map[string]string{
		"":                                "names no disk",
		"\n":                              "names no disk",
		" \t\r\n,,\r\n":                   "names no disk",
		"\xef\xbb\xbf":                    "names no disk",
		"\xff\xfes\x00d\x00a\x00":         "no disk's name has",
		"sda\n\xef\xbb\xbfsdb":            "line 2",
		"# sda\n":                         "names no disk",
		"sda\nsd\x00b":                    "line 2",
		"sdä":                             "no disk's name has",
		"/etc/passwd":                     "below /dev",
		"/dev/../etc/passwd":              "below /dev",
		"/dev/":                           "below /dev",
		strings.Repeat("a", 256):          "longer than 255",
		strings.Repeat("a ", 257):         "more than 256",
		strings.Repeat("#", 64<<10) + "#": "larger than 65536",
	} {
		if sel, err := ParseList([]byte(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%.40q: %q, %v; want an error with %q", text, sel, err, part)
		}
	}
	if _, err := Select([]string{"sda", ""}); err == nil {
		t.Error("an empty name is no error")
	}
	if sel, err := Select(nil); err != nil || sel.Named() {
		t.Errorf("no names: %q, %v", sel, err)
	}
}

// FuzzParseList: what is accepted is within the limits, and reads the same
// when it is written again.
func FuzzParseList(f *testing.F) {
	for _, s := range []string{"sda\nsdb", "# comment\nsda # more", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1,WD-1", "\r\n\t,,", "/dev//x"} {
		f.Add([]byte(s))
	}
	disks := disksOf(f, words{"sda serial=WD-1 wwn=naa.5", "sdb", "nvme0n1 serial=N ns=1", "sdh usb"})
	disks[0].Parts, disks[0].Links = []string{"sda1"}, []string{"by-path/pci-0000:00:1f.2-ata-2", "by-id/ata-WD_1"}
	f.Fuzz(func(t *testing.T, data []byte) {
		sel, err := ParseList(data)
		if err != nil {
			return
		}
		if !sel.Named() || len(sel) > maxListItems {
			t.Fatalf("%q gives %q", data, sel)
		}
		again, err := ParseList([]byte(strings.Join(sel, "\n")))
		if err != nil || !slices.Equal(sel, again) {
			t.Fatalf("%q, then %q, %v", sel, again, err)
		}
		if same, err := Select(sel); err != nil || !slices.Equal(sel, same) {
			t.Fatalf("%q, but Select gives %q, %v", sel, same, err)
		}
		c, err := Choose(disks, sel)
		if err == nil && (len(c.Disks) == 0 || sel.Named() && len(c.Disks) > len(sel)) {
			t.Fatalf("%q chooses %v", sel, c.Disks)
		}
	})
}

func TestChooseOldNames(t *testing.T) {
	disks := disksOf(t, words{"cciss!c0d0", "sda"})
	for _, item := range []string{"/dev/cciss/c0d0", "cciss/c0d0", "cciss!c0d0"} {
		if c, err := Choose(disks, Selection{item}); err != nil || namesOf(c.Disks) != "cciss!c0d0" {
			t.Errorf("%s: %s, %v", item, namesOf(c.Disks), err)
		}
	}
	if p := disk.Path("/dev", "cciss!c0d0"); p != "/dev/cciss/c0d0" {
		t.Errorf("its node is %s", p)
	}
}

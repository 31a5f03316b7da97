package disk

import (
	"slices"
	"strings"
	"testing"
)

func namesOf(disks []Disk) string {
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
	disks, errs := List(lab().fs())
	if len(errs) > 0 {
		f.Fatal(errs)
	}
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

func TestChooseAuto(t *testing.T) {
	c, err := Choose(list(t, lab().fs()), nil)
	if err != nil || namesOf(c.Disks) != "sda sdb sdc sdd sde sdf sdg sdl sdm vda vdb mmcblk0 nvme0n1 nvme0n2 nvme1n1" {
		t.Errorf("chosen are %s, %v", namesOf(c.Disks), err)
	}
	said := strings.Join(c.Notes, "\n")
	for _, part := range []string{"disk sdh (", "a USB disk", "disk dm-0 ("} {
		if !strings.Contains(said, part) {
			t.Errorf("the notes do not have %q:\n%s", part, said)
		}
	}
	if strings.Contains(said, "loop0") || strings.Contains(said, "sdz") {
		t.Errorf("the notes have what has no size:\n%s", said)
	}
	if c.Named() {
		t.Error("named disks")
	}
}

func TestChooseNamed(t *testing.T) {
	disks := list(t, lab().fs())
	for items, want := range map[string]string{
		"sda":                                    "sda",
		"/dev/nvme0n2":                           "nvme0n2",
		"vda sda sda /dev/sda":                   "sda vda",
		"sdh":                                    "sdh",
		"/dev/disk/by-id/wwn-0x5002538e40a1b2c3": "sda",
		"disk/by-path/pci-0000:00:1f.2-ata-1":    "sda",
		"by-id/virtio-boot-disk":                 "vda",
		"ata-Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456A": "sda",
		"pci-0000:04:00.0-nvme-2":                       "nvme0n2",
		"S3Z2NB0K123456A":                               "sda",
		"naa.6d09466017a9e00018e2f70a0d3f2c12":          "sdg",
		"sda sdx":                                       "sda",
	} {
		sel, err := Select(strings.Fields(items))
		if err != nil {
			t.Fatal(err)
		}
		c, err := Choose(disks, sel)
		if err != nil || namesOf(c.Disks) != want || !c.Named() {
			t.Errorf("%s: %s, %v; want %s", items, namesOf(c.Disks), err, want)
		}
		if gone := strings.Contains(items, "sdx"); gone != slices.Equal(c.Missing, []string{"sdx"}) || gone != strings.Contains(strings.Join(c.Notes, "\n"), "no disk is called sdx") {
			t.Errorf("%s: missing are %q, notes %q", items, c.Missing, c.Notes)
		}
	}
	for items, part := range map[string]string{
		"sdx":            "none of the named disks (sdx) is there",
		"sda1":           "sda1 is a partition; name its disk, sda",
		"/dev/mmcblk0p1": "is a partition",
		"/dev/disk/by-id/ata-Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456A-part1": "is a partition",
		"PHLJ000000000001": "names more than one disk",
		"sdz":              "has no medium",
	} {
		if c, err := Choose(disks, strings.Fields(items)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %s, %v; want an error with %q", items, namesOf(c.Disks), err, part)
		}
	}
	if _, err := Choose(nil, nil); err == nil || !strings.Contains(err.Error(), "sees no disk") {
		t.Errorf("no disks at all: %v", err)
	}
}

func TestChooseOldNames(t *testing.T) {
	disks := disksOf(t, words{"cciss!c0d0", "sda"})
	for _, item := range []string{"/dev/cciss/c0d0", "cciss/c0d0", "cciss!c0d0"} {
		if c, err := Choose(disks, Selection{item}); err != nil || namesOf(c.Disks) != "cciss!c0d0" {
			t.Errorf("%s: %s, %v", item, namesOf(c.Disks), err)
		}
	}
	if p := Path("/dev", "cciss!c0d0"); p != "/dev/cciss/c0d0" {
		t.Errorf("its node is %s", p)
	}
}

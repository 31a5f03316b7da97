package lvm

import (
	"strings"
	"testing"
)

// What the text can say: each is the plain text with one thing replaced.
func TestText(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		// The group.
		{`contents = "Text Format Volume Group"`, `contents = "Other"`, "unknown contents"},
		{"version = 1\n", "version = 2\n", "unknown version"},
		{"version = 1\n", "", "unknown version"},
		{"creation_time = 1795544985\t", "creation_time = 99999999999999999999\t", ""}, // a bug of LVM before 2.02.169 on 32 bits
		{`"RESIZEABLE", "READ", "WRITE"`, `"RESIZEABLE", "READ", "EXPORTED"`, ""},
		{`"RESIZEABLE", "READ", "WRITE"`, `"RESIZEABLE", "READ", "WRITE", "CLUSTERED"`, "shared"},
		{`"RESIZEABLE", "READ", "WRITE"`, `"RESIZEABLE", "READ", "WRITE", "SHARED"`, "shared"},
		{`"RESIZEABLE", "READ", "WRITE"`, `"RESIZEABLE", "READ", "WRITE", "PVMOVE"`, "pvmove"},
		{`"RESIZEABLE", "READ", "WRITE"`, `"RESIZEABLE", "READ", "PARTIAL"`, "missing"},
		{`"RESIZEABLE", "READ", "WRITE"`, `"RESIZEABLE", "READ", "WRITE", "NEW"`, `unknown flag "NEW"`},
		{"\nflags = []\nextent_size", "\nflags = [\"NOAUTOACTIVATE\", \"WRITE_LOCKED\"]\nextent_size", ""},
		{"\nflags = []\nextent_size", "\nflags = [\"NEW\"]\nextent_size", `unknown flag "NEW"`},
		{"\nflags = []\nextent_size", "\nextent_size", ""}, // LVM from before these lists
		{"\nflags = []\nextent_size", "\nflags = [1]\nextent_size", "number in the list"},
		{"\nflags = []\nextent_size", "\nflags {}\nextent_size", "unknown section"},
		{`status = ["RESIZEABLE", "READ", "WRITE"]`, ``, "no list"},
		{"seqno = 7", "", "seqno"},
		{"seqno = 7", `seqno = "7"`, "seqno"},
		{"max_lv = 0", "lock_type = \"sanlock\"\nlock_args = \"1.0.0:lvmlock\"", "shared"},
		{"max_lv = 0", "lock_type = \"none\"", ""},
		{"max_lv = 0", "lock_type = 1", "shared"},
		{"max_lv = 0", "system_id = \"host\"\ntags = [\"root\", \"a/b\"]\nallocation_policy = \"cling\"\nprofile = \"p\"\nsomething_new = 5", ""},
		{"max_lv = 0", "new_volumes {\n}", "unknown section"},
		{"max_lv = 0", "historical_logical_volumes {\ngone {\nid = \"x\"\ncreation_time = 1\norigin = \"root\"\ndescendants = [\"home\"]\n}\n}",
			""},
		{"extent_size = 2048", "extent_size = 0", "extents of 0"},
		{"extent_size = 2048", "extent_size = -1", "extent_size"},
		{"extent_size = 2048", "extent_size = 02048", "extent_size"}, // octal for LVM
		{"extent_size = 2048", "extent_size = +2048", "extent_size"},
		{"extent_size = 2048", "extent_size = 2048.0", "extent_size"},
		{"extent_size = 2048", "extent_size = 4294967296", "extent_size"},
		{"extent_size = 2048", "extent_size = 4294967295", "beyond the end"},
		{"extent_size = 2048", "extent_size = 2047", ""}, // no power of 2 is needed
		{"\nvg0 {", "\nvg1 {\n}\nvg0 {", ""},             // replaced below: the text starts with vg0
		// The disk.
		{testUUID, "AAAAAA-bbbb-CCCC-dddd-EEEE-ffff-012346", "this is"},
		{"\n}\n}\n\nlogical_volumes", "\n}\npv1 {\nid = \"x\"\n}\n}\n\nlogical_volumes", "one of the 2 disks"},
		{"pv0 {", "pvX {", "not there"},
		{`status = ["ALLOCATABLE"]`, `status = ["ALLOCATABLE", "EXPORTED"]`, ""},
		{`status = ["ALLOCATABLE"]`, `status = []`, ""},
		{`status = ["ALLOCATABLE"]` + "\nflags = []", `status = ["ALLOCATABLE"]` + "\nflags = [\"MISSING\"]", "missing"},
		{`status = ["ALLOCATABLE"]`, `status = ["ALLOCATABLE", "MISSING"]`, "missing"},
		{`status = ["ALLOCATABLE"]`, `status = ["NEW"]`, "unknown flag"},
		{"dev_size = 131072\n", "", ""},
		{"dev_size = 131072", "dev_size = 131073", "131073 sectors"},
		{"dev_size = 131072", "dev_size = 18014398509481984", "dev_size"},
		{"dev_size = 131072", "device_id_type = \"sys_wwid\"\ndevice_id = \"naa.5\"\nba_start = 1\nba_size = 2", ""},
		{"pe_start = 2048", "pe_start = 0", "same bytes"},
		{"pe_start = 2048", "pe_start = 2047", "same bytes"},
		{"pe_start = 2048", "", "pe_start"},
		{"pe_start = 2048", "pe_start = 28672", ""},
		{"pe_start = 2048", "pe_start = 28673", "beyond the end"},
		{"pe_start = 2048", "pe_start = 9223372036854775807", "pe_start"},
		{"pe_count = 50", "pe_count = 63", ""},
		{"pe_count = 50", "pe_count = 64", "beyond the end"},
		{"pe_count = 50", "pe_count = 4294967295", "beyond the end"},
		{"pe_count = 50", "pe_count = 41", "extent 40"},
		{"pe_start = 2048\npe_count = 50", "pe_start = 131073\npe_count = 0", "beyond the end"},
		{"physical_volumes {", "other {", "unknown section"},
		{"physical_volumes {", "historical_logical_volumes {", "no disk"},
		// The volumes.
		{"logical_volumes {", "logical_volumes = 1\nhistorical_logical_volumes {", "no section"},
		{"home {", "home = 1\nhume {", "no section"},
		{"segment_count = 3", "segment_count = 2", "3 segments, and 2"},
		{"segment_count = 3", "", "segment_count"},
		{"start_extent = 5", "start_extent = 4", "where extent 5 comes"},
		{"start_extent = 5", "start_extent = 6", "where extent 5 comes"},
		{"start_extent = 0", "start_extent = 1", "where extent 0 comes"},
		{"extent_count = 2", "extent_count = 0", "segment of 0"},
		{"extent_count = 2", "extent_count = 11", "no 11 extents from extent 40"},
		{"extent_count = 2", "extent_count = 4294967295", "of 4294967295 extents"},
		{`"pv0", 40`, `"pv0", 4294967295`, "from extent 4294967295"},
		{`"pv0", 40`, `"pv0", -1`, "lies at extent"},
		{`"pv0", 40`, `"pv0", "x"`, "lies at extent"},
		{`"pv0", 40`, `1, 40`, "number where a disk"},
		{`"pv0", 40`, `"pv0"`, "no list of 1 stripes"},
		{`"pv0", 40`, `"pv0", 40, "pv0", 42`, "no list of 1 stripes"},
		{`"pv0", 40`, `"nobody", 40`, "not there"},
		{`"pv0", 40`, `"pv0", 9`, "same bytes"},
		{`"pv0", 40`, `"pv0", 4`, "same bytes"},
		{"stripe_count = 1", "stripe_count = 0", "in 0 stripes"},
		{"stripe_count = 1", "", "stripe_count"},
		{"id = \"root-id\"", "", `"id"`},
		{`type = "striped"`, `type = "new"`, "unknown type"},
		{`type = "striped"`, `type = "striped+NEW"`, "unknown flag"},
		{`type = "striped"`, `type = 5`, `"type"`},
		{`status = ["READ", "WRITE", "VISIBLE"]`, `status = ["READ", "NEW"]`, "unknown flag"},
	} {
		text := strings.Replace(plain(), c.old, c.new, 1)
		if c.old == "\nvg0 {" {
			text, c.want = "vg1 {\n}\n"+plain(), "two volume groups"
		} else if text == plain() && c.old != "" {
			t.Fatalf("%q is not in the text", c.old)
		}
		d := newDisk(64*mib, text).build()
		pv, err := d.read()
		expect(t, c.old+" -> "+c.new, d, pv, err, c.want)
	}
	d := newDisk(64*mib, "contents = \"Text Format Volume Group\"\nversion = 1\n").build()
	pv, err := d.read()
	expect(t, "no group", d, pv, err, "no volume group")
	d = newDisk(64*mib, vgText()).build()
	if pv, err = d.read(); err != nil || pv.Free.Bytes() != 50*mib || len(pv.LVs) != 0 {
		t.Error(err, pv)
	}
}

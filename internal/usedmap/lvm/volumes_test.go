package lvm

import (
	"fmt"
	"strings"
	"testing"
)

// Volumes that are not to be looked at keep their extents, and so do those
// that others name. Each case is beside a plain volume, which must stay one.
func TestNotLookedAt(t *testing.T) {
	seg := func(kind string, more string) string {
		return "start_extent = 0\nextent_count = 4\ntype = \"" + kind + "\"\n" + more
	}
	one := func(key, value string) string { return fmt.Sprintf("%s = %q\n", key, value) }
	for _, c := range []struct {
		name string
		lvs  []string
		why  string // of "x"
	}{
		{"plain", []string{lvText("x", visible, lin(0, 4, 10))}, ""},
		{"read only", []string{lvText("x", `"READ", "VISIBLE", "FIXED_MINOR"`, lin(0, 4, 10))}, ""},
		{"linear", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "striped", "linear", 1)}, ""},
		{"skipped", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "flags = []",
			`flags = ["ACTIVATION_SKIP", "NOAUTOACTIVATE", "WRITE_LOCKED"]`, 1)}, ""},
		{"settings", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "segment_count",
			"tags = [\"plain\", \"x\"]\nlock_args = \"1.0.0:1\"\nallocation_policy = \"anywhere\"\nprofile = \"p\"\nread_ahead = -1\nmajor = "+
				"-1\nminor = 9\nsegment_count", 1)}, ""},
		{"segments in any order", []string{lvText("x", visible, lin(2, 2, 20), lin(0, 2, 10))}, ""},
		{"named like the disk", []string{lvText("x", visible, lin(0, 4, 10)), lvText("pv0", visible, lin(0, 1, 20))}, ""},
		{"named like a type", []string{lvText("x", visible, lin(0, 4, 10)), lvText("striped", visible, lin(0, 1, 20))}, ""},
		{"names itself", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "stripe_count", "tags = [\"x\"]\nstripe_count", 1)}, ""},
		{"hidden", []string{lvText("x", `"READ", "WRITE"`, lin(0, 4, 10))}, "hidden"},
		{"locked", []string{lvText("x", visible+`, "LOCKED"`, lin(0, 4, 10))}, "LOCKED"},
		{"cache volume", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "flags = []", `flags = ["CACHE_VOL"]`, 1)}, "CACHE_VOL"},
		{"unknown compatible flag", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "flags = []", `flags = ["NEW"]`, 1)},
			"unknown flag"},
		{"unknown setting", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "segment_count", "shift = 5\nsegment_count", 1)},
			"unknown setting"},
		{"unknown setting of a segment", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "stripe_count",
			"shift = 5\nstripe_count", 1)}, "unknown setting"},
		{"flag in the type", []string{strings.Replace(lvText("x", visible, lin(0, 4, 10)), "striped", "striped+RESHAPE+REMOVE_AFTER_RESHAPE",
			1)}, "RESHAPE"},
		{"striped", []string{lvText("x", visible, seg("striped",
			"stripe_count = 2\nstripe_size = 128\nstripes = [\n\"pv0\", 10,\n\"pv0\", 12\n]"))}, "2 stripes"},
		{"over another", []string{lvText("x", visible, seg("striped", "stripe_count = 1\nstripes = [\n\"y\", 0\n]")),
			lvText("y", visible, lin(0, 4, 10))}, "another logical volume"},
		{"under another", []string{lvText("x", visible, lin(0, 4, 10)),
			lvText("y", visible, seg("striped", "stripe_count = 1\nstripes = [\n\"x\", 0\n]"))}, `"y" is made of it`},
		{"origin", []string{lvText("x", visible, lin(0, 4, 10)), lvText("cow", visible, lin(0, 4, 20)),
			lvText("snapshot0", visible, seg("snapshot", "chunk_size = 8\n"+one("origin", "x")+one("cow_store", "cow")))}, "shares its blocks"},
		{"cow store", []string{lvText("root", visible, lin(0, 4, 10)), lvText("x", visible, lin(0, 4, 20)),
			lvText("snapshot0", visible, seg("snapshot", "chunk_size = 8\n"+one("origin", "root")+one("cow_store", "x")))}, "shares its blocks"},
		{"merging", []string{lvText("x", visible, lin(0, 4, 10)), lvText("cow", visible, lin(0, 4, 20)),
			lvText("snapshot0", visible, seg("snapshot", "chunk_size = 8\n"+one("origin", "x")+one("merging_store", "cow")))}, "shares its blocks"},
		{"snapshot", []string{lvText("r", visible, lin(0, 4, 10)), lvText("cow", visible, lin(0, 4, 20)),
			lvText("x", visible, seg("snapshot", one("origin", "r")+one("cow_store", "cow")))}, "type snapshot"},
		{"external origin", []string{lvText("x", visible, lin(0, 4, 10)),
			lvText("th", visible, seg("thin", one("thin_pool", "tp")+one("external_origin", "x")))}, "shares its blocks"},
		{"named by a key to come", []string{lvText("x", visible, lin(0, 4, 10)),
			strings.Replace(lvText("y", visible, lin(0, 4, 20)), "segment_count", "twin = \"x\"\nsegment_count", 1)}, "shares its blocks"},
		{"named deep inside", []string{lvText("x", visible, lin(0, 4, 10)),
			lvText("y", visible, seg("cache", "policy_settings {\na = 5\nmore {\nb = [\"x\"]\n}\n}"))}, "shares its blocks"},
		{"thin", []string{lvText("x", visible, seg("thin", one("thin_pool", "tp")+"transaction_id = 0\ndevice_id = 1"))}, "type thin"},
		{"error", []string{lvText("x", visible, seg("error", ""))}, "type error"},
		{"zero beside linear", []string{lvText("x", visible, lin(0, 4, 10),
			strings.Replace(seg("zero", ""), "start_extent = 0", "start_extent = 4", 1))}, "type zero"},
		{"larger than any disk", []string{lvText("x", visible,
			strings.Replace(seg("zero", ""), "extent_count = 4", "extent_count = 4294967295", 1))}, "type zero"},
		{"pool", []string{
			lvText("x", visible, seg("thin-pool", one("metadata", "x_tmeta")+one("pool",
				"x_tdata")+"transaction_id = 1\nchunk_size = 128\ndiscards = \"passdown\"\nzero_new_blocks = 1")),
			lvText("lvol0_pmspare", `"READ", "WRITE"`, lin(0, 1, 20)), lvText("x_tmeta", `"READ", "WRITE"`, lin(0, 1, 21)),
			lvText("x_tdata", `"READ", "WRITE"`, lin(0, 4, 22))}, "type thin-pool"},
		{"raid1", []string{
			lvText("x", visible, seg("raid1", "device_count = 2\nregion_size = 4096\nraids = [\n\"x_rmeta_0\", \"x_rimage_0\",\n\"x_rmeta_1\", "+
				"\"x_rimage_1\"\n]")),
			lvText("x_rimage_0", `"READ", "WRITE"`, lin(0, 4, 10)), lvText("x_rmeta_0", `"READ", "WRITE"`, lin(0, 1, 14)),
			lvText("x_rimage_1", `"READ", "WRITE"`, lin(0, 4, 15)), lvText("x_rmeta_1", `"READ", "WRITE"`, lin(0, 1, 19))}, "type raid1"},
		{"visible image of a raid", []string{
			lvText("r", visible, seg("raid1", "device_count = 2\nraids = [\n\"r_rmeta_0\", \"r_rimage_0\",\n\"r_rmeta_1\", \"x\"\n]")),
			lvText("x", `"READ", "VISIBLE"`, lin(0, 4, 10))}, "made of it"},
		{"mirror", []string{
			lvText("x", visible, seg("mirror", "mirror_count = 2\nmirror_log = \"x_mlog\"\nregion_size = 1024\nmirrors = [\n\"x_mimage_0\", "+
				"0,\n\"x_mimage_1\", 0\n]")),
			lvText("x_mlog", `"READ", "WRITE"`, lin(0, 1, 10)), lvText("x_mimage_0", `"READ", "WRITE"`, lin(0, 4, 15)),
			lvText("x_mimage_1", `"READ", "WRITE"`, lin(0, 4, 20))}, "mirror"},
		{"pvmove", []string{
			lvText("x", visible+`, "LOCKED"`, seg("striped", "stripe_count = 1\nstripes = [\n\"pvmove0\", 0\n]")),
			lvText("pvmove0", `"READ", "WRITE", "PVMOVE", "LOCKED"`,
				seg("mirror", "mirror_count = 2\nextents_moved = 1\nmirrors = [\n\"pv0\", 10,\n\"pv0\", 20\n]"))}, "LOCKED"},
	} {
		plain := lvText("plain", visible, lin(0, 3, 45))
		d := newDisk(64*mib, vgText(append(c.lvs, plain)...)).build()
		pv, err := d.read()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		check(t, pv, d)
		extents := pv.Free.Bytes()
		for _, lv := range pv.LVs {
			for _, x := range lv.Extents {
				extents += x.Len
			}
			switch {
			case lv.Name == "x" && (c.why == "" && lv.Why != "" || !strings.Contains(lv.Why, c.why)):
				t.Errorf("%s: the reason is %q, not %q", c.name, lv.Why, c.why)
			case lv.Why != "" && (lv.Name == "plain" || c.why == ""):
				t.Errorf("%s: %s is not looked at: %s", c.name, lv.Name, lv.Why)
			}
			if lv.Why != "" && (lv.Place(0, 1) != nil || readable(d, lv)) {
				t.Errorf("%s: %s has a place", c.name, lv.Name)
			}
		}
		if extents != 50*mib {
			t.Errorf("%s: %d bytes are free or a volume's, not 50 MiB", c.name, extents)
		}
	}
}

func readable(d *disk, lv LV) bool {
	_, err := lv.Volume(d.volume()).Bytes(0, 1)
	return err == nil
}

// Segments that hold extents in ways that are not known are doubt of all.
func TestUnknownExtents(t *testing.T) {
	for _, s := range []string{
		"type = \"raid1\"\nraids = [\n\"pv0\", 10\n]", "type = \"thin-pool\"\nsettings {\nareas = [\"pv0\", 5]\n}",
		"type = \"mirror\"\nmirror_count = 2\nmirrors = [\n\"pv0\", 10\n]", "type = \"mirror\"\nmirrors = [\n\"pv0\", 10\n]",
		"type = \"mirror\"\nmirror_count = 1\nmirrors = [\n\"pv0\", 47\n]", "type = \"striped\"\nstripe_count = 3\nstripes = []",
		"type = \"striped\"\nstripe_count = 2\nstripes = [\n\"pv0\", 10,\n\"pv0\", 11\n]", "type = \"striped\"\nstripe_count = 1", "",
		"type = \"striped\"\nstripe_count = 3\nstripes = [\n\"pv0\", 10,\n\"pv0\", 12,\n\"pv0\", 14\n]",
	} {
		d := newDisk(64*mib, vgText(lvText("x", visible, "start_extent = 0\nextent_count = 4\n"+s))).build()
		if pv, err := d.read(); err == nil || pv.Free != nil {
			t.Errorf("no doubt of %q", s)
		}
	}
}

// A volume of no segments, and one of more bytes than can be counted.
func TestSizes(t *testing.T) {
	d := newDisk(64*mib, vgText(lvText("x", visible))).build()
	pv, err := d.read()
	expect(t, "no segments", d, pv, err, "0 segments")
	text := vgText(lvText("x", visible, "start_extent = 0\nextent_count = 4294967295\ntype = \"zero\""))
	text = strings.Replace(text, "extent_size = 2048", "extent_size = 4294967295", 1)
	d = newDisk(64*mib, strings.Replace(text, "pe_count = 50", "pe_count = 0", 1)).build()
	pv, err = d.read()
	expect(t, "too large", d, pv, err, "4294967295 extents")
}

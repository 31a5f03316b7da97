package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Kinds of volumes that need the device mapper are made by vgcfgrestore: it
// parses and checks metadata as if they came from a disk, and writes them with
// their checksums.
func TestRealRestored(t *testing.T) {
	linear := func(name, status string, n, pe int) string { return lvText(name, status, lin(0, n, pe)) }
	hidden := `"READ", "WRITE"`
	for _, c := range []struct {
		name string
		lvs  []string
		used string // the volumes that are not looked at
	}{
		{"snapshot", []string{
			linear("root", visible, 4, 0), linear("cow", visible, 3, 10), linear("home", visible, 4, 20),
			lvText("snapshot0", `"READ", "WRITE"`, "start_extent = 0\nextent_count = 4\ntype = \"snapshot\"\nchunk_size = 8\norigin = "+
				"\"root\"\ncow_store = \"cow\""),
		}, "root cow snapshot0"},
		{"thin", []string{
			lvText("pool", visible, "start_extent = 0\nextent_count = 8\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\npool = "+
				"\"pool_tdata\"\ntransaction_id = 1\nchunk_size = 128\ndiscards = \"passdown\"\nzero_new_blocks = 1"),
			lvText("thin1", visible, "start_extent = 0\nextent_count = 100\ntype = \"thin\"\nthin_pool = \"pool\"\ntransaction_id = "+
				"0\ndevice_id = 1\nexternal_origin = \"old\""),
			linear("old", `"READ", "VISIBLE"`, 4, 30), linear("home", visible, 4, 20),
			linear("lvol0_pmspare", hidden, 1, 0), linear("pool_tmeta", hidden, 1, 1), linear("pool_tdata", hidden, 8, 2),
		}, "pool thin1 old lvol0_pmspare pool_tmeta pool_tdata"},
		{"raid1", []string{
			lvText("r", visible, "start_extent = 0\nextent_count = 4\ntype = \"raid1\"\ndevice_count = 2\nregion_size = 4096\nraids = "+
				"[\n\"r_rmeta_0\", \"r_rimage_0\",\n\"r_rmeta_1\", \"r_rimage_1\"\n]"),
			linear("home", visible, 4, 20),
			linear("r_rimage_0", hidden, 4, 0), linear("r_rmeta_0", hidden, 1, 4), linear("r_rimage_1", hidden, 4, 5),
			linear("r_rmeta_1", hidden, 1, 9),
		}, "r r_rimage_0 r_rmeta_0 r_rimage_1 r_rmeta_1"},
		{"mirror", []string{
			lvText("m", visible, "start_extent = 0\nextent_count = 4\ntype = \"mirror\"\nmirror_count = 2\nmirror_log = "+
				"\"m_mlog\"\nregion_size = 1024\nmirrors = [\n\"m_mimage_0\", 0,\n\"m_mimage_1\", 0\n]"),
			linear("home", visible, 4, 20),
			linear("m_mlog", hidden, 1, 8), linear("m_mimage_0", hidden, 4, 0), linear("m_mimage_1", hidden, 4, 4),
		}, "m m_mlog m_mimage_0 m_mimage_1"},
		{"cache", []string{
			lvText("c", visible, "start_extent = 0\nextent_count = 4\ntype = \"cache\"\ncache_pool = \"cp\"\norigin = \"c_corig\""),
			linear("home", visible, 4, 20),
			lvText("cp", hidden, "start_extent = 0\nextent_count = 3\ntype = \"cache-pool\"\ndata = \"cp_cdata\"\nmetadata = "+
				"\"cp_cmeta\"\nmetadata_format = 1\nchunk_size = 128\ncache_mode = \"writethrough\"\npolicy = \"smq\"\npolicy_settings "+
				"{\nmigration_threshold=2048\n}"),
			linear("c_corig", hidden, 4, 0), linear("cp_cdata", hidden, 3, 4), linear("cp_cmeta", hidden, 1, 7),
			linear("lvol0_pmspare", hidden, 1, 8),
		}, "c cp c_corig cp_cdata cp_cmeta lvol0_pmspare"},
		{"pvmove", []string{
			lvText("x", visible+`, "LOCKED"`, "start_extent = 0\nextent_count = 4\ntype = \"striped\"\nstripe_count = 1\nstripes = "+
				"[\n\"pvmove0\", 0\n]"),
			linear("home", visible, 4, 20),
			lvText("pvmove0", `"READ", "WRITE", "PVMOVE", "LOCKED"`,
				"start_extent = 0\nextent_count = 4\ntype = \"mirror\"\nmirror_count = 2\nextents_moved = 4\nregion_size = 2048\nmirrors = "+
					"[\n\"pv0\", 0,\n\"pv0\", 40\n]"),
		}, "x pvmove0"},
		{"virtual", []string{
			lvText("e", visible, "start_extent = 0\nextent_count = 1000\ntype = \"error\""),
			lvText("z", visible, lin(0, 4, 0), "start_extent = 4\nextent_count = 1000\ntype = \"zero\""), linear("home", visible, 4, 20),
		}, "e z"},
		{"stacked", []string{
			linear("base", visible, 4, 0), linear("home", visible, 4, 20),
			lvText("top", visible, "start_extent = 0\nextent_count = 2\ntype = \"striped\"\nstripe_count = 1\nstripes = [\n\"base\", 2\n]"),
		}, "base top"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReal(t, 64<<20)
			r.lvm("vgcreate -s 1m VG DEV")
			pv, err := r.read()
			if err != nil {
				t.Fatal(err)
			}
			r.restore(pv, vgText(c.lvs...))
			pv = r.must()
			var used []string
			for _, lv := range pv.LVs {
				if lv.Why != "" {
					used = append(used, lv.Name)
				}
			}
			if got := strings.Join(used, " "); got != c.used {
				t.Errorf("not looked at are %q, not %q", got, c.used)
			}
		})
	}
}

// restore writes metadata by vgcfgrestore, with UUIDs as LVM wants them.
func (r *real) restore(pv *PV, text string) {
	r.Helper()
	text = strings.ReplaceAll(text, testUUID, pv.UUID)
	text = strings.Replace(text, "vg0 {", r.vg+" {", 1)
	n := 0
	text = regexp.MustCompile(`"[^"]*-id"`).ReplaceAllStringFunc(text, func(string) string {
		n++
		return fmt.Sprintf("\"uuuuuu-uuuu-uuuu-uuuu-uuuu-uuuu-%06d\"", n)
	})
	file := filepath.Join(r.TempDir(), "text")
	if err := os.WriteFile(file, []byte(strings.TrimRight(text, "\x00")), 0o600); err != nil {
		r.Fatal(err)
	}
	r.lvm("vgcfgrestore --force --yes -f " + file + " VG")
}

package lvm

import (
	"context"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// Whatever is on a disk, what is free and what the volumes have lie apart from
// each other and from the label and the metadata.
func FuzzRead(f *testing.F) {
	for _, data := range realfs.Seeds(f, "testdata") { // made by LVM 2.03.16
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &disk{Packed: realfs.Unpack(data, 1<<50)}
		sum(d.Packed)
		fuzzed(t, d)
	})
}

// FuzzText is the same for any text in metadata areas that are right.
func FuzzText(f *testing.F) {
	for _, text := range []string{
		plain(), vgText(),
		vgText(lvText("x", visible, lin(2, 2, 20), lin(0, 2, 10)),
			lvText("s", visible, "start_extent = 0\nextent_count = 4\ntype = \"striped\"\nstripe_count = 2\nstripe_size = 128\nstripes = "+
				"[\n\"pv0\", 30,\n\"pv0\", 32\n]")),
		vgText(lvText("root", visible, lin(0, 4, 10)), lvText("cow", visible, lin(0, 4, 20)),
			lvText("snapshot0", visible, "start_extent = 0\nextent_count = 4\ntype = \"snapshot\"\nchunk_size = 8\norigin = "+
				"\"root\"\ncow_store = \"cow\"")),
		vgText(lvText("pvmove0", `"READ", "WRITE", "PVMOVE", "LOCKED"`,
			"start_extent = 0\nextent_count = 4\ntype = \"mirror\"\nmirror_count = 2\nextents_moved = 1\nmirrors = [\n\"pv0\", 10,\n\"pv0\", "+
				"20\n]")),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 256<<10 {
			fuzzed(t, newDisk(64*mib, text).build())
		}
	})
}

func fuzzed(t *testing.T, d *disk) {
	pv, err := Read(volume.New(context.Background(), d, d.Size, 512, volume.NewBudget(0)))
	if err != nil {
		if pv != nil && pv.Free != nil {
			t.Error("something is free beside an error")
		}
		return
	}
	check(t, pv, d)
	if strings.Contains(pv.VG, "\n") {
		t.Errorf("the group is called %q", pv.VG)
	}
	l, err := readLabel(d.volume())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range pv.Free.Ranges() {
		for _, a := range append(l.meta, l.boot...) {
			if r.Off < a.End() && a.Off < r.End() {
				t.Errorf("%v is free and an area at %v", r, a)
			}
		}
	}
}

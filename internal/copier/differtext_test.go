package copier

import (
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// volumesMap is a disk with a partition, and one of LVM whose volume root lies
// in two pieces around home.
func volumesMap(size int64) *usedmap.Map {
	rs := func(ranges ...image.Range) []image.Range { return ranges }
	return &usedmap.Map{Size: size, SectorSize: 512, Table: "gpt", Parts: []usedmap.Part{
		{Kind: usedmap.Gap, Ranges: rs(image.Range{Off: 0, Len: mib})},
		{Kind: usedmap.Partition, Number: 1, FS: "ext4", Ranges: rs(image.Range{Off: mib, Len: mib})},
		{Kind: usedmap.Partition, Number: 3, FS: "LVM2_member", Ranges: rs(image.Range{Off: 2 * mib, Len: 4 * mib}), Volumes: []usedmap.Part{
			{Kind: usedmap.Logical, Name: "root\x1b", FS: "xfs",
				Ranges: rs(image.Range{Off: 4 * mib, Len: mib}, image.Range{Off: 2*mib + 4096, Len: mib})},
			{Kind: usedmap.Logical, Name: "home", Ranges: rs(image.Range{Off: 3*mib + 4096, Len: 4096})},
			{Kind: usedmap.Logical, Name: "thin"}, // has no place of its own
		}},
		{Kind: usedmap.Gap, Ranges: rs(image.Range{Off: 6 * mib, Len: size - 6*mib})},
	}}
}

// TestVerifyTellsParts: what differs is told by partitions and logical volumes,
// with all its bytes, also where the list of places is cut short.
func TestVerifyTellsParts(t *testing.T) {
	disk := conform.Disks(7 * mib)["mixed"]
	f := mustBackup(t, disk)
	layout := volumesMap(7 * mib).Layout()
	for _, c := range []struct {
		change []image.Range
		want   string
	}{
		{[]image.Range{{Off: mib + 512, Len: 512}}, "512 B of 7.00 MiB differ, in 1 place (partition 1 (ext4): 512 B)"},
		{[]image.Range{{Off: 0, Len: 512}, {Off: 2*mib - 512, Len: 1024}},
			"1.50 KiB of 7.00 MiB differ, in 2 places " +
				"(partition 1 (ext4): 512 B; partition 3, beside its volumes (LVM2_member): 512 B; outside of partitions: 512 B)"},
		{[]image.Range{{Off: 2*mib + 8192, Len: 512}, {Off: 3*mib + 4096, Len: 512}, {Off: 5*mib - 512, Len: 1024}},
			"2.00 KiB of 7.00 MiB differ, in 3 places " +
				"(partition 3, beside its volumes (LVM2_member): 512 B; " +
				"partition 3, volume root? (xfs): 1.00 KiB; partition 3, volume home: 512 B)"},
	} {
		got := append([]byte(nil), disk...)
		for _, r := range c.change {
			for at := r.Off; at < r.End(); at += 512 {
				got[at] ^= 1
			}
		}
		tally := layout.Tally()
		v, err := Verify(t.Context(), f.job("sda", faults.NewDisk(got)), Options{}, tally.Add)
		must(t, err)
		lines := DifferText(&v, tally)
		if lines[0] != c.want || len(lines) != 1+len(c.change) {
			t.Errorf("%q\nwant %q", lines, c.want)
		}
		if line := fmt.Sprintf("bytes %d to %d differ", c.change[0].Off, c.change[0].End()-1); lines[1] != line {
			t.Errorf("%q, want %q", lines[1], line)
		}
	}

	got := append([]byte(nil), disk...)
	for at := 0; at < 6*mib; at += 1024 {
		got[at] ^= 1
	}
	tally := layout.Tally()
	v, err := Verify(t.Context(), f.job("sda", faults.NewDisk(got)), Options{}, tally.Add)
	must(t, err)
	sum := int64(0)
	for _, p := range tally.Parts() {
		sum += p.Bytes
	}
	lines := DifferText(&v, tally)
	if tally.Bytes != 3*mib || sum != 3*mib || len(lines) != maxDifferLines+2 || !strings.Contains(lines[0], "1000 places or more") {
		t.Errorf("%d bytes, %d in parts, %q", tally.Bytes, sum, lines)
	}
	if lines := DifferText(&image.Receipt{}, layout.Tally()); lines != nil {
		t.Errorf("nothing differs, and %q", lines)
	}
}

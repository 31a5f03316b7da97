package usedmap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// The bench of this test, in one file:
//
//	MBR | partition 1: LVM: root (two pieces), home, swap, free extents | partition 2: ext4

// Logical volumes are mapped by what they hold, also where they lie in pieces.
func TestLogicalVolumes(t *testing.T) {
	testenv.Root(t)
	const lvmSize = 700 << 20
	img := realfs.File(t, 1<<30)
	realfs.Run(t, "sh", "-c", "printf 'label: dos\\nstart=2048,size=700M,type=8e\\ntype=83\\n' | sfdisk -q "+img)
	loop := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", "--offset", fmt.Sprint(1<<20), "--sizelimit", fmt.Sprint(lvmSize),
		img))
	t.Cleanup(func() { realfs.Run(t, "losetup", "-d", loop) })
	vg := "usedmap" + filepath.Base(loop)
	config := fmt.Sprintf(`devices { scan_lvs=0 use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" hints="none" global_filter=["a|^%s$|","r|.*|"] } `+
		`global { activation=0 event_activation=0 locking_dir=%q } activation { udev_sync=0 monitoring=0 } backup { backup=0 archive=0 }`, loop,
		t.TempDir())
	for _, line := range []string{"pvcreate LOOP", "vgcreate VG LOOP", "lvcreate -n root -L 100M VG", "lvcreate -n home -L 160M VG",
		"lvcreate -n swap -L 64M VG", "lvextend -L 240M VG/root"} {
		words := strings.Fields(strings.NewReplacer("LOOP", loop, "VG", vg).Replace(line))
		realfs.Run(t, words[0], append(words[1:], "--config", config)...)
	}
	contents := []struct {
		name string
		kind realfs.Kind
	}{{"root", realfs.Ext}, {"home", realfs.XFS}}
	var before []realfs.Files
	empty := mapFile(t, img, 512)
	for i, c := range contents {
		lv := logical(t, empty, c.name)
		fs := c.kind.Make(t, lv.Len())
		c.kind.Fill(t, fs, uint64(i), 40<<20)
		before = append(before, c.kind.Files(t, realfs.Copy(t, fs)))
		scatter(t, img, lv.Ranges, fs)
	}
	swap := logical(t, empty, "swap")
	header := realfs.File(t, swap.Len())
	realfs.Run(t, "mkswap", "-q", header)
	scatter(t, img, swap.Ranges, header)

	m := mapFile(t, img, 512)
	if p := partition(t, m, 1); p.Doubt != "" || p.Free < lvmSize/2 || len(logical(t, m, "root").Ranges) != 2 {
		t.Fatalf("%+v", p)
	}
	if lv := logical(t, m, "swap"); lv.Free != lv.Len()-4096 {
		t.Errorf("%+v", lv)
	}
	realfs.Noise(t, img, m.Free)
	realfs.Run(t, "vgck", "--config", config, vg)
	for i, c := range contents {
		fs := gather(t, img, logical(t, m, c.name).Ranges)
		c.kind.MustCheck(t, fs)
		if diff := before[i].Diff(c.kind.Files(t, fs)); diff != "" {
			t.Errorf("%s lost\n%s", c.name, diff)
		}
	}
}

func logical(t *testing.T, m *Map, name string) *Part {
	t.Helper()
	volumes := partition(t, m, 1).Volumes
	for i := range volumes {
		if volumes[i].Name == name {
			return &volumes[i]
		}
	}
	t.Fatalf("there is no logical volume %s: %+v", name, m.Parts)
	return nil
}

// scatter writes a file into ranges of another one, one after the other.
func scatter(t *testing.T, img string, ranges []image.Range, from string) {
	t.Helper()
	at := int64(0)
	for _, r := range ranges {
		copyInto(t, img, r.Off, from, at, r.Len)
		at += r.Len
	}
	if st, err := os.Stat(from); err != nil || st.Size() != at {
		t.Fatalf("%d bytes do not fit: %v", at, err)
	}
}

// gather is the opposite.
func gather(t *testing.T, img string, ranges []image.Range) string {
	t.Helper()
	to := realfs.File(t, total(ranges))
	at := int64(0)
	for _, r := range ranges {
		copyInto(t, to, at, img, r.Off, r.Len)
		at += r.Len
	}
	return to
}

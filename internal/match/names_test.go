package match

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name           string
		earlier, disks words
		want           string // disk=image
	}{
		{"first backup", nil, words{"sda", "nvme0n1"}, "nvme0n1=nvme0n1 sda=sda"},
		{"names swapped", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=B", "sdb serial=A"}, "sda=sdb sdb=sda"},
		{"moved to another controller", words{"sda serial=A"}, words{"nvme0n1 serial=A"}, "nvme0n1=sda"},
		{"by path", words{"vda path=p1", "vdb path=p2"}, words{"vda path=p2", "vdb path=p1"}, "vda=vdb vdb=vda"},
		{"a new disk took the name", words{"sda serial=A"}, words{"sda serial=N", "sdb serial=A"}, "sda=sdb sdb=sda"},
		{"a new disk, its name free", words{"sda serial=A"}, words{"sda serial=A", "sdb serial=N"}, "sda=sda sdb=sdb"},
		{"a replaced disk", words{"sda serial=A path=p1"}, words{"sda serial=N path=p1"}, "sda=sda"},
		{"own names first", words{"sda serial=A"}, words{"sda serial=M", "sdb serial=N", "sdc serial=A"}, "sda=sdc sdb=sdb sdc=sda"},
		{"NVMe counts controllers", words{"nvme0n1 serial=A ns=1"}, words{"nvme0n1 serial=N ns=1", "nvme1n1 serial=A ns=1"},
			"nvme0n1=nvme1n1 nvme1n1=nvme0n1"},
		{"doubled serials", words{"sda serial=X", "sdb serial=X"}, words{"sda serial=X", "sdb serial=X"}, "sda=sda sdb=sdb"},
		{"no sidecar", words{"sda anonymous"}, words{"sda serial=A"}, "sda=sda"},
		{"awkward names", nil, words{"cciss!c0d0", "etherd!e0.1"}, "cciss!c0d0=cciss-c0d0 etherd!e0.1=etherd-e0-1"},
	} {
		names := Names(imagesOf(t, c.earlier), disksOf(t, c.disks))
		var got []string
		for _, d := range slices.Sorted(maps.Keys(names)) {
			got = append(got, d+"="+names[d])
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

func TestNamesTakeTheLatest(t *testing.T) {
	images := imagesOf(t, words{"sda serial=OLD", "sda serial=A", "sdb serial=OLD"})
	images[1].Time = time.Unix(1000, 0)
	for range 2 {
		names := Names(images, disksOf(t, words{"sdx serial=A", "sdy serial=OLD"}))
		if names["sdx"] != "sda" || names["sdy"] != "sdb" {
			t.Errorf("names are %v", names)
		}
		slices.Reverse(images)
	}
}

func TestNextName(t *testing.T) {
	for name, want := range map[string]string{
		"sda": "sdb", "sdz": "sdaa", "sdaz": "sdba", "sdzz": "sdaaa", "xvda": "xvdb", "nvme0n1": "nvme1n1", "nvme9n2": "nvme10n2",
		"mmcblk0": "mmcblk1", "cciss-c0d9": "cciss-c0d10", "disk": "disk2",
	} {
		if got := nextName(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestNamesProperties: every disk gets a valid name that no other has; the
// order of things does not matter; and the names hold from backup to backup.
func TestNamesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		names := Names(w.images, w.disks)
		used := map[string]bool{}
		for _, d := range w.disks {
			n := names[d.Name]
			if !image.ValidName(n) || used[n] {
				t.Fatalf("disk %s is called %q; names are %v", d, n, names)
			}
			used[n] = true
		}
		slices.Reverse(w.images)
		slices.Reverse(w.disks)
		if again := Names(w.images, w.disks); !maps.Equal(names, again) {
			t.Fatalf("first %v, then %v", names, again)
		}
		var next []image.Label
		for i, d := range w.disks {
			d.Serial, d.NamespaceID, d.WWN = fmt.Sprint("own", i), 0, ""
			w.disks[i] = d
			next = append(next, image.Label{Name: names[d.Name], Disk: d.Identity})
		}
		order := rapid.Permutation(w.disks).Draw(t, "kernel's order")
		var renamed []disk.Disk
		for i, d := range order {
			d.Name = fmt.Sprint("sd", string(rune('a'+i)))
			renamed = append(renamed, d)
		}
		later := Names(next, renamed)
		for i, d := range order {
			if later[renamed[i].Name] != names[d.Name] {
				t.Fatalf("disk %s was called %s, then %s", d, names[d.Name], later[renamed[i].Name])
			}
		}
	})
}

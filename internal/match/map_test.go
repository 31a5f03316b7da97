package match

import (
	"strings"
	"testing"
)

// tableCase is a row of a table: "!" in want is an error with that text.
type tableCase struct {
	name                       string
	images, disks, named, maps words
	want                       string
	say                        string // a part of a pair's Accepted or of a note
}

func (c tableCase) run(t *testing.T) {
	got, pairs, notes, err := match(t, c.images, c.disks, c.named, c.maps...)
	if part, refused := strings.CutPrefix(c.want, "!"); refused {
		if err == nil || !strings.Contains(err.Error(), part) || len(pairs) > 0 {
			t.Fatalf("%q and the error %v; want one with %q", got, err, part)
		}
		return
	}
	if err != nil || got != c.want {
		t.Fatalf("%q and the error %v; want %q", got, err, c.want)
	}
	said := strings.Join(notes, "; ")
	for _, p := range pairs {
		said += "; " + p.Accepted
	}
	if !strings.Contains(said, c.say) {
		t.Errorf("said was %q, without %q", said, c.say)
	}
}

// TestMapTable has a row for each sentence of docs/matching.md about --map.
func TestMapTable(t *testing.T) {
	two := words{"sda serial=A path=p1", "sdb serial=B path=p2"}
	for _, c := range []tableCase{
		{"onto another name", words{"sda serial=A"}, words{"nvme0n1 serial=N bus=nvme", "nvme1n1 serial=O bus=nvme"}, nil, words{"sda=nvme1n1"},
			"sda=nvme1n1", "the admin mapped it so"},
		{"by serial", words{"sda serial=A"}, words{"nvme0n1 serial=N bus=nvme", "nvme1n1 serial=O bus=nvme"}, nil, words{"sda=O"}, "sda=nvme1n1",
			"mapped"},
		{"by WWN", words{"sda anonymous"}, words{"sda wwn=naa.1", "sdb wwn=naa.2"}, nil, words{"sda=naa.2"}, "sda=sdb", "mapped"},
		{"both replaced", two, words{"sda serial=C", "sdb serial=D"}, nil, words{"sda=sdb", "sdb=sda"}, "sda=sdb sdb=sda", "mapped"},
		{"one of two, the other by serial", two, words{"sda serial=B", "sdb serial=C", "sdc serial=D"}, nil, words{"sda=sdc"},
			"sda=sdc sdb=sda", "same serial B"},
		{"the other is the last one", two, words{"sda serial=C", "sdb serial=D"}, nil, words{"sda=sdb"}, "sda=sdb sdb=sda", "only this image"},
		{"outranks the path", words{"vda path=p1", "vdb path=p2"}, words{"vda path=p1", "vdb path=p2", "vdc path=p3"}, nil, words{"vda=vdc"},
			"vda=vdc vdb=vdb", "mapped"},
		{"outranks a kernel name that was named", words{"sda anonymous", "sdb anonymous"}, words{"sda", "sdb"}, words{"sda", "sdb"},
			words{"sda=sdb"}, "sda=sdb sdb=sda", "mapped"},
		{"away from its own disk", words{"sda serial=A"}, words{"sda serial=A", "sdb serial=B"}, nil, words{"sda=sdb"}, "sda=sdb",
			"although it seems to be of disk sda (same serial A)"},
		{"its own disk is given to no other image", words{"sda serial=A", "sdb anonymous"}, words{"sda serial=A", "sdb serial=C"}, nil,
			words{"sda=sdb"}, "!not certain", ""},
		{"onto another image's disk", two, words{"sda serial=A", "sdb serial=B"}, nil, words{"sda=sdb"},
			"!--map sda=sdb,sdb=DISK", ""},
		{"onto another image's disk by WWN", words{"sda wwn=naa.1", "sdb wwn=naa.2"}, words{"sda wwn=naa.1", "sdb wwn=naa.2"}, nil,
			words{"sda=sdb"}, "!known as the disk of image sdb (same WWN naa.2)", ""},
		{"swapped on purpose", two, words{"sda serial=A", "sdb serial=B"}, nil, words{"sda=sdb", "sdb=sda"}, "sda=sdb sdb=sda", "mapped"},
		{"too small", words{"sda serial=A"}, words{"sda serial=A", "sdb size=4"}, nil, words{"sda=sdb"},
			"!mapped to disk sdb, but the disk is too small", ""},
		{"other sectors", words{"sda serial=A"}, words{"sda serial=A", "sdb sector=4096"}, nil, words{"sda=sdb"}, "!sectors of 512 bytes", ""},
		{"no such image", two, two, nil, words{"sdx=sda"}, "!image sdx is mapped, and there is no such image", ""},
		{"no such disk", two, two, nil, words{"sda=sdx"}, "!no disk is called sdx; the box has sda", ""},
		{"one disk for two images", two, two, nil, words{"sda=sda", "sdb=A"}, "!two images, sda and sdb", ""},
		{"a partition", two, words{"sda"}, nil, words{"sda=by-path/p1-part1"}, "!no disk is called", ""},
		{"a serial that two have", words{"sda"}, words{"sda serial=X", "sdb serial=X"}, nil, words{"sda=X"}, "!names more than one disk", ""},
		{"a USB disk", words{"sda serial=A"}, words{"sdb serial=U usb"}, nil, words{"sda=sdb"}, "sda=sdb", "mapped"},
		{"not among the named", words{"sda"}, words{"sda", "sdb"}, words{"sda"}, words{"sda=sdb"}, "!not among the named ones (sda)", ""},
		{"among the named", words{"sda"}, words{"sda", "sdb"}, words{"sdb"}, words{"sda=sdb"}, "sda=sdb", "mapped"},
		{"no medium", words{"sda"}, words{"sda", "sdb size=0"}, nil, words{"sda=sdb"}, "!no medium", ""},
		{"an image is left", two, words{"sda serial=C"}, nil, words{"sda=sda"}, "!image sdb has no disk", ""},
	} {
		t.Run(c.name, c.run)
	}
}

func TestParseMap(t *testing.T) {
	for _, c := range []struct{ items, say string }{
		{"sda", "write IMAGE=DISK"}, {"=sda", "not the name of an image"}, {"a/b=sda", "not the name of an image"}, {"sda=", "name is empty"},
		{"sda=sdb sda=sdc", "mapped twice"}, {"sda=/etc/passwd", "below /dev"}, {"sda=a\x7fb", "characters"},
		{strings.Repeat("sda=sdb ", maxListItems+1), "more than 256"},
	} {
		if m, err := ParseMap(strings.Fields(c.items)); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%.40q: %v, %v; want %q", c.items, m, err, c.say)
		}
	}
	m, err := ParseMap([]string{"sda=/dev/disk/by-id/a=b", "sdb=S_1"})
	if err != nil || len(m) != 2 || m[0] != (Mapping{"sda", "/dev/disk/by-id/a=b"}) || m[0].String() != "sda=/dev/disk/by-id/a=b" {
		t.Errorf("%v, %v", m, err)
	}
}

// TestMatchKinds has what differs by kinds of disks.
func TestMatchKinds(t *testing.T) {
	const sas = " wwn=naa.1 serial=A bus=sas"
	paths := words{"sda path=p2" + sas, "sdb path=p1" + sas}
	for _, c := range []tableCase{
		// NVMe, eMMC
		{"NVMe by path", words{"nvme0n1 path=pci-1-nvme-1", "nvme1n1 path=pci-2-nvme-1"},
			words{"nvme0n1 path=pci-2-nvme-1 bus=nvme", "nvme1n1 path=pci-1-nvme-1 bus=nvme"}, nil, nil,
			"nvme0n1=nvme1n1 nvme1n1=nvme0n1", "path"},
		{"a namespace was added", words{"nvme0n1 serial=A ns=1"}, words{"nvme0n1 serial=A ns=2 bus=nvme", "nvme0n2 serial=A ns=1 bus=nvme"},
			nil, nil, "nvme0n1=nvme0n2", "namespace 1"},
		{"a namespace is missing", words{"nvme0n1 serial=A ns=1", "nvme0n2 serial=A ns=2"}, words{"nvme0n1 serial=A ns=2 bus=nvme"}, nil, nil,
			"!image nvme0n1 has no disk", ""},
		{"eMMC, not its areas", words{"mmcblk0 serial=E"}, words{"mmcblk0boot0 bus=mmc", "mmcblk0boot1 bus=mmc", "mmcblk0rpmb bus=mmc",
			"mmcblk0gp0 bus=mmc", "mmcblk0 serial=E bus=mmc"}, nil, nil, "mmcblk0=mmcblk0", "serial E"},
		{"eMMC replaced, the areas are no choice", words{"mmcblk0 serial=E"}, words{"mmcblk1 serial=F bus=mmc", "mmcblk1boot0 bus=mmc"}, nil, nil,
			"mmcblk0=mmcblk1", "only"},
		{"a SATA image onto NVMe", words{"sda serial=A path=pci-1-ata-1.0"}, words{"nvme0n1 serial=N ns=1 bus=nvme path=pci-2-nvme-1"}, nil, nil,
			"sda=nvme0n1", "only this image and this disk are left"},
		// md: the members are disks like others, the array is none
		{"members of an md swapped", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=B", "sdb serial=A", "md0 bus=virtual"}, nil, nil,
			"sda=sdb sdb=sda", "serial"},
		{"a member replaced", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=B", "sdb serial=C", "md127 bus=virtual"}, nil, nil,
			"sda=sdb sdb=sda", "only"},
		// two identical disks
		{"identical, slots swapped", words{"sda serial=A path=p1 model=M", "sdb serial=B path=p2 model=M"},
			words{"sda serial=B path=p1 model=M", "sdb serial=A path=p2 model=M"}, nil, nil, "sda=sdb sdb=sda", "serial"},
		{"identical, without serials, names swapped", words{"sda path=p1 model=M", "sdb path=p2 model=M"},
			words{"sda path=p2 model=M", "sdb path=p1 model=M"}, nil, nil, "sda=sdb sdb=sda", "path"},
		{"identical, without serials and paths", words{"sda model=M", "sdb model=M"}, words{"sda model=M", "sdb model=M"}, nil, nil,
			"!not certain", ""},
		{"identical, one replaced, without serials", words{"sda path=p1 model=M", "sdb path=p2 model=M"},
			words{"sda path=p1 model=N", "sdb path=p2 model=M"}, nil, nil, "sda=sda sdb=sdb", "only"},
		// two paths to one disk
		{"two paths", words{"sda" + sas}, paths, nil, nil, "sda=sdb", "disk sda is another path to disk sdb (same WWN naa.1, serial A and size)"},
		{"two paths, no second disk", words{"sda" + sas, "sdb serial=B"}, paths, nil, nil, "!image sdb has no disk", ""},
		{"two paths, two images without sidecar", words{"sda anonymous", "sdb anonymous"}, paths, nil, nil, "!not certain", ""},
		{"two paths, both named", words{"sda anonymous", "sdb anonymous"}, paths, words{"sda", "sdb"}, nil, "!not certain", ""},
		{"two paths, the other one named", words{"sda anonymous"}, paths, words{"sda"}, nil, "sda=sdb", "the admin named disk sdb"},
		{"two paths, named by serial", words{"sda anonymous"}, paths, words{"A"}, nil, "sda=sdb", ""},
		{"two paths, mapped to each", words{"sda anonymous", "sdb anonymous"}, paths, nil, words{"sda=sda", "sdb=sdb"},
			"!two images, sda and sdb", ""},
		{"two paths by dm-multipath", words{"sda anonymous"}, words{"sda path=p1 mpath=X bus=fc", "sdb path=p2 mpath=X bus=fc"},
			words{"sdb"}, nil, "sda=sda", "dm-multipath stands on both"},
		{"NVMe by two controllers", words{"nvme0n1 serial=A ns=1"}, words{"nvme0n1 wwn=uuid.1 serial=A ns=1 bus=nvme path=p1",
			"nvme1n1 wwn=uuid.1 serial=A ns=1 bus=nvme path=p2"}, nil, nil, "nvme0n1=nvme0n1", "another path"},
		{"two disks in USB cases with one identity", words{"sda wwn=naa.1 serial=A path=p1", "sdb wwn=naa.1 serial=A path=p2"},
			words{"sda wwn=naa.1 serial=A path=p2 usb", "sdb wwn=naa.1 serial=A path=p1 usb"}, words{"sda", "sdb"}, nil, "sda=sdb sdb=sda", "path"},
		{"other sizes are two disks", words{"sda serial=A path=p1"}, words{"sda" + sas + " path=p1", "sdb size=9 path=p2" + sas}, nil, nil,
			"sda=sda", "path"},
	} {
		t.Run(c.name, c.run)
	}
}

// TestTwoPathsOneName: a backup makes one image of a disk that has two paths.
func TestTwoPathsOneName(t *testing.T) {
	const sas = " wwn=naa.1 serial=A bus=sas"
	disks := disksOf(t, words{"sda path=p1" + sas, "sdb path=p2" + sas, "sdc serial=C bus=sas"})
	c, err := Choose(disks, nil)
	if err != nil || len(c.Disks) != 2 || c.Disks[0].Name != "sda" || c.Disks[1].Name != "sdc" {
		t.Fatalf("%v, %v", c.Disks, err)
	}
	if names := Names(nil, disks); names["sda"] != "sda" || names["sdb"] != "sda" || names["sdc"] != "sdc" {
		t.Errorf("%v", names)
	}
}

// TestMatchShrink: where a smaller disk will do, it is found as any other is. But it
// is one of those that are left, so there may be two of them.
func TestMatchShrink(t *testing.T) {
	for _, c := range []struct{ what, images, disks, want string }{
		{"replaced by a smaller one", "sda serial=A", "sda serial=C size=4", "sda=sda"},
		{"the same disk, which is smaller now", "sda serial=A", "sda serial=A size=4;sdb serial=B", "sda=sda"},
		{"a large one and a small one", "sda serial=A", "sda serial=C size=4;sdb serial=D", ""},
		{"other sectors", "sda serial=A", "sda serial=C size=4 sector=4096", ""},
		{"a smaller one of another image", "sda serial=A;sdb serial=B", "sda serial=B size=4;sdb serial=C", "sda=sdb sdb=sda"},
	} {
		disks := disksOf(t, strings.Split(c.disks, ";"))
		choice, err := Choose(disks, nil)
		if err != nil {
			t.Fatal(err)
		}
		choice.Shrink = true
		pairs, _, err := Pairs(imagesOf(t, strings.Split(c.images, ";")), disks, choice)
		var got []string
		for _, p := range pairs {
			got = append(got, p.Image.Name+"="+p.Disk.Name)
		}
		if strings.Join(got, " ") != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.what, got, err, c.want)
		}
	}
}

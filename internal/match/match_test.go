package match

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// Short spellings for the tables: an image or a disk is
// "name wwn=W serial=S ns=1 path=P model=M size=8 sector=512 usb". "bus=sas" is
// another transport than ata, and "mpath=X" is held by dm-multipath.
func describe(t testing.TB, s string) (string, image.Identity, disk.Disk) {
	t.Helper()
	fields := strings.Fields(s)
	id := image.Identity{Size: 8 << 20, SectorSize: 512}
	d := disk.Disk{Name: fields[0], Transport: "ata"}
	for _, w := range fields[1:] {
		key, v, _ := strings.Cut(w, "=")
		n := int64(0)
		fmt.Sscan(v, &n)
		switch key {
		case "wwn":
			id.WWN = v
		case "serial":
			id.Serial = v
		case "ns":
			id.NamespaceID = int(n)
		case "path":
			id.Path = v
		case "model":
			id.Model = v
		case "size":
			id.Size = n << 20
		case "sector":
			id.SectorSize = int(n)
		case "anonymous":
			id = image.Identity{}
		case "usb":
			d.Transport = "usb"
		case "bus":
			d.Transport = v
		case "mpath":
			d.Multipath = "mpath-" + v
		default:
			t.Fatalf("%q in %q", w, s)
		}
	}
	d.Identity = id
	return fields[0], id, d
}

func imagesOf(t testing.TB, specs []string) (list []image.Label) {
	for _, s := range specs {
		name, id, _ := describe(t, s)
		list = append(list, image.Label{Name: name, Disk: id})
	}
	return list
}

func disksOf(t testing.TB, specs []string) (list []disk.Disk) {
	for _, s := range specs {
		_, _, d := describe(t, s)
		list = append(list, d)
	}
	return list
}

// match is Match after Choose, its answer as "sda=sdb vda=vda", or its error.
func match(t testing.TB, images, disks, named []string, maps ...string) (string, []Pair, []string, error) {
	t.Helper()
	all := disksOf(t, disks)
	m, err := ParseMap(maps)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Choose(all, named, m...)
	if err != nil {
		return "", nil, nil, err
	}
	pairs, notes, err := Pairs(imagesOf(t, images), all, c)
	notes = append(c.Notes, notes...)
	var s []string
	for _, p := range pairs {
		s = append(s, p.Image.Name+"="+p.Disk.Name)
	}
	return strings.Join(s, " "), pairs, notes, err
}

type words = []string

// TestMatchTable has a row for each rule of docs/matching.md.
func TestMatchTable(t *testing.T) {
	for _, c := range []struct {
		name                 string
		images, disks, named words
		want                 string // pairs; or "!" and a part of the error
		say                  string // a part of a pair's Accepted or of a note
	}{
		// 1: by WWN and serial
		{"same disk", words{"sda wwn=naa.1 serial=A path=p1"}, words{"sda wwn=naa.1 serial=A path=p1"}, nil, "sda=sda", "same WWN naa.1"},
		{"names swapped", words{"sda serial=A path=p1", "sdb serial=B path=p2"}, words{"sda serial=B path=p2", "sdb serial=A path=p1"}, nil,
			"sda=sdb sdb=sda", "same serial A"},
		{"cables swapped", words{"sda serial=A path=p1", "sdb serial=B path=p2"}, words{"sda serial=B path=p1", "sdb serial=A path=p2"}, nil,
			"sda=sdb sdb=sda", "same serial"},
		{"WWN alone", words{"sda wwn=naa.1"}, words{"sda size=9", "sdb wwn=naa.1"}, nil, "sda=sdb", "WWN"},
		{"serial, WWN new to the kernel", words{"sda serial=A"}, words{"sda wwn=naa.1 serial=A", "sdb wwn=naa.2"}, nil, "sda=sda", "serial A"},
		{"serial, other kind of WWN", words{"nvme0n1 wwn=eui.1 serial=A ns=1"}, words{"nvme0n1 wwn=uuid.1 serial=A ns=1", "nvme1n1 wwn=uuid.2"},
			nil, "nvme0n1=nvme0n1", "serial A, namespace 1"},
		{"two namespaces", words{"nvme0n1 serial=A ns=1", "nvme0n2 serial=A ns=2"}, words{"nvme0n1 serial=A ns=2", "nvme0n2 serial=A ns=1"},
			nil, "nvme0n1=nvme0n2 nvme0n2=nvme0n1", "namespace"},
		{"two equal NVMe disks", words{"nvme0n1 serial=A ns=1", "nvme1n1 serial=B ns=1"},
			words{"nvme0n1 serial=B ns=1", "nvme1n1 serial=A ns=1"}, nil, "nvme0n1=nvme1n1 nvme1n1=nvme0n1", ""},
		{"larger by serial", words{"sda serial=A"}, words{"sda serial=A size=16"}, nil, "sda=sda", ""},
		{"smaller by serial", words{"sda serial=A"}, words{"sda serial=A size=4"}, nil, "!too small", ""},
		{"other sectors by serial", words{"sda serial=A"}, words{"sda serial=A sector=4096"}, nil, "!sectors of 512 bytes, the disk of 4096", ""},
		{"WWN says one, serial another", words{"sda wwn=naa.1 serial=A"}, words{"sda wwn=naa.1", "sdb serial=A"}, nil, "!more than one disk", ""},
		{"one image by WWN, another by serial", words{"sda wwn=naa.1", "sdb serial=A"}, words{"sda wwn=naa.1 serial=A", "sdb path=p9"}, nil,
			"!more than one image", ""},
		// 2: identities that two have are none
		{"serial twice, by path", words{"sda serial=X path=p1", "sdb serial=X path=p2"}, words{"sda serial=X path=p2", "sdb serial=X path=p1"},
			nil, "sda=sdb sdb=sda", "same path"},
		{"serial twice, WWNs differ", words{"sda serial=X wwn=naa.1", "sdb serial=X wwn=naa.2"},
			words{"sda serial=X wwn=naa.2", "sdb serial=X wwn=naa.1"}, nil, "sda=sdb sdb=sda", "WWN"},
		{"serial twice, nothing else", words{"sda serial=X", "sdb serial=X"}, words{"sda serial=X", "sdb serial=X"}, nil, "!not certain", ""},
		{"serial twice now", words{"sda serial=X path=p1"}, words{"sda serial=X path=p1", "sdb serial=X path=p2"}, nil, "sda=sda", "same path"},
		{"WWN twice, on a USB disk", words{"sda wwn=naa.1 path=p1"}, words{"sda wwn=naa.1 path=p1", "sdb wwn=naa.1 path=p2 usb"}, nil,
			"sda=sda", "same path"},
		// 3: by path
		{"by path", words{"vda path=p1", "vdb path=p2"}, words{"vda path=p2", "vdb path=p1"}, nil, "vda=vdb vdb=vda", "same path p1"},
		{"by path, larger", words{"vda path=p1", "vdb path=p2"}, words{"vda path=p1 size=16", "vdb path=p2"}, nil, "vda=vda vdb=vdb", "path"},
		{"path, serial not read now", words{"sda serial=A path=p1", "sdb serial=B path=p2"}, words{"sda path=p1", "sdb path=p2"}, nil,
			"sda=sda sdb=sdb", "path"},
		{"path, other serials", words{"sda serial=A path=p1", "sdb serial=B path=p2"}, words{"sda serial=C path=p1", "sdb serial=D path=p2"},
			nil, "!not certain", ""},
		{"path, other models", words{"sda model=M path=p1", "sdb model=M path=p2"}, words{"sda model=N path=p1", "sdb model=N path=p2"}, nil,
			"!not certain", ""},
		{"path, model cut short", words{"sda model=LONGMODEL path=p1", "sdb path=p2"}, words{"sda model=LONG path=p1", "sdb path=p2"}, nil,
			"sda=sda sdb=sdb", "path"},
		{"path twice", words{"sda path=p1", "sdb path=p1"}, words{"sda path=p1", "sdb path=p2"}, nil, "!not certain", ""},
		{"serial beats path", words{"sda serial=A path=p1", "sdb path=p2"}, words{"sda path=p1", "sdb serial=A path=p2"}, nil,
			"sda=sdb sdb=sda", "serial A"},
		{"path, other namespace", words{"nvme0n1 serial=A ns=1 path=p1"}, words{"nvme0n1 serial=A ns=2 path=p1", "nvme1n1"}, nil,
			"!not certain", ""},
		{"path, now too small", words{"vda path=p1"}, words{"vda path=p1 size=4", "vdb path=p2"}, nil,
			"!image vda belongs to disk vda (same path p1), but the disk is too small", ""},
		{"path, but the disk has another image's WWN", words{"sda wwn=naa.1 serial=A path=p1", "sdb path=p2"},
			words{"sda serial=A", "sdb wwn=naa.1 serial=B path=p2"}, nil, "!not certain", ""},
		{"path, but another disk has the image's WWN", words{"sda wwn=naa.1 serial=A path=p1"},
			words{"sda path=p1", "sdb wwn=naa.1 serial=B path=p2"}, nil, "!not certain", ""},
		// 4: named by kernel name
		{"named, but it has another image's WWN", words{"sda wwn=naa.1 serial=A", "sdb"}, words{"sda path=p9", "sdb wwn=naa.1 serial=B"},
			words{"sda", "sdb"}, "!not certain", ""},
		{"no sidecar, named", words{"sda anonymous", "sdb anonymous"}, words{"sda", "sdb"}, words{"sda", "sdb"}, "sda=sda sdb=sdb",
			"the admin named disk sda"},
		{"no sidecar, named by device", words{"sda anonymous", "sdb anonymous"}, words{"sda", "sdb"}, words{"/dev/sda", "/dev/sdb"},
			"sda=sda sdb=sdb", "named"},
		{"no sidecar, named otherwise", words{"sda anonymous", "sdb anonymous"}, words{"sda serial=A", "sdb serial=B"}, words{"A", "B"},
			"!not certain", ""},
		{"replaced and named", words{"sda serial=A path=p1", "sdb serial=B path=p2"}, words{"sda serial=C path=p1", "sdb serial=D path=p2"},
			words{"sda", "sdb"}, "sda=sda sdb=sdb", "named"},
		{"named, but serial is another's", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=B", "sdb serial=C"}, words{"sda", "sdb"},
			"sda=sdb sdb=sda", "only"},
		{"named too small", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=C size=4", "sdb serial=B"}, words{"sda", "sdb"},
			"!too small", ""},
		// 5: the last ones
		{"replaced", words{"sda serial=A path=p1"}, words{"sda serial=C path=p1"}, nil, "sda=sda", "only this image and this disk are left"},
		{"replaced, one of two", words{"sda serial=A path=p1", "sdb serial=B path=p2"}, words{"sda serial=B path=p2", "sdb serial=C path=p1"},
			nil, "sda=sdb sdb=sda", "only"},
		{"replaced by a larger", words{"sda serial=A"}, words{"sda serial=C size=16"}, nil, "sda=sda", "only"},
		{"replaced by a smaller", words{"sda serial=A"}, words{"sda serial=C size=4"}, nil, "!too small", ""},
		{"one of two is large enough", words{"sda serial=A"}, words{"sda serial=C size=4", "sdb serial=D"}, nil, "sda=sdb", "only"},
		{"two are large enough", words{"sda serial=A"}, words{"sda serial=C", "sdb serial=D"}, nil, "!not certain", ""},
		{"two images left", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=C"}, nil, "!not certain", ""},
		{"other sectors", words{"sda serial=A"}, words{"sda serial=C sector=4096"}, nil, "!sectors", ""},
		{"no sidecar, one disk", words{"sda anonymous"}, words{"nvme0n1 serial=A"}, nil, "sda=nvme0n1", "only"},
		{"no sidecar, a stick is no disk", words{"sda anonymous"}, words{"sda usb", "sdb"}, nil, "sda=sdb", "only"},
		{"no sidecar, two disks", words{"sda anonymous"}, words{"sda", "sdb"}, nil, "!not certain", ""},
		{"no sidecar beside one with", words{"sda serial=A", "sdb anonymous"}, words{"sda", "sdb serial=A"}, nil, "sda=sdb sdb=sda", "only"},
		{"serial and WWN at odds", words{"sda wwn=naa.1 serial=A"}, words{"sda wwn=naa.1 serial=B"}, nil, "sda=sda", "only"},
		{"serial and WWN at odds, two images", words{"sda wwn=naa.1 serial=A", "sdb serial=C"}, words{"sda wwn=naa.1 serial=B", "sdb serial=D"},
			nil, "!not certain", ""},
		{"the last, but it has another image's WWN", words{"sda wwn=naa.1 serial=A", "sdb"}, words{"sda serial=A", "sdb wwn=naa.1 serial=Z"},
			nil, "!not certain", ""},
		{"a namespace replaced by a disk", words{"nvme0n1 serial=A ns=1", "nvme0n2 serial=A ns=2"},
			words{"nvme0n1 serial=A ns=1", "nvme1n1 serial=C ns=1"}, nil, "nvme0n1=nvme0n1 nvme0n2=nvme1n1", "only"},
		// 6: what is left
		{"a disk without image", words{"sda serial=A"}, words{"sda serial=A", "sdb serial=B"}, nil, "sda=sda",
			"disk sdb (8388608 bytes, 512-byte sectors, serial B, ata) has no image"},
		{"an image without disk", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=A"}, nil, "!image sdb has no disk", ""},
		{"an image of a disk not chosen by itself", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=A", "sdb serial=B usb"}, nil,
			"!not chosen by itself (a USB disk)", ""},
		{"an image of a disk left out", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=A", "sdb serial=B"}, words{"sda"}, "sda=sda",
			"image sdb is skipped: it belongs to disk sdb"},
		{"an image whose disk is gone, others named", words{"sda serial=A", "sdb serial=B"}, words{"sda serial=A"}, words{"sda"}, "sda=sda",
			"image sdb is skipped: its disk is not among the named"},
		{"a USB disk named", words{"sdb serial=B"}, words{"sda serial=A", "sdb serial=B usb"}, words{"sdb"}, "sdb=sdb", "serial B"},
		{"no sidecar, its disk left out", words{"sdb anonymous"}, words{"sda", "sdb"}, words{"sda"}, "!no image belongs", ""},
		{"no sidecar, a USB disk left out", words{"sdb size=8 sector=0"}, words{"sda size=9", "sdb usb"}, words{"sda"}, "!no image belongs", ""},
		{"no sidecar, the other's size", words{"sdb size=9 sector=0"}, words{"sda size=16", "sdb size=10"}, words{"sda"}, "sdb=sda", "only"},
		{"replaced, a data disk left out", words{"sda serial=A"}, words{"sda serial=DATA", "sdb serial=C"}, words{"sdb"}, "sda=sdb", "only"},
		{"no image", nil, words{"sda"}, nil, "!there is no image", ""},
		{"two images of a name", words{"sda serial=A", "sda serial=B"}, words{"sda serial=A", "sdb serial=B"}, nil,
			"!two images are called sda", ""},
	} {
		t.Run(c.name, tableCase{c.name, c.images, c.disks, c.named, nil, c.want, c.say}.run)
	}
}

func TestMatchErrorSaysWhatWasSeen(t *testing.T) {
	_, _, _, err := match(t, words{"sda serial=A path=p1", "sdb anonymous"},
		words{"sda serial=C path=p1", "sdb serial=D", "sdc serial=U usb"}, nil)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is %v", err)
	}
	for _, part := range []string{"serial A, path p1", "sdb (no sidecar)", "serial C", "serial D", "8388608 bytes", "disk-devices.lst"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
	if len(e.Images) != 2 || len(e.Disks) != 3 {
		t.Errorf("images %q, disks %q", e.Images, e.Disks)
	}
}

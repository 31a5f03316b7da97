package match

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMatchForeign has a case for each rule about images of another machine. "" means
// that it is refused.
func TestMatchForeign(t *testing.T) {
	for _, c := range []struct {
		what                 string
		images, disks, named []string
		want, how            string
	}{
		{what: "one disk each, with other serials at one path",
			images: []string{"sda serial=A path=p1 model=M"}, disks: []string{"sdb serial=B path=p1 model=M"},
			want: "sda=sdb", how: "the box is built like the other machine"},
		{what: "two equal disks each, built alike, other kernel names",
			images: []string{"sda serial=A path=p1 model=M", "sdb serial=B path=p2 model=M"},
			disks:  []string{"sda serial=C path=p2 model=M", "sdb serial=D path=p1 model=M"},
			want:   "sda=sdb sdb=sda", how: "the box is built like the other machine"},
		{what: "built alike, and one disk more",
			images: []string{"sda serial=A path=p1 model=M"},
			disks:  []string{"sda serial=C path=p2 model=M", "sdb serial=D path=p1 model=M"}, want: "sda=sdb"},
		{what: "two equal disks each, one of them at another path",
			images: []string{"sda serial=A path=p1 model=M", "sdb serial=B path=p2 model=M"},
			disks:  []string{"sda serial=C path=p1 model=M", "sdb serial=D path=p3 model=M"}},
		{what: "the same path, and another model", images: []string{"sda path=p1 model=M"},
			disks: []string{"sda path=p1 model=N", "sdb path=p2 model=M"}},
		{what: "two sizes", images: []string{"sda serial=A size=8", "sdb serial=B size=9"},
			disks: []string{"nvme0n1 serial=C size=9", "nvme1n1 serial=D size=8"},
			want:  "sda=nvme1n1 sdb=nvme0n1", how: "only disk of the image's size"},
		{what: "one size fits, and the other image is the last one", images: []string{"sda size=8", "sdb size=9"},
			disks: []string{"vda size=20", "vdb size=8"}, want: "sda=vdb sdb=vda", how: "only disk of the image's size"},
		{what: "one disk each, a larger one", images: []string{"sda serial=A size=8"}, disks: []string{"nvme0n1 serial=C size=9"},
			want: "sda=nvme0n1", how: "only this image and this disk are left"},
		{what: "a small and a large disk, and nothing says which", images: []string{"sda size=8"}, disks: []string{"vda size=4", "vdb size=90"}},
		{what: "the large one is named", images: []string{"sda size=8"}, disks: []string{"vda size=4", "vdb size=90"}, named: []string{"vdb"},
			want: "sda=vdb"},
		{what: "two disks of the image's size", images: []string{"sda size=8"}, disks: []string{"vda size=8", "vdb size=8"}},
		{what: "two images of one size", images: []string{"sda size=8", "sdb size=8"}, disks: []string{"vda size=8", "vdb size=9"}},
		{what: "named by the names of the images", images: []string{"sda serial=A", "sdb serial=B"},
			disks: []string{"sda serial=C", "sdb serial=D"}, named: []string{"sda", "sdb"}, want: "sda=sda sdb=sdb"},
		{what: "a disk of the other machine is in this one now", images: []string{"sda serial=A size=8"},
			disks: []string{"sda serial=C size=8", "sdb serial=A size=8"}, want: "sda=sdb", how: "same serial A"},
		{what: "other sectors", images: []string{"sda size=8"}, disks: []string{"sda size=8 sector=4096"}},
		{what: "too small", images: []string{"sda size=8"}, disks: []string{"sda size=4"}},
		{what: "a USB disk of the image's size is not chosen", images: []string{"sda size=8"}, disks: []string{"sda size=8 usb", "sdb size=9"},
			want: "sda=sdb"},
	} {
		disks := disksOf(t, c.disks)
		choice, err := Choose(disks, c.named)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		choice.Foreign = true
		pairs, _, err := Pairs(imagesOf(t, c.images), disks, choice)
		var got []string
		for _, p := range pairs {
			got = append(got, p.Image.Name+"="+p.Disk.Name)
		}
		if strings.Join(got, " ") != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.what, got, err, c.want)
		}
		if c.how != "" && (len(pairs) == 0 || !strings.Contains(pairs[0].Accepted, c.how)) {
			t.Errorf("%s: %+v; want %q", c.what, pairs, c.how)
		}
	}
}

// TestMatchForeignProperties: whatever the machines are, no disk gets two images, each disk
// is chosen and large enough, no image is left out in silence, and the order says nothing.
func TestMatchForeignProperties(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		choose := func() Choice {
			c, err := Choose(w.disks, w.sel)
			if err != nil {
				t.Skip(err)
			}
			c.Foreign = true
			return c
		}
		c := choose()
		pairs, notes, err := Pairs(w.images, w.disks, c)
		if err != nil {
			return
		}
		checkInjective(t, pairs)
		img, dsk := w.known()
		for _, p := range pairs {
			checkClaims(t, p, img[p.Image.Name], dsk[p.Disk.Name], img, dsk)
			if misfit(p.Image.Disk, p.Disk.Identity) != "" {
				t.Fatalf("image %v onto disk %v", p.Image, p.Disk)
			}
		}
		checkComplete(t, w, c, pairs, notes)
		slices.Reverse(w.images)
		slices.Reverse(w.disks)
		again, _, err := Pairs(w.images, w.disks, choose())
		if err != nil || len(again) != len(pairs) {
			t.Fatalf("in another order: %v, %v", again, err)
		}
		for i := range pairs {
			if pairs[i].Image.Name != again[i].Image.Name || pairs[i].Disk.Name != again[i].Disk.Name {
				t.Fatalf("%v, and in another order %v", pairs, again)
			}
		}
	})
}

package match

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// mark gives each disk of a world a link that says which one it is, whatever it
// is called.
func (w *world) mark() {
	for i := range w.disks {
		w.disks[i].Links = []string{fmt.Sprint("by-id/mark-", i)}
	}
}

// marked says which image went to which marked disk.
func marked(pairs []Pair) map[string]string {
	to := map[string]string{}
	for _, p := range pairs {
		to[p.Image.Name] = p.Disk.Links[0]
	}
	return to
}

// doubled reports whether two disks or two images have the same WWN, serial or
// path.
func (w *world) doubled() bool {
	twice := func(list []image.Identity) bool {
		return !slices.Equal(unique(list), list)
	}
	var images, disks []image.Identity
	for _, f := range w.images {
		images = append(images, f.Disk)
	}
	for _, d := range w.disks {
		disks = append(disks, d.Identity)
	}
	return twice(images) || twice(disks)
}

// TestMatchKernelNames: what the kernel calls the disks does not matter, as long
// as the admin names none.
func TestMatchKernelNames(t *testing.T) {
	matched := 0
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.sel = nil
		w.mark()
		_, pairs, _, err := w.match(t)
		var names []string
		for _, d := range w.disks {
			names = append(names, d.Name)
		}
		for i, name := range rapid.Permutation(names).Draw(t, "renamed") {
			w.disks[i].Name = name
		}
		_, again, _, errAgain := w.match(t)
		if (err == nil) != (errAgain == nil) || fmt.Sprint(marked(pairs)) != fmt.Sprint(marked(again)) {
			t.Fatalf("first %v %v\nthen %v %v", marked(pairs), err, marked(again), errAgain)
		}
		if len(pairs) > 1 {
			matched++
		}
	})
	if matched == 0 {
		t.Fatal("no world was matched; the test shows nothing")
	}
}

// TestMatchMissing: when a disk is missing, the images of the others still go
// where they go when it is there, or nothing is restored at all. Read the other
// way round: a disk that was added changes nothing.
func TestMatchMissing(t *testing.T) {
	compared := 0
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		if len(w.disks) == 0 || w.doubled() {
			return
		}
		w.mark()
		_, pairs, _, err := w.match(t)
		gone := rapid.IntRange(0, len(w.disks)-1).Draw(t, "missing")
		less := w
		less.disks = slices.Delete(slices.Clone(w.disks), gone, gone+1)
		less.sel = slices.DeleteFunc(slices.Clone(w.sel), func(s string) bool { return s == w.disks[gone].Name })
		if less.sel.Named() != w.sel.Named() {
			return
		}
		_, fewer, _, errFewer := less.match(t)
		if err != nil || errFewer != nil {
			return
		}
		was, is := marked(pairs), marked(fewer)
		for name, to := range is {
			if was[name] != "" && was[name] != to && was[name] != w.disks[gone].Links[0] {
				t.Fatalf("image %s went to %s, and without disk %s to %s", name, was[name], w.disks[gone], to)
			}
			compared++
		}
	})
	if compared == 0 {
		t.Fatal("nothing was compared; the test shows nothing")
	}
}

// TestMatchMapped: the admin's map is obeyed or refused, and no disk that has
// another image's identity is given away unless that image is mapped too.
func TestMatchMapped(t *testing.T) {
	obeyed, onto := 0, 0
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		if len(w.disks) == 0 {
			return
		}
		to := rapid.Permutation(w.disks).Draw(t, "mapped disks")
		for i, f := range w.images {
			if i < len(to) && rapid.IntRange(0, 2).Draw(t, "map "+f.Name) > 0 {
				w.maps = append(w.maps, Mapping{f.Name, to[i].Name})
			}
		}
		_, pairs, notes, err := w.match(t)
		if err != nil {
			if len(pairs) > 0 {
				t.Fatal("pairs beside an error")
			}
			return
		}
		checkInjective(t, pairs)
		at := map[string]string{}
		for _, p := range pairs {
			at[p.Image.Name] = p.Disk.Name
			if !fits(p.Image.Disk, p.Disk.Identity) {
				t.Fatalf("image %s does not fit disk %s", describeImage(p.Image), p.Disk)
			}
		}
		given := map[string]bool{}
		for _, m := range w.maps {
			given[m.Image] = true
			if obeyed++; at[m.Image] != m.Disk {
				t.Fatalf("image %s is mapped to %s and went to %q; %q", m.Image, m.Disk, at[m.Image], notes)
			}
		}
		img, dsk := w.known()
		for _, p := range pairs {
			for name, other := range img {
				if name == p.Image.Name || !sharesID(other, dsk[p.Disk.Name]) ||
					sharesID(img[p.Image.Name], dsk[p.Disk.Name]) && !given[p.Image.Name] {
					continue
				}
				if onto++; !given[p.Image.Name] || !given[name] {
					t.Fatalf("disk %s got image %s (%s), but is that of image %s", p.Disk, p.Image.Name, p.Accepted, name)
				}
			}
		}
	})
	if obeyed == 0 || onto == 0 {
		t.Fatalf("%d images were mapped, %d onto another's disk; the test shows nothing", obeyed, onto)
	}
}

// TestMatchTwoPaths: a second path to a disk changes no pairing, is never a disk
// of its own, and it does not matter which of the two the kernel names first.
func TestMatchTwoPaths(t *testing.T) {
	seen := 0
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.sel = nil
		for i := range w.disks {
			w.disks[i].Transport = "sas"
		}
		if _, notes := single(w.disks); len(notes) > 0 || len(w.disks) == 0 {
			return // two disks happen to be one already
		}
		w.mark()
		_, pairs, _, err := w.match(t)
		more := w
		more.disks = slices.Clone(w.disks)
		for i, d := range w.disks {
			if d.WWN != "" && d.Serial != "" && rapid.Bool().Draw(t, "two paths "+d.Name) {
				path := d
				path.Name = "sdz" + string(rune('a'+i))
				if path.Path += "-second"; rapid.Bool().Draw(t, "named first") {
					path.Name, more.disks[i].Name = d.Name, path.Name
				}
				more.disks = append(more.disks, path)
			}
		}
		c, again, _, errAgain := more.match(t)
		if (err == nil) != (errAgain == nil) || fmt.Sprint(marked(pairs)) != fmt.Sprint(marked(again)) {
			t.Fatalf("with one path %v %v\nwith two %v %v", marked(pairs), err, marked(again), errAgain)
		}
		links := map[string]bool{}
		for _, d := range c.Disks {
			if links[d.Links[0]] {
				t.Fatalf("disk %s is there twice", d)
			}
			links[d.Links[0]] = true
		}
		for _, p := range again {
			if len(p.Disk.Others) > 0 {
				seen++
			}
		}
	})
	if seen == 0 {
		t.Fatal("no disk with two paths was matched; the test shows nothing")
	}
}

// TestSingleOrder: which path counts does not depend on the order of the list.
func TestSingleOrder(t *testing.T) {
	check(t, func(t *rapid.T) {
		var disks []disk.Disk
		for i := range rapid.IntRange(1, 6).Draw(t, "disks") {
			d := disk.Disk{Name: "sd" + string(rune('a'+i)), Transport: rapid.SampledFrom([]string{"sas", "ata", "nvme"}).Draw(t, "bus")}
			d.Identity = image.Identity{WWN: rapid.SampledFrom([]string{"", "naa.1", "naa.2"}).Draw(t, "wwn"), Size: 8, SectorSize: 512,
				Serial: rapid.SampledFrom([]string{"", "A", "B"}).Draw(t, "serial"), Path: fmt.Sprint("p", rapid.IntRange(0, 9).Draw(t, "path"))}
			d.Multipath = rapid.SampledFrom([]string{"", "", "mpath-1"}).Draw(t, "held")
			disks = append(disks, d)
		}
		list, notes := single(disks)
		again, _ := single(rapid.Permutation(disks).Draw(t, "order"))
		if fmt.Sprint(list) != fmt.Sprint(again) {
			t.Fatalf("%v\n%v", list, again)
		}
		n := len(list)
		for _, d := range list {
			n += len(d.Others)
		}
		if n != len(disks) || len(notes) != len(disks)-len(list) {
			t.Fatalf("%d disks became %v, %s", len(disks), list, strings.Join(notes, "; "))
		}
		for i, d := range disks {
			for _, e := range disks[:i] {
				both := func(x disk.Disk) bool { return x.HasKernelName(d.Name) && x.HasKernelName(e.Name) }
				if samePhysical(d, e) != "" && !slices.ContainsFunc(list, both) {
					t.Fatalf("%s and %s are one disk, and two in %v", d, e, list)
				}
			}
		}
	})
}

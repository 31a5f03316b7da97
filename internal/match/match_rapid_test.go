package match

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// world is a box at the time of a restore: the images of its disks as they
// were, and the disks that it has now under the names that they have now.
type world struct {
	images []image.Label
	disks  []disk.Disk
	sel    Selection
	maps   []Mapping
}

// drawWorld makes disks, forgets or doubles parts of what they are known by,
// takes some out, puts new ones in, and deals the kernel's names anew.
func drawWorld(t *rapid.T) world {
	w := world{}
	id := func(label string, n int) image.Identity {
		x := image.Identity{Size: rapid.SampledFrom([]int64{8, 8, 8, 16, 4}).Draw(t, label+" MiB") << 20,
			SectorSize: rapid.SampledFrom([]int{512, 512, 512, 4096}).Draw(t, label+" sector")}
		if rapid.IntRange(0, 3).Draw(t, label+" serial") > 0 {
			x.Serial = fmt.Sprint("S", rapid.SampledFrom([]int{n, n, n, 99}).Draw(t, label+" whose serial"))
			x.NamespaceID = rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, label+" namespace")
		}
		if rapid.IntRange(0, 2).Draw(t, label+" wwn") > 0 {
			x.WWN = fmt.Sprint(rapid.SampledFrom([]string{"naa", "eui"}).Draw(t, label+" kind"), ".",
				rapid.SampledFrom([]int{n, n, n, 99}).Draw(t, label+" whose wwn"))
		}
		x.Model = rapid.SampledFrom([]string{"", "M1", "M1", "M12", "M2"}).Draw(t, label+" model")
		return x
	}
	forget := func(x image.Identity, label string) image.Identity {
		switch rapid.IntRange(0, 9).Draw(t, label) {
		case 0:
			x.Serial, x.NamespaceID = "", 0
		case 1:
			x.WWN = ""
		case 2:
			x.Path = ""
		case 3:
			x.Serial, x.WWN, x.NamespaceID = "", "", 0
		}
		return x
	}
	n := rapid.IntRange(1, 5).Draw(t, "disks then")
	names := rapid.Permutation([]string{"sda", "sdb", "sdc", "sdd", "sde", "sdf", "sdg"}).Draw(t, "names now")
	places := rapid.Permutation([]string{"p0", "p1", "p2", "p3", "p4", "p5", "p6"}).Draw(t, "places now")
	for i := range n {
		x := id(fmt.Sprint("disk ", i), i)
		x.Path = fmt.Sprint("p", i)
		f := image.Label{Name: "sd" + string(rune('a'+i)), Disk: forget(x, fmt.Sprint("image forgets ", i))}
		if rapid.IntRange(0, 7).Draw(t, "sidecar") == 0 {
			f.Disk = image.Identity{Size: rapid.SampledFrom([]int64{0, x.Size}).Draw(t, "known size")}
		}
		w.images = append(w.images, f)
		d := disk.Disk{Name: names[i], Transport: rapid.SampledFrom([]string{"ata", "ata", "ata", "usb"}).Draw(t, "bus")}
		switch rapid.IntRange(0, 6).Draw(t, fmt.Sprint("fate ", i)) {
		case 0: // gone
			continue
		case 1: // replaced
			d.Identity = id(fmt.Sprint("new ", i), i+50)
			d.Path = x.Path
		default:
			d.Identity = forget(x, fmt.Sprint("disk forgets ", i))
			if rapid.Bool().Draw(t, "moved") {
				d.Path = places[i]
			}
		}
		w.disks = append(w.disks, d)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "further disks") {
		d := disk.Disk{Name: names[n+i], Transport: "ata", Identity: id(fmt.Sprint("further ", i), 70+i)}
		d.Path = fmt.Sprint("q", i)
		w.disks = append(w.disks, d)
	}
	if len(w.disks) > 0 && rapid.IntRange(0, 2).Draw(t, "named") == 0 {
		for _, d := range w.disks {
			if rapid.Bool().Draw(t, "name "+d.Name) {
				w.sel = append(w.sel, d.Name)
			}
		}
	}
	return w
}

func (w world) match(t *rapid.T) (Choice, []Pair, []string, error) {
	c, err := Choose(w.disks, w.sel, w.maps...)
	if err != nil {
		return c, nil, nil, err
	}
	pairs, notes, err := Pairs(w.images, w.disks, c)
	return c, pairs, notes, err
}

// TestMatchProperties is what must hold whatever the box looks like.
func TestMatchProperties(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		c, pairs, notes, err := w.match(t)
		if err != nil {
			if len(pairs) != 0 {
				t.Fatal("pairs beside an error")
			}
			return
		}
		if len(pairs) == 0 {
			t.Fatal("neither pair nor error")
		}
		checkInjective(t, pairs)
		img, dsk := w.known()
		for _, p := range pairs {
			i, d := img[p.Image.Name], dsk[p.Disk.Name]
			if p.Image.Disk.Size > p.Disk.Size || p.Image.Disk.SectorSize != 0 && p.Image.Disk.SectorSize != p.Disk.SectorSize {
				t.Fatalf("image %s does not fit disk %s", describeImage(p.Image), p.Disk)
			}
			if !slices.ContainsFunc(c.Disks, func(x disk.Disk) bool { return x.Name == p.Disk.Name }) {
				t.Fatalf("disk %s was not chosen", p.Disk)
			}
			checkEvidence(t, p, i, d)
			checkClaims(t, p, i, d, img, dsk)
		}
		checkComplete(t, w, c, pairs, notes)
	})
}

// check draws a thousand boxes: most of them are refused, and the rare ones
// are those that matter.
func check(t *testing.T, prop func(*rapid.T)) {
	for range 10 {
		rapid.Check(t, prop)
	}
}

// known are the identities by name, without those that two have.
func (w world) known() (img, dsk map[string]image.Identity) {
	img, dsk = map[string]image.Identity{}, map[string]image.Identity{}
	strip := func(x image.Identity, all []image.Identity) image.Identity {
		twice := func(eq func(o image.Identity) bool) bool {
			n := 0
			for _, o := range all {
				if eq(o) {
					n++
				}
			}
			return n > 1
		}
		y := x
		if twice(func(o image.Identity) bool { return o.Serial == x.Serial && o.NamespaceID == x.NamespaceID }) {
			y.Serial = ""
		}
		if twice(func(o image.Identity) bool { return o.WWN == x.WWN }) {
			y.WWN = ""
		}
		return y
	}
	var images, disks []image.Identity
	for _, f := range w.images {
		images = append(images, f.Disk)
	}
	for _, d := range w.disks {
		disks = append(disks, d.Identity)
	}
	for _, f := range w.images {
		img[f.Name] = strip(f.Disk, images)
	}
	for _, d := range w.disks {
		dsk[d.Name] = strip(d.Identity, disks)
	}
	return img, dsk
}

func checkInjective(t *rapid.T, pairs []Pair) {
	images, disks := map[string]bool{}, map[string]bool{}
	for _, p := range pairs {
		if images[p.Image.Name] || disks[p.Disk.Name] {
			t.Fatalf("image %s or disk %s is in two pairs", p.Image.Name, p.Disk.Name)
		}
		images[p.Image.Name], disks[p.Disk.Name] = true, true
	}
}

func sharesID(a, b image.Identity) bool {
	return a.WWN != "" && a.WWN == b.WWN || a.Serial != "" && a.Serial == b.Serial && a.NamespaceID == b.NamespaceID
}

func differs(a, b image.Identity) bool {
	wwn := a.WWN != "" && b.WWN != "" && a.WWN[:4] == b.WWN[:4] && a.WWN != b.WWN
	return wwn || a.Serial != "" && b.Serial != "" && (a.Serial != b.Serial || a.NamespaceID != b.NamespaceID)
}

// checkEvidence holds a pair to what it says of itself.
func checkEvidence(t *rapid.T, p Pair, i, d image.Identity) {
	switch {
	case strings.HasPrefix(p.Accepted, "same WWN"), strings.HasPrefix(p.Accepted, "same serial"):
		if !sharesID(i, d) || differs(i, d) {
			t.Fatalf("%s to %s: %s", describeImage(p.Image), p.Disk, p.Accepted)
		}
	case strings.HasPrefix(p.Accepted, "same path"):
		if i.Path == "" || i.Path != d.Path || differs(i, d) || sharesID(i, d) {
			t.Fatalf("%s to %s: %s", describeImage(p.Image), p.Disk, p.Accepted)
		}
	case strings.HasPrefix(p.Accepted, "the admin named"):
		if p.Image.Name != p.Disk.Name {
			t.Fatalf("%s to %s: %s", describeImage(p.Image), p.Disk, p.Accepted)
		}
	case !strings.HasPrefix(p.Accepted, "only this"):
		t.Fatalf("accepted because: %q", p.Accepted)
	}
}

// checkClaims: what carries another's WWN or serial is not given away.
func checkClaims(t *rapid.T, p Pair, i, d image.Identity, img, dsk map[string]image.Identity) {
	if sharesID(i, d) && !differs(i, d) {
		return
	}
	for name, o := range img {
		if name != p.Image.Name && sharesID(o, d) {
			t.Fatalf("disk %s got image %s (%s), but is that of image %s", p.Disk, p.Image.Name, p.Accepted, name)
		}
	}
	for name, o := range dsk {
		if name != p.Disk.Name && sharesID(i, o) {
			t.Fatalf("image %s went to disk %s (%s), but is of disk %s", describeImage(p.Image), p.Disk, p.Accepted, name)
		}
	}
}

// checkComplete: nothing is left out in silence, and without named disks no
// image at all.
func checkComplete(t *rapid.T, w world, c Choice, pairs []Pair, notes []string) {
	said := strings.Join(notes, "\n")
	for _, f := range w.images {
		if slices.ContainsFunc(pairs, func(p Pair) bool { return p.Image == f }) {
			continue
		}
		if !c.Named() {
			t.Fatalf("image %s is left out", f.Name)
		}
		if !strings.Contains(said, "image "+f.Name+" is skipped") {
			t.Fatalf("nothing is said of image %s in %q", f.Name, notes)
		}
	}
	for _, d := range c.Disks {
		if !slices.ContainsFunc(pairs, func(p Pair) bool { return p.Disk.Name == d.Name }) && !strings.Contains(said, "disk "+d.Name+" (") {
			t.Fatalf("nothing is said of disk %s in %q", d, notes)
		}
	}
}

// TestMatchOrder: the answer is the same in whatever order things come.
func TestMatchOrder(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		_, pairs, notes, err := w.match(t)
		r := rand.New(rand.NewSource(rapid.Int64().Draw(t, "order")))
		r.Shuffle(len(w.images), func(i, j int) { w.images[i], w.images[j] = w.images[j], w.images[i] })
		r.Shuffle(len(w.disks), func(i, j int) { w.disks[i], w.disks[j] = w.disks[j], w.disks[i] })
		r.Shuffle(len(w.sel), func(i, j int) { w.sel[i], w.sel[j] = w.sel[j], w.sel[i] })
		_, again, notesAgain, errAgain := w.match(t)
		if fmt.Sprint(pairs, notes) != fmt.Sprint(again, notesAgain) || (err == nil) != (errAgain == nil) {
			t.Fatalf("first %v %v %v\nthen %v %v %v", pairs, notes, err, again, notesAgain, errAgain)
		}
	})
}

// TestMatchNames: with serials of their own, disks are found whatever they are
// called and wherever they are plugged in.
func TestMatchNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "disks")
		names := rapid.Permutation([]string{"sda", "sdb", "sdc", "sdd", "nvme0n1", "vda", "vdb"}).Draw(t, "names")
		places := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6}).Draw(t, "places")
		var images []image.Label
		var disks []disk.Disk
		for i := range n {
			x := image.Identity{Serial: fmt.Sprint("S", i), Path: fmt.Sprint("p", i), Model: "M", Size: 1 << 20, SectorSize: 512}
			images = append(images, image.Label{Name: fmt.Sprint("disk", i), Disk: x})
			x.Path = fmt.Sprint("p", places[i])
			disks = append(disks, disk.Disk{Name: names[i], Identity: x, Transport: "ata"})
		}
		c, err := Choose(disks, nil)
		if err != nil {
			t.Fatal(err)
		}
		pairs, _, err := Pairs(images, disks, c)
		if err != nil || len(pairs) != n {
			t.Fatalf("%v, %v", pairs, err)
		}
		for _, p := range pairs {
			if p.Image.Disk.Serial != p.Disk.Serial {
				t.Fatalf("image %s went to %s", describeImage(p.Image), p.Disk)
			}
		}
	})
}

// TestMatchOwnDisk: a disk that is there with an identity of its own, equal to
// its image's, gets that image or nothing is restored.
func TestMatchOwnDisk(t *testing.T) {
	matched := 0
	check(t, func(t *rapid.T) {
		w := drawWorld(t)
		_, pairs, _, err := w.match(t)
		if err != nil {
			return
		}
		matched++
		img, dsk := w.known()
		for _, p := range pairs {
			for name, d := range dsk {
				i := img[p.Image.Name]
				if sharesID(i, d) && !differs(i, d) && p.Disk.Name != name {
					t.Fatalf("image %s is of disk %s, but went to %s", describeImage(p.Image), name, p.Disk)
				}
			}
		}
	})
	if matched == 0 {
		t.Fatal("no world was matched at all; the test shows nothing")
	}
}

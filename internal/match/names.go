package match

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

// Names returns the name of the image of each disk, by the disk's kernel name.
// disks should be all disks of the box, so that a disk that is not backed up
// this time keeps its name. A disk that is known from an earlier image, by WWN
// and serial or else by path, keeps the name of that image. Any other disk gets
// its kernel name if that is free, else the next free name of the family (sdb,
// nvme1n1). If several earlier images have one name, the latest counts.
func Names(earlier []image.Label, disks []disk.Disk) map[string]string {
	m := newMatching(latest(earlier), disks, Choice{})
	m.byIdentity()
	m.byPath()
	names, taken := map[string]string{}, map[string]bool{}
	for i, f := range m.images {
		if d := m.disk[i]; d != none && !taken[f.Name] {
			names[m.disks[d].Name] = f.Name
			taken[f.Name] = true
		}
	}
	give := func(free bool) {
		for _, d := range m.disks {
			if names[d.Name] != "" {
				continue
			}
			name := baseName(d.Name)
			if taken[name] && free {
				continue // the second round names it, when all disks that can have their own name have it
			}
			for taken[name] {
				name = nextName(name)
			}
			names[d.Name], taken[name] = name, true
		}
	}
	give(true)
	give(false)
	for _, d := range m.disks {
		for _, other := range d.Others {
			names[other] = names[d.Name]
		}
	}
	return names
}

// latest returns the newest image of each name.
func latest(images []image.Label) []image.Label {
	byName := map[string]image.Label{}
	for _, f := range images {
		if old, known := byName[f.Name]; !known || f.Time.After(old.Time) {
			byName[f.Name] = f
		}
	}
	return slices.Collect(maps.Values(byName))
}

// baseName makes a kernel name fit for an image. "cciss!c0d0" becomes
// "cciss-c0d0", since '!' is no good character in a file name.
func baseName(kernel string) string {
	s := strings.Map(func(r rune) rune {
		if image.ValidName("a" + string(r)) {
			return r
		}
		return '-'
	}, kernel)
	if !image.ValidName(s) {
		return "disk"
	}
	return s
}

// nextName returns the name that follows in the family. After sda that is sdb,
// after sdz sdaa, after nvme0n1 nvme1n1 (the controller counts up), after
// mmcblk0 mmcblk1.
func nextName(name string) string {
	if ctrl, ns, ok := strings.Cut(strings.TrimPrefix(name, "nvme"), "n"); ok && strings.HasPrefix(name, "nvme") {
		if n, err := strconv.Atoi(ctrl); err == nil {
			return "nvme" + strconv.Itoa(n+1) + "n" + ns
		}
	}
	if i := len(strings.TrimRight(name, "0123456789")); i < len(name) {
		if n, err := strconv.Atoi(name[i:]); err == nil {
			return name[:i] + strconv.Itoa(n+1)
		}
	}
	for _, family := range []string{"sd", "hd", "vd", "xvd"} {
		if s, ok := strings.CutPrefix(name, family); ok && s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == "" {
			return family + nextLetters(s)
		}
	}
	return name + "2"
}

func nextLetters(s string) string {
	b := []byte(s)
	for i, c := range slices.Backward(b) {
		if c < 'z' {
			b[i]++
			return string(b)
		}
		b[i] = 'a'
	}
	return "a" + string(b)
}

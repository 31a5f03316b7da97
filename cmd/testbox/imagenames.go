package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// traits are what a disk is known by besides its identity. Files have no
// identity.
type traits struct {
	match.Content
	file string // name of the file; "" for a device
}

// knownDisk is a disk of an earlier backup of the box.
type knownDisk struct {
	*image.RecordedDisk
	traits
	last bool // whether it is in the last backup
	now  int  // index of the disk that it is now, or -1
}

// naming finds out which disks of a command line are disks of earlier backups.
// The rules are in docs/matching.md.
type naming struct {
	disks []namedDisk
	is    []traits // of each disk
	was   []knownDisk
	from  []int // for each disk the index in was, or -1
	last  *image.Record
	why   []string // for each disk how that is known
}

// nameDisks gives each disk the name of its image. If the disk is known from an
// earlier backup, it is the name there. It refuses what is not certain.
func nameDisks(ctx context.Context, p printer, s saver, box string, disks []namedDisk) error {
	rs, damaged, err := s.RecordsOf(ctx, box)
	if err != nil {
		return err
	}
	n := &naming{disks: disks, from: slices.Repeat([]int{-1}, len(disks)), why: make([]string, len(disks))}
	n.last, err = store.Select(rs, damaged, store.Selector{Box: box, When: "latest"}, time.Now())
	if unreadable := new(store.UnreadableError); errors.As(err, &unreadable) {
		// If an old backup may be lost, a new one is needed even more.
		p.warnf("%v; the names of the disks come from earlier backups: compare them with `testbox image list`",
			unreadable.Unwrap())
		n.last, err = unreadable.Instead, nil
	}
	if errors.Is(err, store.ErrNoBackup) || err == nil && n.last == nil {
		return nameNew(disks, nil)
	} else if err != nil {
		return err
	}
	n.recall(ctx, s, rs)
	if err := n.settle(); err != nil {
		return err
	}
	n.tell(p)
	slices.SortStableFunc(disks, func(a, b namedDisk) int {
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return nil
}

// recall collects what is known of the present disks and of those in earlier
// backups. If several of these have one name, the latest counts.
func (n *naming) recall(ctx context.Context, s saver, rs []*image.Record) {
	for _, d := range n.disks {
		var layout usedmap.Layout
		if d.used != nil {
			layout = d.used.Layout()
		}
		t := traits{Content: match.ContentOf(d, d.Size(), d.identity.SectorSize, layout)}
		if d.kernel == "" {
			t.file = filepath.Base(d.path)
		}
		n.is = append(n.is, t)
	}
	latest := map[string]*image.Record{}
	for _, r := range rs {
		for i := range r.Disks {
			name := r.Disks[i].Name
			if old := latest[name]; r.Box == n.last.Box && r != n.last && (old == nil || !r.Time.Before(old.Time)) {
				latest[name] = r
			}
		}
	}
	for i := range n.last.Disks {
		delete(latest, n.last.Disks[i].Name)
		n.remember(ctx, s, n.last, &n.last.Disks[i], true)
	}
	for name, r := range latest {
		n.remember(ctx, s, r, r.Disk(name), false)
	}
}

func (n *naming) remember(ctx context.Context, s saver, r *image.Record, d *image.RecordedDisk, last bool) {
	k := knownDisk{RecordedDisk: d, traits: traits{s.content(ctx, r, d), d.Kernel}, last: last, now: -1}
	n.was = append(n.was, k)
}

// settle decides the names.
func (n *naming) settle() error {
	n.match()
	if err := n.uncertain(); err != nil {
		return err
	}
	for i, k := range n.from {
		if k >= 0 && n.disks[i].name == "" {
			n.disks[i].name = n.was[k].Name
		}
	}
	return nameNew(n.disks, n.was)
}

// match pairs disks with those of earlier backups. It applies the rules one
// after the other.
func (n *naming) match() {
	for i, d := range n.disks {
		if d.name == "" {
			continue
		}
		for k := range n.was {
			if n.was[k].Name == d.name {
				n.pair(i, k, "")
			}
		}
	}
	for _, rule := range []struct {
		why  string
		same func(k *knownDisk, i int) bool
	}{
		{"the same WWN or serial", func(k *knownDisk, i int) bool { return match.Same(k.Disk, n.disks[i].identity) }},
		{"the same partition table", func(k *knownDisk, i int) bool { return k.Table != "" && k.Table == n.is[i].Table }},
		{"the same file system", func(k *knownDisk, i int) bool { return shared(k.Systems, n.is[i].Systems) }},
		{"the same path", func(k *knownDisk, i int) bool { return match.SamePath(k.Disk, n.disks[i].identity) }},
		{"the same name of the file", func(k *knownDisk, i int) bool { return n.is[i].file != "" && k.file == n.is[i].file }},
		{"the only one of its size", func(k *knownDisk, i int) bool { return k.last && sameSize(k.Disk, n.disks[i].identity) }},
		{"the only disk that is left", func(k *knownDisk, i int) bool { return k.last }},
		{"the same kernel name", func(k *knownDisk, i int) bool { return n.disks[i].kernel != "" && k.Name == n.disks[i].kernel }},
	} {
		n.pairBy(rule.why, rule.same)
	}
	for i, d := range n.disks { // a disk that replaced another one
		for k := range n.was {
			if n.from[i] < 0 && d.name == "" && n.was[k].last && n.was[k].now < 0 && n.was[k].Name == d.kernel {
				n.pair(i, k, "it has its kernel name")
			}
		}
	}
}

func (n *naming) pair(i, k int, why string) { n.from[i], n.was[k].now, n.why[i] = k, i, why }

// pairBy pairs the disks that a rule regards as the same. It does so only if
// that is certain in both directions and the hardware does not contradict it.
func (n *naming) pairBy(why string, same func(*knownDisk, int) bool) {
	found := map[[2]int]bool{}
	ofDisk, ofKnown := map[int]int{}, map[int]int{}
	for i := range n.disks {
		for k := range n.was {
			if n.from[i] < 0 && n.was[k].now < 0 && same(&n.was[k], i) && !match.Contradict(n.was[k].Disk, n.disks[i].identity) {
				found[[2]int{i, k}] = true
				ofDisk[i]++
				ofKnown[k]++
			}
		}
	}
	for f := range found {
		if ofDisk[f[0]] == 1 && ofKnown[f[1]] == 1 {
			n.pair(f[0], f[1], why)
		}
	}
}

func shared(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}

func sameSize(a, b image.Identity) bool { return a.Size == b.Size && a.SectorSize == b.SectorSize }

// uncertain refuses disks that could be one or another disk of the last backup.
func (n *naming) uncertain() error {
	var lost, unknown []string
	for i, d := range n.disks {
		could := slices.ContainsFunc(n.was, func(k knownDisk) bool {
			return k.last && k.now < 0 && !match.Contradict(k.Disk, d.identity)
		})
		if n.from[i] < 0 && d.name == "" && could {
			unknown = append(unknown, d.path)
		}
	}
	for _, k := range n.was {
		if k.last && k.now < 0 {
			lost = append(lost, fmt.Sprintf("%s (%s, %s)", k.Name, k.Kernel, k.Disk))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return refused("nothing tells whether %s is a new disk, or which of those that the last backup, %s of %s, has: %s; say it, as in %s=%s",
		printable(strings.Join(unknown, ", ")), n.last.ID, n.last.Box, printable(strings.Join(lost, "; ")),
		n.last.Disks[0].Name, printable(unknown[0]))
}

// tell prints which disk was recognized as which, and what changed.
func (n *naming) tell(p printer) {
	for i, d := range n.disks {
		k := n.from[i]
		switch {
		case k < 0:
			p.tellf("%s is a new disk of %s, called %s", printable(d.path), n.last.Box, d.name)
		case n.why[i] != "" && (len(n.disks) > 1 || len(n.was) > 1):
			p.tellf("%s is %s of earlier backups: %s", printable(d.path), d.name, n.why[i])
		}
		for _, change := range n.changes(i) {
			p.warnf("%s", printable(change))
		}
	}
	for _, k := range n.was {
		if k.last && k.now < 0 {
			p.warnf("%s, which the last backup has, is not in this one", k.Name)
		}
	}
}

// changes lists what speaks against a disk being the one that had its name
// before.
func (n *naming) changes(i int) (out []string) {
	d := n.disks[i]
	own := slices.IndexFunc(n.was, func(k knownDisk) bool { return k.Name == d.name })
	for k := range n.was {
		switch was := &n.was[k]; {
		case k != own && n.wasOther(i, k, own):
			out = append(out, fmt.Sprintf("%s is called %s now, and seems to be what was %s until now", d.path, d.name, was.Name))
		case k != own:
		case !sameSize(was.Disk, d.identity) || match.Contradict(was.Disk, d.identity):
			out = append(out, fmt.Sprintf("%s was another disk: %s, %s (%s); it is now %s, %s (%s)",
				d.name, was.Kernel, bytesText(was.Disk.Size), was.Disk, d.path, bytesText(d.identity.Size), d.identity))
		case was.Table != "" && n.is[i].Table != "" && was.Table != n.is[i].Table:
			out = append(out, fmt.Sprintf("%s has another partition table than before", d.name))
		}
	}
	return out
}

// wasOther reports whether a disk seems to be one that has another name in
// earlier backups. A copy of a disk also has its partition table.
func (n *naming) wasOther(i, k, own int) bool {
	is, was := n.is[i], n.was[k]
	if match.Same(was.Disk, n.disks[i].identity) {
		return true
	}
	copied := own >= 0 && n.was[own].Table == is.Table || own < 0 && was.now >= 0
	return is.Table != "" && was.Table == is.Table && !copied
}

// nameNew gives names to disks that have none. It uses the kernel's name, or
// the next one of sda, sdb and so on that no disk has or had.
func nameNew(disks []namedDisk, was []knownDisk) error {
	taken := map[string]bool{}
	for i := range disks {
		d := &disks[i]
		if d.name != "" && taken[d.name] {
			return wrong("two disks are called %s; give names as in sda=%s", d.name, d.path)
		}
		taken[d.name] = d.name != ""
	}
	for _, k := range was {
		taken[k.Name] = true
	}
	for i := range disks {
		d := &disks[i]
		if d.name == "" && image.ValidName(d.kernel) && !taken[d.kernel] {
			d.name, taken[d.kernel] = d.kernel, true
		}
	}
	for i := range disks {
		for c := 'a'; disks[i].name == "" && c <= 'z'; c++ {
			if name := "sd" + string(c); !taken[name] {
				disks[i].name, taken[name] = name, true
			}
		}
		if disks[i].name == "" {
			return wrong("give the disks names, as in disk27=%s", disks[i].path)
		}
	}
	return nil
}

package usedmap

import (
	"cmp"
	"slices"

	"testbox-imaging/internal/image"
)

// Tally counts bytes by the part of the disk that they lie in, for instance the
// bytes in which a disk and an image differ.
type Tally struct {
	Bytes int64
	parts []tallied
	outer []tallySpan // the partitions, or the whole disk, in order
	inner []tallySpan // the logical volumes in them, in order
}

// PartTally is how many of the counted bytes lie in a part of the disk. Bytes that
// lie in a smaller part with a PartTally of its own are not in it.
type PartTally struct {
	// Part is "partition 2", "partition 3, volume root", "partition 3, beside
	// its volumes", "disk" or "outside of partitions".
	Part  string `json:"part"`
	FS    string `json:"fs,omitempty"` // the part's file system, "" if it is not known
	Bytes int64  `json:"bytes"`
}

// String gives the tally as a text for people.
func (p PartTally) String() string {
	s := p.Part
	if p.FS != "" {
		s += " (" + image.Printable(p.FS) + ")"
	}
	return s + ": " + image.SizeText(p.Bytes)
}

// tallied is a part with its count, which includes the bytes of its volumes.
type tallied struct {
	PartTally
	in int // index of the part that a volume lies in, or -1 if it is no volume
}

// tallySpan is one range of a part.
type tallySpan struct {
	image.Range
	part int
}

// Tally makes a Tally that counts by the partitions of a disk, and by the logical
// volumes in them.
func (l *Layout) Tally() *Tally {
	t := &Tally{}
	for i := range l.Parts {
		p := &l.Parts[i]
		if p.Kind == Gap {
			continue
		}
		in := len(t.parts)
		t.outer = t.add(t.outer, p, p.Title(), -1)
		for j := range p.Volumes {
			t.inner = t.add(t.inner, &p.Volumes[j], p.Title()+", "+p.Volumes[j].Title(), in)
		}
	}
	for _, list := range [][]tallySpan{t.outer, t.inner} {
		slices.SortFunc(list, func(a, b tallySpan) int { return cmp.Compare(a.Off, b.Off) })
	}
	return t
}

func (t *Tally) add(list []tallySpan, p *LayoutPart, name string, in int) []tallySpan {
	for _, r := range p.Places() {
		list = append(list, tallySpan{r, len(t.parts)})
	}
	t.parts = append(t.parts, tallied{PartTally{Part: name, FS: p.FS}, in})
	return list
}

// Add counts a run of bytes. Runs must not overlap.
func (t *Tally) Add(r image.Range) {
	t.Bytes += r.Len
	for _, list := range [][]tallySpan{t.outer, t.inner} {
		i, _ := slices.BinarySearchFunc(list, r.Off+1, func(s tallySpan, at int64) int { return cmp.Compare(s.End(), at) })
		for ; i < len(list) && list[i].Off < r.End(); i++ {
			t.parts[list[i].part].Bytes += r.Clip(list[i].Off, list[i].End()).Len
		}
	}
}

// Counts are the bytes of each part, in the order of the layout: a partition, then its
// volumes, whose bytes are also those of the partition. Gaps are left out.
func (t *Tally) Counts() []int64 {
	out := make([]int64, len(t.parts))
	for i, p := range t.parts {
		out[i] = p.Bytes
	}
	return out
}

// Parts gives the parts that have some of the bytes, in the order of the disk. The
// last one counts the bytes outside of all parts. Together they have all bytes.
func (t *Tally) Parts() []PartTally {
	all, outside := slices.Clone(t.parts), t.Bytes
	for _, p := range t.parts {
		if p.in >= 0 {
			all[p.in].Bytes -= p.Bytes
		} else {
			outside -= p.Bytes
		}
	}
	var out []PartTally
	for i, p := range all {
		if i+1 < len(all) && all[i+1].in == i {
			p.Part += ", beside its volumes"
		}
		if p.Bytes > 0 {
			out = append(out, p.PartTally)
		}
	}
	if outside > 0 && len(t.parts) > 0 {
		out = append(out, PartTally{Part: "outside of partitions", Bytes: outside})
	}
	return out
}

// Package usedmap says which bytes of a disk matter: partition tables, gaps
// between partitions, and of each partition what its file system says is
// allocated. The rule that beats every other: in doubt, all of it is used, and
// the map says why. docs/format.md has what is understood and what makes
// doubt, as a table.
//
// It works on an io.ReaderAt that does not change meanwhile, reads metadata
// only, and writes nothing.
//
// Each kind of file system has a reader, in a package below this one, which
// package volume describes. Who adds one names it in the table readers (read.go),
// gives it a signature of the same name in package probe, and adds the file
// system to the types of partitions that may have it, in package parttab.
package usedmap

import (
	"cmp"
	"encoding/json"
	"slices"

	"testbox-imaging/internal/image"
)

// Map is the used map of a disk.
type Map struct {
	Size       int64  // bytes
	SectorSize int    // logical sector, bytes
	Table      string // "gpt", "mbr" or "" for none
	// Doubt is why the whole disk counts as used, "" if it does not. Parts
	// then has one part.
	Doubt string
	Notes []string // on the tables, for people
	Parts []Part   // in the order of the disk, together all of it
	// Free is what is not used, in the order of the disk, no range touching
	// the next. All else matters.
	Free []image.Range
}

// Kind is what a part of a disk is.
type Kind string

// The kinds of parts. A gap is what lies between partitions, and the tables
// themselves: it is always used.
const (
	Gap       Kind = "gap"
	Partition Kind = "partition"
	WholeDisk Kind = "disk"   // there is no partition table
	Logical   Kind = "volume" // a logical volume of LVM
)

// Part is a piece of a disk and what is known of it.
type Part struct {
	Kind   Kind
	Ranges []image.Range // where it lies on the disk; only a logical volume has several, in its own order, or none if it is made of others
	Number int           // of a partition, as Linux counts; 0: not a partition
	Type   string        // the partition's type code or GUID
	Name   string        // of the partition (GPT) or of the logical volume
	FS     string        // "ext4", "crypto_LUKS", ...; "" if nothing is known here
	Label  string        // of the file system; anybody can have written it
	UUID   string        // of the file system
	Free   int64         // bytes that are not used, those of Volumes among them
	Doubt  string        // why all of it counts as used, "" if it does not
	Notes  []string
	// Volumes are the logical volumes of a physical volume.
	Volumes []Part
}

// Off is where the part begins on the disk, in bytes; -1 if it has no place of
// its own.
func (p *Part) Off() int64 {
	if len(p.Ranges) == 0 {
		return -1
	}
	return p.Ranges[0].Off
}

// Len is how many bytes it has.
func (p *Part) Len() int64 { return total(p.Ranges) }

func total(ranges []image.Range) (n int64) {
	for _, r := range ranges {
		n += r.Len
	}
	return n
}

// Used are the ranges that matter, in the order of the disk.
func (m *Map) Used() []image.Range {
	var used []image.Range
	at := int64(0)
	for _, r := range m.Free {
		if r.Off > at {
			used = append(used, image.Range{Off: at, Len: r.Off - at})
		}
		at = r.End()
	}
	if at < m.Size {
		used = append(used, image.Range{Off: at, Len: m.Size - at})
	}
	return used
}

// FreeBytes is how much of the disk is not used.
func (m *Map) FreeBytes() int64 { return total(m.Free) }

// InDoubt are the ranges that count as used for a doubt alone, in the order of
// the disk.
func (m *Map) InDoubt() []image.Range {
	var out []image.Range
	for _, p := range m.Parts {
		if p.Doubt != "" {
			out = append(out, p.Ranges...)
		}
		for _, lv := range p.Volumes {
			if lv.Doubt != "" {
				out = append(out, lv.Ranges...)
			}
		}
	}
	slices.SortFunc(out, func(a, b image.Range) int { return cmp.Compare(a.Off, b.Off) })
	return out
}

// mapJSON and partJSON are the form for programs, in docs/format.md.
type mapJSON struct {
	Format     int           `json:"format"`
	Size       int64         `json:"size"`
	SectorSize int           `json:"sectorSize"`
	Table      string        `json:"table,omitempty"`
	Doubt      string        `json:"doubt,omitempty"`
	Notes      []string      `json:"notes,omitempty"`
	UsedBytes  int64         `json:"usedBytes"`
	FreeBytes  int64         `json:"freeBytes"`
	Parts      []partJSON    `json:"parts"`
	Used       []image.Range `json:"used"`
}

type partJSON struct {
	Kind    Kind          `json:"kind"`
	Number  int           `json:"number,omitempty"`
	Ranges  []image.Range `json:"ranges"`
	Type    string        `json:"type,omitempty"`
	Name    string        `json:"name,omitempty"`
	FS      string        `json:"fs,omitempty"`
	Label   string        `json:"label,omitempty"`
	UUID    string        `json:"uuid,omitempty"`
	Free    int64         `json:"freeBytes"`
	Doubt   string        `json:"doubt,omitempty"`
	Notes   []string      `json:"notes,omitempty"`
	Volumes []partJSON    `json:"volumes,omitempty"`
}

// MarshalJSON gives the form that docs/format.md tells.
func (m *Map) MarshalJSON() ([]byte, error) {
	free := m.FreeBytes()
	return json.Marshal(mapJSON{
		1, m.Size, m.SectorSize, m.Table, m.Doubt, m.Notes, m.Size - free, free, partsJSON(m.Parts), m.Used(),
	})
}

func partsJSON(parts []Part) []partJSON {
	var out []partJSON
	for _, p := range parts {
		out = append(out, partJSON{p.Kind, p.Number, append([]image.Range{}, p.Ranges...), p.Type, p.Name, p.FS, p.Label, p.UUID, p.Free,
			p.Doubt, p.Notes, partsJSON(p.Volumes)})
	}
	return out
}

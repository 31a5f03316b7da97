// Package usedmap says which bytes of a disk matter. These are the partition
// tables, the gaps between partitions, and in each partition the bytes that its
// file system calls allocated. One rule comes before all others. If there is any
// doubt about a part, all of it is used, and the map says why. docs/format.md has
// a table of what is understood and what makes doubt.
//
// The package reads from an io.ReaderAt that must not change meanwhile. It reads
// metadata only, and writes nothing.
//
// Each kind of file system has a reader in a package below this one. Package
// volume describes what a reader does. A new reader is named in the table readers
// (read.go). It needs a signature of the same name in package probe. Package
// parttab needs to know which types of partitions may have the file system.
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
	// Doubt is why the whole disk counts as used. Parts then has one part. ""
	// means that each part says for itself.
	Doubt string
	Notes []string // notes on the tables, for people
	Parts []Part   // in the order of the disk, which they cover together
	// Free has the unused ranges, in the order of the disk. No range touches the
	// next. All other bytes matter.
	Free []image.Range
}

// Kind is what a part of a disk is.
type Kind string

// The kinds of parts. A gap is what lies between partitions, or one of the tables.
// It is always used.
const (
	Gap       Kind = "gap"
	Partition Kind = "partition"
	WholeDisk Kind = "disk"   // there is no partition table
	Logical   Kind = "volume" // a logical volume of LVM
)

// Part is a part of a disk and what is known of it.
type Part struct {
	Kind Kind
	// Ranges are where the part lies on the disk. Only a logical volume can have
	// several, in the order of the volume. It has none if it is made of others.
	Ranges []image.Range
	Number int    // of a partition, as Linux counts, or 0 if it is no partition
	Type   string // the partition's type code or GUID
	Name   string // of the partition (GPT) or of the logical volume
	FS     string // "ext4", "crypto_LUKS", ..., or "" if nothing known was found
	Label  string // of the file system, which can be any text
	UUID   string // of the file system
	Free   int64  // unused bytes, with those of Volumes
	Doubt  string // why the whole part counts as used, or "" if it does not
	Notes  []string
	// Volumes are the logical volumes of a physical volume.
	Volumes []Part
}

// Off is where the part begins on the disk, in bytes. It is -1 if the part has no
// place of its own.
func (p *Part) Off() int64 {
	if len(p.Ranges) == 0 {
		return -1
	}
	return p.Ranges[0].Off
}

// Len is how many bytes the part has.
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

// InDoubt are the ranges that count as used only because of a doubt, in the order
// of the disk.
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

// mapJSON and partJSON are the JSON form for programs, described in
// docs/format.md.
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

// MarshalJSON gives the form that docs/format.md describes.
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

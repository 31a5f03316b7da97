package usedmap

import (
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/image"
)

// Layout is what a root of a store says of its disk. chunk.Root.Layout has it as
// JSON.
type Layout struct {
	Table string       `json:"table,omitempty"` // as in Map
	Doubt string       `json:"doubt,omitempty"` // as in Map
	Parts []LayoutPart `json:"parts"`
	Cut   bool         `json:"cut,omitempty"` // the last parts are left out, since there was no room for them
}

// LayoutPart is what a layout tells of a Part.
type LayoutPart struct {
	Kind   Kind   `json:"kind"`
	Number int    `json:"number,omitempty"`
	Type   string `json:"type,omitempty"`
	Name   string `json:"name,omitempty"`
	FS     string `json:"fs,omitempty"`
	Label  string `json:"label,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	Doubt  string `json:"doubt,omitempty"`
	Off    int64  `json:"off"` // bytes from the disk's start, or -1 if the part has no place of its own, or lies in too many pieces
	Len    int64  `json:"len"`
	// Ranges are where a logical volume lies, in the order of the volume. They
	// are given only if it lies in several pieces.
	Ranges  []image.Range `json:"ranges,omitempty"`
	Volumes []LayoutPart  `json:"volumes,omitempty"`
}

// Places are where a part lies on the disk.
func (p *LayoutPart) Places() []image.Range {
	switch {
	case len(p.Ranges) > 0:
		return p.Ranges
	case p.Off < 0:
		return nil
	}
	return []image.Range{{Off: p.Off, Len: p.Len}}
}

// Title is a name of the part for people. A terminal can show it safely.
func (p *LayoutPart) Title() string {
	switch p.Kind {
	case Partition:
		return fmt.Sprintf("partition %d", p.Number)
	case Logical:
		return "volume " + image.Printable(p.Name)
	}
	return image.Printable(string(p.Kind))
}

// ParseLayout reads the layout of a root. If there is none, or it cannot be read,
// the result is empty. That is no error, since a layout is only for people.
func ParseLayout(text []byte) Layout {
	var l Layout
	if json.Unmarshal(text, &l) != nil {
		return Layout{}
	}
	return l
}

// Layout gives the layout of the map's disk.
func (m *Map) Layout() Layout {
	return Layout{Table: m.Table, Doubt: m.Doubt, Parts: layoutParts(m.Parts)}
}

// maxLayout is how long the layout in a root may be, in bytes.
const maxLayout = 1 << 20

// maxPieces is how many pieces a volume may have for a layout to list them.
const maxPieces = 1000

// StoredLayout is the layout in the form that a root has. If it is too long,
// its last parts are left out.
func (m *Map) StoredLayout() []byte {
	l := m.Layout()
	for {
		b, err := json.Marshal(l)
		if err != nil {
			panic(err) // plain fields only
		}
		if len(b) <= maxLayout {
			return b
		}
		l.Parts, l.Cut = l.Parts[:len(l.Parts)/2], true
	}
}

func layoutParts(parts []Part) []LayoutPart {
	out := make([]LayoutPart, 0, len(parts))
	for _, p := range parts {
		lp := LayoutPart{
			Kind: p.Kind, Number: p.Number, Type: p.Type, Name: p.Name, FS: p.FS, Label: p.Label, UUID: p.UUID, Doubt: p.Doubt,
			Off: p.Off(), Len: p.Len(), Volumes: layoutParts(p.Volumes),
		}
		switch n := len(p.Ranges); {
		case n > maxPieces:
			lp.Off = -1
		case n > 1:
			lp.Ranges = p.Ranges
		}
		out = append(out, lp)
	}
	return out
}

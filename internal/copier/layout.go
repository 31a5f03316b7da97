package copier

import (
	"encoding/json"

	"testbox-imaging/internal/usedmap"
)

// Layout is what a root says of its disk: the form in chunk.Root.Layout.
type Layout struct {
	Table string       `json:"table,omitempty"` // as in usedmap.Map
	Doubt string       `json:"doubt,omitempty"` // the same
	Parts []LayoutPart `json:"parts"`
	Cut   bool         `json:"cut,omitempty"` // there was more than fits
}

// LayoutPart is a part of a disk, as in usedmap.Part.
type LayoutPart struct {
	Kind    usedmap.Kind `json:"kind"`
	Number  int          `json:"number,omitempty"`
	Type    string       `json:"type,omitempty"`
	Name    string       `json:"name,omitempty"`
	FS      string       `json:"fs,omitempty"`
	Label   string       `json:"label,omitempty"`
	UUID    string       `json:"uuid,omitempty"`
	Doubt   string       `json:"doubt,omitempty"`
	Off     int64        `json:"off"` // bytes from the disk's start; -1 is no place of its own
	Len     int64        `json:"len"`
	Volumes []LayoutPart `json:"volumes,omitempty"`
}

// maxLayout is what a root takes, bytes.
const maxLayout = 1 << 20

// layoutOf is the layout in its stored form; nil if nothing is known.
func layoutOf(m *usedmap.Map) []byte {
	if m == nil {
		return nil
	}
	l := Layout{Table: m.Table, Doubt: m.Doubt, Parts: layoutParts(m.Parts)}
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

func layoutParts(parts []usedmap.Part) []LayoutPart {
	out := make([]LayoutPart, 0, len(parts))
	for _, p := range parts {
		out = append(out, LayoutPart{p.Kind, p.Number, p.Type, p.Name, p.FS, p.Label, p.UUID, p.Doubt, p.Off(), p.Len(), layoutParts(p.Volumes)})
	}
	return out
}

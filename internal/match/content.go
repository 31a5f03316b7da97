package match

import (
	"io"

	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap"
)

// Content is what a disk is known by that has no identity, such as a file.
type Content struct {
	Table   string   `json:"table,omitempty" doc:"id of the partition table"`
	Systems []string `json:"systems,omitempty" doc:"UUIDs of the file systems"`
}

// ContentOf looks at a disk. layout is what its used map says of it, and may be zero.
func ContentOf(r io.ReaderAt, size int64, sector int, layout usedmap.Layout) (c Content) {
	if table, err := parttab.Read(r, size, sector); err == nil {
		c.Table = table.ID
	}
	for _, p := range layout.Parts {
		if p.UUID != "" {
			c.Systems = append(c.Systems, p.UUID)
		}
	}
	return c
}

package probe

import (
	"errors"

	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap/volume"
)

// Bare names what announces itself on a volume from its first byte on, where
// there is no partition table: a file system, or what holds some. It is "" if
// there is a table, or nothing that is known. A whole disk can be so, but most
// often it is the image of a partition.
func Bare(v *volume.Volume) (string, error) {
	if _, err := parttab.Read(v, v.Size(), v.Sector()); !errors.Is(err, parttab.ErrNone) {
		return "", nil
	}
	found, err := Find(v)
	for _, m := range found {
		if m.Name != "dos" && m.Name != "gpt" {
			return m.Name, err
		}
	}
	return "", err
}

package probe

import (
	"errors"

	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap/volume"
)

// Bare gives the name of the signature of a volume without a partition table, such
// as that of a file system or of LVM. It gives "" if there is a table, or no known
// signature. A whole disk can be such a volume, but most often it is the image of a
// partition.
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

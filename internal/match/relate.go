package match

import (
	"fmt"
	"strings"

	"testbox-imaging/internal/image"
)

// serial is a serial number with its namespace, because all namespaces of one
// NVMe disk have the disk's serial number.
type serial struct {
	serial string
	ns     int
}

func serialOf(x image.Identity) serial { return serial{x.Serial, x.NamespaceID} }

// unique returns the identities without the WWNs, serials and paths that two of
// them have, because these cannot tell one disk from another. Cheap USB disks
// and virtual machines have such.
func unique(list []image.Identity) []image.Identity {
	wwns, serials, paths := map[string]int{}, map[serial]int{}, map[string]int{}
	for _, x := range list {
		wwns[x.WWN]++
		serials[serialOf(x)]++
		paths[x.Path]++
	}
	out := make([]image.Identity, len(list))
	for i, x := range list {
		out[i] = x
		if wwns[x.WWN] > 1 {
			out[i].WWN = ""
		}
		if serials[serialOf(x)] > 1 {
			out[i].Serial = ""
		}
		if paths[x.Path] > 1 {
			out[i].Path = ""
		}
	}
	return out
}

// same says what shows that two identities are those of one disk, "WWN x" or
// "serial y". It is "" if nothing known shows that.
func same(a, b image.Identity) string {
	switch {
	case a.WWN != "" && a.WWN == b.WWN:
		return "WWN " + a.WWN
	case a.Serial != "" && a.Serial == b.Serial && a.NamespaceID == b.NamespaceID:
		if a.NamespaceID != 0 {
			return fmt.Sprintf("serial %s, namespace %d", a.Serial, a.NamespaceID)
		}
		return "serial " + a.Serial
	}
	return ""
}

// Same reports whether two identities are known to be those of one disk.
func Same(a, b image.Identity) bool { return same(a, b) != "" && !contradict(a, b) }

// Contradict reports whether two identities are known to be those of two
// different disks.
func Contradict(a, b image.Identity) bool { return contradict(a, b) }

// SamePath reports whether two identities are at the same place, and their
// models may be the same.
func SamePath(a, b image.Identity) bool {
	return a.Path != "" && a.Path == b.Path && !otherModel(a, b)
}

// contradict reports whether something known says that two identities are not
// those of one disk. WWNs of different kinds ("eui.", "uuid.") are not
// compared, because another kernel may show another kind for the same disk.
func contradict(a, b image.Identity) bool {
	if a.WWN != "" && b.WWN != "" && a.WWN != b.WWN && kindOf(a.WWN) == kindOf(b.WWN) {
		return true
	}
	if a.Serial == "" || b.Serial == "" {
		return false
	}
	return a.Serial != b.Serial || a.NamespaceID != b.NamespaceID
}

func kindOf(wwn string) string {
	kind, _, _ := strings.Cut(wwn, ".")
	return kind
}

// otherModel reports whether two models differ. A model that is the beginning
// of the other does not differ, since SCSI cuts models after 16 characters.
func otherModel(a, b image.Identity) bool {
	return !strings.HasPrefix(a.Model, b.Model) && !strings.HasPrefix(b.Model, a.Model)
}

// misfit says why an image does not fit onto a disk, or "" if it fits. The size
// and the sector size of an image without a sidecar can be 0, which means that
// they are not known.
func misfit(img, dsk image.Identity) string {
	switch {
	case img.SectorSize != 0 && img.SectorSize != dsk.SectorSize:
		return fmt.Sprintf("the image has sectors of %d bytes, the disk of %d, where its partition table would mean other places; "+
			"use a disk with %d-byte sectors (`nvme format --lbaf` switches some NVMe disks, and erases them)",
			img.SectorSize, dsk.SectorSize, img.SectorSize)
	case img.Size > dsk.Size:
		return fmt.Sprintf("the disk is too small (%d bytes, the image has %d; if nothing uses the image's end: --shrink-table)",
			dsk.Size, img.Size)
	}
	return ""
}

func fits(img, dsk image.Identity) bool { return misfit(img, dsk) == "" }

func (m *matching) misfit(i, d int) string {
	img := m.img[i]
	if m.shrink {
		img.Size = min(img.Size, m.dsk[d].Size)
	}
	return misfit(img, m.dsk[d])
}
func (m *matching) fits(i, d int) bool { return m.misfit(i, d) == "" }

// possible reports whether the image may have been made from this disk as it is
// now. Nothing may contradict that, and the size, if known, must be exactly the
// disk's.
func possible(img, dsk image.Identity) bool {
	return !contradict(img, dsk) && !otherModel(img, dsk) && (img.Size == 0 || img.Size == dsk.Size) && fits(img, dsk)
}

package btrfs

import (
	"cmp"
	"fmt"
	"slices"
)

// stripe is a run of the device that belongs to a chunk.
type stripe struct{ off, length, chunk int64 }

// checkDevice compares a DEV_ITEM with the device that the superblock is on.
func (f *fs) checkDevice(k key, b []byte) error {
	switch {
	case k.object != 1 || len(b) < 98:
		return fmt.Errorf("its chunk tree has a device that cannot be read")
	case k.offset != f.sb.devid || le64(b) != f.sb.devid || [16]byte(b[66:]) != f.sb.devUUID:
		return fmt.Errorf("its chunk tree has another device (%d)", k.offset)
	case le64(b[8:]) != uint64(f.sb.size):
		return fmt.Errorf("its device has %d bytes in the superblock and %d in the chunk tree", f.sb.size, le64(b[8:]))
	}
	return nil
}

// stripes are the runs of the device that belong to chunks, in the order of the
// device.
func (f *fs) stripes() []stripe {
	var out []stripe
	for _, c := range f.chunks {
		for _, off := range c.copies() {
			out = append(out, stripe{off, c.length, c.start})
		}
	}
	slices.SortFunc(out, func(a, b stripe) int { return cmp.Compare(a.off, b.off) })
	return out
}

// matchDevExtents compares the device tree with the chunks. Linux does not
// mount if they differ (btrfs_verify_dev_extents).
func (f *fs) matchDevExtents(root pointer) error {
	left := f.stripes()
	t := tree{name: "device tree", owner: devTree, limit: 64 << 20, newest: f.sb.generation}
	t.item = func(k key, data []byte) error {
		switch k.kind {
		case devExtent:
			if len(data) < 48 || k.object != f.sb.devid || len(left) == 0 ||
				k.offset != uint64(left[0].off) || le64(data[24:]) != uint64(left[0].length) || le64(data[16:]) != uint64(left[0].chunk) {
				return fmt.Errorf("its device tree gives away byte %d, and its chunks do not", k.offset)
			}
			left = left[1:]
		case devReplace:
			if len(data) < 40 {
				return fmt.Errorf("the state of its replacement cannot be read")
			}
			if state := le64(data[32:]); state == 1 || state == 4 { // started, suspended
				return fmt.Errorf("its device is being replaced")
			}
		}
		return nil
	}
	if err := f.walk(&t, root); err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("its device tree lacks the chunk at byte %d", left[0].off)
	}
	return nil
}

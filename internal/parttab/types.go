package parttab

import (
	"fmt"
	"slices"
	"strings"
)

// partType is what is known of a type of partition. It has the type's name, and the
// file systems that real systems put into such partitions.
type partType struct{ name, fs string }

// The file systems have the names that blkid gives them, except that FAT has a name
// for each of its kinds.
const (
	none    = ""
	raw     = "raw" // bytes without any signature, such as boot code, which all count as used
	fat     = "fat12 fat16 fat32"
	windows = "ntfs exfat"
	unix    = "ext2 ext3 ext4 xfs btrfs"
	swap    = "swap"
	lvm     = "LVM2_member"
	linux   = unix + " " + swap + " " + lvm // tools choose the plain Linux type if they are told none
)

func hexType(kind byte) string { return fmt.Sprintf("%02x", kind) }

func lookup(typ string) (t partType, known bool) {
	for _, types := range []map[string]partType{mbrTypes, gptTypes, gptLinuxTypes} {
		if t, known = types[typ]; known {
			return t, true
		}
	}
	return t, false
}

// TypeName is the name of a partition's type for people, or "" if the type is not
// known.
func TypeName(typ string) string {
	t, _ := lookup(typ)
	return t.name
}

// IsRaw reports whether partitions of this type have bytes without a file system,
// such as a boot loader. Then it is no reason for doubt that none is found.
func IsRaw(typ string) bool {
	t, _ := lookup(typ)
	return t.fs == raw
}

// CheckType returns an error if the type is not known, or if no real system puts
// this file system into a partition of this type. A file system that looks sound
// may then be left over from before, and what uses the partition now may keep its
// data at other places (a BSD, ZFS, a RAID).
//
// The names are ext2, ext3, ext4, ntfs, fat12, fat16, fat32, exfat, xfs, btrfs,
// swap and LVM2_member. Any other name is an error.
func CheckType(typ, fs string) error {
	t, known := lookup(typ)
	switch {
	case !known:
		return fmt.Errorf("the partition's type %s is not known", typ)
	case !slices.Contains(strings.Fields(t.fs), fs):
		return fmt.Errorf("the partition's type (%s, %s) is none that holds %s", typ, t.name, fs)
	}
	return nil
}

package parttab

import (
	"fmt"
	"slices"
	"strings"
)

// partType is what is known of a type: its name, and the file systems that real
// systems put into such partitions.
type partType struct{ name, fs string }

// The file systems by the names that blkid has for them, but FAT by its kind.
const (
	none    = ""
	raw     = "raw" // no file system and nothing else that announces itself, as boot code; all of it is used
	fat     = "fat12 fat16 fat32"
	windows = "ntfs exfat"
	unix    = "ext2 ext3 ext4 xfs btrfs"
	swap    = "swap"
	lvm     = "LVM2_member"
	linux   = unix + " " + swap + " " + lvm // the type that tools take if they are told none
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

// TypeName is a name for people of a partition's type, "" if nobody knows it.
func TypeName(typ string) string {
	t, _ := lookup(typ)
	return t.name
}

// IsRaw reports whether partitions of this type hold bytes without a file
// system, as a boot loader or a reserve: that none is found there is no doubt.
func IsRaw(typ string) bool {
	t, _ := lookup(typ)
	return t.fs == raw
}

// CheckType is an error if a partition of this type does not have this file
// system on any real system, or if nobody knows the type. A file system that
// looks sound may then be what an older one left, under something that keeps
// its data elsewhere (a BSD, ZFS, a RAID).
//
// The names are ext2, ext3, ext4, ntfs, fat12, fat16, fat32, exfat, xfs, btrfs,
// swap and LVM2_member; any other is an error.
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

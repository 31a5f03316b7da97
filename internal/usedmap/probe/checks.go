package probe

import "strings"

// isExt checks the fields without which no driver mounts the file system
// (ext4_load_super, ext2fs_open2). A FAT may have its chains at this place. Their
// small numbers fail at least one of the checks. A journal device has no groups.
func isExt(s structure) bool {
	const journalDevice, has64 = 8, 0x80
	blocks := uint64(s.le32(4))
	if s.le32(96)&has64 != 0 {
		blocks |= uint64(s.le32(336)) << 32
	}
	if s.le32(24) > 6 || s.le32(76) > 1 || s.le32(20) > 1 || blocks == 0 {
		return false
	}
	return s.le32(96)&journalDevice != 0 || s.le32(0) != 0 && s.le32(32) != 0 && s.le32(40) != 0
}

// isFAT accepts what any of the usual drivers would mount, since no driver asks for
// a signature. These are fs/fat/inode.c (fat_read_bpb), Windows' fastfat
// (IsBootSectorFat), and the BSDs' msdosfs, which accepts any medium. The package
// that reads FAT is stricter. Other file systems and boot loaders have some of the
// same fields in their boot sectors, as extlinux writes a block like FAT's on an
// ext4. But they have no reserved sectors or no FATs.
func isFAT(s structure) bool {
	oem := string(s.b[3:11])
	jump := s.b[0] == 0xEB || s.b[0] == 0xE9 || s.b[0] == 0x49
	media := s.b[21]
	switch {
	case oem == "NTFS    ", oem == "EXFAT   ", strings.HasPrefix(oem, "ReFS\x00"), isBitLocker(s):
		return false
	case s.has(54, "HPFS    "), s.has(54, "JFS     "): // OS/2 writes a block like FAT's before its own
		return false
	case !power(uint64(s.le16(11)), 128, 32<<10), !power(uint64(s.b[13]), 1, 128):
		return false
	}
	sector, reserved, fats, length := int64(s.le16(11)), int64(s.le16(14)), int64(s.b[16]), int64(s.le16(22))
	if length == 0 {
		length = int64(s.le32(36))
	}
	if reserved == 0 || fats == 0 || fats > 8 || length == 0 || (reserved+fats*length)*sector > s.size {
		return false
	}
	return media >= 0xF8 || media == 0xF0 || jump && s.has(510, "\x55\xAA")
}

// isBitLocker follows libyal/libbde, "BitLocker Drive Encryption (BDE) format".
// Since Windows 7 the boot sector has one of two GUIDs. A volume of BitLocker To Go
// begins with a small FAT for its reader's programs, and the boot sector of this
// FAT has the GUID at another place.
func isBitLocker(s structure) bool {
	const guid, usedOnly = "\x3B\xD6\x67\x49\x29\x2E\xD8\x4A\x83\x99\xF6\xA3\x39\xE3\xD0\x01",
		"\x3B\x4D\xA8\x92\x80\xDD\x0E\x4D\x9E\x4E\xB1\xE3\x28\x4E\xAE\xD8"
	return s.has(3, "-FVE-FS-") || s.has(160, guid) || s.has(160, usedOnly) || s.has(424, guid) || s.has(424, usedOnly)
}

// isXFSLog checks h_version [8], h_len [12] and h_fmt [300].
func isXFSLog(s structure) bool {
	return s.be32(8)-1 < 3 && int32(s.be32(12)) > 0 && s.be32(300)-1 < 3
}

// isAPFS checks nx_block_size [36].
func isAPFS(s structure) bool { return power(uint64(s.le32(36)), 4<<10, 64<<10) }

// isHFS checks drVBMSt [14], drNmAlBlks [18], drAlBlkSiz [20], drFreeBks [34] and
// drVN [36].
func isHFS(s structure) bool {
	size := s.be32(20)
	return s.be16(14) <= 16 && s.be16(18) != 0 && size != 0 && size%512 == 0 &&
		s.be16(34) <= s.be16(18) && s.b[36] <= 27
}

func wrapsHFSPlus(s structure) bool { return s.has(124, "H+") || s.has(124, "HX") }

// isHFSPlus checks blockSize [40], totalBlocks [44] and freeBlocks [48].
func isHFSPlus(s structure) bool {
	return power(uint64(s.be32(40)), 512, 1<<31) && s.be32(44) != 0 && s.be32(48) <= s.be32(44)
}

// isUFS checks fs_bsize [48] and fs_fsize [52]. A block has at most eight fragments.
func isUFS(s structure) bool {
	block, fragment := uint64(s.u32(48)), uint64(s.u32(52))
	return power(block, 512, 1<<20) && power(fragment, 512, block) && block/fragment <= 8
}

// isUberblock checks ub_version [8], which is 1 to 50, or 5000 with feature flags.
func isUberblock(s structure) bool { return s.u64(8)-1 < 0xFFFF }

// isF2FS checks log_sectorsize [8] and log_blocksize [16].
func isF2FS(s structure) bool {
	return s.le32(8) >= 9 && s.le32(8) <= 16 && s.le32(16) >= 12 && s.le32(16) <= 16
}

// isNILFS checks s_rev_level [0], s_bytes [8] and s_log_block_size [20].
func isNILFS(s structure) bool {
	return s.le32(0) <= 16 && s.le32(0) > 0 && s.le16(8) >= 64 && s.le16(8) <= 1024 && s.le32(20) <= 6
}

// isVMFS checks that the block size [0xA1] is a power of two of at least 4 KiB.
func isVMFS(s structure) bool { return power(s.le64(0xA1), 4<<10, 1<<30) }

// isMinix checks that the first data zone [8] is where the counts say. The file
// system has its parts one behind the other without a gap, which are boot block,
// superblock, two bitmaps, inodes and zones. The counts are the inodes [0], the
// blocks of the bitmaps [4] and [6], and the zones [2], or in version 2 [20]. The
// blocks of a zone are given as a power of two [10].
func isMinix(s structure) bool {
	inodes, zones, perBlock := uint64(s.u16(0)), uint64(s.u16(2)), uint64(32)
	if s.magic >= 4 {
		zones, perBlock = uint64(s.u32(20)), 16
	}
	inodeMap, zoneMap, first, shift := uint64(s.u16(4)), uint64(s.u16(6)), uint64(s.u16(8)), s.u16(10)
	if inodes == 0 || shift > 8 || zones <= first || inodeMap<<13 <= inodes || zoneMap<<13 <= zones-first {
		return false
	}
	blocks := 2 + inodeMap + zoneMap + (inodes+perBlock-1)/perBlock
	return first<<shift >= blocks && first<<shift <= blocks+1<<shift+32
}

// isMinix3 checks the inodes [0], the blocks of the bitmaps [6] and [8], the shift
// [12], the zones [20] and the block size [28]. The first zone [10] is 0 if it does
// not fit into the field.
func isMinix3(s structure) bool {
	size := uint64(s.u16(28))
	inodeMap, zoneMap, first := uint64(s.u16(6)), uint64(s.u16(8)), uint64(s.u16(10))
	zones := uint64(s.u32(20))
	return power(size, 1<<10, 64<<10) && s.u16(12) <= 8 && s.u32(0) != 0 && zones > first &&
		inodeMap*size*8 > uint64(s.u32(0)) && zoneMap*size*8 > (zones-first)-zones/16
}

// isSysV checks the block size in s_type [508]. In AFS its number is 16 times as
// large.
func isSysV(s structure) bool { return s.u32(508)-1 < 0x30 }

// findUDF walks the volume recognition sequence (ECMA-167 2/8.3). It has
// descriptors from 32 KiB on, one in each sector of 2 KiB, or one in each block if
// blocks are larger. NSR02 and NSR03 mean UDF. The sequence ends at the first bytes
// that are no descriptor.
func findUDF(w *window) (int64, error) {
	for step := int64(2 << 10); step <= 32<<10; step *= 2 {
		for i := range int64(64) {
			off := 32<<10 + i*step
			b, err := w.bytes(off, 7)
			if err != nil {
				return -1, err
			}
			if b == nil {
				break
			}
			switch string(b[1:6]) {
			case "NSR02", "NSR03":
				return off + 1, nil
			case "BEA01", "BOOT2", "CD001", "CDW02", "TEA01":
				continue
			}
			break
		}
	}
	return -1, nil
}

package probe

// formats are the signatures of file systems, of swap, and of what belongs to
// them. The source of a format is named if it is not the Linux driver of the same
// name. A number in brackets is the offset of a field from the structure's start.
var formats = []signature{
	// fs/ext4/ext4.h, struct ext4_super_block, s_magic [56].
	{name: "ext", start: at(1024), at: 56, magic: []string{"\x53\xEF"}, size: 1024, check: isExt},
	// [MS] BIOS parameter block, OEM ID [3].
	{name: "ntfs", start: at(0), at: 3, magic: []string{"NTFS    "}},
	{name: "fat", start: at(0), size: 512, check: isFAT},
	// [MS] exFAT file system specification 3.1.2.
	{name: "exfat", start: at(0), at: 3, magic: []string{"EXFAT   "}},
	// fs/xfs/libxfs/xfs_format.h, struct xfs_dsb.
	{name: "xfs", start: at(0), magic: []string{"XFSB"}},
	// xfs_log_format.h, struct xlog_rec_header. The log starts again near the
	// start of its device each time its end is reached. A small XFS can have its
	// own log in this place.
	{name: "xfs_external_log", start: every(512, 0, 512), magic: []string{"\xFE\xED\xBA\xBE"}, size: 304, check: isXFSLog, unless: "xfs"},
	// struct xfs_rtsb, on the device with the real-time files.
	{name: "xfs_realtime", start: at(0), magic: []string{"Frog"}},
	// fs/btrfs/fs.h, struct btrfs_super_block, magic [64]. The copies at 64 MiB
	// and 256 GiB are not looked for. They stay when another file system
	// overwrites the first one, and no driver mounts by them.
	{name: "btrfs", start: at(64 << 10), at: 64, magic: []string{"_BHRfS_M"}},
	// include/linux/swap.h, union swap_header. The magic is the last ten bytes of
	// the first page. kernel/power/swap.c and the hibernation tools write another
	// text there. TuxOnIce writes one at the start.
	{name: "swap", start: pageEnds, magic: []string{"SWAPSPACE2"}},
	{name: "swap-v1", start: pageEnds, magic: []string{"SWAP-SPACE"}},
	{name: "swsuspend", start: pageEnds, magic: []string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"}},
	{name: "swsuspend", start: at(0), magic: []string{"\xED\xC3\x02\xE9\x98\x56\xE5\x0C"}},

	// libyal/libfsrefs, "Resilient File System (ReFS)", volume header.
	{name: "ReFS", start: at(0), at: 3, magic: []string{"ReFS\x00"}},
	{name: "hpfs", start: at(8 << 10), magic: []string{"\x49\xE8\x95\xF9\xC5\xE9\x53\xFA"}},
	// [Apple] File System Reference, nx_superblock_t, nx_magic [32].
	{name: "apfs", start: at(0), at: 32, magic: []string{"NXSB"}, size: 40, check: isAPFS},
	// [Apple] TN1150 and "Inside Macintosh: Files". An HFS may be the wrapper of
	// an HFS Plus. The field drEmbedSigWord [124] of the master directory block
	// says so.
	{name: "hfsplus", start: at(1024), magic: []string{"H+\x00\x04", "HX\x00\x05"}, size: 52, check: isHFSPlus},
	{name: "hfsplus", start: at(1024), magic: []string{"BD"}, size: 126, check: func(s structure) bool { return isHFS(s) && wrapsHFSPlus(s) }},
	{name: "hfs", start: at(1024), magic: []string{"BD"}, size: 126, check: func(s structure) bool { return isHFS(s) && !wrapsHFSPlus(s) }},

	// sys/ufs/ffs/fs.h of the BSDs, struct fs, fs_magic [1372]. UFS1 is at 8 KiB,
	// UFS2 at 64 KiB, 256 KiB or 0. The other magics are those of Solaris and
	// HP-UX, and of a newfs that did not end.
	{name: "ufs", start: at(0, 8<<10, 64<<10, 256<<10), at: 1372, size: 1376, check: isUFS,
		magic: both[uint32](0x00011954, 0x19540119, 0x00095014, 0x00195612, 0x00612195, 0x05231994, 0x19960408)},
	{name: "lfs", start: at(8 << 10), magic: both[uint32](0x00070162), size: 8, check: func(s structure) bool { return s.u32(4) <= 8 }},
	// DragonFly, hammer_disk.h and hammer2_disk.h.
	{name: "hammer", start: at(0), magic: both[uint64](0xC8414D4DC5523031)},
	{name: "hammer2", start: at(0), magic: both[uint64](0x48414D3205172011)},
	// OpenZFS, uberblock_impl.h. There are four labels of 256 KiB, two at the
	// start and two at the end. The second half of each label is a ring of slots
	// of 1 KiB or a multiple.
	{name: "zfs_member", start: uberblocks(), magic: both[uint64](0x00BAB10C), size: 16, check: isUberblock},

	{name: "reiserfs", start: at(64 << 10), at: 52, magic: []string{"ReIsErFs", "ReIsEr2Fs", "ReIsEr3Fs"}},
	{name: "reiserfs", start: at(8 << 10), at: 52, magic: []string{"ReIsErFs"}},
	{name: "reiserfs", start: at(8 << 10), at: 20, magic: []string{"ReIsErFs"}},
	{name: "reiser4", start: at(64 << 10), magic: []string{"ReIsEr4"}},
	// fs/jfs/jfs_superblock.h, and for an external log jfs_logmgr.h, struct
	// logsuper.
	{name: "jfs", start: at(32 << 10), magic: []string{"JFS1"}, size: 20,
		check: func(s structure) bool { return power(uint64(s.le32(16)), 512, 64<<10) }},
	{name: "jfs_log", start: at(4 << 10), magic: []string{"\x21\x43\x65\x87"}, size: 8,
		check: func(s structure) bool { return s.le32(4) <= 8 }},
	{name: "f2fs", start: at(1024, 4096+1024), magic: []string{"\x10\x20\xF5\xF2"}, size: 20, check: isF2FS},
	// The second superblock is in the last whole block of 4 KiB.
	{name: "nilfs2", start: append(at(1024), append(back(4<<10, 4<<10), back(512, 4<<10)...)...), at: 6, magic: []string{"\x34\x34"},
		size: 24, check: isNILFS},
	{name: "bcachefs", start: at(4 << 10), at: 24, magic: []string{"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF"}},
	// struct bch_sb_layout in sector 7 says where the copies of the superblock are.
	{name: "bcachefs", start: at(7 * 512), magic: []string{"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF", bcacheMagic}},
	{name: "erofs", start: at(1024), magic: []string{"\xE2\xE1\xF5\xE0"}, size: 13,
		check: func(s structure) bool { return s.b[12] >= 9 && s.b[12] <= 16 }},
	{name: "squashfs", start: at(0), magic: []string{"hsqs", "sqsh", "qshs", "shsq"}},
	{name: "cramfs", start: at(0, 512), magic: both[uint32](0x28CD3D45), size: 32,
		check: func(s structure) bool { return s.has(16, "Compressed ROMFS") }},
	{name: "romfs", start: at(0), magic: []string{"-rom1fs-"}},
	{name: "zonefs", start: at(0), magic: []string{"SFOZ"}},
	{name: "exfs", start: at(0), magic: []string{"EXFS"}},
	{name: "ubifs", start: at(0), magic: []string{"\x31\x18\x10\x06"}, size: 21, check: func(s structure) bool { return s.b[20] == 6 }},
	{name: "ubi", start: at(0), magic: []string{"UBI#"}},
	// ECMA-119 8.1, High Sierra, and ECMA-167 2/9.1.
	{name: "iso9660", start: at(32 << 10), at: 1, magic: []string{"CD001"}},
	{name: "iso9660", start: at(32 << 10), at: 9, magic: []string{"CDROM"}, size: 15, check: func(s structure) bool { return s.b[14] == 1 }},
	{name: "udf", find: findUDF},

	// include/uapi/linux/gfs2_ondisk.h, struct gfs2_sb, mh_type [4], sb_fs_format [24].
	{name: "gfs", start: at(64 << 10), magic: []string{"\x01\x16\x19\x70"}, size: 28,
		check: func(s structure) bool { return s.be32(4) == 1 && s.be32(24) == 1309 }},
	{name: "gfs2", start: at(64 << 10), magic: []string{"\x01\x16\x19\x70"}, size: 28,
		check: func(s structure) bool { return s.be32(4) == 1 && s.be32(24) != 1309 }},
	{name: "ocfs", start: at(8 << 10), magic: []string{"OracleCFS"}},
	{name: "ocfs2", start: at(1024, 2048, 4096, 8192), magic: []string{"OCFSV2"}},
	// glandium/vmfs-tools, vmfs_volume.h and vmfs_fs.h. The first header is that
	// of the volume. The second is that of the file system. It is looked for at its
	// place on the logical volume, and where that place lies on the disk.
	{name: "VMFS_volume_member", start: at(1 << 20), magic: []string{"\x0D\xD0\x01\xC0"}, size: 8,
		check: func(s structure) bool { return s.le32(4) < 256 }},
	{name: "VMFS", start: at(2<<20, 19<<20), magic: []string{"\x5E\xF1\xAB\x2F", "\x5F\xF1\xAB\x2F"}, size: 0xA9, check: isVMFS},
	{name: "vxfs", start: at(1024), magic: []string{"\xF5\xFC\x01\xA5"}},
	{name: "vxfs", start: at(8 << 10), magic: []string{"\xA5\x01\xFC\xF5"}},
	// util-linux, libblkid/src/superblocks, scoutfs.c and netware.c.
	{name: "scoutfs", start: at(64 << 10), at: 4, magic: []string{"\x8B\x42\x3C\x10"}, size: 32,
		check: func(s structure) bool { return s.le64(24) == 16 }},
	{name: "nss", start: at(4 << 10), magic: []string{"SPB5"}},
	{name: "minix", start: at(1024), at: 16, magic: both[uint16](0x137F, 0x138F, 0x2468, 0x2478), size: 24, check: isMinix, unless: "ext"},
	{name: "minix", start: at(1024), at: 24, magic: both[uint16](0x4D5A), size: 30, check: isMinix3, unless: "ext"},
	// fs/sysv/super.c of Linux up to 6.14.
	{name: "sysv", start: at(512, 9<<10+512, 15<<10+512, 18<<10+512), at: 504, magic: both[uint32](0xFD187E20), size: 512, check: isSysV},
	{name: "xenix", start: at(1024), at: 1016, magic: both[uint32](0x002B5544), size: 1024,
		check: func(s structure) bool { return s.u32(1020) == 1 || s.u32(1020) == 2 }},
	// fs/bfs (SCO, UnixWare).
	{name: "bfs", start: at(0), magic: []string{"\xCE\xFA\xAD\x1B"}},
	{name: "efs", start: at(512), at: 28, magic: []string{"\x00\x07\x29\x59", "\x00\x07\x29\x5A"}},
	{name: "befs", start: at(0, 512), at: 32, magic: both[uint32](0x42465331), size: 72,
		check: func(s structure) bool { return s.u32(68) == 0xDD121031 }},
	{name: "qnx4", start: at(512), magic: []string{"/\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}, size: 52,
		check: func(s structure) bool { return s.le16(50)&0xF000 == 0x4000 }},
	{name: "qnx6", start: at(8<<10, 0), magic: both[uint32](0x68191122)},
	// Amiga. The type of the file system is the first word of the volume.
	{name: "affs", start: at(0), magic: []string{"DOS\x00", "DOS\x01", "DOS\x02", "DOS\x03", "DOS\x04", "DOS\x05", "DOS\x06", "DOS\x07",
		"PFS\x01", "PFS\x02", "PFS\x03", "SFS\x00", "SFS\x02"}},
	// OpenVMS Files-11, the home block's format name.
	{name: "files11", start: at(512), at: 496, magic: []string{"DECFILE11"}},
}

// pageEnds are the places of the last ten bytes of the first page. Pages of 8, 16,
// 32 and 64 KiB are those of kernels for Alpha, SPARC, ARM, POWER, MIPS and
// Itanium.
var pageEnds = at(4<<10-10, 8<<10-10, 16<<10-10, 32<<10-10, 64<<10-10)

// uberblocks gives the places of all slots of all four rings.
func uberblocks() []place {
	const label, half, slot = 256 << 10, 128 << 10, 1 << 10
	var out []place
	for i := int64(half); i < label; i += slot {
		out = append(out, place{i, 0}, place{label + i, 0}, place{2*label - i, label}, place{label - i, label})
	}
	return out
}

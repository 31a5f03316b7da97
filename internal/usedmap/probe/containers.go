package probe

// bcacheMagic is also that of the first versions of bcachefs.
const bcacheMagic = "\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81"

// containers have volumes inside: volume managers, encryption, RAID. The
// sources are as in formats; libblkid is that of util-linux.
var containers = []signature{
	// lvm2, lib/format_text/layout.h, struct label_header: in one of the first
	// four sectors of 512 bytes. LVM1 is lib/format1/disk-rep.h, struct pv_disk.
	{name: "LVM2_member", start: every(512, 0, 4), magic: []string{"LABELONE"}},
	{name: "LVM1_member", start: at(0), magic: []string{"HM\x01\x00", "HM\x02\x00"}, size: 12,
		check: func(s structure) bool { return s.le32(4) == 0 && s.le32(8)-1 < 64<<10 }},
	// cryptsetup, LUKS On-Disk Format 1 and 2. The second header of LUKS2 is
	// where the first ends, and says where that is [256].
	{name: "crypto_LUKS", start: at(0), magic: []string{"LUKS\xBA\xBE"}},
	{name: "crypto_LUKS", start: at(16<<10, 32<<10, 64<<10, 128<<10, 256<<10, 512<<10, 1<<20, 2<<20, 4<<20),
		magic: []string{"SKUL\xBA\xBE\x00\x02"}, size: 264, check: func(s structure) bool { return s.be64(256) == uint64(s.off) }},
	{name: "BitLocker", start: at(0), size: 512, check: isBitLocker},
	// libyal/libfvde, "FileVault Drive Encryption (FVDE)": a CoreStorage volume.
	{name: "cs_fvault2", start: at(0), at: 88, magic: []string{"CS\x01\x00\x00\x00"}, size: 94,
		check: func(s structure) bool { return s.le16(8) == 1 && s.le16(10) == 0x10 }},
	// OpenBSD, softraidvar.h, SR_META_OFFSET.
	{name: "softraid", start: at(8 << 10), magic: both[uint64](0x4D4152436372616D)},
	// FreeBSD's GEOM classes (geli, gmirror, graid3 ...): the last sector.
	{name: "geom", start: append(back(512, 512), back(4<<10, 4<<10)...), magic: []string{"GEOM::"}},

	// include/uapi/linux/raid/md_p.h: mdp_super_t of version 0.90 is
	// in the order of the machine's bytes and in the last whole 64 KiB but one;
	// mdp_superblock_1 is at the end (1.0), the start (1.1) or 4 KiB (1.2), and
	// says where, in sectors [144].
	{name: "linux_raid_member", start: back(64<<10, 64<<10), magic: both[uint32](0xA92B4EFC), size: 12,
		check: func(s structure) bool { return s.u32(4) == 0 && s.u32(8) < 256 }},
	{name: "linux_raid_member", start: append(at(0, 4<<10), back(4<<10, 8<<10)...), magic: []string{"\xFC\x4E\x2B\xA9\x01\x00\x00\x00"},
		size: 152, check: func(s structure) bool { return s.le64(144) == uint64(s.off)/512 }},
	// drivers/md/bcache, struct cache_sb: magic [24].
	{name: "bcache", start: at(4 << 10), at: 24, magic: []string{bcacheMagic}},
	{name: "DM_snapshot_cow", start: at(0), magic: []string{"SnAp"}},
	{name: "DM_verity_hash", start: at(0), magic: []string{"verity\x00\x00"}},
	{name: "DM_integrity", start: at(0), magic: []string{"integrt\x00"}},
	{name: "vdo", start: at(0), magic: []string{"dmvdo001"}},
	{name: "stratis", start: at(512, 9*512), at: 4, magic: []string{"!Stra0tis\x86\xFF\x02^\x41rh"}},
	{name: "ceph_bluestore", start: at(0), magic: []string{"bluestore block device"}},
	{name: "mpool", start: at(0), magic: []string{"mpoolDev"}},
	// libblkid: drbd.c, drbdmanage.c, drbdproxy_datalog.c, ocfs.c, opensvc_hb.c.
	{name: "drbd", start: append(back(4<<10, 4<<10), back(512, 4<<10)...), at: 60,
		magic: []string{"\x83\x74\x02\x6B", "\x83\x74\x02\x6C", "\x83\x74\x02\x6D"}},
	{name: "drbdmanage_control_volume", start: at(0), magic: []string{"$DRBDmgr=q"}},
	{name: "drbdproxy_datalog", start: at(0), magic: []string{"DRBDdlh*"}},
	{name: "oracleasm", start: at(0), at: 32, magic: []string{"ORCLDISK"}},
	{name: "opensvc_hb", start: at(0), at: 4, magic: []string{"\x3D\xC1\x3C\x87\xC0\x5B\xE3\xB6"}},
	// Windows: the disk header of a storage pool, and its database behind it.
	{name: "storage_spaces", start: at(0), magic: []string{"SPACEDB "}},
	{name: "storage_spaces", start: at(4 << 10), magic: []string{"SDBC    "}},
	// block/partitions/ldm.h: PRIVHEAD and TOCBLOCK of a dynamic disk, in sector
	// 6 of the disk and in its last MiB, which on a GPT is a partition.
	{name: "ldm", start: append(at(6*512, 6*4<<10), append(back(512, 512, 1<<20-1856*512), back(4<<10, 4<<10)...)...),
		magic: []string{"PRIVHEAD"}},
	{name: "ldm", start: back(512, 1<<20-512, 1<<20-2*512, 3*512, 2*512), magic: []string{"TOCBLOCK"}},
	// Apple, AppleRAIDMember.h: the last whole 4 KiB.
	{name: "apple_raid", start: back(4<<10, 4<<10), magic: []string{"AppleRAIDHeader"}},
	{name: "hpux_lvm", start: at(8 << 10), magic: []string{"LVMREC01"}},
	{name: "netware", start: at(32 * 512), magic: []string{"HOTFIX00"}},

	// SNIA, Common RAID Disk Data Format: the anchor header is the last sector.
	{name: "ddf_raid_member", start: append(back(512, 512, 257*512), back(4<<10, 4<<10)...), magic: both[uint32](0xDE11DE11), size: 33,
		check: func(s structure) bool { return s.b[32] == '0' }},
	// RAIDs of mainboards and simple controllers, made by their BIOS: dmraid,
	// lib/format/ataraid. All count back from the disk's end.
	{name: "isw_raid_member", start: append(back(512, 2*512), back(4<<10, 2*4<<10)...), magic: []string{"Intel Raid ISM Cfg Sig. "}},
	{name: "lsi_mega_raid_member", start: back(512, 512), magic: []string{"$XIDE$"}},
	{name: "via_raid_member", start: back(512, 512), magic: []string{"\x55\xAA"}, size: 51, check: isVIA},
	{name: "silicon_medley_raid_member", start: back(512, 512), at: 0x60, magic: []string{"\x00\x00\x00\x2F"}, size: 512, check: isSilicon},
	{name: "nvidia_raid_member", start: back(512, 2*512), magic: []string{"NVIDIA"}, size: 12,
		check: func(s structure) bool { return s.le32(8)-1 < 128 }},
	{name: "promise_fasttrack_raid_member", start: promisePlaces, magic: []string{"Promise Technology, Inc."}},
	{name: "hpt45x_raid_member", start: back(512, 11*512), magic: []string{"\xF3\x16\x78\x5A", "\xFD\x16\x78\x5A"}},
	{name: "hpt37x_raid_member", start: at(9 * 512), at: 32, magic: []string{"\xF0\x16\x78\x5A", "\xFD\x16\x78\x5A"}},
	{name: "adaptec_raid_member", start: back(512, 512), magic: []string{"\x37\xFC\x4D\x1E"}, size: 260,
		check: func(s structure) bool { return s.has(256, "DPTM") }},
	{name: "jmicron_raid_member", start: back(512, 512), magic: []string{"JM"}, size: 128, check: isJMicron},
}

// promisePlaces are all that dmraid looks at: they depend on the geometry that
// the BIOS gave the disk.
var promisePlaces = back(512, 63*512, 255*512, 256*512, 16*512, 399*512, 591*512, 675*512, 735*512, 911*512, 974*512, 991*512, 951*512,
	3087*512)

// isVIA: the version [2], a sum of bytes [50].
func isVIA(s structure) bool {
	sum := byte(0)
	for _, c := range s.b[:50] {
		sum += c
	}
	return s.b[2] <= 2 && sum == s.b[50]
}

// isSilicon: the disk's number [0x116], the sum of the words before it [0x13E].
func isSilicon(s structure) bool {
	return s.b[0x116] < 8 && words(s, 0x140) == 0
}

// isJMicron: the words of the block add up to 0, or to 1 with some versions.
func isJMicron(s structure) bool { return words(s, 128) <= 1 }

// words is the sum of the first n bytes as little-endian words.
func words(s structure, n int) uint16 {
	sum := uint16(0)
	for i := 0; i < n; i += 2 {
		sum += s.le16(i)
	}
	return sum
}

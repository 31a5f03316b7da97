package probe

// bcacheMagic is the magic of bcache, and of the first versions of bcachefs.
const bcacheMagic = "\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81"

// containers are the signatures of volumes that have other volumes inside, such as
// volume managers, encryption and RAID. Sources are named as in formats. libblkid
// is part of util-linux.
var containers = []signature{
	// lvm2, lib/format_text/layout.h, struct label_header. It lies in one of the
	// first four sectors of 512 bytes. For LVM1, lib/format1/disk-rep.h, struct
	// pv_disk.
	{name: "LVM2_member", start: every(512, 0, 4), magic: []string{"LABELONE"}},
	{name: "LVM1_member", start: at(0), magic: []string{"HM\x01\x00", "HM\x02\x00"}, size: 12,
		check: func(s structure) bool { return s.le32(4) == 0 && s.le32(8)-1 < 64<<10 }},
	// cryptsetup, LUKS On-Disk Format 1 and 2. The second header of LUKS2 lies
	// where the first one ends, and has its own place in it [256].
	{name: "crypto_LUKS", start: at(0), magic: []string{"LUKS\xBA\xBE"}},
	{name: "crypto_LUKS", start: at(16<<10, 32<<10, 64<<10, 128<<10, 256<<10, 512<<10, 1<<20, 2<<20, 4<<20),
		magic: []string{"SKUL\xBA\xBE\x00\x02"}, size: 264, check: func(s structure) bool { return s.be64(256) == uint64(s.off) }},
	{name: "BitLocker", start: at(0), size: 512, check: isBitLocker},
	// A CoreStorage volume, libyal/libfvde, "FileVault Drive Encryption (FVDE)".
	{name: "cs_fvault2", start: at(0), at: 88, magic: []string{"CS\x01\x00\x00\x00"}, size: 94,
		check: func(s structure) bool { return s.le16(8) == 1 && s.le16(10) == 0x10 }},
	// OpenBSD, softraidvar.h, SR_META_OFFSET.
	{name: "softraid", start: at(8 << 10), magic: both[uint64](0x4D4152436372616D)},
	// FreeBSD's GEOM classes (geli, gmirror, graid3 ...), in the last sector.
	{name: "geom", start: append(back(512, 512), back(4<<10, 4<<10)...), magic: []string{"GEOM::"}},

	// include/uapi/linux/raid/md_p.h. mdp_super_t of version 0.90 has the byte
	// order of its machine, and lies 64 KiB before the end, rounded down to 64
	// KiB. mdp_superblock_1 lies at the end (1.0), at the start (1.1) or at 4 KiB
	// (1.2), and has its own place in it, in sectors [144].
	{name: "linux_raid_member", start: back(64<<10, 64<<10), magic: both[uint32](0xA92B4EFC), size: 12,
		check: func(s structure) bool { return s.u32(4) == 0 && s.u32(8) < 256 }},
	{name: "linux_raid_member", start: append(at(0, 4<<10), back(4<<10, 8<<10)...), magic: []string{"\xFC\x4E\x2B\xA9\x01\x00\x00\x00"},
		size: 152, check: func(s structure) bool { return s.le64(144) == uint64(s.off)/512 }},
	// drivers/md/bcache, struct cache_sb, magic [24].
	{name: "bcache", start: at(4 << 10), at: 24, magic: []string{bcacheMagic}},
	{name: "DM_snapshot_cow", start: at(0), magic: []string{"SnAp"}},
	{name: "DM_verity_hash", start: at(0), magic: []string{"verity\x00\x00"}},
	{name: "DM_integrity", start: at(0), magic: []string{"integrt\x00"}},
	{name: "vdo", start: at(0), magic: []string{"dmvdo001"}},
	{name: "stratis", start: at(512, 9*512), at: 4, magic: []string{"!Stra0tis\x86\xFF\x02^\x41rh"}},
	{name: "ceph_bluestore", start: at(0), magic: []string{"bluestore block device"}},
	{name: "mpool", start: at(0), magic: []string{"mpoolDev"}},
	// libblkid's drbd.c, drbdmanage.c, drbdproxy_datalog.c, ocfs.c, opensvc_hb.c.
	{name: "drbd", start: append(back(4<<10, 4<<10), back(512, 4<<10)...), at: 60,
		magic: []string{"\x83\x74\x02\x6B", "\x83\x74\x02\x6C", "\x83\x74\x02\x6D"}},
	{name: "drbdmanage_control_volume", start: at(0), magic: []string{"$DRBDmgr=q"}},
	{name: "drbdproxy_datalog", start: at(0), magic: []string{"DRBDdlh*"}},
	{name: "oracleasm", start: at(0), at: 32, magic: []string{"ORCLDISK"}},
	{name: "opensvc_hb", start: at(0), at: 4, magic: []string{"\x3D\xC1\x3C\x87\xC0\x5B\xE3\xB6"}},
	// The disk header of a storage pool of Windows, and the database behind it.
	{name: "storage_spaces", start: at(0), magic: []string{"SPACEDB "}},
	{name: "storage_spaces", start: at(4 << 10), magic: []string{"SDBC    "}},
	// block/partitions/ldm.h. A dynamic disk has PRIVHEAD and TOCBLOCK in sector 6
	// and in its last MiB. On a GPT that last MiB is a partition.
	{name: "ldm", start: append(at(6*512, 6*4<<10), append(back(512, 512, 1<<20-1856*512), back(4<<10, 4<<10)...)...),
		magic: []string{"PRIVHEAD"}},
	{name: "ldm", start: back(512, 1<<20-512, 1<<20-2*512, 3*512, 2*512), magic: []string{"TOCBLOCK"}},
	// Apple, AppleRAIDMember.h, in the last whole 4 KiB.
	{name: "apple_raid", start: back(4<<10, 4<<10), magic: []string{"AppleRAIDHeader"}},
	{name: "hpux_lvm", start: at(8 << 10), magic: []string{"LVMREC01"}},
	{name: "netware", start: at(32 * 512), magic: []string{"HOTFIX00"}},

	// SNIA, Common RAID Disk Data Format. The anchor header is the last sector.
	{name: "ddf_raid_member", start: append(back(512, 512, 257*512), back(4<<10, 4<<10)...), magic: both[uint32](0xDE11DE11), size: 33,
		check: func(s structure) bool { return s.b[32] == '0' }},
	// RAIDs of mainboards and simple controllers, made by their BIOS. The source
	// is dmraid, lib/format/ataraid. Nearly all places count back from the end.
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

// promisePlaces are all places that dmraid looks at. Which one is right depends on
// the geometry that the BIOS gave the disk.
var promisePlaces = back(512, 63*512, 255*512, 256*512, 16*512, 399*512, 591*512, 675*512, 735*512, 911*512, 974*512, 991*512, 951*512,
	3087*512)

// isVIA checks the version [2], and a sum of the bytes before it [50].
func isVIA(s structure) bool {
	sum := byte(0)
	for _, c := range s.b[:50] {
		sum += c
	}
	return s.b[2] <= 2 && sum == s.b[50]
}

// isSilicon checks the disk's number [0x116], and a checksum that makes the sum of
// all words zero [0x13E].
func isSilicon(s structure) bool {
	return s.b[0x116] < 8 && words(s, 0x140) == 0
}

// isJMicron checks that the words of the block add up to 0, or to 1 as in some
// versions.
func isJMicron(s structure) bool { return words(s, 128) <= 1 }

// words is the sum of the first n bytes as little-endian words.
func words(s structure, n int) uint16 {
	sum := uint16(0)
	for i := 0; i < n; i += 2 {
		sum += s.le16(i)
	}
	return sum
}

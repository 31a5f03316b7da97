package probe

// tables are partition tables other than "dos" and "gpt". On a disk that has "dos"
// or "gpt" too, they contradict it. In a partition, they divide it further.
var tables = []signature{
	// sys/disklabel.h of the BSDs, d_magic [0], d_magic2 [132]. The label is in
	// sector 1, or on some machines in sector 0.
	{name: "bsd", start: at(512, 0, 64, 128, 4<<10), magic: both[uint32](0x82564557), size: 136,
		check: func(s structure) bool { return s.u32(132) == 0x82564557 }},
	// Solaris on x86, sys/vtoc.h, v_sanity [12]. It is in sector 1 of its partition.
	{name: "solaris", start: at(512, 4<<10), at: 12, magic: []string{"\xEE\xDE\x0D\x60"}, size: 20,
		check: func(s structure) bool { return s.le32(16) == 1 }},
	// UnixWare, in sector 29 of its partition.
	{name: "unixware", start: at(29 * 512), at: 4, magic: []string{"\x0D\x60\x5E\xCA"}},
	// block/partitions, sun.c, sgi.c, mac.c, amiga.c, ultrix.c and aix.c.
	{name: "sun", start: at(0), at: 508, magic: []string{"\xDA\xBE"}, size: 512, check: isSun},
	{name: "sgi", start: at(0), magic: []string{"\x0B\xE5\xA9\x41"}},
	{name: "mac", start: at(512), magic: []string{"PM\x00\x00"}, size: 16,
		check: func(s structure) bool { return s.be32(4)-1 < 256 && s.be32(12) != 0 }},
	{name: "amiga_rdb", start: every(512, 0, 16), magic: []string{"RDSK"}, size: 8,
		check: func(s structure) bool { return s.be32(4)-1 < 128 }},
	{name: "ultrix", start: at(16<<10 - 72), magic: []string{"\x57\x29\x03\x00\x01\x00\x00\x00"}},
	{name: "aix", start: at(0), magic: []string{"\xC9\xC2\xD4\xC1"}},
}

// nestedTables are the tables "dos" and "gpt". They are looked for on volumes that
// normally have no table.
var nestedTables = []signature{
	{name: "gpt", start: at(0), at: 510, magic: []string{"\x55\xAA"}, size: 512,
		check: func(s structure) bool { return isMBR(s) && protects(s) }},
	{name: "dos", start: at(0), at: 510, magic: []string{"\x55\xAA"}, size: 512,
		check: func(s structure) bool { return isMBR(s) && !protects(s) }},
}

// isMBR checks that a boot record divides the volume. The boot sector of a file
// system has the same signature, but does not divide it. So all partitions must lie
// on the volume, and an entry that begins at sector 0 does not count. mkfs.fat and
// isohybrid write such an entry, for the whole volume, because of the BIOS. The
// check assumes sectors of 512 bytes, the smallest size.
func isMBR(s structure) bool {
	partitions := 0
	for e := 446; e < 510; e += 16 {
		kind, first, sectors := s.b[e+4], s.le32(e+8), s.le32(e+12)
		fits := int64(first)+int64(sectors) <= s.size/512
		switch {
		case s.b[e]&0x7F != 0:
			return false
		case kind == 0 || first == 0 || sectors == 0:
		case fits || kind == protective:
			partitions++
		default:
			return false
		}
	}
	return partitions > 0
}

// protective is the type of the partition that stands for a GPT (UEFI 5.2.3).
const protective = 0xEE

func protects(s structure) bool {
	return s.b[450] == protective || s.b[466] == protective || s.b[482] == protective || s.b[498] == protective
}

// isSun checks the label's checksum. The exclusive or of all its words is zero.
func isSun(s structure) bool {
	sum := uint16(0)
	for i := 0; i < 512; i += 2 {
		sum ^= s.be16(i)
	}
	return sum == 0
}

package probe

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// sample is something that announces itself, made by hand from its format:
// for each offset the bytes there, hexadecimal or, after a quote, as text.
type sample struct {
	name string
	off  int64 // of the magic
	size int64 // of the volume
	at   map[int64]string
}

const (
	kib = 1 << 10
	mib = 1 << 20
	vol = 72 * mib // of a sample
)

// where writes the parts of a structure that starts at base.
func where(base int64, parts map[int64]string) map[int64]string {
	out := map[int64]string{}
	for off, b := range parts {
		out[base+off] = b
	}
	return out
}

// disk is the volume of the sample.
func (s sample) disk() *disk {
	d := &disk{size: s.size}
	for off, text := range s.at {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if t, ok := strings.CutPrefix(text, "'"); ok {
			b, err = []byte(t), nil
		}
		if err != nil {
			panic(err)
		}
		d.put(off, b)
	}
	return d
}

// disk is bytes at some places of a volume of zeros.
type disk struct {
	size  int64
	spots []spot
}

type spot struct {
	off   int64
	bytes []byte
}

func (d *disk) put(off int64, b []byte) {
	d.spots = append(d.spots, spot{off, b})
}

// over puts another disk's bytes over this one's, from off on.
func (d *disk) over(other *disk, off int64) {
	for _, s := range other.spots {
		d.put(off+s.off, s.bytes)
	}
}

// ReadAt reads as of a file.
func (d *disk) ReadAt(b []byte, off int64) (int, error) {
	n := int(min(int64(len(b)), max(0, d.size-off)))
	clear(b[:n])
	for _, s := range d.spots {
		if from := s.off - off; from >= 0 && from < int64(n) {
			copy(b[from:n], s.bytes)
		} else if from < 0 && -from < int64(len(s.bytes)) {
			copy(b[:n], s.bytes[-from:])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (s sample) String() string { return fmt.Sprintf("%s at %d of %d", s.name, s.off, s.size) }

type parts = map[int64]string

// samples are all the ways in which things announce themselves.
func samples() []sample {
	var out []sample
	add := func(name string, off int64, at parts) { out = append(out, sample{name, off, vol, at}) }
	// each adds a structure at several places; magic is the offset in it.
	each := func(name string, places []int64, magic int64, p parts) {
		for _, base := range places {
			if base < 0 {
				base += vol
			}
			add(name, base+magic, where(base, p))
		}
	}
	start := []int64{0}
	last := []int64{-512}

	for _, incompat := range []string{"42000000", "c2020000", "00000000"} { // ext4 with and without 64bit, ext2
		add("ext", 1080, where(1024, parts{0: "00200000 00800000",
			12: "00100000 f01f0000 00000000 02000000 02000000 00200000 00200000 00200000", 56: "53ef 0100", 76: "01000000", 88: "0001",
			96: incompat}))
	}
	add("ext", 1080, where(1024, parts{4: "00040000", 20: "01000000", 56: "53ef", 76: "01000000", 96: "08000000"})) // an external journal
	add("ext", 1080, where(1024, parts{0: "80000000 00080000", 20: "01000000", 32: "00200000 00200000 80000000", 56: "53ef 0100"}))
	add("ntfs", 3, parts{0: "eb5290", 3: "'NTFS    ", 11: "00020800000000000000f80000", 510: "55aa"})
	add("exfat", 3, parts{0: "eb7690", 3: "'EXFAT   ", 108: "090300018055aa", 510: "55aa"})
	add("ReFS", 3, parts{3: "'ReFS", 16: "'FSRS"})
	for _, bpb := range []string{
		"eb3c906d6b66732e666174 0002 04 0100 02 0002 0080 f8 2000",                                      // FAT12 and 16 of mkfs.fat
		"eb58904d53444f53352e30 0002 08 2000 02 0000 0000 f8 0000 3f00 ff00 00080000 00003c00 000f0000", // FAT32 of Windows
		"e90000'IBM  3.1 0002 02 0100 02 7000 d002 fd 0200 0900 0200",                                   // a floppy of DOS, with no signature
		"eb3490'MTOO4043 0010 01 0100 01 0002 0080 f0 2000",                                             // sectors of 4 KiB, one FAT
		"000000'00000000 0002 01 0200 02 0002 0080 fa 2000",                                             // no jump: Linux takes it
		"601c00'        0020 02 0100 02 0001 0080 f8 2000",                                              // Atari, sectors of 8 KiB
	} {
		at := parts{}
		if head, tail, ok := strings.Cut(bpb, "'"); ok {
			at[0] = head
			at[3] = "'" + tail[:8]
			at[11] = tail[8:]
		} else {
			at[0] = bpb
		}
		add("fat", 0, at)
	}
	add("fat", 0, parts{0: "eb3c90", 11: "0002 01 0100 02 e000 400b 00 0900", 510: "55aa"}) // a medium that only the BSDs take
	add("xfs", 0, parts{0: "'XFSB", 4: "00001000 0000000000001000"})
	each("xfs_external_log", []int64{0, 512, 100 * kib, 256*kib - 512}, 0, parts{0: "feedbabe 00000001 00000002 00000200", 300: "00000001"})
	add("xfs_realtime", 0, parts{0: "'Frog"})
	add("btrfs", 65600, parts{65600: "'_BHRfS_M"})
	for _, page := range []int64{4 * kib, 8 * kib, 16 * kib, 32 * kib, 64 * kib} {
		head := parts{1024: "01000000 ff0f0000"}
		for name, texts := range map[string][]string{"swap": {"SWAPSPACE2"}, "swap-v1": {"SWAP-SPACE"},
			"swsuspend": {"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"}} {
			for _, text := range texts {
				at := where(0, head)
				at[page-10] = "'" + text
				add(name, page-10, at)
			}
		}
	}
	add("swsuspend", 0, parts{0: "edc302e99856e50c", 4086: "'TuxOnIce"})
	add("hpfs", 8192, parts{0: "eb3c90 4f53322032302e30 0002 04 0100 02 0002 0080 f8 2000", 38: "28", 54: "'HPFS    ", 510: "55aa",
		8192: "49e895f9 c5e953fa 0202", 8704: "491891f9"})
	add("apfs", 32, parts{8: "0100000000000000 0200000000000000 01000080 00000000", 32: "'NXSB", 36: "00100000 0018000000000000"})
	mdb := parts{0: "'BD", 10: "0100 0000 0003 0000 5dc0 00001000 00004000 0010 00000010 5d00 05", 37: "'label"}
	add("hfs", 1024, where(1024, mdb))
	mdb[124] = "'H+"
	wrapped := where(1024, mdb)
	for off, b := range where(16*512+1024, parts{0: "'H+", 2: "0004", 40: "00001000 00001000 00000800"}) {
		wrapped[off] = b
	}
	add("hfsplus", 1024, wrapped)
	add("hfsplus", 1024, where(1024, parts{0: "'H+", 2: "0004", 40: "00001000 00001000 00000800"}))
	add("hfsplus", 1024, where(1024, parts{0: "'HX", 2: "0005", 40: "00002000 00001000 00001000"}))
	for _, magic := range []string{"54190100", "19015419", "14500900", "12561900", "95216100", "94192305", "08049619"} {
		each("ufs", []int64{0, 8 * kib, 64 * kib, 256 * kib}, 1372, parts{48: "00400000 00080000", 1372: magic})
		each("ufs", []int64{0, 8 * kib, 64 * kib, 256 * kib}, 1372, parts{48: "00002000 00002000", 1372: swapped(magic)})
	}
	add("lfs", 8192, parts{8192: "62010700 02000000"})
	add("lfs", 8192, parts{8192: "00070162 00000001"})
	add("hammer", 0, parts{0: "313052c54d4d41c8"})
	add("hammer", 0, parts{0: "c8414d4dc5523031"})
	add("hammer2", 0, parts{0: "1120170532 4d4148"})
	add("hammer2", 0, parts{0: "48414d3205172011"})
	for _, label := range []int64{0, 256 * kib, -512 * kib, -256 * kib} {
		ring, big := parts{}, parts{}
		for i := int64(4); i < 8; i++ {
			ring[128*kib+i*kib] = "0cb1ba0000000000 8813000000000000"
			big[128*kib+i*8*kib] = "0000000000bab10c 000000000000001c"
		}
		if label < 0 {
			label += vol
		}
		add("zfs_member", label+132*kib, where(label, ring))
		add("zfs_member", label+160*kib, where(label, big))
	}
	for _, text := range []string{"ReIsErFs", "ReIsEr2Fs", "ReIsEr3Fs"} {
		add("reiserfs", 65588, where(65536, parts{0: "00180000 00100000 12200000 12000000", 44: "0010", 52: "'" + text}))
	}
	add("reiserfs", 8244, where(8192, parts{0: "00180000 00100000 12200000 12000000", 44: "0010", 52: "'ReIsErFs"}))
	add("reiserfs", 8212, where(8192, parts{0: "00180000 00100000 12200000 12000000", 20: "'ReIsErFs", 44: "0010"}))
	add("reiser4", 65536, parts{65536: "'ReIsEr4"})
	add("jfs", 32768, where(32768, parts{0: "'JFS1", 4: "01000000 0080000000000000 00100000 0c00 0300 00020000 0900"}))
	add("jfs_log", 4096, where(4096, parts{0: "21436587 01000000 01000000 00100000 00100000 0c000000"}))
	each("f2fs", []int64{1024, 5120}, 0, parts{0: "1020f5f2 0100 1000 09000000 03000000 0c000000"})
	each("nilfs2", []int64{1024, -4096}, 6, parts{0: "02000000 0000 3434 1801 0000 00000000 00000000 02000000"})
	add("bcachefs", 4120, parts{4120: "c68573f666ce90a9d96a60cf803df7ef"})
	add("bcachefs", 3584, parts{3584: "c68573f666ce90a9d96a60cf803df7ef"})
	add("bcachefs", 3584, parts{3584: "c68573f64e1a45ca8265f57f48ba6d81"})
	add("erofs", 1024, where(1024, parts{0: "e2e1f5e0", 12: "0c"}))
	for _, text := range []string{"hsqs", "sqsh", "qshs", "shsq"} {
		add("squashfs", 0, parts{0: "'" + text, 28: "0400 0000"})
	}
	for _, magic := range []string{"453dcd28", "28cd3d45"} {
		each("cramfs", []int64{0, 512}, 0, parts{0: magic, 16: "'Compressed ROMFS"})
	}
	add("romfs", 0, parts{0: "'-rom1fs-"})
	add("zonefs", 0, parts{0: "'SFOZ"})
	add("exfs", 0, parts{0: "'EXFS"})
	add("ubifs", 0, parts{0: "31181006", 20: "06"})
	add("ubi", 0, parts{0: "'UBI#", 4: "01"})
	add("iso9660", 32769, parts{32768: "01", 32769: "'CD001", 32774: "01"})
	add("iso9660", 32777, parts{32776: "01", 32777: "'CDROM", 32782: "01"})
	for _, step := range []int64{2 * kib, 4 * kib} {
		for _, nsr := range []string{"'NSR02", "'NSR03"} {
			add("udf", 32769+2*step, where(32769, parts{0: "'BEA01", step: "'BOOT2", 2 * step: nsr, 3 * step: "'TEA01",
				256*step - 32769: "0200 0200 0000 0000 0000 0000 00010000"}))
		}
	}
	each("gfs", []int64{65536}, 0, parts{0: "01161970 00000001", 24: "0000051d 00000579"})
	each("gfs2", []int64{65536}, 0, parts{0: "01161970 00000001", 24: "00000709 0000076c"})
	add("ocfs", 8192, parts{8192: "'OracleCFS"})
	each("ocfs2", []int64{1024, 2048, 4096, 8192}, 0, parts{0: "'OCFSV2"})
	add("VMFS_volume_member", mib, parts{mib: "0dd001c0 05000000"})
	for _, magic := range []string{"5ef1ab2f", "5ff1ab2f"} {
		each("VMFS", []int64{2 * mib, 19 * mib}, 0, parts{0: magic, 4: "0e000000 0e", 0xa1: "0000100000000000"})
	}
	add("vxfs", 1024, parts{1024: "f5fc01a5 04000000"})
	add("vxfs", 8192, parts{8192: "a501fcf5 00000005"})
	add("scoutfs", 65540, where(65536, parts{4: "8b423c10", 24: "1000000000000000"}))
	add("nss", 4096, parts{4096: "'SPB5"})
	for _, magic := range []string{"7f13", "8f13", "6824", "7824"} {
		zones := "0000"
		if magic[2:] == "13" {
			zones = "00080000" // version 1 has its zones in 16 bits
		}
		first := map[string]string{"13": "1900", "24": "2e00"}[magic[2:]]
		add("minix", 1040, where(1024, parts{0: "a002" + zones[:4] + "01000100" + first + "0000 001c0810 " + magic + " 0100 00080000"}))
		add("minix", 1040, where(1024, parts{0: "02a0" + swapped(zones[:4]) + "00010001" + swapped(first) + "0000 10081c00 " + swapped(magic) +
			" 0001 00000800"}))
	}
	add("minix", 1048, where(1024, parts{0: "a0020000 0000 0100 0100 2e00 0000 0000 ffffff7f 00080000 5a4d 0000 0004 00"}))
	add("minix", 1048, where(1024, parts{0: "000002a0 0000 0001 0001 002e 0000 0000 7fffffff 00000800 4d5a 0000 1000 00"}))
	each("sysv", []int64{512, 9*kib + 512, 15*kib + 512, 18*kib + 512}, 504, parts{504: "207e18fd 02000000"})
	each("sysv", []int64{512, 9*kib + 512, 15*kib + 512, 18*kib + 512}, 504, parts{504: "fd187e20 00000002"})
	add("xenix", 2040, parts{2040: "44552b00 02000000"})
	add("xenix", 2040, parts{2040: "002b5544 00000001"})
	add("bfs", 0, parts{0: "cefaad1b"})
	add("efs", 540, parts{540: "00072959"})
	add("efs", 540, parts{540: "0007295a"})
	each("befs", []int64{0, 512}, 32, parts{32: "'1SFB", 36: "45474942 00080000 0b000000", 68: "311012dd", 112: "0e83b615"})
	each("befs", []int64{0, 512}, 32, parts{32: "'BFS1", 36: "42494745 00000800 0000000b", 68: "dd121031", 112: "15b6830e"})
	add("qnx4", 512, parts{512: "2f", 512 + 50: "ed41"})
	each("qnx6", []int64{0, 8192}, 0, parts{0: "22111968"})
	each("qnx6", []int64{0, 8192}, 0, parts{0: "68191122"})
	for _, magic := range []string{"444f5300", "444f5301", "444f5302", "444f5303", "444f5304", "444f5305", "444f5306", "444f5307",
		"50465301", "50465302", "50465303", "53465300", "53465302"} {
		add("affs", 0, parts{0: magic})
	}
	add("files11", 1008, parts{1008: "'DECFILE11B  "})

	each("LVM2_member", []int64{0, 512, 1024, 1536}, 0, parts{0: "'LABELONE", 8: "0100000000000000", 24: "'LVM2 001"})
	add("LVM1_member", 0, parts{0: "'HM", 2: "0100 00000000 00040000 00100000"})
	add("LVM1_member", 0, parts{0: "'HM", 2: "0200 00000000 00040000 00100000"})
	add("crypto_LUKS", 0, parts{0: "4c554b53babe0001"})
	add("crypto_LUKS", 0, parts{0: "4c554b53babe0002"})
	for _, at := range []int64{16 * kib, 32 * kib, 64 * kib, 128 * kib, 256 * kib, 512 * kib, mib, 2 * mib, 4 * mib} {
		add("crypto_LUKS", at, where(at, parts{0: "534b554cbabe0002", 256: fmt.Sprintf("%016x", at)}))
	}
	guid := "3bd667492 92ed84a8399f6a339e3d001"
	used := "3b4da89280dd0e4d9e4eb1e3284eaed8"
	for _, at := range []parts{
		{0: "eb5290", 3: "'-FVE-FS-", 11: "0002 08 0000 00 0000 0000 f8 0000"},
		{0: "eb5890", 3: "'-FVE-FS-", 11: "0002 08 0000 00 0000 0000 f8 0000", 82: "'FAT32   ", 160: guid, 176: "0000100000000000",
			mib: "'-FVE-FS-"},
		{0: "eb5890", 3: "'MSWIN4.1", 11: "0002 08 6e0f 02 0000 0000 f8 0000 3f00 ff00 00080000 00003c00 4a080000", 424: guid,
			440: "0000100000000000", 510: "55aa", mib: "'-FVE-FS-"},
		{0: "eb5890", 3: "'MSWIN4.1", 11: "0002 08 6e0f 02 0000 0000 f8 0000 3f00 ff00 00080000 00003c00 4a080000", 424: used},
		{160: used},
	} {
		add("BitLocker", 0, at)
	}
	add("cs_fvault2", 88, parts{8: "0100 1000", 88: "'CS", 90: "01000000"})
	add("softraid", 8192, parts{8192: "'marcCRAM"})
	add("softraid", 8192, parts{8192: "'MARCcram"})
	each("geom", []int64{-512, -4096}, 0, parts{0: "'GEOM::ELI"})
	each("linux_raid_member", []int64{-64 * kib}, 0, parts{0: "fc4e2ba9 00000000 5a000000"})
	each("linux_raid_member", []int64{-64 * kib}, 0, parts{0: "a92b4efc 00000000 0000005b"})
	for _, at := range []int64{0, 4096, vol - 8192} {
		add("linux_raid_member", at, where(at, parts{0: "fc4e2ba9 01000000",
			144: hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, uint64(at/512)))}))
	}
	add("bcache", 4120, parts{4104: "0800000000000000", 4120: "c68573f64e1a45ca8265f57f48ba6d81"})
	add("DM_snapshot_cow", 0, parts{0: "'SnAp"})
	add("DM_verity_hash", 0, parts{0: "'verity", 8: "01000000"})
	add("DM_integrity", 0, parts{0: "'integrt", 8: "04"})
	add("vdo", 0, parts{0: "'dmvdo001"})
	each("stratis", []int64{512, 4608}, 4, parts{4: "'!Stra0tis\x86\xff\x02^Arh"})
	add("ceph_bluestore", 0, parts{0: "'bluestore block device"})
	add("mpool", 0, parts{0: "'mpoolDev"})
	for _, magic := range []string{"8374026b", "8374026c", "8374026d"} {
		each("drbd", []int64{-4096}, 60, parts{60: magic})
	}
	add("drbdmanage_control_volume", 0, parts{0: "'$DRBDmgr=q0123456789abcdef0123456789abcdef\n"})
	add("drbdproxy_datalog", 0, parts{0: "'DRBDdlh*"})
	add("oracleasm", 32, parts{0: "01820101", 32: "'ORCLDISK"})
	add("opensvc_hb", 4, parts{4: "3dc13c87c05be3b6"})
	add("storage_spaces", 0, parts{0: "'SPACEDB "})
	add("storage_spaces", 4096, parts{4096: "'SDBC    "})
	each("ldm", []int64{6 * 512, 6 * 4096, -512, -4096, -(2048 - 1856) * 512}, 0, parts{0: "'PRIVHEAD"})
	each("ldm", []int64{-2047 * 512, -2046 * 512, -3 * 512, -2 * 512}, 0, parts{0: "'TOCBLOCK"})
	each("apple_raid", []int64{-4096}, 0, parts{0: "'AppleRAIDHeader"})
	add("hpux_lvm", 8192, parts{8192: "'LVMREC01"})
	add("netware", 16384, parts{16384: "'HOTFIX00"})
	for _, magic := range []string{"de11de11", "11de11de"} {
		each("ddf_raid_member", []int64{-512, -257 * 512, -4096}, 0, parts{0: magic, 8: "'Linux-MD", 32: "'01.02.00"})
	}
	each("isw_raid_member", []int64{-1024, -8192}, 0, parts{0: "'Intel Raid ISM Cfg Sig. 1.3.00"})
	each("lsi_mega_raid_member", last, 0, parts{0: "'$XIDE$"})
	each("via_raid_member", last, 0, parts{0: "55aa 01 0300", 50: "03"})
	each("silicon_medley_raid_member", last, 0x60, parts{0x60: "0000002f", 0x116: "01", 0x13e: "ffd0"})
	each("nvidia_raid_member", []int64{-1024}, 0, parts{0: "'NVIDIA  ", 8: "1e000000"})
	for _, n := range []int64{63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087} {
		each("promise_fasttrack_raid_member", []int64{-n * 512}, 0, parts{0: "'Promise Technology, Inc."})
	}
	for _, magic := range []string{"f316785a", "fd16785a"} {
		each("hpt45x_raid_member", []int64{-11 * 512}, 0, parts{0: magic})
	}
	for _, magic := range []string{"f016785a", "fd16785a"} {
		add("hpt37x_raid_member", 4640, parts{4640: magic})
	}
	each("adaptec_raid_member", last, 0, parts{0: "37fc4d1e", 256: "'DPTM"})
	each("jmicron_raid_member", last, 0, parts{0: "'JM", 2: "0100 b5b2"})
	each("jmicron_raid_member", last, 0, parts{0: "'JM", 2: "0100 b6b2"})

	each("bsd", []int64{0, 64, 128, 512, 4096}, 0, parts{0: "57455682", 132: "57455682"})
	each("bsd", []int64{0, 64, 128, 512, 4096}, 0, parts{0: "82564557", 132: "82564557"})
	each("solaris", []int64{512, 4096}, 12, parts{12: "eede0d60 01000000"})
	add("unixware", 29*512+4, parts{29*512 + 4: "0d605eca"})
	add("sun", 508, parts{128: "00000001", 508: "dabe dabf"})
	each("sgi", start, 0, parts{0: "0be5a941"})
	add("mac", 512, parts{0: "'ER", 512: "504d0000 00000003 00000001 0000003f", 560: "'Apple_partition_map"})
	each("amiga_rdb", []int64{0, 512, 15 * 512}, 0, parts{0: "'RDSK", 4: "00000040"})
	add("ultrix", 16*kib-72, parts{16*kib - 72: "57290300 01000000"})
	add("aix", 0, parts{0: "c9c2d4c1"})
	add("gpt", 510, parts{446: "00000200 eeffffff 01000000 ffffffff", 510: "55aa"})
	add("dos", 510, parts{446: "80202100 83feffff 00080000 00400000", 510: "55aa"})
	add("dos", 510, parts{478: "00202100 07feffff 3f000000 80000000", 510: "55aa"})
	return out
}

// places is a sample for each place of each name: what a test says of where
// things lie is not to be said of each magic again.
func places() (out []sample) {
	seen := map[Match]bool{}
	for _, s := range samples() {
		if at := (Match{s.name, s.off}); !seen[at] {
			seen[at] = true
			out = append(out, s)
		}
	}
	return out
}

// swapped is a number in the other byte order.
func swapped(text string) string {
	b, _ := hex.DecodeString(text)
	for i := range len(b) / 2 {
		b[i], b[len(b)-1-i] = b[len(b)-1-i], b[i]
	}
	return hex.EncodeToString(b)
}

// way is one of a signature's magics at one of its places.
type way struct{ signature, place, magic int }

// ways calls do with each, as a signature that knows no other.
func ways(do func(id way, one signature)) {
	for n, sig := range slices.Concat(formats, containers, tables, nestedTables) {
		for p := range sig.start {
			for m := range max(1, len(sig.magic)) {
				one := sig
				one.start = sig.start[p : p+1]
				for i := range sig.magic { // all stay: the index tells the byte order
					if i != m {
						one.magic = slices.Clone(one.magic)
						one.magic[i] = "\xFFnever"
					}
				}
				do(way{n, p, m}, one)
			}
		}
	}
}

// Each signature has samples of all its magics at all its places, made by the
// letter of the format; of rings and scans some places do.
func TestSamplesAreComplete(t *testing.T) {
	seen := map[way]bool{}
	for _, s := range samples() {
		w := newWindow(volumeOf(s.disk(), s.size), s.size, s.size)
		ways(func(id way, one signature) {
			if one.name != s.name {
				return
			}
			if off, err := one.search(w); err == nil && off == s.off {
				seen[id], seen[way{id.signature, -1, id.magic}] = true, true
			}
		})
	}
	ways(func(id way, one signature) {
		scan := one.name == "zfs_member" || one.name == "xfs_external_log" || one.name == "amiga_rdb"
		if !seen[id] && !(scan && seen[way{id.signature, -1, id.magic}]) {
			t.Errorf("no sample of %s at its place %d with its magic %q", one.name, id.place, one.magic)
		}
	})
}

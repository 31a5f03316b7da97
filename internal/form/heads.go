package form

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// sureLen is how long a mark must be, in bytes, to count beside a partition table.
const sureLen = 8

// mark is how a form announces itself at the beginning of a file.
type mark struct {
	Form
	at    int
	magic []string         // the file has one of these ("" means that check alone decides)
	check func(*file) bool // what else must hold (nil means nothing)
	sure  bool             // check leaves no doubt, even if the magic is short
}

// fixed is the length that the mark counts for, in bytes.
func (m *mark) fixed() int {
	if m.sure {
		return sureLen
	}
	n := len(m.magic[0])
	for _, s := range m.magic {
		n = min(n, len(s))
	}
	return n
}

func (m *mark) fits(f *file) bool {
	return slices.ContainsFunc(m.magic, func(s string) bool { return hasAt(f.head, m.at, s) }) && (m.check == nil || m.check(f))
}

func qemu(name, driver string) Form {
	return Form{What: "a " + name + " image", How: "`qemu-img convert -f " + driver + " -O raw` makes a raw file of it"}
}

func packed(by, unpack string) Form {
	return Form{What: "compressed by " + by, How: "`" + unpack + "` makes a raw file of it, if it holds a disk"}
}

func archive(name, unpack string) Form {
	return Form{What: name, How: "`" + unpack + "` unpacks it; a disk image may be in it"}
}

func tool(name, how string) Form { return Form{What: name, How: how} }

func macOS(name string) Form {
	return tool(name, "`hdiutil convert -format UDTO` makes a raw file of it")
}

func ofFileSystem(by, restore string) Form {
	return tool("an image that "+by+" made of a file system",
		"`"+restore+"` makes the bytes of the partition from it, which are no whole disk's")
}

// closed makes the form of images that only the tool itself can read.
func closed(name string) Form {
	return tool("an image of "+name, "restore it with that program, and take a backup of the disk")
}

// noDisk makes the form of files that do not have a disk in them, such as a dump of
// files.
func noDisk(name string) Form { return Form{What: name, How: "it holds no disk"} }

var (
	qcow2Form = Form{Qcow2, "a qcow2 image", "`qemu-img convert -f qcow2 -O raw` makes a raw file of it"}
	gzipForm  = Form{Gzip, "compressed by gzip", "`gunzip -c` makes a raw file of it"}
	zstdForm  = Form{Zstd, "compressed by zstd", "`unzstd -c` makes a raw file of it"}
	vhdForm   = qemu("VHD", "vpc")
	ewf       = tool("an EWF image (E01)", "`ewfexport -f raw` makes a raw file of it")
)

// heads are the forms with a mark at the beginning. The source of each is the
// format's own description. For the formats of QEMU it is QEMU's block/*.c.
var heads = []mark{
	// Images of virtual machines.
	{Form: qcow2Form, magic: []string{"QFI\xfb\x00\x00\x00\x02", "QFI\xfb\x00\x00\x00\x03"}},
	{Form: qemu("qcow (version 1)", "qcow"), magic: []string{"QFI\xfb\x00\x00\x00\x01"}},
	{Form: qcow2Form, magic: []string{"QFI\xfb"}}, // an unknown version
	{Form: qemu("QED", "qed"), magic: []string{"QED\x00"}, check: isQED, sure: true},
	{Form: qemu("VMDK", "vmdk"), magic: []string{"KDMV", "COWD"}, check: func(f *file) bool { v := f.le32(4); return v >= 1 && v <= 16 }},
	{Form: qemu("VMDK", "vmdk"), magic: []string{"# Disk DescriptorFile", "\xbe\xba\xfe\xca\x00\x00\x00\x00"}},
	{Form: vhdForm, magic: []string{"conectix"}},
	{Form: qemu("VHDX", "vhdx"), magic: []string{"vhdxfile"}},
	{Form: qemu("VDI", "vdi"), at: 64, magic: []string{"\x7f\x10\xda\xbe\x01\x00\x01\x00"}},
	{Form: qemu("VDI", "vdi"), magic: []string{"<<< "}, check: func(f *file) bool { return f.within(64, "Disk Image >>>") }, sure: true},
	{Form: qemu("Parallels", "parallels"), magic: []string{"WithoutFreeSpace", "WithouFreSpacExt"}},
	{Form: qemu("Bochs", "bochs"), magic: []string{"Bochs Virtual HD Image"}},
	{Form: qemu("cloop", "cloop"), magic: []string{"#!/bin/sh\n#V1.", "#!/bin/sh\n#V2.", "#!/bin/sh\n#V3.", "#!/bin/sh\n#V4."}},
	{Form: tool("a backup of Proxmox (VMA)", "`vma extract` unpacks it"), magic: []string{"VMA\x00\x00\x00\x00\x01"}},
	{Form: macOS("an encrypted disk image of macOS"), magic: []string{"encrcdsa"}},
	{Form: macOS("a sparse disk image of macOS"), magic: []string{"sprs\x00\x00\x00\x03"}},
	{Form: tool("a disk image of MAME (CHD)", "`chdman extracthd` makes a raw file of it"), magic: []string{"MComprHD"}},
	{Form: tool("an Android sparse image", "`simg2img` makes a raw file of it"), magic: []string{"\x3a\xff\x26\xed\x01\x00"},
		check: func(f *file) bool {
			return f.le16(8) >= 28 && f.le16(10) >= 12 && f.le16(8) < 4096 && f.le16(10) < 4096
		}, sure: true},

	// Images of other backup tools.
	{Form: ewf, magic: []string{"EVF\x09\x0d\x0a\xff\x00", "LVF\x09\x0d\x0a\xff\x00", "EVF2\x0d\x0a\x81\x00", "LEF2\x0d\x0a\x81\x00"}},
	{Form: tool("an AFF image", "`affconvert -r` makes a raw file of it"), magic: []string{"AFF10\r\n\x00"}},
	{Form: ofFileSystem("partclone", "partclone.restore --restore_raw_file"), magic: []string{"partclone-image"}},
	{Form: ofFileSystem("ntfsclone", "ntfsclone --restore-image --output"), magic: []string{"\x00ntfsclone-image"}},
	{Form: ofFileSystem("partimage", "partimage restore"), magic: []string{"PaRtImAgE-VoLuMe"}},
	{Form: tool("an archive of fsarchiver", "`fsarchiver restfs` writes its file systems to partitions"), magic: []string{"FsA0"},
		check: func(f *file) bool { return f.within(512, "FsArCh_00") }, sure: true},
	{Form: archive("an archive of dar", "dar -x"), magic: []string{"\x00\x00\x00\x7b"}, check: isDar},
	{Form: closed("Acronis True Image"), magic: []string{"\xce\x24\xb9\xa2\x20\x00\x00\x00", "\xce\x24\xb9\xa2"}},
	{Form: closed("Norton Ghost"), magic: []string{"\xfe\xef\x01", "\xfe\xef\x02"},
		check: func(f *file) bool { return f.u8(3) <= 10 && !f.bootable() }},
	{Form: noDisk("a Windows image (WIM), which holds files"), magic: []string{"MSWIM\x00\x00\x00", "WLPWM\x00\x00\x00"}},
	{Form: noDisk("a stream of `btrfs send`"), magic: []string{"btrfs-stream\x00"}},
	{Form: noDisk("a stream of `zfs send`"), at: 8, magic: []string{"\xac\xcb\xba\xf5\x02\x00\x00\x00", "\x00\x00\x00\x02\xf5\xba\xcb\xac"}},
	{Form: noDisk("a dump of xfsdump"), magic: []string{"xFSdump0"}},
	{Form: tool("a file of a testbox store", "`testbox image export` writes a disk of it to a file"), magic: []string{"TBXPACK1", "TBXINDEX"}},

	// Compressed streams.
	{Form: gzipForm, magic: []string{"\x1f\x8b\x08"}, check: func(f *file) bool { return f.u8(3)&0xe0 == 0 }},
	{Form: zstdForm, magic: []string{"\x28\xb5\x2f\xfd"}, check: func(f *file) bool { return f.u8(4)&8 == 0 }},
	{Form: zstdForm, magic: skipped, check: behindSkipped("\x28\xb5\x2f\xfd"), sure: true},
	{Form: packed("lz4", "unlz4 -c"), magic: skipped, check: behindSkipped("\x04\x22\x4d\x18"), sure: true},
	{Form: packed("xz", "unxz -c"), magic: []string{"\xfd7zXZ\x00"}},
	{Form: packed("bzip2", "bunzip2 -c"), magic: []string{"BZh"}, check: isBzip2, sure: true},
	{Form: packed("lz4", "unlz4 -c"), magic: []string{"\x04\x22\x4d\x18"}, check: func(f *file) bool { return f.u8(4)&0xc2 == 0x40 }},
	{Form: packed("lz4", "unlz4 -c"), magic: []string{"\x02\x21\x4c\x18"}, check: func(f *file) bool { return f.le32(4) <= 9<<20 }},
	{Form: packed("lzma", "unlzma -c"), magic: []string{"\x5d\x00\x00"}, check: isLZMA, sure: true},
	{Form: packed("lzip", "lzip -dc"), magic: []string{"LZIP\x00", "LZIP\x01"}},
	{Form: packed("lzop", "lzop -dc"), magic: []string{"\x89LZO\x00\x0d\x0a\x1a\x0a"}},
	{Form: packed("lrzip", "lrzip -d"), magic: []string{"LRZI\x00"}},
	{Form: packed("compress", "uncompress -c"), magic: []string{"\x1f\x9d"}, check: isCompress},
	{Form: packed("snappy", "snzip -dc"), magic: []string{"\xff\x06\x00\x00sNaPpY"}},

	// Archives.
	{Form: archive("a zip archive", "unzip"), magic: []string{"PK\x03\x04", "PK\x05\x06", "PK\x07\x08", "PK00PK\x03\x04"}},
	{Form: archive("a 7z archive", "7z x"), magic: []string{"7z\xbc\xaf\x27\x1c"}},
	{Form: archive("a rar archive", "unrar x"), magic: []string{"Rar!\x1a\x07"}},
	{Form: archive("a cab archive", "cabextract"), magic: []string{"MSCF\x00\x00\x00\x00"}},
	{Form: archive("a tar archive", "tar -xf"), magic: []string{""}, check: isTar, sure: true},
	{Form: archive("a cpio archive", "cpio -i"), magic: []string{"070701", "070702", "070707"}, check: isCpioText, sure: true},
	{Form: archive("a cpio archive", "cpio -i"), magic: []string{"\xc7\x71", "\x71\xc7"}, check: isCpioBinary, sure: true},
	{Form: archive("an ar archive, as Debian packages are", "ar x"), magic: []string{"!<arch>\n", "!<thin>\n"}},
	{Form: archive("an rpm package", "rpm2cpio"), magic: []string{"\xed\xab\xee\xdb\x03", "\xed\xab\xee\xdb\x04"}},

	// Files that are no disk in any form.
	{Form: noDisk("the raw sectors of a CD"), magic: []string{"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"}},
	{Form: noDisk("a program"), magic: []string{"\x7fELF\x01", "\x7fELF\x02"}, check: func(f *file) bool { return f.u8(6) == 1 }},
	{Form: noDisk("a program"), magic: []string{"MZ"}, check: isPE, sure: true},
	{Form: noDisk("a PDF document"), magic: []string{"%PDF-"}},
	{Form: noDisk("a picture"), magic: []string{"\x89PNG\x0d\x0a\x1a\x0a"}},
	{Form: noDisk("a database of SQLite"), magic: []string{"SQLite format 3\x00"}},
}

func (f *file) u8(at int) byte {
	if at >= len(f.head) {
		return 0
	}
	return f.head[at]
}

func (f *file) le16(at int) uint16 {
	return uint16(f.u8(at)) | uint16(f.u8(at+1))<<8
}

func (f *file) le32(at int) uint32 { return uint32(f.le16(at)) | uint32(f.le16(at+2))<<16 }

// within reports whether a text is in the first n bytes.
func (f *file) within(n int, text string) bool {
	return strings.Contains(string(f.head[:min(len(f.head), n)]), text)
}

// bootable reports whether the first sector has the signature of a boot
// sector.
func (f *file) bootable() bool { return hasAt(f.head, 510, "\x55\xaa") }

// isQED checks that the cluster size is a power of two from 4 KiB to 64 MiB, and
// that a table has 1 to 16 clusters.
func isQED(f *file) bool {
	cluster, table := f.le32(4), f.le32(8)
	return cluster >= 4<<10 && cluster <= 64<<20 && cluster&(cluster-1) == 0 && table >= 1 && table <= 16
}

// isDar checks the flag of the slice, which follows a label of ten bytes behind the
// magic.
func isDar(f *file) bool { return strings.IndexByte("NTES", f.u8(14)) >= 0 && !f.bootable() }

// isBzip2 checks the level, and the mark of a first block or of the stream's end.
func isBzip2(f *file) bool {
	return f.u8(3) >= '1' && f.u8(3) <= '9' && (hasAt(f.head, 4, "1AY&SY") || hasAt(f.head, 4, "\x17\x72\x45\x38\x50\x90"))
}

// skipped are the marks of skippable frames, which decoders of zstd and lz4 pass
// over.
var skipped = func() (out []string) {
	for c := byte('\x50'); c <= '\x5f'; c++ {
		out = append(out, string([]byte{c})+"\x2a\x4d\x18")
	}
	return out
}()

// behindSkipped makes a check of files that begin with skippable frames, which
// zstd and lz4 both have. It reports whether the first other frame has the mark.
func behindSkipped(mark string) func(*file) bool {
	const most = 1000 // bounds the number of frames, of which tools write one or two
	return func(f *file) bool {
		b, at := make([]byte, 8), int64(0)
		for range most {
			if n, _ := f.r.ReadAt(b, at); n < 4 || !slices.Contains(skipped, string(b[:4])) {
				return n >= 4 && string(b[:4]) == mark
			}
			at += 8 + int64(binary.LittleEndian.Uint32(b[4:]))
		}
		return false
	}
}

// isCompress checks the largest length of a code, and two bits that must be 0.
func isCompress(f *file) bool {
	b := f.u8(2)
	return b&0x60 == 0 && b&0x1f >= 9 && b&0x1f <= 16 && !f.bootable()
}

// isLZMA checks three fields. The size of the dictionary is 2^n or 2^n+2^(n-1), as
// encoders choose it. The length of the data is unknown or below 1 PiB. The first
// byte of the range coder is always 0.
func isLZMA(f *file) bool {
	if len(f.head) < 14 {
		return false
	}
	dict, n := f.le32(1), binary.LittleEndian.Uint64(f.head[5:])
	round := dict
	for round&(round-1) != 0 {
		round &= round - 1
	}
	known := n > 0 && n < 1<<50 || n == 1<<64-1
	return dict >= 4096 && (dict == round || dict == round+round/2) && known && f.head[13] == 0 && !f.bootable()
}

// isTar checks the header's checksum. It is the sum of the header's bytes, in
// which the field of the checksum itself counts as blanks. The field has it as
// octal digits. Old archives have no other mark.
func isTar(f *file) bool {
	if len(f.head) < 512 || f.head[0] == 0 {
		return false
	}
	field := strings.Trim(string(f.head[148:156]), " \x00")
	want, err := strconv.ParseInt(field, 8, 32)
	if err != nil {
		return false
	}
	sum, signed := int64(0), int64(0)
	for i, b := range f.head[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(b)
		signed += int64(int8(b))
	}
	return want == sum || want == signed
}

// isCpioText checks that the fields of the header are numbers as text.
func isCpioText(f *file) bool {
	n, digits := 76, "01234567"
	if f.u8(5) != '7' {
		n, digits = 110, "0123456789abcdefABCDEF"
	}
	return len(f.head) >= n && strings.Trim(string(f.head[6:n]), digits) == ""
}

// isCpioBinary checks that the name ends with a zero byte where the header says.
func isCpioBinary(f *file) bool {
	n := int(f.le16(20))
	if f.u8(0) == 0x71 {
		n = int(f.u8(20))<<8 | int(f.u8(21))
	}
	if n < 2 || n > 1024 || len(f.head) < 26+n || f.bootable() {
		return false
	}
	name := string(f.head[26 : 26+n])
	return strings.IndexByte(name, 0) == n-1 && !strings.ContainsFunc(name[:n-1], func(r rune) bool { return r < ' ' })
}

// isPE looks for the new header at the place that the old header for DOS names.
func isPE(f *file) bool { return hasAt(f.head, int(min(f.le32(60), headLen)), "PE\x00\x00") }

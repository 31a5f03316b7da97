package form

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

func of(t testing.TB, b []byte) *Form {
	t.Helper()
	f, err := Of(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	ends := &Ends{Head: b, Tail: b, Size: int64(len(b))}
	if len(b) > 20<<10 {
		ends.Head, ends.Tail = b[:10<<10], b[len(b)-5<<10:]
	}
	if e := ends.Form(); (e == nil) != (f == nil) || e != nil && e.What != f.What {
		t.Fatalf("all bytes are %v, their ends %v", f, e)
	}
	return f
}

func what(f *Form) string {
	if f == nil {
		return "a disk"
	}
	return f.What
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// vhdFooter is the footer of a fixed VHD.
func vhdFooter() []byte {
	b := make([]byte, 512)
	copy(b, "conectix\x00\x00\x00\x02\x00\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff")
	b[63] = 2
	return b
}

// partitioned has a boot record with a partition.
func partitioned(b []byte) []byte {
	b = bytes.Clone(b)
	clear(b[446:510])
	copy(b[446:], "\x80\x01\x01\x00\x83\xfe\xff\xff\x00\x08\x00\x00\x00\x20\x00\x00")
	copy(b[510:], "\x55\xaa")
	return b
}

func start(head string) []byte { return append([]byte(head), make([]byte, 20<<10-len(head))...) }

// TestMarks has each form that no tool of the tests makes.
func TestMarks(t *testing.T) {
	vhd := noise(1, 8<<10)
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"VHD, fixed":             {append(bytes.Clone(vhd), vhdFooter()...), "VHD"},
		"VHD with a table in it": {append(partitioned(vhd), vhdFooter()...), "VHD"},
		"VHD, a byte short":      {append(bytes.Clone(vhd), vhdFooter()[:511]...), "VHD"},
		"VHD of odd length":      {append(vhd[:8<<10-13:8<<10-13], vhdFooter()...), "VHD"},
		"VHD, padded":            {append(append(bytes.Clone(vhd), vhdFooter()...), make([]byte, 1000)...), "VHD"},
		"VHD, nothing but it":    {vhdFooter(), "VHD"},
		"DMG":                    {append(partitioned(vhd), start("koly\x00\x00\x00\x04\x00\x00\x02\x00")[:512]...), "DMG"},
		"Macrium":                {append(bytes.Clone(vhd), "MACRIUM_FILE"...), "Macrium"},
		"Bochs":                  {start("Bochs Virtual HD Image\x00"), "Bochs"},
		"cloop":                  {start("#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"), "cloop"},
		"COWD":                   {start("COWD\x01\x00\x00\x00"), "VMDK"},
		"VDI of VirtualBox":      {start("<<< Oracle VM VirtualBox Disk Image >>>\n"), "VDI"},
		"Parallels, old":         {start("WithoutFreeSpace\x02"), "Parallels"},
		"EWF":                    {start("EVF\x09\x0d\x0a\xff\x00\x01"), "EWF"},
		"EWF 2":                  {start("EVF2\x0d\x0a\x81\x00"), "EWF"},
		"AFF":                    {start("AFF10\r\n\x00"), "AFF"},
		"partimage":              {start("PaRtImAgE-VoLuMe"), "partimage"},
		"Android":                {start("\x3a\xff\x26\xed\x01\x00\x00\x00\x1c\x00\x0c\x00\x00\x10\x00\x00"), "Android"},
		"lzip":                   {start("LZIP\x01\x0c"), "lzip"},
		"lzop":                   {start("\x89LZO\x00\x0d\x0a\x1a\x0a"), "lzop"},
		"7z":                     {start("7z\xbc\xaf\x27\x1c"), "7z"},
		"rar":                    {start("Rar!\x1a\x07\x01\x00"), "rar"},
		"rpm":                    {start("\xed\xab\xee\xdb\x03\x00"), "rpm"},
		"WIM":                    {start("MSWIM\x00\x00\x00"), "WIM"},
		"Proxmox":                {start("VMA\x00\x00\x00\x00\x01"), "Proxmox"},
		"zstd, skippable frames": {append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc\x5f\x2a\x4d\x18\x00\x00\x00\x00"),
			start("\x28\xb5\x2f\xfd\x04")...), "zstd"},
		"lz4, skippable frame":  {append([]byte("\x51\x2a\x4d\x18\x00\x00\x00\x00"), start("\x04\x22\x4d\x18\x64")...), "lz4"},
		"a web page":            {[]byte("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"), "web page"},
		"a short text":          {[]byte("not found"), "text"},
		"a log":                 {bytes.Repeat([]byte("Nov 29 02:00:00 web-1 kernel: größer\n"), 1000), "text"},
		"a pack of a store":     {start("TBXPACK1"), "testbox"},
		"a qcow2 of the future": {start("QFI\xfb\x00\x00\x00\x09"), "qcow2"},
	} {
		if got := what(of(t, c.b)); !strings.Contains(got, c.want) {
			t.Errorf("%s: it is %s", name, got)
		}
	}
}

// TestDisks: what may be a disk is taken for none of the forms.
func TestDisks(t *testing.T) {
	disks := map[string][]byte{
		"empty": nil, "a byte": {0}, "zeros": make([]byte, 10<<10), "noise": noise(2, 10<<10), "one sector of noise": noise(3, 512),
		"LUKS":                   start("LUKS\xba\xbe\x00\x02"),
		"a pattern":              bytes.Repeat([]byte{0x55}, 64<<10),
		"ext4":                   append(make([]byte, 1024+56), "\x53\xef\x01\x00"...),
		"text, then bytes":       append(bytes.Repeat([]byte("text\n"), 2000), make([]byte, 5000)...),
		"conectix in its middle": append(append(make([]byte, 6000), "conectix"...), make([]byte, 6000)...),
		"conectix near its end":  append(append(make([]byte, 6000), "conectix"...), make([]byte, 700)...),
	}
	for i := range heads {
		m := &heads[i]
		if m.fixed() >= sureLen {
			continue
		}
		b := noise(4, 8<<10)
		copy(b[m.at:], m.magic[0])
		disks[m.What+" beside a boot record"] = partitioned(b)
		copy(b[512:], "EFI PART\x00\x00\x01\x00")
		disks[m.What+" beside a GPT"] = b
	}
	for name, b := range disks {
		if f := of(t, b); f != nil {
			t.Errorf("%s: it is %s", name, f)
		}
	}
}

// TestBootLoaders: the first sectors that real systems have, with and without
// partitions.
func TestBootLoaders(t *testing.T) {
	files, _ := filepath.Glob("/usr/lib/syslinux/mbr/*.bin")
	more, _ := filepath.Glob("/usr/lib/grub/i386-pc/boot*.img")
	files = append(files, more...) // machines without them check those of mkfs below
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil || len(b) > 8<<10 {
			continue
		}
		b = append(b, make([]byte, 16<<10-len(b))...)
		for _, disk := range [][]byte{b, partitioned(b)} {
			if f := of(t, disk); f != nil {
				t.Errorf("%s is taken for %s", path, f)
			}
		}
	}
}

// TestTools lets the tools make their forms of a disk.
func TestTools(t *testing.T) {
	testenv.Tools(t, "qemu-img", "zstd", "xz", "bzip2", "lz4", "zip", "cpio", "ar", "pigz", "mkfs.ext4", "partclone.ext4", "mkfs.ntfs",
		"ntfsclone")
	dir := t.TempDir()
	disk := partitioned(noise(5, 256<<10))
	if err := os.WriteFile(filepath.Join(dir, "disk"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"qcow":       {"qemu-img convert -f raw -O qcow disk OUT", "qcow (version 1)"},
		"qcow2":      {"qemu-img convert -f raw -O qcow2 disk OUT", "qcow2"},
		"qcow2 0.10": {"qemu-img convert -f raw -O qcow2 -o compat=0.10 disk OUT", "qcow2"},
		"qed":        {"qemu-img convert -f raw -O qed disk OUT", "QED"},
		"vdi":        {"qemu-img convert -f raw -O vdi disk OUT", "VDI"},
		"vhd":        {"qemu-img convert -f raw -O vpc disk OUT", "VHD"},
		"vhd, fixed": {"qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on disk OUT", "VHD"},
		"vhdx":       {"qemu-img convert -f raw -O vhdx disk OUT", "VHDX"},
		"parallels":  {"qemu-img convert -f raw -O parallels disk OUT", "Parallels"},
		"vmdk":       {"qemu-img convert -f raw -O vmdk disk OUT", "VMDK"},
		"vmdk, pack": {"qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk OUT", "VMDK"},
		"vmdk, text": {"qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat disk x.vmdk; mv x.vmdk OUT", "VMDK"},
		"vmdk, flat": {"qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat disk y.vmdk; mv y-flat.vmdk OUT", "a disk"},
		"gzip":       {"gzip -c disk >OUT", "gzip"},
		"gzip -n":    {"gzip -nc <disk >OUT", "gzip"},
		"pigz":       {"pigz -c disk >OUT", "gzip"},
		"zstd":       {"zstd -qc disk >OUT", "zstd"},
		"pzstd":      {"printf '\\120*M\\030\\004\\0\\0\\0abcd' >OUT; zstd -qc disk >>OUT", "zstd"},
		"xz":         {"xz -0c disk >OUT", "xz"},
		"lzma":       {"xz -0 --format=lzma -c disk >OUT", "lzma"},
		"lzma, best": {"xz -9e --format=lzma -c <disk >OUT", "lzma"},
		"bzip2":      {"bzip2 -1c disk >OUT", "bzip2"},
		"bzip2 of 0": {"bzip2 -c </dev/null >OUT", "bzip2"},
		"lz4":        {"lz4 -qc disk >OUT", "lz4"},
		"lz4, old":   {"lz4 -lqc disk >OUT", "lz4"},
		"zip":        {"zip -q OUT.zip disk; mv OUT.zip OUT", "zip"},
		"zip, pipe":  {"zip -q - - <disk >OUT", "zip"},
		"tar":        {"tar -cf OUT disk", "tar"},
		"tar, old":   {"tar --format=v7 -cf OUT disk", "tar"},
		"tar, pax":   {"tar --format=pax -cf OUT disk", "tar"},
		"cpio":       {"echo disk | cpio --quiet -o -H newc >OUT", "cpio"},
		"cpio, odc":  {"echo disk | cpio --quiet -o -H odc >OUT", "cpio"},
		"cpio, bin":  {"echo disk | cpio --quiet -o -H bin >OUT", "cpio"},
		"ar":         {"ar q OUT disk", "ar archive"},
		"partclone":  {"truncate -s 8M fs; mkfs.ext4 -qF fs; partclone.ext4 -c -s fs -o OUT -L log", "partclone"},
		"ntfsclone":  {"truncate -s 8M nt; mkfs.ntfs -qF nt; ntfsclone -s -O OUT nt", "ntfsclone"},
		"a program":  {"cp /bin/true OUT", "program"},
	} {
		realfs.Run(t, "sh", "-c", "cd "+dir+" && rm -f OUT && { "+c.script+"; } >/dev/null 2>&1")
		b, err := os.ReadFile(filepath.Join(dir, "OUT"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := what(of(t, b)); !strings.Contains(got, c.want) {
			t.Errorf("%s: it is %s", name, got)
		}
	}
}

// TestArchives of kinds that Go writes.
func TestArchives(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: strings.Repeat("long/", 40), Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got := what(of(t, b.Bytes())); !strings.Contains(got, "tar") {
		t.Errorf("it is %s", got)
	}
	bad := bytes.Clone(b.Bytes())
	bad[0]++
	if f := of(t, bad); f != nil {
		t.Errorf("a wrong sum: it is %s", f)
	}
}

func TestEnds(t *testing.T) {
	all := noise(6, 1000)
	for _, keep := range []int{0, 1, 100, 499, 500, 501, 1000} {
		e := &Ends{Head: all[:keep], Tail: all[1000-keep:], Size: 1000}
		want := bytes.Clone(all)
		if keep < 500 {
			clear(want[keep : 1000-keep])
		}
		for _, at := range []int{0, 1, keep, 500, 999 - keep/2, 999, 1500} {
			for _, n := range []int{1, 10, 700, 2000} {
				got := make([]byte, n)
				k, _ := e.ReadAt(got, int64(at))
				if k != max(min(n, 1000-at), 0) || k > 0 && !bytes.Equal(got[:k], want[at:at+k]) {
					t.Fatalf("%d kept, %d bytes at %d: %d read", keep, n, at, k)
				}
			}
		}
	}
}

// TestCannotBeRead: what cannot be read is an error, at either end.
func TestCannotBeRead(t *testing.T) {
	for _, bad := range []int64{0, 5000, 60 << 10, 64<<10 - 1} {
		if f, err := Of(badByte(bad), 64<<10); !errors.Is(err, errBad) {
			t.Errorf("byte %d: it is %s, %v", bad, what(f), err)
		}
	}
}

// badByte is zeros but for a byte that cannot be read.
type badByte int64

var errBad = errors.New("bad sector")

func (b badByte) ReadAt(p []byte, off int64) (int, error) {
	if n := int64(b) - off; n >= 0 && n < int64(len(p)) {
		clear(p[:n])
		return int(n), errBad
	}
	clear(p)
	return len(p), nil
}

// FuzzOf: no bytes make a panic, and none that have a partition table are
// refused for a short mark.
func FuzzOf(f *testing.F) {
	for i := range heads {
		m := &heads[i]
		f.Add(append(make([]byte, m.at), m.magic[0]...))
	}
	f.Add(vhdFooter())
	f.Add([]byte("text\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := of(t, b); got != nil && (got.What == "" || got.How == "") {
			t.Fatalf("%+v", got)
		}
		if len(b) < 512 || binary.LittleEndian.Uint64(b) == 0 {
			return
		}
		copy(b[8:], noise(7, 400)) // the four bytes of a coincidence
		if got := of(t, append(partitioned(b), make([]byte, 4096)...)); got != nil && len(got.What) > 0 {
			for i := range heads {
				if m := &heads[i]; m.What == got.What && m.fixed() >= sureLen {
					return
				}
			}
			t.Fatalf("a partitioned disk is %s", got)
		}
	})
}

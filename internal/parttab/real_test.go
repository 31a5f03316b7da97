package parttab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

const mib = 1 << 20

// TestMain lets many tests run at once: sgdisk sleeps for a second whenever it
// has written a table, and other programs wait for the disk.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// image is a sparse file that programs take for a disk.
type image struct {
	t    testing.TB
	path string
}

func newImage(t testing.TB, size int64) image {
	t.Helper()
	im := image{t, filepath.Join(t.TempDir(), "disk")}
	mustWrite(t, im.path, nil)
	im.resize(size)
	return im
}

func (im image) resize(size int64) {
	im.t.Helper()
	if err := os.Truncate(im.path, size); err != nil {
		im.t.Fatal(err)
	}
}

// do runs "PROGRAM ARGUMENTS", with the image as the last argument; what
// stands behind a | is its standard input.
func (im image) do(commands ...string) image {
	im.t.Helper()
	for _, c := range commands {
		line, stdin, _ := strings.Cut(c, "|")
		args := strings.Fields(line)
		at := slices.Index(args, "DISK")
		if at < 0 {
			args, at = append(args, ""), len(args)
		}
		args[at] = im.path
		tool(im.t, stdin, args[0], args[1:]...)
	}
	return im
}

// put writes bytes at a place, from the end if it is negative.
func (im image) put(off int64, b []byte) image {
	im.t.Helper()
	f, err := os.OpenFile(im.path, os.O_RDWR, 0)
	if err != nil {
		im.t.Fatal(err)
	}
	defer f.Close()
	if off < 0 {
		info, err := f.Stat()
		if err != nil {
			im.t.Fatal(err)
		}
		off += info.Size()
	}
	if _, err := f.WriteAt(b, off); err != nil {
		im.t.Fatal(err)
	}
	return im
}

func (im image) read(sector int) (*Table, error) {
	im.t.Helper()
	f, err := os.Open(im.path)
	if err != nil {
		im.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		im.t.Fatal(err)
	}
	return Read(f, info.Size(), sector)
}

// want fails the test unless Read's error says so, or is nil for "".
func (im image) want(sector int, text string) *Table {
	im.t.Helper()
	tab, err := im.read(sector)
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
		im.t.Errorf("error %v, want %q", err, text)
	}
	return tab
}

// byLibblkid is what partx finds, without an extended partition.
func (im image) byLibblkid(sector int) []Partition {
	im.t.Helper()
	out := tool(im.t, "", "partx", "-S", strconv.Itoa(sector), "-b", "-g", "-P", "-o", "NR,START,SECTORS,TYPE,NAME,UUID", im.path)
	var parts []Partition
	for line := range strings.Lines(out) {
		var p Partition
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "")
		n, err := fmt.Sscanf(rest, `NR="%d" START="%d" SECTORS="%d"`, &p.Number, &p.Off, &p.Len)
		if !ok || n != 3 {
			im.t.Fatalf("partx says %q: %v", line, err)
		}
		_, rest, _ = strings.Cut(rest, `TYPE="`)
		p.Type, rest, _ = strings.Cut(rest, `"`)
		_, rest, _ = strings.Cut(rest, `NAME="`)
		p.Name, rest, _ = strings.Cut(rest, `" UUID="`)
		if id := strings.TrimSuffix(rest, `"`); len(id) == 36 { // of an MBR it is made up from the signature
			p.GUID = strings.ToUpper(id)
		}
		if hex, ok := strings.CutPrefix(p.Type, "0x"); ok {
			p.Type = fmt.Sprintf("%02s", hex)
		} else {
			p.Type = strings.ToUpper(p.Type)
		}
		p.Off, p.Len = p.Off*512, p.Len*512
		if !slices.Contains([]string{"05", "0f", "85"}, p.Type) {
			parts = append(parts, p)
		}
	}
	return parts
}

// like checks that Read finds what libblkid does, in the order of the disk.
func (im image) like(sector, count int) *Table {
	im.t.Helper()
	tab, err := im.read(sector)
	if err != nil {
		im.t.Error(err)
		return &Table{}
	}
	want := im.byLibblkid(sector)
	slices.SortFunc(want, func(a, b Partition) int { return int(a.Off/512 - b.Off/512) })
	if !slices.Equal(tab.Parts, want) || len(want) != count {
		im.t.Errorf("partitions\n%+v\nwant %d:\n%+v", tab.Parts, count, want)
	}
	return tab
}

// The partitions that real tools make are found as libblkid finds them.
func TestReadRealTables(t *testing.T) {
	testenv.Tools(t, "sfdisk", "sgdisk", "parted", "fdisk", "partx")
	many := "sfdisk -q|label:dos\n2048,,E\n" + strings.Repeat(",1M\n", 48)
	for name, c := range map[string]struct {
		count    int
		commands []string
	}{
		"gpt, empty": {0, []string{"sfdisk -q|label:gpt\n"}},
		"gpt":        {3, []string{"sfdisk -q|label:gpt\n,10M,U\n,20M,S\n,,L\n"}},
		"gpt, names": {3, []string{"sfdisk -q|label:gpt\nsize=10M,name=\"Basic data partition\"\nsize=5M,name=\"Größe 磁盘 " +
			"\U0001F4BE\"\nname=\"thirty-six letters are all there are\"\n"}},
		"gpt, slots out of order": {4, []string{"sfdisk -q|label:gpt\n7:start=40960,size=8192\n" +
			"3:start=20480,size=8192\n128:start=2048,size=100\n1:start=61440,size=1\n"}},
		"gpt, four entries":       {1, []string{"sfdisk -q|label:gpt\ntable-length:4\n,10M\n"}},
		"gpt, 1000 entries":       {2, []string{"sfdisk -q|label:gpt\ntable-length:1000\n1:size=10M\n1000:size=5M\n"}},
		"gpt, early":              {1, []string{"sfdisk -q|label:gpt\nfirst-lba:34\nstart=34,size=1\n"}},
		"gpt, sgdisk":             {3, []string{"sgdisk -o -n 1:0:+1M -t 1:ef02 -n 2:0:+20M -t 2:ef00 -c 2:esp -n 5:0:0 -t 5:8e00 -A 5:set:2"}},
		"gpt, sgdisk, odd size":   {1, []string{"sgdisk -o -S 112 -a 1 -n 1:34:77"}},
		"gpt, moved main table":   {2, []string{"sgdisk -o -n 1:4096:+1M -n 2:0:0 -j 2000"}},
		"gpt, deleted and sorted": {2, []string{"sgdisk -o -n 1:0:+1M -n 2:0:+1M -n 3:0:+1M -d 2", "sgdisk -s"}},
		"gpt from mbr":            {3, []string{"sfdisk -q|label:dos\n2048,10M\n,10M\n,,E\n,10M\n", "sgdisk -g"}},
		"gpt, parted": {4, []string{"parted -s DISK mklabel gpt mkpart ESP fat32 1M 20M set 1 esp on mkpart win ntfs 20M 30M " +
			"set 2 msftres on mkpart lvm 30M 40M set 3 lvm on mkpart root ext4 40M 100% disk_set pmbr_boot on"}},
		"mbr, empty label":        {-1, []string{"sfdisk -q|label:dos\n"}},
		"mbr, four":               {4, []string{"sfdisk -q|label:dos\n,10M,7,*\n,10M,c\n,5M,82\n,,83\n"}},
		"mbr, slots out of order": {3, []string{"sfdisk -q|label:dos\n4:start=2048,size=10M\n1:start=40960,size=10M\n2:start=81920,type=8e\n"}},
		"mbr, old geometry":       {2, []string{"sfdisk -q|label:dos\nstart=63,size=16002\nstart=16065,size=16065,type=b\n"}},
		"mbr, from sector 1":      {1, []string{"sfdisk -q|label:dos\nstart=1,type=83\n"}},
		"mbr, many logical":       {48, []string{many}},
		"mbr, logical":            {6, []string{"sfdisk -q|label:dos\n,10M,27\n,10M,7,*\n,,E\n,10M,83\n,5M,82\n,20M,8e\n,1M\n"}},
		"mbr, extended LBA":       {2, []string{"sfdisk -q|label:dos\n,10M\n,,f\n,10M,b\n"}},
		"mbr, extended 85":        {2, []string{"sfdisk -q|label:dos\n,10M\n,,85\n,10M\n"}},
		"mbr, empty extended":     {1, []string{"sfdisk -q|label:dos\n,10M\n,,E\n"}},
		"mbr, first logical gone": {3, []string{"sfdisk -q|label:dos\n,10M\n,,E\n,10M\n,10M\n,10M\n", "sfdisk -q --delete DISK 5"}},
		"mbr, middle one gone":    {4, []string{"sfdisk -q|label:dos\n,10M\n,,E\n,5M\n,6M\n,7M\n,8M\n", "sfdisk -q --delete DISK 6"}},
		"mbr, last one gone":      {2, []string{"sfdisk -q|label:dos\n,10M\n,,E\n,5M\n,6M\n", "sfdisk -q --delete DISK 6"}},
		"mbr, all logical gone": {1, []string{"sfdisk -q|label:dos\n,10M\n,,E\n,5M\n,6M\n", "sfdisk -q --delete DISK 6",
			"sfdisk -q --delete DISK 5"}},
		"mbr, gap filled again": {5, []string{"sfdisk -q|label:dos\n,10M\n,,E\n,5M\n,6M\n,7M\n,8M\n", "sfdisk -q --delete DISK 6",
			"fdisk|n\n\n\n+4M\nw\n"}},
		"mbr, chain out of order": {3, []string{"sfdisk -q|label:dos\n2048,,E\n", "fdisk|n\n102400\n+5M\nn\n20480\n+5M\nn\n61440\n+5M\nw\n"}},
		"mbr, parted": {5, []string{"parted -s DISK mklabel msdos mkpart primary fat32 1M 10M mkpart extended 10M 100% mkpart " +
			"logical ext4 10M 20M mkpart logical linux-swap 30M 40M mkpart logical ntfs 20M 29M mkpart logical 41M 100% set 1 boot on"}},
		"mbr, parted, lba off": {2, []string{"parted -s DISK mklabel msdos mkpart extended 10M 100% set 1 lba off mkpart logical ext4 " +
			"10M 20M mkpart primary fat16 1M 10M"}},
		"mbr from gpt": {2, []string{"sgdisk -o -n 1:0:+10M -n 2:0:+10M -t 2:8200 -m 1:2"}},
		"mbr over gpt": {2, []string{"sfdisk -q|label:gpt\n,10M\n,10M\n", "sfdisk -q --wipe never|label:dos\n,7M\n,7M\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // sgdisk sleeps for a second
			im := newImage(t, 100*mib).do(c.commands...)
			if c.count < 0 {
				if _, err := im.read(512); !errors.Is(err, ErrNone) {
					t.Errorf("%v, want %v", err, ErrNone)
				}
				return
			}
			im.like(512, c.count)
		})
	}
}

// Sectors of 4096 bytes, as fdisk makes them in a file.
func TestReadRealTablesOf4096(t *testing.T) {
	testenv.Tools(t, "fdisk", "partx")
	for name, c := range map[string]struct {
		count  int
		fdisk  string
		sector int // that GuessSector finds
	}{
		"gpt":     {3, "g\nn\n\n\n+20M\nn\n\n\n+2M\nt\n2\nswap\nn\n7\n\n\nw\n", 4096},
		"mbr":     {2, "o\nn\np\n\n\n+20M\nn\np\n\n\n+2M\nt\n2\n82\nw\n", 512},
		"logical": {4, "o\nn\np\n\n\n+20M\nn\ne\n\n\n\nn\nl\n\n+5M\nn\nl\n\n+6M\nn\nl\n\n+7M\nd\n6\nn\nl\n\n+2M\nw\n", 512},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im := newImage(t, 100*mib).do("fdisk -b 4096|" + c.fdisk)
			im.like(4096, c.count)
			f, err := os.Open(im.path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := GuessSector(f, 100*mib); got != c.sector {
				t.Errorf("sectors of %d bytes, want %d", got, c.sector)
			}
		})
	}
	// Read with the wrong size, a GPT says so.
	newImage(t, 100*mib).do("fdisk -b 4096|g\nn\n\n\n\nw\n").want(512, "for sectors of 4096 bytes")
	newImage(t, 100*mib).do("sfdisk -q|label:gpt\n,\n").want(4096, "for sectors of 512 bytes")
	// An extended partition is at another place then, with what was there.
	newImage(t, 100*mib).do("sfdisk -q|label:dos\n,10M\n,,E\n,5M\n").want(4096, "but the disk ends")
}

// A GPT that is damaged, whose disk changed its size, or that has a hybrid.
func TestReadRealGPTInTrouble(t *testing.T) {
	testenv.Tools(t, "sgdisk", "sfdisk", "parted", "partx")
	zero := make([]byte, 512)
	disk := func(t *testing.T) image {
		return newImage(t, 64*mib).do("sfdisk -q|label:gpt\n,10M\n,20M\n,,S\n")
	}
	for name, c := range map[string]struct {
		change func(im image)
		err    string // or
		note   string
	}{
		"backup header wiped":   {func(im image) { im.put(-512, zero) }, "", "backup GPT is damaged (it is no GPT)"},
		"backup entries wiped":  {func(im image) { im.put(-33*512, zero) }, "", "backup GPT is damaged (the checksum"},
		"primary header wiped":  {func(im image) { im.put(512, zero) }, "", "primary GPT is damaged (it is no GPT)"},
		"primary entries wiped": {func(im image) { im.put(1024, zero) }, "", "primary GPT is damaged (the checksum"},
		"headers wiped":         {func(im image) { im.put(512, zero).put(-512, zero) }, "neither GPT", ""},
		"headers and entries":   {func(im image) { im.put(512, zero).put(-33*512, zero) }, "neither GPT", ""},
		"entries wiped":         {func(im image) { im.put(1024, zero).put(-33*512, zero) }, "neither GPT", ""},
		"boot record wiped":     {func(im image) { im.put(0, zero) }, "a GPT without a protective partition", ""},
		"entries of it wiped":   {func(im image) { im.put(446, zero[:64]) }, "a GPT without a protective partition", ""},
		"grown":                 {func(im image) { im.resize(80 * mib) }, "", "made larger"},
		"grown a little":        {func(im image) { im.resize(64*mib + 512) }, "", "made larger"},
		"grown and damaged":     {func(im image) { im.put(-512, zero).resize(80 * mib) }, "", "backup GPT is damaged"},
		"grown, entries damaged": {func(im image) { im.put(1024, zero).resize(80 * mib) }, "",
			"primary GPT is damaged"},
		"grown and moved":       {func(im image) { im.resize(80 * mib); im.do("sgdisk -e") }, "", ""},
		"shrunk":                {func(im image) { im.resize(60 * mib) }, "outside the disk", ""},
		"shrunk a little":       {func(im image) { im.resize(64*mib - 512) }, "outside the disk", ""},
		"grown, other at end":   {func(im image) { swapEnd(im) }, "another GPT at the disk's end", ""},
		"hybrid":                {func(im image) { im.do("sgdisk -h 1:2") }, "hybrid", ""},
		"hybrid, EE last":       {func(im image) { im.do("sgdisk -h 1:2:EE") }, "hybrid", ""},
		"hybrid of one":         {func(im image) { im.do("sgdisk -h 3") }, "hybrid", ""},
		"zapped":                {func(im image) { im.do("sgdisk -z") }, "neither GPT", ""},
		"zapped all":            {func(im image) { im.do("sgdisk -Z") }, ErrNone.Error(), ""},
		"wiped with wipefs":     {func(im image) { im.do("wipefs -aqf") }, ErrNone.Error(), ""},
		"old backup of another": {func(im image) { im.do("sfdisk -q --wipe never|label:gpt\n,1M\n"); restoreEnd(im, disk) }, "differs", ""},
		"other and no primary":  {func(im image) { im.put(0x1B8, []byte{1}).put(512, zero) }, "", "primary GPT is damaged"},
		"boot code put in":      {func(im image) { im.put(0, []byte(strings.Repeat("\xEB\x63\x90", 146))) }, "", ""},
		"parted's active flag":  {func(im image) { im.do("parted -s DISK disk_set pmbr_boot on") }, "", ""},
		"a dummy entry (xorriso)": {func(im image) { im.put(462, []byte{0x80}).put(474, []byte{1}) },
			"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // sgdisk sleeps for a second
			im := disk(t)
			before := im.like(512, 3)
			c.change(im)
			tab := im.want(512, c.err)
			if c.err != "" || tab == nil {
				return
			}
			if !slices.Equal(tab.Parts, before.Parts) {
				t.Errorf("partitions\n%+v\nwant\n%+v", tab.Parts, before.Parts)
			}
			if notes := strings.Join(tab.Notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
}

// swapEnd makes the image larger, as if it had been put on a disk that has
// another GPT's backup at its end.
func swapEnd(im image) {
	im.resize(80 * mib)
	other := newImage(im.t, 80*mib).do("sfdisk -q|label:gpt\n,1M\n")
	b := mustRead(im.t, other.path)
	im.put(-33*512, b[len(b)-33*512:])
}

// restoreEnd gives the image the backup of a GPT made before.
func restoreEnd(im image, disk func(t *testing.T) image) {
	b := mustRead(im.t, disk(im.t.(*testing.T)).path)
	im.put(-33*512, b[len(b)-33*512:])
}

// Disks without partitions, whose file system or boot code has the signature
// of a boot record in the first sector.
func TestReadNoTable(t *testing.T) {
	testenv.Tools(t, "mkfs.fat", "mkfs.ntfs", "mkfs.exfat", "mkfs.ext4", "mkfs.xfs", "mkswap", "sfdisk")
	none := ErrNone.Error()
	for name, c := range map[string]struct {
		commands []string // for a disk of 64 MiB
		err      string
	}{
		"zeros":             {nil, none},
		"fat12":             {[]string{"mkfs.fat -F 12 -s 64"}, none},
		"fat16":             {[]string{"mkfs.fat -F 16"}, none},
		"fat32":             {[]string{"mkfs.fat -F 32 -s 1"}, none},
		"fat16, fake table": {[]string{"mkfs.fat -F 16 --mbr=y"}, none},
		"fat32, fake table": {[]string{"mkfs.fat -F 32 -s 1 --mbr=y"}, none},
		"fat of 4096":       {[]string{"mkfs.fat -S 4096 --mbr=y"}, none},
		"ntfs":              {[]string{"mkfs.ntfs -FQq"}, none},
		"exfat":             {[]string{"mkfs.exfat"}, none},
		"ext4":              {[]string{"mkfs.ext4 -Fq"}, none},
		"xfs":               {[]string{"truncate -s 320M", "mkfs.xfs -q"}, none},
		"swap":              {[]string{"mkswap"}, none},
		"swap, empty table": {[]string{"sfdisk -q|label:dos\n", "mkswap"}, none},
		"fat over mbr":      {[]string{"sfdisk -q|label:dos\n,10M\n", "mkfs.fat -I"}, none},
		"mbr over fat": {[]string{"mkfs.fat", "sfdisk -q --wipe never|label:dos\n,10M\n"},
			"both a boot record with partitions and the boot sector"},
		"mbr over ntfs": {[]string{"mkfs.ntfs -FQq", "sfdisk -q --wipe never|label:dos\n,10M\n"},
			"both a boot record with partitions and the boot sector"},
		"sun":             {[]string{"sfdisk -q|label:sun\n,10M\n"}, "the kind Sun"},
		"sgi":             {[]string{"sfdisk -q|label:sgi\n,10M\n"}, "the kind SGI"},
		"amiga":           {[]string{"parted -s DISK mklabel amiga mkpart a 1M 20M"}, "the kind Amiga"},
		"bsd by parted":   {[]string{"parted -s DISK mklabel bsd"}, "the kind BSD"},
		"dvh":             {[]string{"parted -s DISK mklabel dvh mkpart primary 4M 20M"}, "the kind SGI"},
		"mac":             {[]string{"parted -s DISK mklabel mac mkpart a 1M 20M"}, "the kind Apple"},
		"pc98":            {[]string{"parted -s DISK mklabel pc98 mkpart a 1M 20M"}, "the kind PC-98"},
		"sun by parted":   {[]string{"parted -s DISK mklabel sun mkpart ext2 1M 20M"}, "the kind Sun"},
		"windows dynamic": {[]string{"sfdisk -q|label:dos\n63,10M,42\n"}, "dynamic disk"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im := newImage(t, 64*mib).do(c.commands...)
			im.want(512, c.err)
			if _, err := im.read(512); errors.Is(err, ErrNone) != (c.err == none) {
				t.Errorf("errors.Is(%v, ErrNone) is wrong", err)
			}
		})
	}
}

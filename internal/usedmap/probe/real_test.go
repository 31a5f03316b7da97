package probe

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// maker makes what announces itself under a name. IMG is the file, DIR a
// folder of files, KEY a passphrase, LOOP a loop device of the file.
type maker struct {
	name    string
	size    int64
	command string
}

// makers are the programs at hand, with the options that change where things
// lie or what their superblocks say.
func makers() []maker {
	var out []maker
	add := func(name string, size int64, command string, options ...string) {
		for _, o := range append(options, "") {
			out = append(out, maker{name, size, strings.Replace(command, "OPTIONS", o, 1)})
		}
	}
	add("ext", 300*mib, "mkfs.ext4 -q -F OPTIONS IMG", "-b 1024", "-b 2048", "-t ext2 -b 1024 -r 0", "-t ext3", "-O bigalloc",
		"-O bigalloc -b 1024 -C 8192",
		"-O ^has_journal,^resize_inode", "-O meta_bg,^resize_inode", "-O 64bit -b 65536", "-m 0 -N 5000", "-O ^64bit,^metadata_csum -g 256",
		"-o hurd")
	add("ext", 32*mib, "mke2fs -q -F -O journal_dev OPTIONS IMG", "-b 1024")
	add("xfs", 300*mib, "mkfs.xfs -q -f OPTIONS IMG", "-m crc=0", "-b size=1024", "-b size=512 -m crc=0", "-s size=4096", "-b size=65536",
		"-d agcount=1", "-l agnum=0", "-i size=2048")
	add("xfs", 16*mib, "mkfs.xfs -q -f -d agcount=1 IMG") // its log is near to the start
	add("btrfs", 300*mib, "mkfs.btrfs -q -f OPTIONS IMG", "-m dup -d dup", "-M", "--csum xxhash")
	add("ntfs", 64*mib, "mkfs.ntfs -q -F -Q -p 0 -H 255 -S 63 OPTIONS IMG", "-s 512", "-s 512 -c 512", "-s 512 -c 65536", "-s 4096",
		"-s 512 -c 2097152")
	add("exfat", 200*mib, "mkfs.exfat OPTIONS IMG", "-c 1M", "-c 4K -b 1M")
	add("fat", 20*mib, "mkfs.fat OPTIONS IMG", "-F 12", "-F 16", "-F 32", "-F 32 -R 9", "-F 32 -s 1 -f 1", "-F 16 -f 4", "-S 4096",
		"-a -F 32", "-A", "--mbr=y -F 32", "-M 0xf0", "--variant=atari -S 2048")
	add("fat", 1440*kib, "mkfs.fat IMG")
	add("swap", 64*mib, "mkswap OPTIONS IMG", "-p 8192", "-p 16384", "-p 32768", "-p 65536")
	add("LVM2_member", 64*mib, "pvcreate -qq OPTIONS LOOP", "--labelsector 0", "--labelsector 2", "--labelsector 3", "--metadatacopies 2",
		"--dataalignment 64k", "--pvmetadatacopies 0")
	add("crypto_LUKS", 32*mib, "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file KEY OPTIONS IMG",
		"--type luks1", "--type luks2 --luks2-metadata-size 4m")
	add("DM_verity_hash", 8*mib, "veritysetup format KEY IMG")
	add("bcache", 200*mib, "make-bcache -C IMG")
	add("bcache", 200*mib, "make-bcache -B IMG")
	add("jfs", 64*mib, "mkfs.jfs -q OPTIONS IMG", "-O")
	add("reiserfs", 64*mib, "mkfs.reiserfs -ff -q OPTIONS IMG", "--format 3.5", "-b 1024")
	add("f2fs", 64*mib, "mkfs.f2fs -f OPTIONS IMG", "-O encrypt")
	add("nilfs2", 200*mib, "mkfs.nilfs2 -q -f OPTIONS LOOP", "-b 1024")
	add("minix", 8*mib, "mkfs.minix OPTIONS IMG", "-1", "-2", "-3", "-1 -n 14", "-2 -n 14 -i 4000", "-3 -i 60000")
	add("minix", 512*kib, "mkfs.minix OPTIONS IMG", "-2", "-3")
	add("bfs", 8*mib, "mkfs.bfs IMG")
	add("udf", 64*mib, "mkudffs OPTIONS IMG", "-b 512", "-b 1024", "-b 2048", "-b 4096", "--media-type=dvdram", "--media-type=cdrw",
		"--bootarea=mbr")
	add("iso9660", 0, "genisoimage -quiet OPTIONS -o IMG DIR", "-J -R", "-iso-level 4")
	add("udf", 0, "genisoimage -quiet -udf -o IMG -J -R DIR") // a bridge: both are true
	add("squashfs", 0, "mksquashfs DIR IMG -quiet -no-progress -noappend")
	add("cramfs", 0, "mkfs.cramfs OPTIONS DIR IMG", "-N big")
	add("ufs", 0, "makefs -t ffs OPTIONS -s 16m IMG DIR", "-o version=2", "-o bsize=8192,fsize=1024", "-B be")
	add("iso9660", 0, "makefs -t cd9660 IMG DIR")
	return out
}

// make makes the thing in a new file.
func (m maker) make(t *testing.T) (img string) {
	t.Helper()
	dir := t.TempDir()
	img = filepath.Join(dir, "img")
	if m.size > 0 {
		img = realfs.File(t, m.size)
	}
	key, files := filepath.Join(dir, "key"), filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, n := range map[string]int{key: 100, filepath.Join(files, "a"): 100000, filepath.Join(files, "b.txt"): 10} {
		if err := os.WriteFile(path, []byte(strings.Repeat("x", n)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	words := strings.Fields(m.command)
	if strings.Contains(m.command, "LOOP") {
		testenv.Root(t)
		loop := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", img))
		defer realfs.Run(t, "losetup", "--detach", loop)
		words = strings.Fields(strings.Replace(m.command, "LOOP", loop, 1))
	}
	if strings.HasPrefix(m.command, "veritysetup") {
		if err := os.Truncate(key, 1*mib); err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range words {
		switch w {
		case "IMG":
			words[i] = img
		case "DIR":
			words[i] = files
		case "KEY":
			words[i] = key
		}
	}
	realfs.Run(t, words[0], words[1:]...)
	return img
}

func findIn(t *testing.T, img string) []Match {
	t.Helper()
	f, size := realfs.Open(t, img)
	return mustFind(t, f, size)
}

// known are the names that blkid has for ours.
var known = map[string]string{"vfat": "fat", "ext2": "ext", "ext3": "ext", "ext4": "ext", "ext4dev": "ext", "jbd": "ext",
	"squashfs3": "squashfs"}

// wipefs are the names, as ours, of all that wipefs would wipe in a file: an
// independent list of what announces itself. The end of a boot sector alone
// it takes for a partition table.
func wipefs(t *testing.T, img string) (names []string) {
	t.Helper()
	return wipefsAll(t, img)[filepath.Base(img)]
}

// wipefsAll is wipefs for many files, by their names.
func wipefsAll(t *testing.T, imgs ...string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	out := realfs.Run(t, "wipefs", append([]string{"--no-act", "--parsable", "--noheadings", "--output", "DEVICE,TYPE"}, imgs...)...)
	for line := range strings.Lines(out) {
		img, name, _ := strings.Cut(strings.TrimSpace(line), ",")
		if ours, ok := known[name]; ok {
			name = ours
		}
		if name != "dos" && !slices.Contains(all[img], name) {
			all[img] = append(all[img], name)
		}
	}
	return all
}

func namesOf(found []Match) (names []string) {
	for _, m := range found {
		names = append(names, m.Name)
	}
	return names
}

// Whatever a real program makes is exactly one thing, whichever options it had.
func TestRealOnesAreOneMatch(t *testing.T) {
	testenv.Root(t)
	for _, m := range makers() {
		t.Run(m.command, func(t *testing.T) {
			img := m.make(t)
			found, want := namesOf(findIn(t, img)), []string{m.name}
			if strings.Contains(m.command, "-quiet -udf") {
				want = []string{"iso9660", "udf"}
			}
			if !slices.Equal(found, want) {
				t.Errorf("found %v", found)
			}
			for _, name := range wipefs(t, img) {
				if !slices.Contains(found, name) {
					t.Errorf("wipefs finds %s too", name)
				}
			}
		})
	}
}

// A format over an older one leaves some of it or nothing. What is new is
// found always, and of the old all that wipefs sees.
func TestRealOnesOverOthers(t *testing.T) {
	testenv.Root(t)
	var ours []maker
	for _, m := range makers() {
		if m.size >= 64*mib && !strings.Contains(m.command, "LOOP") &&
			!slices.ContainsFunc(ours, func(o maker) bool { return o.name == m.name }) {
			m.size = 300 * mib
			ours = append(ours, m)
		}
	}
	doubts := 0
	for _, old := range ours {
		made := old.make(t)
		for _, m := range ours {
			if m.name == old.name || m.name == "bcache" { // which refuses
				continue
			}
			img := realfs.Copy(t, made)
			words := strings.Fields(strings.Replace(m.command, "IMG", img, 1))
			if m.name == "swap" {
				words = slices.Insert(words, 1, "--force")
			}
			realfs.Run(t, words[0], words[1:]...)
			found := namesOf(findIn(t, img))
			if !slices.Contains(found, m.name) {
				t.Errorf("%s over %s: found %v", m.name, old.name, found)
			}
			if len(found) > 1 {
				doubts++
			}
			for _, name := range wipefs(t, img) {
				if !slices.Contains(found, name) {
					t.Errorf("%s over %s: found %v; wipefs finds %s", m.name, old.name, found, name)
				}
			}
			os.Remove(img)
		}
	}
	if doubts == 0 || len(ours) < 8 {
		t.Errorf("%d file systems, %d doubts: this proves nothing", len(ours), doubts)
	}
	t.Logf("%d of %d are in doubt", doubts, len(ours)*(len(ours)-1))
}

// wipefs finds in the samples what we find, where its libblkid knows it: the
// formats are not our own invention.
func TestSamplesAreKnownToWipefs(t *testing.T) {
	testenv.Tools(t, "wipefs")
	agreed, all := map[string]bool{}, samples()
	dir := t.TempDir()
	var imgs []string
	for i, s := range all {
		img := filepath.Join(dir, fmt.Sprint(i))
		imgs = append(imgs, img)
		f, err := os.Create(img)
		if err == nil {
			err = f.Truncate(s.size)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range s.disk().spots {
			if _, err := f.WriteAt(w.bytes, w.off); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	found := wipefsAll(t, imgs...)
	for i, s := range all {
		for _, name := range found[fmt.Sprint(i)] {
			switch {
			case name == s.name:
				agreed[name] = true
			case name == "swap" && s.name == "swap-v1", name == "fat" && s.name == "BitLocker", name == "PMBR":
			default:
				t.Errorf("%v: wipefs finds %s", s, name)
			}
		}
	}
	for _, name := range []string{ // what the libblkid of Debian 12 knows
		"DM_integrity", "DM_snapshot_cow", "DM_verity_hash", "BitLocker", "LVM1_member", "LVM2_member", "ReFS", "VMFS", "VMFS_volume_member",
		"adaptec_raid_member",
		"aix", "apfs", "bcache", "bfs", "btrfs", "ceph_bluestore", "cramfs", "crypto_LUKS", "ddf_raid_member", "drbd", "drbdproxy_datalog",
		"erofs", "exfat", "ext", "f2fs", "gfs2",
		"hfs", "hfsplus", "hpfs", "hpt37x_raid_member", "hpt45x_raid_member", "iso9660", "isw_raid_member", "jfs", "jmicron_raid_member",
		"linux_raid_member",
		"lsi_mega_raid_member", "minix", "mpool", "nilfs2", "nss", "nvidia_raid_member", "ocfs", "ocfs2", "oracleasm",
		"promise_fasttrack_raid_member", "reiser4", "reiserfs", "romfs",
		"silicon_medley_raid_member", "solaris", "squashfs", "sun", "swap", "swsuspend", "sysv", "ubi", "ubifs", "udf", "ufs", "ultrix", "vdo",
		"via_raid_member", "vxfs", "xfs_external_log",
		"zfs_member", "zonefs",
	} {
		if !agreed[name] {
			t.Errorf("wipefs finds no %s in the samples", name)
		}
	}
}

// A GRUB in front of the first partition, in a partition of its own or in the
// first 64 KiB of a Btrfs, and the boot sectors of GRUB and syslinux.
func TestBootLoadersAnnounceNothing(t *testing.T) {
	testenv.Root(t)
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var sectors [][]byte
	boots, _ := filepath.Glob("/usr/lib/syslinux/mbr/*.bin")
	images, _ := filepath.Glob("/usr/lib/grub/i386-pc/*boot*.img")
	for _, path := range append(boots, images...) {
		sectors = append(sectors, read(path))
	}
	if len(boots) < 3 || len(images) < 4 {
		t.Fatalf("only %d boot sectors: %v, %v", len(sectors), boots, images)
	}
	heads := map[string][]byte{
		"btrfs": read(maker{"btrfs", 200 * mib, "mkfs.btrfs -q -f IMG"}.make(t))[:1*mib],
		"ext":   read(maker{"ext", 20 * mib, "mkfs.ext4 -q -F IMG"}.make(t))[:1*mib],
	}
	for _, modules := range []string{"biosdisk part_msdos ext2", "biosdisk part_gpt btrfs zstd",
		"biosdisk part_msdos part_gpt lvm mdraid1x cryptodisk luks luks2 xfs ntfs zfs hfsplus ufs1 ufs2 search"} {
		core := filepath.Join(t.TempDir(), "core.img")
		realfs.Run(t, "grub-mkimage", append([]string{"-O", "i386-pc", "-p", "/boot/grub", "-o", core}, strings.Fields(modules)...)...)
		grub := read(core)
		check := func(what string, r io.ReaderAt, size, first, end int64, want ...string) {
			t.Helper()
			got := namesOf(mustFindDisk(t, r, size, first, end))
			if first == size {
				got = namesOf(mustFind(t, r, size))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: found %v", what, got)
			}
		}
		d := &disk{size: 64 * mib}
		d.put(0, grub)
		check("a partition for GRUB", d, d.size, d.size, d.size)
		for i, sector := range sectors {
			d := &disk{size: 64 * mib}
			d.put(0, sector[:min(len(sector), 440)])
			d.put(446, []byte("\x80\x20\x21\x00\x83\xFE\xFF\xFF\x00\x08\x00\x00\x00\x00\x01\x00"))
			d.put(510, []byte("\x55\xAA"))
			d.put(512, grub)
			check(fmt.Sprint("a disk with boot sector ", i), d, d.size, 1*mib, 33*mib)

			for name, head := range heads {
				b := slices.Clone(head)
				copy(b, sector[:min(len(sector), 512)])
				if name == "btrfs" {
					copy(b[512:64<<10], grub)
				}
				d := &disk{size: 64 * mib}
				d.put(0, b)
				check(fmt.Sprint(name, " with boot sector ", i), d, d.size, d.size, d.size, name)
			}
		}
	}
}

// The tables of sfdisk are the disk's own, and nothing beside them.
func TestRealTablesAnnounceNothing(t *testing.T) {
	testenv.Tools(t, "sfdisk")
	for _, label := range []string{"dos", "gpt"} {
		img := realfs.File(t, 64*mib)
		script := filepath.Join(t.TempDir(), "script")
		text := "label: " + label + "\nstart=2048, size=20480, type=L\nstart=22528, size=81920, type=S\n"
		if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		realfs.Run(t, "sh", "-c", "PATH=$PATH:/sbin:/usr/sbin sfdisk --quiet "+img+" < "+script)
		f, size := realfs.Open(t, img)
		if got := mustFindDisk(t, f, size, 1*mib, 51*mib); got != nil {
			t.Errorf("%s: the disk has %v", label, got)
		}
		if got := namesOf(findIn(t, img)); !slices.Equal(got, []string{label}) {
			t.Errorf("%s: as a volume it has %v", label, got)
		}
	}
}

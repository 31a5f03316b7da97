package usedmap

import (
	"context"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// small is the size of the file systems that are put over each other.
const small = 128 << 20

// formats are the file systems that a map is made of, small ones.
var formats = []struct {
	name string
	kind realfs.Kind
	args []string
}{
	{"ext2", realfs.Ext, []string{"-t", "ext2"}},
	{"ext4", realfs.Ext, nil},
	{"xfs", realfs.XFS, nil},
	{"btrfs", realfs.Btrfs, []string{"--mixed"}},
	{"ntfs", realfs.NTFS, nil},
	{"exfat", realfs.ExFAT, nil},
	{"fat16", realfs.FAT, []string{"-F", "16"}},
	{"fat32", realfs.FAT, []string{"-F", "32"}},
}

// others are what a map cannot look into, and how each comes over what was
// there before: by its own tool, which leaves as much as it does in life.
var others = []struct {
	name  string
	words []string // FILE is the volume, DIR a folder with a file
}{
	{"luks1", []string{"cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", "--key-file", "DIR/file",
		"FILE"}},
	{"luks2", []string{"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", "DIR/file", "FILE"}},
	{"f2fs", []string{"mkfs.f2fs", "-f", "-q", "FILE"}},
	{"jfs", []string{"mkfs.jfs", "-q", "FILE"}},
	{"nilfs2", []string{"mkfs.nilfs2", "-f", "-q", "-B", "512", "FILE"}},
	{"reiserfs", []string{"mkfs.reiserfs", "-q", "-f", "-f", "FILE"}},
	{"udf", []string{"mkudffs", "FILE"}},
	{"ufs1", []string{"sh", "-c", "makefs -t ffs -s 48m -o version=1 FILE.fs DIR && dd if=FILE.fs of=FILE conv=notrunc,sparse bs=512 " +
		"status=none"}},
	{"ufs2", []string{"sh", "-c", "makefs -t ffs -s 48m -o version=2 FILE.fs DIR && dd if=FILE.fs of=FILE conv=notrunc,sparse bs=512 " +
		"status=none"}},
	{"squashfs", []string{"sh", "-c", "mksquashfs DIR FILE.fs -quiet -noappend && dd if=FILE.fs of=FILE conv=notrunc bs=1M status=none"}},
	{"iso9660", []string{"sh", "-c", "genisoimage -quiet -o FILE.fs DIR && dd if=FILE.fs of=FILE conv=notrunc bs=1M status=none"}},
	{"old swap", []string{"sh", "-c", "printf SWAP-SPACE | dd of=FILE bs=1 seek=4086 conv=notrunc status=none"}},
	{"md 1.2", []string{"sh", "-c", `printf '\374\116\053\251\001\000\000\000' | dd of=FILE bs=1 seek=4096 conv=notrunc status=none && printf '\010' | dd of=FILE bs=1 seek=4240 conv=notrunc status=none`}},
}

// A file system put over another one, by its own mkfs and without wiping, is
// mapped by itself or is in doubt; in no case is anything lost.
func TestOverEachOther(t *testing.T) {
	testenv.Root(t)
	old := agedFormats(t)
	doubts := 0
	for _, over := range formats {
		for name, img := range old {
			if name == over.name {
				continue
			}
			t.Run(over.name+" over "+name, func(t *testing.T) {
				img := realfs.Copy(t, img)
				over.kind.Format(t, img, over.args...)
				over.kind.Fill(t, img, 3, 4<<20)
				m := mapFile(t, img, 512)
				over.kind.MustSurvive(t, img, m.Free)
				switch p := m.Parts[0]; {
				case p.Doubt == "" && !strings.HasPrefix(p.FS, strings.TrimRight(over.name, "0123456789")):
					t.Errorf("it was mapped as %s", p.FS)
				case p.Doubt == "" && m.FreeBytes() < small/3:
					t.Errorf("only %d bytes are free", m.FreeBytes())
				case p.Doubt != "":
					doubts++
					t.Logf("in doubt: %s", p.Doubt)
				}
			})
		}
	}
	t.Logf("%d of %d were in doubt", doubts, len(formats)*(len(formats)-1))
	if doubts > 10 { // today's mkfs wipe what was there
		t.Error("most of this shows nothing")
	}
}

// What a map cannot look into, put over a file system of which so much is left
// that it still looks whole: all of it counts as used.
func TestOthersOverFileSystems(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", []byte(strings.Repeat("some words\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	left := 0
	for name, img := range agedFormats(t) {
		for _, o := range others {
			t.Run(o.name+" over "+name, func(t *testing.T) {
				img := realfs.Copy(t, img)
				var words []string
				for _, w := range o.words {
					words = append(words, strings.NewReplacer("FILE", img, "DIR", dir).Replace(w))
				}
				realfs.Run(t, words[0], words[1:]...)
				m := mapFile(t, img, 512)
				if m.FreeBytes() != 0 || m.Parts[0].Doubt == "" {
					t.Errorf("%d bytes are free: %+v", m.FreeBytes(), m.Parts)
				}
				if strings.Contains(m.Parts[0].Doubt, " and ") {
					left++
				}
			})
		}
	}
	if left < len(others) {
		t.Errorf("only in %d cases was anything left of the old file system: this does not show much", left)
	}
}

// agedFormats are the formats with files in them, by name.
func agedFormats(t *testing.T) map[string]string {
	t.Helper()
	aged := map[string]string{}
	for _, f := range formats {
		img := f.kind.Make(t, small, f.args...)
		f.kind.Fill(t, img, 2, 24<<20)
		aged[f.name] = img
	}
	return aged
}

// mapFile maps a file that holds a disk.
func mapFile(t testing.TB, img string, sector int) *Map {
	t.Helper()
	f, size := realfs.Open(t, img)
	m, err := Read(context.Background(), f, size, sector)
	if err != nil {
		t.Fatal(err)
	}
	checkMap(t, m)
	return m
}

// checkMap checks what holds of every map: the parts are the whole disk, and
// what is free lies in parts that are not in doubt, in order and apart.
func checkMap(t testing.TB, m *Map) {
	t.Helper()
	at, free := int64(0), int64(0)
	for _, p := range m.Parts {
		if p.Off() != at || p.Len() <= 0 || len(p.Ranges) != 1 {
			t.Fatalf("a part begins at %d, not at %d: %+v", p.Off(), at, p)
		}
		if (p.Doubt != "" || p.Kind == Gap) && p.Free != 0 || p.Free > p.Len() {
			t.Fatalf("%d bytes are free in %+v", p.Free, p)
		}
		at += p.Len()
		free += p.Free
	}
	if at != m.Size || m.Doubt != "" && len(m.Free) > 0 {
		t.Fatalf("the parts have %d of %d bytes", at, m.Size)
	}
	end := int64(-1)
	for _, r := range m.Free {
		if r.Off <= end || r.Len <= 0 || r.End() > m.Size {
			t.Fatalf("the free range %+v is out of order", r)
		}
		end = r.End()
	}
	if free != m.FreeBytes() && m.free() {
		t.Fatalf("the parts have %d free bytes, the disk %d", free, m.FreeBytes())
	}
}

// free reports whether nothing was dropped for want of room.
func (m *Map) free() bool { return !strings.Contains(strings.Join(m.Notes, ""), "pieces") }

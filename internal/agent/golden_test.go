package agent

import (
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/sharedir"
)

// goldenBench is a box that is to get the images of another one, which is called from.
// That one's disks are given back as they were at its backup.
func goldenBench(t *testing.T) (b *bench, from string, disks [2]string) {
	b = newBench(t)
	from = b.addr.String()
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	b.do(box.Backup, box.Done)
	disks = [2]string{b.read("dev/vda"), b.read("dev/vdb")}
	b.addr, _ = box.ParseAddr("10.88.0.12")
	return b, from, disks
}

// again makes the other box's next backup, with other contents.
func (b *bench) again(t *testing.T, addr string, disks ...string) {
	t.Helper()
	other := &bench{t: t, dir: t.TempDir()}
	other.addr, _ = box.ParseAddr(addr)
	for _, name := range []string{"tftp", "backup"} {
		if err := os.Symlink(b.path(name), other.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	other.mkdir("dev", "sys/block", "proc")
	for i, name := range disks {
		other.disk(name, "S"+string(rune('1'+i)), uint64(10+i))
	}
	other.do(box.BackupAgain, box.Done)
}

func withFrom(from string) func(*bootcfg.Cmdline) {
	return func(c *bootcfg.Cmdline) { c.From, c.Disks = from, []string{"vda", "vdb"} }
}

// TestGoldenMeanwhile: the other box makes a backup while its images are restored. What was
// begun with is restored to its end, since it is .old then.
func TestGoldenMeanwhile(t *testing.T) {
	b, from, disks := goldenBench(t)
	b.wreck("vda")
	b.wreck("vdb")
	did := false
	cmdline := b.arm(box.Restore, withFrom(from))
	b.mend = func(c *Config) {
		c.Alive = func() {
			if text := b.console.String(); !did && strings.Contains(text, "vdb: image checked") {
				did = true
				b.again(t, from, "vda", "vdb")
			}
		}
	}
	b.want(b.run(cmdline), box.Done)
	if !did || !b.exists("backup/"+from+"/vda.raw.gz.old") {
		t.Fatal("the other box made no backup meanwhile")
	}
	if b.read("dev/vda") != disks[0] || b.read("dev/vdb") != disks[1] {
		t.Error("what is restored is not the backup that it began with")
	}
}

// commits lets the other box make a backup when its folder was listed n times.
type commits struct {
	durable.OS
	dir string
	n   int
	do  func()
}

func (c *commits) ReadDir(dir string) ([]string, error) {
	names, err := c.OS.ReadDir(dir)
	if dir == c.dir {
		if c.n--; c.n == 0 {
			c.do()
		}
	}
	return names, err
}

// TestGoldenTorn: images that are put in place while they are listed are not taken for a
// backup, whenever that happens. This backup has one disk more than the one before, so a
// list of half of it would leave a disk out.
func TestGoldenTorn(t *testing.T) {
	const looks = 3 // at the folder: whether it is there, and twice at its images
	for n := 1; n <= looks+1; n++ {
		b, from, _ := goldenBench(t)
		os.Remove(b.path("backup", from, "vdb.raw.gz"))
		os.Remove(b.path("backup", from, "vdb.json"))
		fsys := &commits{dir: b.path("backup", from), n: n, do: func() { b.again(t, from, "vda", "vdb") }}
		s := &Share{FS: fsys, Backup: b.path("backup"), Voice: voice{newSession(Config{})},
			Cmd: &bootcfg.Cmdline{Action: box.Verify, Address: b.addr, From: from}}
		area, err := sharedir.Open(fsys, s.Backup)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := (&shareHome{Share: s, folder: area.Look(b.addr)}).entries()
		switch torn := err != nil && strings.Contains(err.Error(), "were changed while they were listed"); {
		case n == 1 && (err != nil || len(entries) != 2), n > looks && (err != nil || len(entries) != 1), n > 1 && n <= looks && !torn:
			t.Errorf("a backup after look %d: %d images, %v", n, len(entries), err)
		case (fsys.n <= 0) != (n <= looks):
			t.Errorf("look %d came: %v", n, fsys.n <= 0)
		}
	}
}

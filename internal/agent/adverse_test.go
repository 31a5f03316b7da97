package agent

import (
	"bytes"
	"compress/gzip"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/sharedir"
)

func (b *bench) bootFile() string { return "tftp/pxelinux.cfg/" + b.addr.Hex() }

// wreck changes a disk's bytes, not its size.
func (b *bench) wreck(name string) {
	b.write("dev/"+name, strings.Repeat("x", len(b.read("dev/"+name))))
}

// TestResultSurvivesPowerCut: the start that only disarms must not make a
// plain "done" of what was less.
func TestResultSurvivesPowerCut(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, Done)
	b.wreck("vda")
	cmdline := b.arm(box.Verify, nil)
	boot := b.read(b.bootFile())
	b.want(b.run(cmdline), Differs)
	b.write(b.bootFile(), boot)
	b.want(b.run(cmdline), Differs)

	cmdline = b.arm(box.BackupAgain, nil)
	boot = b.read(b.bootFile())
	b.want(b.run(cmdline), Done)
	facts, err := image.ParseFacts([]byte(b.read(folder + "vda.json")))
	if err != nil {
		t.Fatal(err)
	}
	facts.Bad = []image.Range{{Off: 512, Len: 512}}
	b.write(folder+"vda.json", string(facts.Marshal()))
	os.Remove(b.path(folder, "last-action.json"))
	b.write(b.bootFile(), boot)
	b.want(b.run(cmdline), BadSectors)
}

// TestExpiresWhateverIsWrong: an arming ends, also of a box that cannot work.
func TestExpiresWhateverIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(b *bench){
		"image cut":         func(b *bench) { b.write(folder+"vda.raw.gz", "cut") },
		"image gone":        func(b *bench) { os.Remove(b.path(folder, "vda.raw.gz")) },
		"folder in the way": func(b *bench) { b.mkdir(folder + "a.tmp/b") },
		"commit.json":       func(b *bench) { b.write(folder+"commit.json", "?") },
		"other address":     func(b *bench) { b.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") } },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			b.do(box.Backup, Done)
			spoil(b)
			before := b.read("dev/vda")
			cmdline := b.arm(box.BackupAgain, func(c *bootcfg.Cmdline) { c.Expires = time.Now().Add(-time.Hour).UTC().Truncate(time.Second) })
			b.want(b.run(cmdline), Expired)
			if b.read("dev/vda") != before {
				t.Fatal("the disk was changed")
			}
		})
	}
}

// TestWrongAddressIsLogged: the armed box's log says why nothing happens.
func TestWrongAddressIsLogged(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") }
	b.do(box.Backup, Refused)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log, "10.88.0.12") {
		t.Fatalf("the log does not name the other address:\n%s", log)
	}
}

// TestRecordCannotBeWritten: a good restore is not done again for want of room.
func TestRecordCannotBeWritten(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	good := b.read("dev/vda")
	b.do(box.Backup, Done)
	b.wreck("vda")
	os.Remove(b.path(folder, "last-action.json"))
	b.mkdir(folder + "last-action.json/in-the-way")
	b.do(box.Restore, Done)
	if b.read("dev/vda") != good {
		t.Fatal("the disk is not restored")
	}
}

// TestImageThatIsNoDisk: half a sector at the end is found before the first write.
func TestImageThatIsNoDisk(t *testing.T) {
	for name, size := range map[string]int{"odd": 3<<20 + 100, "empty": 0} {
		b := newBench(t)
		b.disk("vda", "S1", 1)
		before := b.read("dev/vda")
		var image bytes.Buffer
		w := gzip.NewWriter(&image)
		w.Write([]byte(before[:size]))
		w.Close()
		b.write(folder+"vda.gz", image.String())
		b.do(box.Restore, Refused)
		if b.read("dev/vda") != before {
			t.Fatalf("%s: the disk was changed", name)
		}
	}
}

// TestLastImageOfADisk: a disk that is not found any more loses its place among
// the current images with a warning, and never its last image.
func TestLastImageOfADisk(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	b.do(box.Backup, Done)
	last := b.read(folder + "vdb.raw.gz")
	os.RemoveAll(b.path("sys/block/vdb"))
	b.do(box.BackupAgain, Done)
	if log := b.read("backup/maintenance.log"); !strings.Contains(log, "image vdb has no successor") {
		t.Fatalf("nothing warns of vdb:\n%s", log)
	}
	b.do(box.BackupAgain, Refused)
	if b.read(folder+"vdb.raw.gz.old") != last {
		t.Fatal("the last image of vdb is gone")
	}
}

// TestNamedDiskMissing: half a restore is none.
func TestNamedDiskMissing(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, Done)
	b.wreck("vda")
	before := b.read("dev/vda")
	b.want(b.run(b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.Disks = []string{"vda", "vdz"} })), Refused)
	if b.read("dev/vda") != before {
		t.Fatal("the disk was changed")
	}
}

// TestDisarmedIntoAnotherFile: a file that the loader takes after the box's own
// came while the box was at work. The box is disarmed all the same, since it
// would never come back otherwise, and says what it will start.
func TestDisarmedIntoAnotherFile(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.write("tftp/pxelinux.cfg/0A58", "DEFAULT install\nLABEL install\nKERNEL linux\n")
	b.do(box.Backup, Done)
	for _, log := range []string{"backup/maintenance.log", folder + "maintenance.log"} {
		if text := b.read(log); !strings.Contains(text, "error: this box may not start its own disk now: the loader takes ") || !strings.Contains(text, "0A58 for it before `default`") {
			t.Errorf("%s does not say that another file is taken:\n%s", log, text)
		}
	}
	os.Remove(b.path("tftp/pxelinux.cfg/0A58"))
	os.Remove(b.path(folder, "maintenance.log"))
	b.do(box.Verify, Done)
	if text := b.read(folder + "maintenance.log"); strings.Contains(text, "may not start") {
		t.Errorf("the box finds fault with plain local boot:\n%s", text)
	}
}

// TestListOfDisks: only the absence of disk-devices.lst means all disks.
func TestListOfDisks(t *testing.T) {
	for name, text := range map[string]string{
		"no bytes": "", "blank lines": "\r\n \n,\n", "a comment": "# vda\n", "a mark": "\xef\xbb\xbf", "UTF-16": "\xff\xfev\x00d\x00a\x00",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			b.disk("vdb", "S2", 2)
			b.do(box.Backup, Done)
			b.wreck("vdb")
			wrecked := b.read("dev/vdb")
			b.write(folder+sharedir.DisksName, text)
			for _, action := range []box.Action{box.Restore, box.Verify, box.BackupAgain} {
				b.do(action, Refused)
			}
			if b.read("dev/vdb") != wrecked {
				t.Error("a disk was written that no list names")
			}
			b.write(folder+sharedir.DisksName, "\xef\xbb\xbfvda\r\nvda\r\n")
			b.do(box.Restore, Done)
			if b.read("dev/vdb") != wrecked {
				t.Error("vdb was written, and vda alone is named")
			}
		})
	}
}

// TestLikeListOfDisks: a file that could have been meant to be the list does not
// count, and is named where nobody overlooks it.
func TestLikeListOfDisks(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.write(folder+"disk-devices.lst.txt", "vda")
	b.do(box.Backup, Done)
	want := "error: there is no disk-devices.lst, so that no disk is left out by it; disk-devices.lst.txt in "
	if log := b.read(folder + "maintenance.log"); strings.Count(log, want) != 2 {
		t.Errorf("not said, and said again beside the outcome:\n%s", log)
	}
	b.write(folder+"disk-devices.lst", "vda")
	b.do(box.Verify, Done)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log, "info: disk-devices.lst counts; disk-devices.lst.txt in ") {
		t.Errorf("which of two files counts is not said:\n%s", log)
	}
}

// TestWrongClock: images that are dated later than now are said, and backed up
// again all the same.
func TestWrongClock(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, Done)
	facts, err := image.ParseFacts([]byte(b.read(folder + "vda.json")))
	if err != nil {
		t.Fatal(err)
	}
	facts.Time = time.Date(2037, 1, 1, 0, 0, 0, 0, time.UTC)
	b.write(folder+"vda.json", string(facts.Marshal()))
	b.do(box.BackupAgain, Done)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log, "is dated 2037-01-01T00:00:00Z, later than the storage server's clock") {
		t.Errorf("the log has:\n%s", log)
	}
}

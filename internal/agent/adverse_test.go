package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
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
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	cmdline := b.arm(box.Verify, nil)
	boot := b.read(b.bootFile())
	b.want(b.run(cmdline), box.Differs)
	b.write(b.bootFile(), boot)
	b.want(b.run(cmdline), box.Differs)

	cmdline = b.arm(box.BackupAgain, nil)
	boot = b.read(b.bootFile())
	b.want(b.run(cmdline), box.Done)
	facts, err := image.ParseFacts([]byte(b.read(folder + "vda.json")))
	if err != nil {
		t.Fatal(err)
	}
	facts.Bad = []image.Range{{Off: 512, Len: 512}}
	b.write(folder+"vda.json", string(facts.Marshal()))
	os.Remove(b.path(folder, "last-action.json"))
	b.write(b.bootFile(), boot)
	b.want(b.run(cmdline), box.BadSectors)
}

// TestExpiresWhateverIsWrong: an arming ends, also of a box that cannot work.
func TestExpiresWhateverIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(b *bench){
		"image cut":         func(b *bench) { b.write(folder+"vda.raw.gz", "cut") },
		"image gone":        func(b *bench) { os.Remove(b.path(folder, "vda.raw.gz")) },
		"folder in the way": func(b *bench) { b.mkdir(folder + "a.tmp/b") },
		"commit.json":       func(b *bench) { b.write(folder+"commit.json", "?") },
		"other address":     func(b *bench) { b.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") } },
		"no marker":         func(b *bench) { os.Remove(b.path("backup", sharedir.Marker)) },
		"no TFTP area":      func(b *bench) { os.Remove(b.path("tftp/pxelinux.0")) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			b.do(box.Backup, box.Done)
			spoil(b)
			before := b.read("dev/vda")
			if got := b.run(b.arm(box.Verify, nil)); got != box.Refused && got != box.Failed {
				t.Errorf("before it expires, the outcome is %q", got)
			}
			cmdline := b.arm(box.BackupAgain, func(c *bootcfg.Cmdline) { c.Expires = time.Now().Add(-time.Hour).UTC().Truncate(time.Second) })
			b.want(b.run(cmdline), box.Expired)
			if b.read("dev/vda") != before {
				t.Fatal("the disk was changed")
			}
		})
	}
}

// ahead is a file system of a server whose clock is ahead of ours.
type ahead struct {
	durable.FS
	by time.Duration
}

type aheadFile struct {
	durable.Readable
	by time.Duration
}

func (a ahead) Open(path string) (durable.Readable, error) {
	f, err := a.FS.Open(path)
	return aheadFile{f, a.by}, err
}

func (f aheadFile) ModTime() time.Time { return f.Readable.ModTime().Add(f.by) }

// TestExpiresByTheServersClock: a box's own clock may be years off.
func TestExpiresByTheServersClock(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	for by, want := range map[time.Duration]box.Outcome{2 * time.Hour: box.Expired, 0: box.Done} {
		for _, what := range []string{"with its areas", "without the backup area"} {
			if what != "with its areas" {
				os.Rename(b.path("backup", sharedir.Marker), b.path("away"))
			}
			s := newSession(b.config(b.arm(box.RefreshInfo, func(c *bootcfg.Cmdline) {
				c.Expires = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
			})))
			s.fsys = ahead{s.fsys, by}
			got := outcomeOf(s.run(context.Background()))
			if what != "with its areas" && by == 0 {
				want = box.Refused
			}
			if got != want {
				t.Errorf("%s, on a server that is %v ahead: %q", what, by, got)
			}
			os.Rename(b.path("away"), b.path("backup", sharedir.Marker))
		}
	}
}

// meanwhile does something once, while the box is at its action.
func (b *bench) meanwhile(do func()) {
	b.mend = func(c *Config) {
		c.Alive = func() {
			if do != nil && b.exists(folder+"testbox-info.txt") {
				do()
				do = nil
			}
		}
	}
}

// TestCannotDisarm: a box that would do its action again and again says so.
func TestCannotDisarm(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.meanwhile(func() { os.Remove(b.path(b.bootFile())); b.mkdir(b.bootFile() + "/in-the-way") })
	b.do(box.Backup, box.Failed)
	b.says("backup: failed: disarm: ")
}

// TestEditedMeanwhile: a boot file that was edited is removed, if it is of this
// arming.
func TestEditedMeanwhile(t *testing.T) {
	for _, own := range []bool{true, false} {
		b := newBench(t)
		b.disk("vda", "S1", 1)
		cmdline := b.arm(box.Backup, nil)
		b.meanwhile(func() {
			if !own {
				b.arm(box.Verify, nil)
			}
			b.write(b.bootFile(), b.read(b.bootFile())+"LABEL memtest\n  KERNEL memtest\n")
		})
		if got := b.run(cmdline); b.exists(b.bootFile()) == own || (got == box.Done) != own {
			t.Errorf("edited, and of this arming %v: %q, the boot file is there: %v\n%s", own, got, b.exists(b.bootFile()), b.console.String())
		}
	}
}

// facts changes the sidecar of an image.
func (b *bench) facts(name string, change func(*image.Facts)) {
	b.t.Helper()
	f, err := image.ParseFacts([]byte(b.read(folder + name + ".json")))
	if err != nil {
		b.t.Fatal(err)
	}
	change(f)
	b.write(folder+name+".json", string(f.Marshal()))
}

// twoDisks is a box with a backup of two disks, which are wrecked since.
func twoDisks(t *testing.T) (b *bench, wrecked func() bool) {
	b = newBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	b.wreck("vdb")
	a, c := b.read("dev/vda"), b.read("dev/vdb")
	return b, func() bool { return b.read("dev/vda") == a && b.read("dev/vdb") == c }
}

// TestMixedArmings: images that were not made together are not restored
// together.
func TestMixedArmings(t *testing.T) {
	b, wrecked := twoDisks(t)
	b.facts("vdb", func(f *image.Facts) { f.Arming = box.NewArming() })
	b.do(box.Restore, box.Refused)
	b.says("not of one backup")
	os.Remove(b.path(folder, "vdb.json"))
	b.do(box.Restore, box.Refused)
	if !wrecked() {
		t.Error("a disk was written")
	}
}

// TestSecondImageDamaged: all images are checked before the first disk is
// written.
func TestSecondImageDamaged(t *testing.T) {
	for _, name := range []string{"vda", "vdb"} {
		b, wrecked := twoDisks(t)
		image := []byte(b.read(folder + name + ".raw.gz"))
		image[len(image)/2] ^= 4
		b.write(folder+name+".raw.gz", string(image))
		b.do(box.Restore, box.Refused)
		if !wrecked() {
			t.Errorf("the image %s is damaged, and a disk was written", name)
		}
	}
}

// TestOneOfTwo: what is wrong with one disk of two is in the outcome, whichever
// it is.
func TestOneOfTwo(t *testing.T) {
	bad := func(f *image.Facts) { f.Bad = []image.Range{{Off: 512, Len: 512}} }
	whole := func(f *image.Facts) { f.Bad = nil }
	for _, name := range []string{"vda", "vdb"} {
		b, _ := twoDisks(t)
		b.facts(name, bad)
		b.do(box.Restore, box.BadSectors)
		b.do(box.Verify, box.BadSectors)
		b.facts(name, whole)
		b.do(box.Verify, box.Done)
		b.wreck(name)
		b.do(box.Verify, box.Differs)
	}
}

// TestHandmade: an image that is not one of a whole disk is not written over
// one.
func TestHandmade(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	before := b.read("dev/vda")
	made := func(name, content string) {
		var file bytes.Buffer
		w := gzip.NewWriter(&file)
		w.Write([]byte(content))
		w.Close()
		b.write(folder+name, file.String())
	}
	qcow2 := "QFI\xfb\x00\x00\x00\x03" + before[8:]
	for name, content := range map[string]string{"vda1.gz": before, "vda.gz": qcow2} {
		made(name, content)
		b.do(box.Restore, box.Refused)
		if b.read("dev/vda") != before {
			t.Fatalf("%s was written", name)
		}
		os.Remove(b.path(folder, name))
	}
	made("vda.gz", qcow2)
	b.want(b.run(b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.Raw = true })), box.Done)
	if b.read("dev/vda") != qcow2 {
		t.Error("what was asked for is not written")
	}
}

// TestBefore: which images a backup replaces. A letter is an image that is
// there, in capitals if it is whole.
func TestBefore(t *testing.T) {
	s := newSession(Config{})
	s.cmd = &bootcfg.Cmdline{Action: box.BackupAgain}
	s.log = sharedir.ConsoleLog(box.Addr{}, "", sharedir.LogOptions{})
	home := &shareHome{Share: s.share()}
	entries := func(letters string) (list []sharedir.Entry) {
		for _, c := range letters {
			e := sharedir.Entry{Name: strings.ToLower(string(c)), Path: string(c), Facts: &image.Facts{}}
			if strings.ToLower(e.Path) == e.Path {
				e.Facts.Bad = []image.Range{{Len: 512}}
			}
			list = append(list, e)
		}
		return list
	}
	for _, c := range []struct {
		made, current, old string
		want               sharedir.Before
		refused            bool
	}{
		{"A", "", "A", sharedir.None, false},
		{"a", "A", "A", sharedir.Retire, false},
		{"A", "a", "A", sharedir.Retire, false},
		{"a", "a", "A", sharedir.Replace, false},
		{"a", "a", "a", sharedir.Retire, false},
		{"ab", "aB", "A", 0, true}, // B would be lost
		{"ab", "aB", "AB", sharedir.Replace, false},
		{"a", "ab", "A", 0, true}, // b has no successor
		{"aB", "ab", "AB", sharedir.Replace, false},
	} {
		b := &shareBackup{home: home, entries: entries(c.current), old: entries(c.old), made: map[string]bool{}}
		for _, e := range entries(c.made) {
			b.made[e.Name] = wholeEntry(e)
		}
		if got, err := b.before(); got != c.want || (err != nil) != c.refused {
			t.Errorf("made %s, there are %s and old %s: %v, %v", c.made, c.current, c.old, got, err)
		}
	}
	if !wholeEntry(sharedir.Entry{}) {
		t.Error("an image without a sidecar counts as damaged")
	}
}

// TestWrongAddressIsLogged: the armed box's log says why nothing happens.
func TestWrongAddressIsLogged(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") }
	b.do(box.Backup, box.Refused)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log, "10.88.0.12") {
		t.Fatalf("the log does not name the other address:\n%s", log)
	}
}

// TestRecordCannotBeWritten: a good restore is not done again for want of room.
func TestRecordCannotBeWritten(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	good := b.read("dev/vda")
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	os.Remove(b.path(folder, "last-action.json"))
	b.mkdir(folder + "last-action.json/in-the-way")
	b.do(box.Restore, box.Done)
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
		b.do(box.Restore, box.Refused)
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
	b.do(box.Backup, box.Done)
	last := b.read(folder + "vdb.raw.gz")
	os.RemoveAll(b.path("sys/block/vdb"))
	b.do(box.BackupAgain, box.Done)
	if log := b.read("backup/maintenance.log"); !strings.Contains(log, "image vdb has no successor") {
		t.Fatalf("nothing warns of vdb:\n%s", log)
	}
	b.do(box.BackupAgain, box.Refused)
	if b.read(folder+"vdb.raw.gz.old") != last {
		t.Fatal("the last image of vdb is gone")
	}
}

// TestNamedDiskMissing: half a restore is none.
func TestNamedDiskMissing(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	before := b.read("dev/vda")
	b.want(b.run(b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.Disks = []string{"vda", "vdz"} })), box.Refused)
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
	b.do(box.Backup, box.Done)
	for _, log := range []string{"backup/maintenance.log", folder + "maintenance.log"} {
		if text := b.read(log); !strings.Contains(text, "error: this box may not start its own disk now: the loader takes ") ||
			!strings.Contains(text, "0A58 for it before `default`") {
			t.Errorf("%s does not say that another file is taken:\n%s", log, text)
		}
	}
	os.Remove(b.path("tftp/pxelinux.cfg/0A58"))
	os.Remove(b.path(folder, "maintenance.log"))
	b.do(box.Verify, box.Done)
	if text := b.read(folder + "maintenance.log"); strings.Contains(text, "may not start") {
		t.Errorf("the box finds fault with plain local boot:\n%s", text)
	}
}

// TestListOfDisks: only the absence of disk-devices.lst means all disks.
func TestListOfDisks(t *testing.T) {
	b, wrecked := twoDisks(t)
	list := b.path(folder, box.DisksFile)
	for name, text := range map[string]string{
		"no bytes": "", "blank lines": "\r\n \n,\n", "a comment": "# vda\n", "a mark": "\xef\xbb\xbf", "UTF-16": "\xff\xfev\x00d\x00a\x00",
		"a link to nothing": "link",
	} {
		os.Remove(list)
		if text == "link" {
			if err := os.Symlink("nowhere", list); err != nil {
				t.Fatal(err)
			}
		} else {
			b.write(folder+box.DisksFile, text)
		}
		for _, action := range []box.Action{box.Restore, box.Verify, box.BackupAgain} {
			b.do(action, box.Refused)
		}
		if !wrecked() {
			t.Errorf("%s: a disk was written that no list names", name)
		}
	}
	os.Remove(list)
	vdb := b.read("dev/vdb")
	b.write(folder+box.DisksFile, "\xef\xbb\xbfvda\r\nvda\r\n")
	b.do(box.Restore, box.Done)
	if wrecked() || b.read("dev/vdb") != vdb {
		t.Error("vda alone is named, and it is not vda alone that was written")
	}
}

// TestLikeListOfDisks: a file that could have been meant to be the list does not
// count, and is named where nobody overlooks it.
func TestLikeListOfDisks(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.write(folder+"disk-devices.lst.txt", "vda")
	b.do(box.Backup, box.Done)
	want := "error: there is no disk-devices.lst, so that no disk is left out by it; disk-devices.lst.txt in "
	if log := b.read(folder + "maintenance.log"); strings.Count(log, want) != 2 {
		t.Errorf("not said, and said again beside the outcome:\n%s", log)
	}
	b.write(folder+"disk-devices.lst", "vda")
	b.do(box.Verify, box.Done)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log, "info: disk-devices.lst counts; disk-devices.lst.txt in ") {
		t.Errorf("which of two files counts is not said:\n%s", log)
	}
}

// TestWrongClock: images that are dated later than now are said, and backed up
// again all the same.
func TestWrongClock(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	facts, err := image.ParseFacts([]byte(b.read(folder + "vda.json")))
	if err != nil {
		t.Fatal(err)
	}
	facts.Time = time.Date(2037, 1, 1, 0, 0, 0, 0, time.UTC)
	b.write(folder+"vda.json", string(facts.Marshal()))
	b.do(box.BackupAgain, box.Done)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log,
		"is dated 2037-01-01T00:00:00Z, later than the storage server's clock") {
		t.Errorf("the log has:\n%s", log)
	}
}

// TestUnreadyController: a backup that may lack a disk says so beside its
// outcome.
func TestUnreadyController(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	const text = "controller nvme0 (NVMe controller, connecting) is not ready yet; " +
		"if disks are behind it, this box has more disks than are seen"
	b.do(box.Backup, box.Done)
	if log := b.read(folder + "maintenance.log"); strings.Contains(log, "controller") {
		t.Errorf("without such a controller the log says:\n%s", log)
	}
	b.write("sys/class/nvme/nvme0/state", "connecting\n")
	b.do(box.BackupAgain, box.Done)
	// It stands where it was seen, and again beside the outcome.
	if log := b.read(folder + "maintenance.log"); strings.Count(log, text) != 2 {
		t.Errorf("the log says:\n%s", log)
	}
}

// TestWordOfNewerProgram: an older maintenance system does nothing that it does not
// fully understand, says so in the box's log, and does not try for ever.
func TestWordOfNewerProgram(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.wreck("vda")
	before := b.read("dev/vda")
	armed := func(expires time.Time) string {
		cmdline := b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.Expires = expires.UTC().Truncate(time.Second) })
		const word = " testbox-later=1"
		boot := b.read(b.bootFile())
		b.write(b.bootFile(), strings.Replace(boot, " testbox-arming=", word+" testbox-arming=", 1))
		return cmdline + word
	}
	b.want(b.run(armed(time.Now().Add(time.Hour))), box.Refused)
	if log := b.read(folder + "maintenance.log"); !strings.Contains(log, "testbox-later: unknown word") {
		t.Errorf("the box's log does not say why:\n%s", log)
	}
	if !b.exists(b.bootFile()) {
		t.Error("a box whose arming has not expired was disarmed")
	}
	b.want(b.run(armed(time.Now().Add(-time.Hour))), box.Expired)
	if b.exists(b.bootFile()) {
		t.Error("the box is still armed after its arming has expired")
	}
	if b.read("dev/vda") != before {
		t.Error("the disk was changed")
	}
}

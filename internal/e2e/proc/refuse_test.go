package proc

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// refusal is a box in a state in which the agent must refuse.
type refusal struct {
	name  string
	disks func() []*testDisk
	// set makes the state, arms, and boots.
	set  func(t *testing.T, b *testBox)
	says []string
}

func none() []*testDisk { return nil }
func one() []*testDisk  { return []*testDisk{disk("sda", scattered(1))} }
func two() []*testDisk  { return []*testDisk{disk("sda", scattered(1)), disk("sdb", scattered(2))} }

// backedUp makes a backup, then changes something, then arms for the action.
func backedUp(change func(t *testing.T, b *testBox), action string, flags ...string) func(*testing.T, *testBox) {
	return func(t *testing.T, b *testBox) {
		b.does("backup")
		change(t, b)
		b.arm(action, flags...)
	}
}

// replace puts another disk in the place of the i-th, which is zeros.
func replace(i int, change func(d *testDisk)) func(*testing.T, *testBox) {
	return func(t *testing.T, b *testBox) {
		b.disks[i] = disk(b.disks[i].name, nil)
		b.disks[i].serial, b.disks[i].wwn = "NEW-"+b.disks[i].serial, "5000c5000000000"+string(rune('a'+i))
		change(b.disks[i])
		b.disks[i].attach(t)
		b.plug()
	}
}

func nothing(*testing.T, *testBox) {}

func (b *testBox) mv(from, to string) {
	b.t.Helper()
	must(b.t, os.Rename(b.folder(from), b.folder(to)))
}

func (b *testBox) rm(path string) { b.t.Helper(); must(b.t, os.Remove(path)) }

var refusals = []refusal{
	{"no boot file", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		b.rm(b.bootFile())
	}, nil},
	{"boot file of another address", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		b.addr = "10.88.0.12"
	}, []string{"10.88.0.12"}},
	{"boot file with another action", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		old, err := os.ReadFile(b.path("cmdline"))
		must(t, err)
		b.arm("refresh-info", "--replace")
		must(t, os.WriteFile(b.path("cmdline"), old, 0o644))
	}, []string{"backup", "refresh-info"}},
	{"boot file with another arming", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		old, err := os.ReadFile(b.path("cmdline"))
		must(t, err)
		b.arm("backup", "--replace")
		must(t, os.WriteFile(b.path("cmdline"), old, 0o644))
	}, []string{"arming"}},
	{"boot file with other disks", two, func(t *testing.T, b *testBox) {
		b.arm("backup", "--disks", "sda")
		text, err := os.ReadFile(b.bootFile())
		must(t, err)
		must(t, os.WriteFile(b.bootFile(), []byte(strings.Replace(string(text), "testbox-disks=sda", "testbox-disks=sdb", 1)), 0o644))
	}, []string{"sda", "sdb"}},
	{"boot file with another map", two, func(t *testing.T, b *testBox) {
		b.does("backup")
		b.arm("restore", "--map", "sda=sda")
		text, err := os.ReadFile(b.bootFile())
		must(t, err)
		must(t, os.WriteFile(b.bootFile(), []byte(strings.Replace(string(text), "testbox-map=sda=sda", "testbox-map=sda=sdb", 1)), 0o644))
	}, []string{"map [sda=sda]", "[sda=sdb]"}},
	{"boot file that is not one", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		must(t, os.WriteFile(b.bootFile(), []byte("DEFAULT maintenance\n"), 0o644))
	}, nil},
	{"unknown word on the command line", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		line, err := os.ReadFile(b.path("cmdline"))
		must(t, err)
		must(t, os.WriteFile(b.path("cmdline"), append([]byte("testbox-carefully "), line...), 0o644))
	}, []string{"testbox-carefully"}},
	{"no marker", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		b.rm(filepath.Join(b.root, "testbox-backup", "testbox-backup"))
	}, []string{"testbox-backup"}},
	{"no pxelinux.0", one, func(t *testing.T, b *testBox) {
		b.arm("backup")
		b.rm(filepath.Join(b.root, "testbox-tftp", "pxelinux.0"))
	}, []string{"pxelinux.0"}},
	{"no such disk", one, func(t *testing.T, b *testBox) { b.arm("backup", "--disks", "sdx,sdy") }, []string{"sdx", "sdy"}},
	{"no such disk in disk-devices.lst", one, func(t *testing.T, b *testBox) {
		b.does("refresh-info")
		must(t, os.WriteFile(b.folder("disk-devices.lst"), []byte("# moved away\nSERIAL-nowhere\n"), 0o644))
		b.arm("backup")
	}, []string{"SERIAL-nowhere"}},
	{"empty disk-devices.lst", two, backedUp(func(t *testing.T, b *testBox) {
		must(t, os.WriteFile(b.folder("disk-devices.lst"), nil, 0o644))
	}, "restore"), []string{"disk-devices.lst names no disk"}},
	{"disk-devices.lst that cannot be read", two, backedUp(func(t *testing.T, b *testBox) {
		must(t, os.WriteFile(b.folder("disk-devices.lst"), []byte("sda\n"), 0o600)) // root's, who is squashed
	}, "restore"), []string{"disk-devices.lst: ", "permission denied"}},
	{"no disk", none, func(t *testing.T, b *testBox) { b.arm("backup") }, nil},

	{"backup over images", one, backedUp(nothing, "backup"), []string{"backup-again"}},
	{"backup over an image by hand", one, func(t *testing.T, b *testBox) {
		b.does("refresh-info")
		must(t, os.WriteFile(b.folder("sda.gz"), []byte("somebody's"), 0o644))
		b.arm("backup")
	}, []string{"sda.gz"}},

	{"restore of nothing", one, func(t *testing.T, b *testBox) { b.arm("restore") }, []string{"image"}},
	{"restore of no old image", one, backedUp(nothing, "restore", "--image=old"), []string{"image"}},
	{"verify of nothing", one, func(t *testing.T, b *testBox) { b.arm("verify") }, []string{"image"}},
	{"restore to another machine", one, backedUp(func(t *testing.T, b *testBox) {
		b.uuid = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
		b.plug()
	}, "restore"), []string{boxUUID, "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"}},
	{"two replaced disks", two, backedUp(func(t *testing.T, b *testBox) {
		replace(0, func(d *testDisk) { d.port = 5 })(t, b)
		replace(1, func(d *testDisk) { d.port = 6 })(t, b)
	}, "restore"), []string{"sda", "sdb"}},
	{"one image, two new disks", one, backedUp(func(t *testing.T, b *testBox) {
		b.disks = append(b.disks, nil)
		b.disks[1] = disk("sdb", nil)
		b.disks[1].attach(t)
		replace(0, func(d *testDisk) { d.port = 5 })(t, b)
	}, "restore"), []string{"sda", "sdb"}},
	{"mapped onto the disk of another image", two, backedUp(nothing, "restore", "--map", "sda=sdb"),
		[]string{"known as the disk of image sdb", "--map sda=sdb,sdb=DISK"}},
	{"mapped onto no disk", two, backedUp(nothing, "restore", "--map", "sda=sdx"), []string{"no disk is called sdx"}},
	{"no such image is mapped", two, backedUp(nothing, "verify", "--map", "sdx=sda"),
		[]string{"image sdx is mapped, and there is no such image"}},
	{"mapped onto a disk that is too small", one, backedUp(replace(0, func(d *testDisk) { d.size -= mib }), "restore", "--map", "sda=sda"),
		[]string{"mapped to disk sda, but the disk is too small"}},
	{"mapped onto other sectors", one, backedUp(replace(0, func(d *testDisk) { d.sector = 4096 }), "restore", "--map", "sda=sda"),
		[]string{"the image has sectors of 512 bytes, the disk of 4096"}},
	{"a disk is gone", two, backedUp(func(t *testing.T, b *testBox) {
		b.disks = b.disks[:1]
		b.plug()
	}, "restore"), []string{"sdb"}},
	{"too small", one, backedUp(replace(0, func(d *testDisk) { d.size -= mib }), "restore"), []string{"sda"}},
	{"too small for a partition", func() []*testDisk { return []*testDisk{disk("sda", gptAndRoom(1))} },
		backedUp(replace(0, func(d *testDisk) { d.size = 6*mib + 32*512 }), "restore", "--shrink-table"),
		[]string{"partition 1 ends at byte 6291456, which is 512 bytes behind"}},
	{"too small for what no map says", func() []*testDisk { return []*testDisk{disk("sda", gptAndRoom(1, 7*mib))} },
		backedUp(replace(0, func(d *testDisk) { d.size = 6*mib + mib/2 }), "restore", "--shrink-table"),
		[]string{"byte 7340032 of the image is not zero and in no partition"}},
	{"too small without a table", one, backedUp(replace(0, func(d *testDisk) { d.size -= mib }), "restore", "--shrink-table"),
		[]string{"image sda cannot go to a smaller disk"}},
	{"other sector size", one, backedUp(replace(0, func(d *testDisk) { d.sector = 4096 }), "restore"), []string{"4096"}},
	{"an image of larger sectors", func() []*testDisk {
		d := disk("sda", scattered(1))
		d.sector = 4096
		return []*testDisk{d}
	}, backedUp(replace(0, func(*testDisk) {}), "restore"),
		[]string{"sectors of 4096 bytes, the disk of 512", "use a disk with 4096-byte sectors"}},
	{"no sidecar, a GPT of smaller sectors", func() []*testDisk { return []*testDisk{disk("sda", gptExt4(1))} },
		backedUp(func(t *testing.T, b *testBox) {
			b.rm(b.folder("sda.json"))
			replace(0, func(d *testDisk) { d.sector = 4096 })(t, b)
		}, "restore"), []string{"is of a disk with sectors of 512 bytes, disk sda has 4096"}},
	{"the same disk with other sectors", one, backedUp(func(t *testing.T, b *testBox) {
		b.disks[0] = disk("sda", nil)
		b.disks[0].sector = 4096
		b.disks[0].attach(t)
		b.plug()
	}, "restore"), []string{"4096"}},
	{"mixed armings", two, backedUp(func(t *testing.T, b *testBox) {
		b.does("backup-again")
		b.mv("sdb.raw.gz.old", "sdb.raw.gz")
		b.mv("sdb.json.old", "sdb.json")
	}, "restore"), []string{"arming"}},
	{"two images of one disk", one, backedUp(func(t *testing.T, b *testBox) {
		text, err := os.ReadFile(b.folder("sda.raw.gz"))
		must(t, err)
		must(t, os.WriteFile(b.folder("sda.gz"), text, 0o644))
	}, "restore"), []string{"sda.gz", "sda.raw.gz"}},
	{"damaged sidecar", one, backedUp(func(t *testing.T, b *testBox) {
		must(t, os.Truncate(b.folder("sda.json"), 100))
	}, "restore"), []string{"sda.json"}},
	{"sidecar of another image", two, backedUp(func(t *testing.T, b *testBox) {
		b.mv("sdb.json", "sda.json")
		b.rm(b.folder("sdb.raw.gz"))
	}, "restore"), []string{"sda.json"}},
	{"sidecar without an image", two, backedUp(func(t *testing.T, b *testBox) {
		b.rm(b.folder("sdb.raw.gz"))
	}, "restore"), []string{"sdb"}},
}

// TestRefusals checks that a refusal changes no disk and no image, and keeps
// the box armed for the admin to see to it.
func TestRefusals(t *testing.T) {
	for _, r := range refusals {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, r.disks()...)
			r.set(t, b)
			armed, before := b.armed(), b.snapshot()
			b.runs(refused, r.says...)
			b.unchanged(before)
			if b.armed() != armed {
				t.Error("a refusal disarmed the box")
			}
		})
	}
}

// TestRefusalLifted: what was refused works once the reason is gone, with the
// same arming.
func TestRefusalLifted(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	b.arm("backup")
	marker := filepath.Join(b.root, "testbox-backup", "testbox-backup")
	must(t, os.Rename(marker, marker+"-away"))
	b.runs(refused)
	must(t, os.Rename(marker+"-away", marker))
	b.runs(done)
	b.image("sda.raw.gz", sda.hash(t))
}

func TestExpired(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"backup", "restore"} {
		b := newBox(t, one()...)
		if action == "restore" {
			b.does("backup")
			b.disks[0].wreck(t)
		}
		b.arm(action)
		b.armedUntil(time.Now().Add(-time.Hour))
		before := b.snapshot()
		b.runs(expired)
		b.unchanged(before)
		if b.armed() {
			t.Errorf("an expired %s left the box armed", action)
		}
	}
}

// TestExpiredAnyway: whatever is wrong for good, an arming ends when it expires,
// and not before.
func TestExpiredAnyway(t *testing.T) {
	t.Parallel()
	b := newBox(t, one()...)
	b.does("refresh-info")
	marker := filepath.Join(b.root, "testbox-backup", "testbox-backup")
	for _, c := range []struct {
		what      string
		wreck     func()
		code      int
		says      string
		beginning string // of the refusal, before the arming expires
	}{
		{"the backup area has no marker", func() { b.rm(marker) }, refused, "testbox-backup is no backup area", "refused: "},
		{"the boot file was edited", func() {
			text, err := os.ReadFile(b.bootFile())
			must(t, err)
			must(t, os.WriteFile(b.bootFile(), append(text, "LABEL memtest\n  KERNEL memtest\n"...), 0o644))
		}, refused, "it has other labels", "refused, no disk"},
		{"the loader is gone", func() { b.rm(filepath.Join(b.root, "testbox-tftp", "pxelinux.0")) }, refused, "has no pxelinux.0", "refused: "},
	} {
		b.arm("backup")
		b.armedUntil(time.Now().Add(time.Hour))
		c.wreck()
		b.runs(c.code, c.says, c.beginning)
		if !b.armed() {
			t.Fatalf("%s: it is disarmed before it expires", c.what)
		}
		b.armedUntil(time.Now().Add(-time.Hour))
		before := b.snapshot()
		b.runs(expired, c.says, "too old, nothing is done")
		b.unchanged(before)
		if b.armed() {
			t.Errorf("%s: an expired arming left the box armed", c.what)
		}
		left, err := filepath.Glob(b.bootFile() + "*")
		if must(t, err); len(left) > 0 {
			t.Errorf("%s lies about", left)
		}
		if _, err := os.Stat(marker); err != nil {
			must(t, os.WriteFile(marker, nil, 0o644))
		}
	}
	// That the boot file is gone, or is another arming's, is not changed by it.
	must(t, os.WriteFile(filepath.Join(b.root, "testbox-tftp", "pxelinux.0"), []byte("x"), 0o644))
	b.arm("backup")
	b.armedUntil(time.Now().Add(-time.Hour))
	text, err := os.ReadFile(b.bootFile())
	must(t, err)
	b.rm(b.bootFile())
	b.runs(refused, "there is no boot file")
	other := regexp.MustCompile(`testbox-arming=\S+`).ReplaceAll(text, []byte("testbox-arming=0123456789abcdef"))
	must(t, os.WriteFile(b.bootFile(), other, 0o644))
	b.runs(expired, "armed anew meanwhile")
	if !b.armed() {
		t.Error("the boot file of another arming is gone")
	}
}

// TestEdited: a boot file that somebody edited, so that it is none of ours any
// more, does not keep a box from its disk for ever.
func TestEdited(t *testing.T) {
	t.Parallel()
	b := newBox(t, one()...)
	b.arm("refresh-info")
	text, err := os.ReadFile(b.bootFile())
	must(t, err)
	b.runs(done)
	// The action is done; its power was cut before it disarmed, and the file was edited.
	must(t, os.WriteFile(b.bootFile(), append(text, "SAY hello\nLABEL x\n  LOCALBOOT 0\n"...), 0o644))
	b.armedUntil(time.Now().Add(-time.Minute))
	b.runs(expired, "was edited, and is removed all the same")
	if b.armed() {
		t.Error("the box is still armed")
	}
}

var expires = regexp.MustCompile(`testbox-expires=\S+`)

// armedUntil makes it that the box was armed to that time: `pxe-conf` allows no
// expiry that a test could wait for.
func (b *testBox) armedUntil(t time.Time) {
	b.t.Helper()
	text, err := os.ReadFile(b.bootFile())
	must(b.t, err)
	if !expires.Match(text) {
		b.t.Fatalf("boot file without an expiry:\n%s", text)
	}
	text = expires.ReplaceAll(text, []byte("testbox-expires="+t.UTC().Format(time.RFC3339)))
	must(b.t, os.WriteFile(b.bootFile(), text, 0o644))
	b.boot()
}

var retry = regexp.MustCompile(` testbox-retry=\S+`)

// TestReboots: the box is restarted after its action, and after a while if it is
// still armed. The agent of this test has not the right to.
func TestReboots(t *testing.T) {
	t.Parallel()
	b := newBox(t, one()...)
	for action, code := range map[string]int{"refresh-info": done, "restore": refused} {
		b.arm(action, "--replace")
		text, err := os.ReadFile(b.bootFile())
		must(t, err)
		text = bytes.Replace(retry.ReplaceAll(text, nil), []byte(" testbox-backup="), []byte(" testbox-retry=1 testbox-backup="), 1)
		must(t, os.WriteFile(b.bootFile(), text, 0o644))
		b.boot()
		out := b.verb("run", "--reboot").ends(code, "rebooting\n", "reboot: operation not permitted")
		if waits := strings.Contains(out, "still armed; rebooting in 1s to try again"); waits != (code == refused) {
			t.Errorf("%s: it waits before it reboots: %v\n%s", action, waits, out)
		}
	}
}

// TestOtherMachine: an admin can accept a machine; one whose UUID says nothing
// is no other machine.
func TestOtherMachine(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("backup")
	for uuid, flags := range map[string][]string{
		"aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee": {"--accept-machine"},
		"00000000-0000-0000-0000-000000000000": nil,
		"03000200-0400-0500-0006-000700080009": nil, // of boards that were never given one
		"":                                     nil,
		strings.ToUpper(boxUUID):               nil,
	} {
		b.uuid = uuid
		b.plug()
		sda.wreck(t)
		b.does("restore", flags...)
		if sda.hash(t) != before {
			t.Errorf("UUID %q: not restored", uuid)
		}
	}
}

// TestRescueNeedsDebian: the ram form has nothing to rescue with.
func TestRescueNeedsDebian(t *testing.T) {
	t.Parallel()
	b := newBox(t, one()...)
	out, err := exec.Command(b.prog.testbox, "pxe-conf", "-c", filepath.Join(b.areas.dir, "testbox-tftp", "pxelinux.cfg"), boxAddr,
		"rescue").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 && exit.ExitCode() != 3 || !strings.Contains(string(out), "rescue") {
		t.Errorf("rescue on the ram form: %v\n%s", err, out)
	}
	if b.armed() {
		t.Error("the box is armed")
	}
}

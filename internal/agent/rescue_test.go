package agent

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/testenv"
)

// armRescue arms for rescue with a maintenance system that can do it.
func (b *bench) armRescue(change func(*bootcfg.Cmdline)) string {
	b.t.Helper()
	return b.arm(box.Rescue, func(c *bootcfg.Cmdline) {
		root, err := bootcfg.ParseNFSPath("10.88.0.1:/nfsroot/1")
		if err != nil {
			b.t.Fatal(err)
		}
		c.Root = root
		if change != nil {
			change(c)
		}
	})
}

// verb calls Finish, or another verb of a rescue that is up.
func (b *bench) verb(cmdline string, do func(Config) box.Outcome, want box.Outcome) {
	b.t.Helper()
	b.console.Reset()
	if got := do(b.config(cmdline)); got != want {
		b.t.Fatalf("outcome is %q, not %q:\n%s", got, want, b.console.String())
	}
}

func (b *bench) says(what ...string) {
	b.t.Helper()
	for _, w := range what {
		if !strings.Contains(b.console.String(), w) {
			b.t.Errorf("nothing says %q:\n%s", w, b.console.String())
		}
	}
}

func TestRescue(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	before := b.read("dev/vda")
	b.write("ssh/ssh_host_ed25519_key.pub", ed25519Key)
	b.mend = func(c *Config) { c.SSHDir = b.path("ssh") }
	cmdline := b.armRescue(nil)
	b.want(b.run(cmdline), box.Rescuing)
	log := b.read(folder + "maintenance.log")
	for _, want := range []string{"ssh-ed25519: " + ed25519Print, "ssh root@10.88.0.11",
		"disks are read-only until `testbox-maintenance writable DISK`", "testbox-maintenance finish"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if all := b.read("backup/maintenance.log"); !strings.Contains(all, "rescue: up for rescue") {
		t.Errorf("the global log:\n%s", all)
	}
	if !b.exists(folder+"testbox-info.txt") || b.exists(folder+"last-action.json") || b.read("dev/vda") != before {
		t.Error("no inventory, or a record, or the disk was changed")
	}
	b.want(b.run(cmdline), box.Rescuing) // after a power cut
	b.mend = nil
	b.verb(cmdline, Finish, box.Done)
	if b.exists(b.bootFile()) || !strings.Contains(b.read("backup/maintenance.log"), "rescue: done") ||
		!strings.Contains(b.read(folder+"last-action.json"), "rescue") {
		t.Error("not disarmed, logged and recorded")
	}
	b.verb(cmdline, Finish, box.Done) // as after --stay
	b.says("no boot file")
}

// TestRescueOnce: disarmed as seen from the box, but the server lost it.
func TestRescueOnce(t *testing.T) {
	b := newBench(t)
	cmdline := b.armRescue(nil)
	boot := b.read(b.bootFile())
	b.want(b.run(cmdline), box.Rescuing)
	b.verb(cmdline, Finish, box.Done)
	b.write(b.bootFile(), boot)
	b.want(b.run(cmdline), box.Done)
}

// broken are states that stop other actions.
var broken = map[string]func(b *bench){
	"damaged image":        func(b *bench) { b.write(folder+"vda.raw.gz", "cut"); b.write(folder+"vda.json", "{") },
	"commit.json":          func(b *bench) { b.write(folder+"commit.json", "?") },
	"temporary folder":     func(b *bench) { b.mkdir(folder + "a.tmp/b") },
	"inventory in the way": func(b *bench) { b.mkdir(folder + "testbox-info.zip/b") },
	"logs in the way":      func(b *bench) { b.mkdir(folder+"maintenance.log", "backup/maintenance.log") },
	"record in the way":    func(b *bench) { b.mkdir(folder + "last-action.json/b") },
	"folder is a file":     func(b *bench) { b.write("backup/10.88.0.11", "?") },
	"no marker":            func(b *bench) { os.Remove(b.path("backup", sharedir.Marker)) },
	"no backup area":       func(b *bench) { os.RemoveAll(b.path("backup")) },
	"no disks":             func(b *bench) { os.RemoveAll(b.path("sys")) },
	"no device node":       func(b *bench) { os.Remove(b.path("dev/vda")) },
	"list of disks":        func(b *bench) { b.write(folder+"disk-devices.lst", "\x00/etc/passwd") },
}

// TestRescueOfWhatIsBroken: that is what rescue is for.
func TestRescueOfWhatIsBroken(t *testing.T) {
	for name, spoil := range broken {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			spoil(b)
			marker := b.exists("backup/" + sharedir.Marker)
			cmdline := b.armRescue(nil)
			b.want(b.run(cmdline), box.Rescuing)
			b.says("ssh root@10.88.0.11", "rescue: up for rescue")
			if !marker && (b.exists("backup/maintenance.log") || b.exists(folder)) {
				t.Error("something was written where there is no backup area")
			}
			b.verb(cmdline, Finish, box.Done)
			if b.exists(b.bootFile()) {
				t.Error("finish did not disarm")
			}
			b.says("rescue: done")

			expired := b.armRescue(func(c *bootcfg.Cmdline) { c.Expires = time.Now().Add(-time.Hour).UTC().Truncate(time.Second) })
			b.want(b.run(expired), box.Expired)
		})
	}
}

// TestPassedOver: what rescue does without is said, at the end again.
func TestPassedOver(t *testing.T) {
	b := newBench(t)
	b.write(folder+"commit.json", "?")
	b.want(b.run(b.armRescue(nil)), box.Rescuing)
	if n := strings.Count(b.read("backup/maintenance.log"), "passed over"); n != 2 {
		t.Errorf("said %d times:\n%s", n, b.console.String())
	}
	if !b.exists(folder + "commit.json") {
		t.Error("what an admin must look at is gone")
	}
}

func TestRescueRefused(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, cmdline *string){
		"no boot file":         func(b *bench, _ *string) { os.Remove(b.path(b.bootFile())) },
		"boot file of another": func(b *bench, _ *string) { b.armRescue(nil) },
		"other action":         func(b *bench, _ *string) { b.arm(box.Backup, nil) },
		"other address":        func(b *bench, _ *string) { b.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") } },
		"no TFTP area":         func(b *bench, _ *string) { os.Remove(b.path("tftp/pxelinux.0")) },
		"form ram":             func(b *bench, c *string) { *c = b.arm(box.Rescue, nil) },
	} {
		for _, area := range []bool{true, false} {
			b := newBench(t)
			if !area {
				os.RemoveAll(b.path("backup"))
			}
			cmdline := b.armRescue(nil)
			spoil(b, &cmdline)
			if got := b.run(cmdline); got != box.Refused {
				t.Errorf("%s, backup area %v: outcome is %q:\n%s", name, area, got, b.console.String())
			}
		}
	}
}

func TestFinishRefused(t *testing.T) {
	b := newBench(t)
	b.verb(b.arm(box.Backup, nil), Finish, box.Refused)
	b.says("backup", "testbox pxe-conf disarm 10.88.0.11")
	b.verb("quiet splash", Finish, box.Refused)
	if !b.exists(b.bootFile()) {
		t.Error("a refused finish disarmed the box")
	}
}

func TestFinishArmedAnew(t *testing.T) {
	b := newBench(t)
	cmdline := b.armRescue(nil)
	b.want(b.run(cmdline), box.Rescuing)
	b.arm(box.Backup, nil)
	before := b.read(b.bootFile())
	b.verb(cmdline, Finish, box.Done)
	b.says("armed anew meanwhile for backup")
	if b.read(b.bootFile()) != before {
		t.Error("the new boot file was changed")
	}
}

// TestFinishCannotDisarm: the rescue is not said to be over, in no place.
func TestFinishCannotDisarm(t *testing.T) {
	for name, spoil := range map[string]func(b *bench){
		"no TFTP area":  func(b *bench) { os.Remove(b.path("tftp/pxelinux.0")) },
		"damaged":       func(b *bench) { b.write(b.bootFile(), "?") },
		"not removable": func(b *bench) { os.Remove(b.path(b.bootFile())); b.mkdir(b.bootFile() + "/x") },
	} {
		b := newBench(t)
		cmdline := b.armRescue(nil)
		b.want(b.run(cmdline), box.Rescuing)
		spoil(b)
		b.verb(cmdline, Finish, box.Failed)
		b.says("would come up in rescue again")
		if strings.Contains(b.read("backup/maintenance.log"), "rescue: done") || b.exists(folder+"last-action.json") {
			t.Errorf("%s: logged or recorded as done", name)
		}
	}
}

func TestWithin(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	if _, err := within(time.Millisecond, func() (int, error) { <-end; return 1, nil }); !errors.Is(err, errLate) {
		t.Errorf("of what hangs: %v", err)
	}
	broken := errors.New("broken")
	if n, err := within(time.Hour, func() (int, error) { return 2, broken }); n != 2 || err != broken {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestWritable(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "", 2)
	writable := func(off bool, items ...string) func(Config) box.Outcome {
		return func(c Config) box.Outcome { return Writable(c, items, off) }
	}
	backup := b.arm(box.Backup, nil)
	b.verb(backup, writable(false, "vda"), box.Refused)
	b.verb(backup, Disks, box.Done)
	cmdline := b.armRescue(nil)
	for _, items := range [][]string{nil, {"vda", "vdz"}, {"vda", "all"}, {""}, {"/etc/passwd"}, {"--off"}} {
		b.verb(cmdline, writable(false, items...), box.Refused)
	}
	if b.exists(folder + "maintenance.log") {
		t.Errorf("something was done:\n%s", b.read(folder+"maintenance.log"))
	}
	b.verb(cmdline, writable(false, "S1"), box.Done)
	b.verb(cmdline, writable(false, "all"), box.Done)
	b.verb(cmdline, writable(true, "/dev/vdb"), box.Done)
	log := b.read(folder + "maintenance.log")
	for what, n := range map[string]int{"disk vda (serial S1) is writable now, by hand": 2, "disk vdb is writable now, by hand": 1,
		"disk vdb is read-only now, by hand": 1} {
		if strings.Count(log, what) != n {
			t.Errorf("not %d times %q:\n%s", n, what, log)
		}
	}
	os.RemoveAll(b.path("backup"))
	b.verb(cmdline, writable(false, "vda"), box.Done)
	b.says("so this is not logged", "disk vda (serial S1) is writable now")
}

// TestWriteProtected: it is not said of a disk that it is writable when it has a
// switch of its own.
func TestWriteProtected(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "losetup")
	b := newBench(t)
	b.disk("vda", "S1", 1)
	out, err := exec.Command("losetup", "--find", "--show", "--read-only", b.path("dev/vda")).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", loop).Run() })
	if err := errors.Join(os.Remove(b.path("dev/vda")), os.Symlink(loop, b.path("dev/vda"))); err != nil {
		t.Fatal(err)
	}
	b.verb(b.armRescue(nil), func(c Config) box.Outcome { return Writable(c, []string{"vda"}, false) }, box.Failed)
	b.says("disk vda is still read-only: it protects itself")
}

func TestDisksTable(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "\x1b[2J", 2)
	b.write("sys/block/vdc/size", "0\n")
	b.write("sys/block/vdc/queue/logical_block_size", "512\n")
	b.verb("", Disks, box.Done)
	want := "NAME  SIZE     MODEL  SERIAL  STATE\n" +
		"vda   5246 kB  -      S1      writable\n" +
		"vdb   5246 kB  -      -       writable\n"
	if b.console.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.console.String(), want)
	}
	os.Remove(b.path("dev/vda"))
	b.verb("", Disks, box.Failed)
	b.says("vda   5246 kB  -      S1      not known")
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 512: "512 bytes", 8 << 20: "8389 kB", 500107862016: "500 GB",
		1000204886016: "1000 GB", 20e12: "20 TB", 1 << 62: "4612 PB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

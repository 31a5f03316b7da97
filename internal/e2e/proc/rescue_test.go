package proc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/testenv"
)

// newRescueBox is a box for which there is a maintenance system to log in to,
// with host keys.
func newRescueBox(t testing.TB, disks ...*testDisk) *testBox {
	t.Helper()
	b := newBox(t, disks...)
	testenv.Tools(t, "ssh-keygen")
	must(t, addMaintenance(filepath.Join(b.root, "testbox-tftp"), bootcfg.FormDebian))
	must(t, os.Mkdir(b.path("ssh"), 0o755))
	for _, kind := range []string{"ed25519", "ecdsa"} {
		run(t, "", "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@"+boxHost, "-f", b.path("ssh", "ssh_host_"+kind+"_key"))
	}
	return b
}

// rescue arms for rescue and runs the agent, which must let an admin in.
func (b *testBox) rescue(says ...string) string {
	b.t.Helper()
	b.arm("rescue")
	out := b.runs(rescued, says...)
	if !b.armed() {
		b.t.Fatalf("the box is disarmed:\n%s", out)
	}
	return out
}

// globalLog is the text of the log of all boxes.
func (b *testBox) globalLog() string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.root, "testbox-backup", "maintenance.log"))
	must(b.t, err)
	return string(text)
}

// canWrite tries to write to a device what stands there.
func canWrite(t testing.TB, dev string) bool {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return false
	}
	must(t, err)
	defer f.Close()
	sector := make([]byte, 4096)
	_, err = f.ReadAt(sector, 0)
	must(t, err)
	_, err = f.WriteAt(sector, 0)
	return err == nil
}

func TestRescue(t *testing.T) {
	t.Parallel()
	sda := disk("sda", gptExt4(1))
	sda.parts = []testPart{{number: 1, off: mib, size: mib}}
	b := newRescueBox(t, sda, disk("sdb", scattered(2)))
	before := b.snapshot()
	b.rescue("ssh root@" + boxAddr)

	log := b.log("maintenance.log")
	for _, kind := range []string{"ed25519", "ecdsa"} {
		// "256 SHA256:... root@box11 (ED25519)"
		print := strings.Fields(run(t, "", "ssh-keygen", "-lf", b.path("ssh", "ssh_host_"+kind+"_key.pub")))[1]
		if !strings.Contains(log, ": info: ssh host key ") || !strings.Contains(log, ": "+print+"\n") {
			t.Errorf("the log has no fingerprint %s:\n%s", print, log)
		}
	}
	if !strings.Contains(b.globalLog(), "rescue: up for rescue") {
		t.Errorf("the global log:\n%s", b.globalLog())
	}
	for _, dev := range []string{b.disks[0].dev, sda.parts[0].dev, b.disks[1].dev} {
		if canWrite(t, dev) {
			t.Errorf("%s can be written", dev)
		}
	}
	b.unchanged(before)
	if _, err := os.Stat(b.folder("testbox-info.txt")); err != nil {
		t.Error(err)
	}

	b.verb("finish", "--stay").ends(done, "disarmed", "rescue: done")
	if b.armed() || !strings.Contains(b.globalLog(), "rescue: done") || !strings.Contains(b.log("last-action.json"), `"rescue"`) {
		t.Error("not disarmed, logged and recorded")
	}
	b.verb("finish", "--stay").ends(done, "no boot file")
	if r := b.verb("finish").wait(); r.code != failed || !strings.Contains(r.out, "reboot: operation not permitted") {
		t.Errorf("finish, without the right to reboot, ended with %d:\n%s", r.code, r.out)
	}
	b.does("backup")
}

// TestRescueWithReboot: what looks after the agent passes --reboot always.
func TestRescueWithReboot(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.arm("rescue")
	out := b.verb("run", "--reboot").ends(rescued)
	if strings.Contains(out, "reboot:") || !b.armed() {
		t.Errorf("armed %v:\n%s", b.armed(), out)
	}
}

// TestWritable lifts the protection of named disks and of no other.
func TestWritable(t *testing.T) {
	t.Parallel()
	sda := disk("sda", gptExt4(1))
	sda.parts = []testPart{{number: 1, off: mib, size: mib}}
	sdb, sdc := disk("sdb", plainExt4(2)), disk("sdc", scattered(3))
	b := newRescueBox(t, sda, sdb, sdc)
	before := b.snapshot()
	b.rescue()
	can := func(names ...string) {
		t.Helper()
		for _, d := range b.disks {
			if canWrite(t, d.dev) != slices.Contains(names, d.name) {
				t.Errorf("not %v alone can be written: %s", names, d.name)
			}
		}
		if canWrite(t, sda.parts[0].dev) != slices.Contains(names, "sda") {
			t.Errorf("the partition of sda is not like it")
		}
	}
	can()
	for _, wrong := range [][]string{{"sdx"}, {"sda", "sdx"}, {"sda1"}, {"sda", "all"}, {"/etc/passwd"}} {
		b.verb("writable", wrong...).ends(refused)
	}
	b.verb("writable", "--off").ends(2)
	can()
	b.verb("writable", "SERIAL-sda").ends(done)
	can("sda")
	table := b.verb("writable").ends(done)
	for i, want := range []string{"NAME SIZE MODEL SERIAL STATE", "sda 8389 kB TESTDISK 8 SERIAL-sda writable",
		"sdb 8389 kB TESTDISK 8 SERIAL-sdb read-only"} {
		if got := strings.Join(strings.Fields(strings.Split(table, "\n")[i]), " "); got != want {
			t.Errorf("line %d of the table is %q, want %q", i, got, want)
		}
	}
	b.verb("writable", "/dev/disk/by-id/wwn-0x5000c500a1b2c302", "/dev/sdc").ends(done)
	can("sda", "sdb", "sdc")
	b.verb("writable", "--off", "all").ends(done)
	can()
	b.verb("writable", "all").ends(done)
	can("sda", "sdb", "sdc")
	mount(t, sdb.dev)
	b.verb("writable", "--off", "sdb").ends(refused, "in use by a mount")
	for what, n := range map[string]int{
		"disk sda (serial SERIAL-sda) is writable now, by hand":  2,
		"disk sdc (serial SERIAL-sdc) is writable now, by hand":  2,
		"disk sdb (serial SERIAL-sdb) is read-only now, by hand": 1,
	} {
		if got := strings.Count(b.log("maintenance.log"), what); got != n {
			t.Errorf("logged %d times, not %d: %s", got, n, what)
		}
	}
	b.unchanged(before)
}

// TestRescueVerbsRefuse: while an action is done nobody lifts the protection of
// the disk that it reads, or disarms the box under it.
func TestRescueVerbsRefuse(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.arm("backup")
	dev, err := os.OpenFile(b.disks[0].dev, os.O_RDONLY, 0)
	must(t, err)
	defer dev.Close()
	must(t, setReadOnly(dev, true))
	b.verb("writable", "sda").ends(refused, "backup")
	b.verb("writable").ends(done, "sda")
	b.verb("finish").ends(refused, "pxe-conf disarm "+boxAddr)
	if !b.armed() || canWrite(t, b.disks[0].dev) {
		t.Error("disarmed, or sda can be written")
	}
}

// TestFinishMeanwhile: what an admin did elsewhere stays.
func TestFinishMeanwhile(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.rescue()
	line, err := os.ReadFile(b.path("cmdline"))
	must(t, err)
	b.arm("backup", "--replace")
	must(t, os.WriteFile(b.path("cmdline"), line, 0o644))
	armedFor, err := os.ReadFile(b.bootFile())
	must(t, err)
	b.verb("finish", "--stay").ends(done, "armed anew meanwhile for backup")
	if now, err := os.ReadFile(b.bootFile()); err != nil || string(now) != string(armedFor) {
		t.Errorf("the boot file was changed: %v\n%s", err, now)
	}
	b.rm(b.bootFile())
	b.verb("finish", "--stay").ends(done, "no boot file")
}

func TestRescueExpired(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.arm("rescue")
	b.armedUntil(time.Now().Add(-time.Hour))
	b.runs(expired)
	if b.armed() {
		t.Error("still armed")
	}
}

// TestRescueOfWhatIsBroken: an admin is let in when nothing else would work.
func TestRescueOfWhatIsBroken(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, b *testBox){
		"damaged-images": func(t *testing.T, b *testBox) {
			b.does("backup")
			must(t, os.Truncate(b.folder("sda.raw.gz"), 100))
			must(t, os.Truncate(b.folder("sda.json"), 10))
			must(t, os.WriteFile(b.folder("commit.json"), []byte("{"), 0o644))
		},
		"full-storage": func(t *testing.T, b *testBox) { b.areas.set(faultSet{Limited: true}) },
		"full-late":    func(t *testing.T, b *testBox) { b.areas.set(faultSet{Limited: true, LateFull: true}) },
		"no-marker":    func(t *testing.T, b *testBox) { b.rm(filepath.Join(b.root, "testbox-backup", "testbox-backup")) },
		"nobody-may-write": func(t *testing.T, b *testBox) {
			must(t, os.Chmod(filepath.Join(b.root, "testbox-backup"), 0o555))
		},
		"unreadable-disk": func(t *testing.T, b *testBox) { b.rm(b.path("dev", "sda")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newRescueBox(t, one()...)
			b.arm("rescue")
			line, err := os.ReadFile(b.path("cmdline"))
			must(t, err)
			boot, err := os.ReadFile(b.bootFile())
			must(t, err)
			b.rm(b.bootFile())
			spoil(t, b)
			must(t, os.WriteFile(b.bootFile(), boot, 0o644))
			must(t, os.WriteFile(b.path("cmdline"), line, 0o644))
			b.runs(rescued, "ssh root@"+boxAddr, "ssh host key ssh-ed25519: SHA256:", "rescue: up for rescue")
			if !b.armed() {
				t.Fatal("the box is disarmed")
			}
			b.verb("finish", "--stay").ends(done, "disarmed", "rescue: done")
			if b.armed() {
				t.Error("the box is still armed")
			}
		})
	}
}

// TestFinishCannotDisarm: a restart would lead into rescue again.
func TestFinishCannotDisarm(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.rescue()
	dir := filepath.Dir(b.bootFile())
	must(t, os.Chmod(dir, 0o555))
	b.verb("finish").ends(failed, "would come up in rescue again")
	if !b.armed() || strings.Contains(b.globalLog(), "rescue: done") {
		t.Error("disarmed, or said to be done")
	}
	must(t, os.Chmod(dir, 0o755))
	b.verb("finish", "--stay").ends(done)
}

// TestFinishServerGone: an admin is told, and can try again.
func TestFinishServerGone(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.rescue()
	b.areas.set(faultSet{FreezeAt: 1})
	a := b.verb("finish", "--stay")
	for line := range a.lines {
		if strings.Contains(line, "still armed") {
			break
		}
	}
	b.areas.set(faultSet{}) // a process cannot end while FUSE owes it an answer
	a.ends(failed, "so this is not logged: no answer")
	if !b.armed() {
		t.Error("the box is disarmed")
	}
	b.verb("finish", "--stay").ends(done, "disarmed")
}

// TestRescueVerbsNeedRoot: they are for `sudo`.
func TestRescueVerbsNeedRoot(t *testing.T) {
	t.Parallel()
	b := newRescueBox(t, one()...)
	b.rescue()
	must(t, os.Chmod(buildDir, 0o755))
	for _, name := range []string{"finish", "writable"} {
		cmd := exec.Command(b.prog.agent, name, "--cmdline", "/proc/cmdline")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "sudo testbox-maintenance "+name) {
			t.Errorf("%s by nobody: %v\n%s", name, err, out)
		}
	}
}

package proc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// killCase is a box with an action that is broken off again and again. Its
// reset makes the same state each time.
type killCase struct {
	*testBox
	action string
	want   map[string]string // hash of each disk when the action is done, by serial
	old    map[string]string // hash of each image file when the action begins
}

// newCase makes a box of two small disks for the action; faulty ones have FUSE
// servers of their own.
func newCase(t *testing.T, action string, faulty bool) *killCase {
	t.Helper()
	disks := two()
	for _, d := range disks {
		d.ofSize(3*mib + 512).faulty = faulty
	}
	k := &killCase{testBox: newBox(t, disks...), action: action, want: map[string]string{}, old: map[string]string{}}
	for _, d := range disks {
		k.want[d.serial] = d.hash(t)
	}
	if action != "backup" {
		k.does("backup")
		must(t, os.CopyFS(k.path("first"), os.DirFS(k.folder(""))))
		for _, d := range disks {
			k.old[d.name+".raw.gz"] = hashFile(t, k.folder(d.name+".raw.gz"))
		}
	}
	if action == "backup-again" {
		writeAt(t, disks[0].file, mib+100, noise(9, 20000))
		k.want[disks[0].serial] = disks[0].hash(t)
	}
	return k
}

// reset puts folder and disks back to how they are before the action, and arms.
func (k *killCase) reset() {
	k.t.Helper()
	must(k.t, os.RemoveAll(k.folder("")))
	if k.action != "backup" {
		run(k.t, "", "cp", "-a", k.path("first"), k.folder(""))
		must(k.t, chownAll(k.folder("")))
	}
	if k.action == "restore" {
		for _, d := range k.disks {
			d.wreck(k.t)
		}
	}
	k.arm(k.action, "--replace")
}

// changes is how many changing requests to the areas the action makes.
func (k *killCase) changes() int {
	k.t.Helper()
	k.reset()
	k.areas.set(faultSet{})
	k.runs(done)
	k.checkDone("undisturbed")
	return k.areas.state().Changes
}

// checkDone checks that the action's result is right and nothing else is left.
func (k *killCase) checkDone(when string) {
	k.t.Helper()
	if k.armed() {
		k.t.Errorf("%s: still armed", when)
	}
	k.checkNoMess()
	for _, d := range k.disks {
		if d.hash(k.t) != k.want[d.serial] {
			k.t.Errorf("%s: disk %s is not as it should be", when, d.name)
		}
		switch file := d.name + ".raw.gz"; k.action {
		case "restore", "verify":
			if hashFile(k.t, k.folder(file)) != k.old[file] {
				k.t.Errorf("%s: the image %s was changed", when, file)
			}
		case "backup-again":
			if hashFile(k.t, k.folder(file+".old")) != k.old[file] {
				k.t.Errorf("%s: %s.old is not the image of the first backup", when, file)
			}
			fallthrough
		case "backup":
			k.image(file, k.want[d.serial])
		}
	}
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// checkBroken checks what must hold whenever the agent was killed: sources are
// untouched, and no disk that is being written can start.
func (k *killCase) checkBroken(when string) {
	k.t.Helper()
	for _, d := range k.disks {
		switch {
		case k.action != "restore":
			if d.hash(k.t) != k.want[d.serial] {
				k.t.Fatalf("%s: the disk %s was changed", when, d.name)
			}
		case !d.noMixture(k.t) && !k.allButHead(d):
			k.t.Fatalf("%s: disk %s is a mixture that may start", when, d.name)
		}
	}
}

// endsWell starts the agent once more if the box is still armed, and checks
// that the action is done then. A box is disarmed if the agent was done before
// it could be killed: it makes more or fewer requests, as they are merged.
func (k *killCase) endsWell(when string) {
	k.t.Helper()
	if k.armed() {
		k.runs(done)
	}
	k.checkDone(when)
}

// allButHead reports whether the disk has all of its image but the first MiB,
// which may be on its way.
func (k *killCase) allButHead(d *testDisk) bool {
	k.t.Helper()
	raw := filepath.Join(k.t.TempDir(), "raw")
	run(k.t, "", "sh", "-c", `gzip -dc <"$1" >"$2"`, "sh", k.folder(d.name+".raw.gz"), raw)
	want, err := os.ReadFile(raw)
	must(k.t, err)
	got, err := os.ReadFile(d.file)
	must(k.t, err)
	return bytes.Equal(want[mib:], got[mib:])
}

// chownAll gives a folder and its files to nobody, as the server has them.
func chownAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Lchown(dir+"/"+e.Name(), nobody, nobody); err != nil {
			return err
		}
	}
	return os.Lchown(dir, nobody, nobody)
}

var killed = []string{"backup", "backup-again", "restore", "verify"}

// TestKilledAtEveryLine kills the agent after each line that it prints.
func TestKilledAtEveryLine(t *testing.T) {
	for _, action := range killed {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			k := newCase(t, action, false)
			for n := 1; ; n++ {
				k.reset()
				a := k.start()
				lines := 0
				for range a.lines {
					if lines++; lines == n {
						a.kill()
						break
					}
				}
				r := a.wait()
				if lines < n { // it ended before
					if n < 8 {
						t.Fatalf("the agent prints %d lines only:\n%s", lines, r.out)
					}
					return
				}
				when := fmt.Sprintf("killed after line %d", n)
				k.checkBroken(when)
				k.endsWell(when)
			}
		})
	}
}

// TestKilledAtRandom kills it at any time, twice in a row.
func TestKilledAtRandom(t *testing.T) {
	for _, action := range killed {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			k := newCase(t, action, false)
			k.reset()
			start := time.Now()
			k.runs(done)
			takes := time.Since(start)
			r := rand.New(rand.NewPCG(uint64(start.UnixNano()), 1))
			for range 10 {
				k.reset()
				when := "killed"
				for range 2 {
					if !k.armed() {
						break
					}
					after := time.Duration(r.Int64N(int64(takes)))
					when += fmt.Sprintf(" after %s", after)
					a := k.start()
					time.AfterFunc(after, a.kill)
					a.wait()
					k.checkBroken(when)
				}
				k.endsWell(when)
			}
		})
	}
}

// TestKilledAtEveryChange kills it when it is about to change something in the
// areas, for each change: between commit and disarm among others.
func TestKilledAtEveryChange(t *testing.T) {
	for _, action := range killed {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			k := newCase(t, action, false)
			total := k.changes()
			for n := 1; n <= total; n += step(total, 80) {
				k.reset()
				held := k.killHeld(k.areas, n)
				when := fmt.Sprintf("killed before change %d of %d, %s", n, total, held)
				k.checkBroken(when)
				k.endsWell(when)
			}
		})
	}
}

// killHeld starts the agent, stops it at the n-th changing request to s, and
// kills it there. It gives the request.
func (k *killCase) killHeld(s *server, n int) (held string) {
	k.t.Helper()
	s.set(faultSet{HoldAt: n})
	a := k.start()
	for held == "" {
		select {
		case <-a.ended:
			s.set(faultSet{})
			if r := a.wait(); r.code != done {
				k.t.Fatalf("no change %d, and the agent ended with %d:\n%s", n, r.code, r.out)
			}
			return "(not reached)"
		case <-time.After(time.Millisecond):
			held = s.state().Held
		}
	}
	a.kill()
	s.release()
	a.wait()
	s.set(faultSet{})
	return held
}

// TestKilledAtEveryWrite kills a restore when it is about to write to a disk.
func TestKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	k := newCase(t, "restore", true)
	for _, d := range k.disks {
		k.reset()
		d.server.set(faultSet{})
		k.runs(done)
		total := d.server.state().Changes
		for n := 1; n <= total; n += step(total, 25) {
			k.reset()
			held := k.killHeld(d.server, n)
			when := fmt.Sprintf("killed before write %d of %d to %s, %s", n, total, d.name, held)
			k.checkBroken(when)
			k.endsWell(when)
		}
	}
}

// TestKilledBeforeDisarm looks closer at the time between commit and disarm.
func TestKilledBeforeDisarm(t *testing.T) {
	for _, action := range append([]string{"refresh-info"}, killed...) {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			k := newCase(t, action, false)
			k.killedBeforeDisarm()
			before := k.snapshot()
			k.runs(done, "only disarming")
			k.unchanged(before)
			if k.armed() {
				t.Error("still armed")
			}

			// Armed anew the same action is another one.
			if action != "backup-again" {
				return
			}
			k.killedBeforeDisarm()
			k.arm(action, "--replace")
			k.runs(done)
			for _, d := range k.disks {
				k.image(d.name+".raw.gz", k.want[d.serial])
				k.image(d.name+".raw.gz.old", k.want[d.serial])
			}
		})
	}
}

// killedBeforeDisarm kills the action when it is about to disarm the box: it
// takes the boot file's name away before it removes the file.
func (k *killCase) killedBeforeDisarm() {
	k.t.Helper()
	for n := k.changes(); n > 0; n-- {
		k.reset()
		if strings.HasPrefix(k.killHeld(k.areas, n), "rename testbox-tftp/pxelinux.cfg/"+boxHex+" to ") {
			return
		}
	}
	k.t.Fatal("the agent never removes the boot file")
}

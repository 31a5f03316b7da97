package proc

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/image"
)

// checkNoMess checks that nothing of an unfinished backup lies about.
func (b *testBox) checkNoMess() {
	b.t.Helper()
	for _, name := range b.files() {
		switch strings.TrimSuffix(name, ".old") {
		case "backup-writer": // of a backup that was broken off; the next one takes it over
		case "last-action.json", "sda.raw.gz", "sda.json", "sdb.raw.gz", "sdb.json":
		default:
			b.t.Errorf("%s lies about", name)
		}
	}
}

// images is a snapshot without what is written anew by every action.
func (b *testBox) images() snapshot {
	b.t.Helper()
	s := b.snapshot()
	delete(s, "last-action.json")
	return s
}

func TestStorageFull(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("told-late-%v", late), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, two()...)
			b.does("backup")
			first := b.images()
			writeAt(t, b.disks[0].file, 3*mib, noise(4, 5000))
			b.arm("backup-again")
			before := b.images()
			for _, room := range []int64{0, 100, 20000, 500_000, 3_000_000, 4_300_000} {
				b.areas.set(faultSet{Limited: true, Room: room, LateFull: late})
				r := b.run()
				b.areas.set(faultSet{})
				if r.code != failed || !b.armed() {
					t.Fatalf("room for %d bytes: the agent ended with %d, armed %v:\n%s", room, r.code, b.armed(), r.out)
				}
				if room >= 500_000 && !strings.Contains(r.out, "full") {
					t.Errorf("room for %d bytes: the agent does not say that the storage is full:\n%s", room, r.out)
				}
				if got := b.images(); !maps.Equal(keep(got, before), before) {
					t.Fatalf("room for %d bytes: the old images are not as they were: %v", room, got)
				}
			}
			b.runs(done)
			b.checkNoMess()
			for _, d := range b.disks {
				b.image(d.name+".raw.gz", before["disk "+d.serial])
				if got := hashFile(t, b.folder(d.name+".raw.gz.old")); got != first[d.name+".raw.gz"] {
					t.Errorf("the old image of %s is not the first", d.name)
				}
			}
		})
	}
}

// keep is what s has of the names in like.
func keep(s, like snapshot) snapshot {
	out := snapshot{}
	for name := range like {
		out[name] = s[name]
	}
	return out
}

// TestServerGone: in the middle of an action the areas stop to answer, as a
// hard NFS mount's do when the server restarts; it goes on where it was.
func TestServerGone(t *testing.T) {
	long := map[string]time.Duration{"backup": time.Minute}
	for _, action := range []string{"backup", "restore", "verify", "refresh-info"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			k := newCase(t, action, false)
			k.changes()
			middle := k.areas.state().Total / 2
			k.reset()
			k.areas.set(faultSet{FreezeAt: middle})
			a := k.start()
			select {
			case <-a.ended:
				t.Fatal("the agent ended while the server was gone")
			case <-time.After(max(long[action], 12*time.Second)):
			}
			k.checkBroken("server gone")
			k.areas.set(faultSet{})
			if r := a.wait(); r.code != done {
				t.Fatalf("%s ended with %d:\n%s", action, r.code, r.out)
			}
			k.checkDone("after the server was gone")
		})
	}
}

// TestAreaFails: any one change in the areas fails. What is then said to be
// done is done, and the next start ends well.
func TestAreaFails(t *testing.T) {
	for _, action := range []string{"backup", "backup-again", "restore"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			k := newCase(t, action, false)
			total := k.changes()
			for n := 1; n <= total; n += step(total, 40) {
				k.reset()
				k.areas.set(faultSet{FailAt: n})
				r := k.run()
				k.areas.set(faultSet{})
				if r.code == done {
					k.checkDone(fmt.Sprintf("change %d fails", n))
				} else if !k.armed() && r.code != failed {
					t.Fatalf("change %d fails: the agent ended with %d and disarmed:\n%s", n, r.code, r.out)
				}
				k.endsWell(fmt.Sprintf("change %d failed, started again", n))
			}
		})
	}
}

// step goes through total in at most limit steps.
func step(total, limit int) int { return max(1, (total+limit-1)/limit) }

// TestWriteDropped: the disk says that it has written, and has not. Each write
// of a restore is dropped in turn; the read-back must find each. The disk is
// larger than the image, so that its end counts too.
func TestWriteDropped(t *testing.T) {
	t.Parallel()
	b := newBox(t, disk("sda", scattered(1)).ofSize(5*mib))
	image, err := os.ReadFile(b.disks[0].file)
	must(t, err)
	b.does("backup")
	replace(0, func(d *testDisk) { d.size, d.faulty = 7*mib+512, true })(t, b)
	sda := b.disks[0]
	want := noise(wreckSeed, int(sda.size))
	copy(want, image)
	clear(want[sda.size-mib:])

	restore := func(f faultSet) result {
		t.Helper()
		sda.server.set(faultSet{})
		sda.wreck(t)
		b.arm("restore", "--replace")
		sda.server.set(f)
		return b.run()
	}
	right := func() bool {
		t.Helper()
		sda.hash(t) // flushes
		got, err := os.ReadFile(sda.file)
		must(t, err)
		return bytes.Equal(got, want)
	}
	if r := restore(faultSet{}); r.code != done || !right() {
		t.Fatalf("the restore ended with %d:\n%s", r.code, r.out)
	}
	total := sda.server.state().Changes
	if total < 10 {
		t.Fatalf("a restore makes %d changes; the test looks in the wrong place", total)
	}
	dropped := 0
	for n := 1; n <= total; n++ {
		r := restore(faultSet{DropAt: n})
		dropped += sda.server.state().Dropped
		if ok := right(); r.code == done != ok || r.code != done && r.code != failed {
			t.Errorf("change %d dropped: the restore ended with %d, the disk is right: %v\n%s", n, r.code, ok, r.out)
		}
		if r.code == failed && !sda.noMixture(t) {
			t.Errorf("change %d dropped: the disk is a mixture that may start", n)
		}
	}
	if dropped < total/2 {
		t.Errorf("of %d changes %d were dropped", total, dropped)
	}
	if r := restore(faultSet{}); r.code != done || !right() {
		t.Errorf("the last restore ended with %d:\n%s", r.code, r.out)
	}
}

// TestWriteDroppedInThousand: of all 4 KiB blocks one in a thousand is not
// written.
func TestWriteDroppedInThousand(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1)).ofSize(16 * mib)
	sda.faulty = true
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("backup")
	sda.wreck(t)
	b.arm("restore")
	for range 2 {
		sda.server.set(faultSet{DropEvery: 1000})
		b.runs(failed, "sda")
		if sda.server.state().Dropped == 0 || !b.armed() {
			t.Fatalf("dropped %d, armed %v", sda.server.state().Dropped, b.armed())
		}
		sda.server.set(faultSet{})
		sda.wreck(t)
	}
	b.runs(done)
	if sda.hash(t) != before {
		t.Error("the disk is not restored")
	}
}

// TestWriteFails: a disk that says that it cannot write.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("backup")
	for _, n := range []int{1, 2, 3, 5, 8} {
		sda.server.set(faultSet{})
		sda.wreck(t)
		b.arm("restore", "--replace")
		sda.server.set(faultSet{FailAt: n})
		b.runs(failed, "sda")
		if !sda.noMixture(t) {
			t.Errorf("change %d fails: the disk is a mixture that may start", n)
		}
	}
	sda.server.set(faultSet{})
	b.runs(done)
	if sda.hash(t) != before {
		t.Error("the disk is not restored")
	}
}

// TestBadSectors: what cannot be read is zeros in the image, is said, and makes
// the result other than plain success.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	writeZeros := []image.Range{{Off: 20 << 10, Len: 512}, {Off: 2*mib + 1024, Len: 1024}, {Off: 3*mib - 512, Len: 1024},
		{Off: 8*mib - 512, Len: 512}}
	b := newBox(t, sda, disk("sdb", scattered(2)))
	want, err := os.ReadFile(sda.file)
	must(t, err)
	for _, r := range writeZeros {
		clear(want[r.Off:r.End()])
	}
	zeroed := t.TempDir() + "/zeroed"
	must(t, os.WriteFile(zeroed, want, 0o644))

	sda.server.set(faultSet{BadReads: writeZeros})
	b.arm("backup")
	b.runs(badOnes, "sda", "cannot be read")
	if b.armed() {
		t.Error("still armed after a backup with bad sectors: the box would do it for ever")
	}
	b.image("sda.raw.gz", hashFile(t, zeroed))
	b.image("sdb.raw.gz", b.disks[1].hash(t))
	if f := b.facts("sda.json"); !slices.Equal(f.Bad, writeZeros) {
		t.Errorf("the sidecar has %+v", f.Bad)
	}
	if f := b.facts("sdb.json"); len(f.Bad) > 0 {
		t.Errorf("the good disk's sidecar has %+v", f.Bad)
	}
	if log := b.log("maintenance.log"); !strings.Contains(log, "bad sectors") || !strings.Contains(log, ": error: ") {
		t.Errorf("maintenance.log:\n%s", log)
	}

	sda.server.set(faultSet{})
	sda.wreck(t)
	for _, action := range []string{"restore", "verify"} {
		b.arm(action)
		b.runs(badOnes, "done with bad sectors", "sda: bytes 20480 to 20991 could not be read when the image was made")
		if b.armed() {
			t.Errorf("still armed after %s of an image with bad sectors", action)
		}
	}
	if sda.hash(t) != hashFile(t, zeroed) {
		t.Error("the disk is not the image")
	}
}

// TestFailingDisk: of a disk that is failing there is no image, and the good ones
// stay what they are, those of the box's other disks too. That is known before
// any disk is read whole. A box that is armed for it takes what can be read.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	sda, sdb := disk("sda", scattered(1)), disk("sdb", scattered(2))
	sdb.faulty = true
	size := sdb.size
	b := newBox(t, sda, sdb)
	b.arm("backup")
	sdb.server.set(faultSet{BadReads: []image.Range{{Len: size}}})
	b.runs(refused, "sdb", "the disk is failing", "--accept-failing")
	b.checkNoMess()
	if len(b.files()) > 0 || !b.armed() {
		t.Errorf("armed %v, the folder has %v", b.armed(), b.files())
	}
	sdb.server.set(faultSet{})
	b.runs(done)
	before := b.snapshot()
	b.arm("backup-again")
	for name, bad := range map[string]image.Range{
		"all": {Len: size}, "the second half": {Off: size / 2, Len: size - size/2}, "its first sector": {Len: 512},
	} {
		sdb.server.set(faultSet{BadReads: []image.Range{bad}})
		out := b.runs(refused, "sdb", "the disk is failing")
		if strings.Contains(out, "sda: backing up") {
			t.Errorf("%s cannot be read: sda was read before that was found", name)
		}
		b.unchanged(before)
	}
	b.arm("backup-again", "--accept-failing", "--replace")
	b.runs(badOnes, "sdb")
	if f := b.facts("sdb.json"); len(f.Bad) == 0 || len(b.facts("sda.json").Bad) > 0 {
		t.Errorf("the sidecar has %+v", f.Bad)
	}
}

// TestDamagedImagesKeepTheWholeOne: however often a disk with bad sectors is
// backed up again, its last whole image stays, and comes back.
func TestDamagedImagesKeepTheWholeOne(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	b := newBox(t, sda)
	good := sda.hash(t)
	b.does("backup")
	for i := range 3 {
		sda.server.set(faultSet{BadReads: []image.Range{{Off: int64(i+1) * mib, Len: 512}}})
		b.arm("backup-again")
		b.runs(badOnes)
		b.image("sda.raw.gz.old", good)
		if f := b.facts("sda.json"); len(f.Bad) != 1 || f.Bad[0].Off != int64(i+1)*mib {
			t.Errorf("the sidecar has %+v", f.Bad)
		}
		b.checkNoMess()
	}
	sda.server.set(faultSet{})
	sda.wreck(t)
	b.does("restore", "--image=old")
	if sda.hash(t) != good {
		t.Error("the disk is not what it was")
	}
	b.does("backup-again") // a whole one pushes out a whole one
	if f := b.facts("sda.json.old"); len(f.Bad) != 1 {
		t.Errorf("the old sidecar has %+v", f.Bad)
	}
}

// TestCannotDisarm: a box that has no right to remove its boot file does its
// action once, and says each time what brings it back.
func TestCannotDisarm(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.arm("backup")
	folder := filepath.Dir(b.bootFile())
	must(t, os.Chown(folder, 0, 0))
	const says = "disarm 10.88.0.11` removes it, and `testbox share init` gives boxes the right"
	b.runs(failed, "backup: failed: disarm: ", says)
	b.image("sda.raw.gz", before)
	images := b.snapshot()
	b.runs(failed, "was done by an earlier start; only disarming", says)
	must(t, os.Chown(folder, nobody, nobody))
	b.runs(done)
	b.unchanged(images)
	if b.armed() {
		t.Error("the box is still armed")
	}
}

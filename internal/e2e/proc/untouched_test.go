package proc

import (
	"strings"
	"testing"
	"time"
)

// TestSourcesUntouched backs up disks that Linux likes to write to as soon as
// it sees them: an array to assemble, a volume group to activate, a system to
// resume, a journal to replay.
func TestSourcesUntouched(t *testing.T) {
	t.Parallel()
	wild := []content{mdHalf, lvmPV, hibernatedSwap, dirtyExt4}
	all := disk("sde", partitions(wild...)).ofSize(52 * mib)
	for i := range wild {
		all.parts = append(all.parts, testPart{number: i + 1, off: mib + int64(i)*12*mib, size: 12 * mib})
	}
	disks := []*testDisk{all}
	for i, c := range wild {
		disks = append(disks, disk("sd"+string(rune('a'+i)), c).ofSize(12*mib))
	}
	b := newBox(t, disks...)
	before := b.snapshot()
	b.does("backup")
	for _, d := range disks {
		if d.hash(t) != before["disk "+d.serial] {
			t.Errorf("the backup changed %s", d.name)
		}
		b.image(d.name+".raw.gz", before["disk "+d.serial])
	}
	for _, d := range disks {
		d.wreck(t)
	}
	b.does("restore")
	for _, d := range disks {
		if d.hash(t) != before["disk "+d.serial] {
			t.Errorf("%s is not restored", d.name)
		}
	}
}

// TestSourcesProtected looks at a disk and its partition while it is read: the
// kernel itself must refuse to write to either.
func TestSourcesProtected(t *testing.T) {
	t.Parallel()
	sda := disk("sda", gptExt4(1))
	sda.parts = []testPart{{number: 1, off: mib, size: mib}}
	other := disk("sdb", scattered(2))
	b := newBox(t, sda, other)
	b.arm("backup", "--disks", "sda")
	a := b.start()
	protected := false
	for range a.lines {
		if readOnly(t, sda.dev) && readOnly(t, sda.parts[0].dev) && readOnly(t, other.dev) {
			protected = true
			break
		}
	}
	if r := a.wait(); r.code != done {
		t.Fatalf("the backup ended with %d:\n%s", r.code, r.out)
	}
	if !protected {
		t.Error("the disks, or the partition, could be written during the backup")
	}

	// A restore lifts it from its targets and from no other disk.
	sda.wreck(t)
	b.does("restore")
	if !readOnly(t, other.dev) {
		t.Error("the restore of sda let others write to sdb")
	}
	if !readOnly(t, sda.dev) {
		t.Error("sda can still be written after its restore")
	}
}

// TestDiskInUse: a disk that something holds is not taken.
func TestDiskInUse(t *testing.T) {
	t.Parallel()
	sda := disk("sda", plainExt4(1))
	b := newBox(t, sda)
	b.does("backup")
	mount(t, sda.dev)
	for _, action := range []string{"backup-again", "restore"} {
		b.arm(action, "--replace")
		start := time.Now()
		r := b.run()
		if r.code != failed && r.code != refused {
			t.Errorf("the %s of a mounted disk ended with %d after %s:\n%s", action, r.code, time.Since(start), r.out)
		}
		if !strings.Contains(r.out, "sda") || !b.armed() {
			t.Errorf("armed %v:\n%s", b.armed(), r.out)
		}
		if !readOnly(t, sda.dev) {
			t.Errorf("after the %s the disk can be written", action)
		}
	}
}

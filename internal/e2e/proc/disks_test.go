package proc

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
)

// list writes the box's disk-devices.lst.
func (b *testBox) list(text string) {
	b.t.Helper()
	must(b.t, os.WriteFile(b.folder("disk-devices.lst"), []byte(text), 0o644))
}

func TestOneDiskExcluded(t *testing.T) {
	t.Parallel()
	for name, choose := range map[string]func(b *testBox) []string{
		"list of names":   func(b *testBox) []string { b.list("# the other one is broken\nsdb\n"); return nil },
		"list of serials": func(b *testBox) []string { b.list("SERIAL-sdb # second bay"); return nil },
		"list of links":   func(b *testBox) []string { b.list("/dev/disk/by-id/wwn-0x5000c500a1b2c302"); return nil },
		"arming":          func(b *testBox) []string { return []string{"--disks", "sdb"} },
		"arming by path":  func(b *testBox) []string { return []string{"--disks", "/dev/disk/by-path/pci-0000:00:1f.2-ata-2.0"} },
		"arming and list": func(b *testBox) []string { b.list("sda"); return []string{"--disks", "sdb"} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, two()...)
			b.does("refresh-info")
			flags := choose(b)
			sda, sdb := b.disks[0], b.disks[1]
			before := sdb.hash(t)
			b.does("backup", flags...)
			if slices.Contains(b.files(), "sda.raw.gz") {
				t.Error("the disk that is left out was backed up")
			}
			b.image("sdb.raw.gz", before)

			sda.wreck(t)
			sdb.wreck(t)
			wrecked := sda.hash(t)
			b.does("restore", flags...)
			if sda.hash(t) != wrecked {
				t.Error("restore wrote to the disk that is left out")
			}
			if sdb.hash(t) != before {
				t.Error("the named disk is not restored")
			}
		})
	}
}

// TestNamedDiskMissing: one of the named disks is not there; the others are
// done, and the log says what is missing.
func TestNamedDiskMissing(t *testing.T) {
	t.Parallel()
	b := newBox(t, two()...)
	b.arm("backup", "--disks", "sdb,SERIAL-nowhere")
	b.runs(done, "SERIAL-nowhere")
	b.image("sdb.raw.gz", b.disks[1].hash(t))
	if log := b.log("maintenance.log"); !strings.Contains(log, `: error: the disk "SERIAL-nowhere"`) {
		t.Errorf("maintenance.log:\n%s", log)
	}
}

// TestRestoreOneOfTwo: of a backup of two disks one is written back.
func TestRestoreOneOfTwo(t *testing.T) {
	t.Parallel()
	b := newBox(t, two()...)
	sda, sdb := b.disks[0], b.disks[1]
	before := b.snapshot()
	b.does("backup")
	sda.wreck(t)
	sdb.wreck(t)
	wrecked := sdb.hash(t)
	b.does("restore", "--disks", "SERIAL-sda")
	if sda.hash(t) != before["disk SERIAL-sda"] || sdb.hash(t) != wrecked {
		t.Error("not sda alone was restored")
	}
	b.does("restore", "--disks", "sdb")
	if sda.hash(t) != before["disk SERIAL-sda"] || sdb.hash(t) != before["disk SERIAL-sdb"] {
		t.Error("not sdb was restored")
	}
}

// TestRestoreMapped: of two disks that were both replaced, each gets the image
// that the admin says, and a verify with that map finds them right.
func TestRestoreMapped(t *testing.T) {
	t.Parallel()
	b := newBox(t, two()...)
	before := b.snapshot()
	b.does("backup")
	replace(0, func(d *testDisk) { d.port = 5 })(t, b)
	replace(1, func(d *testDisk) { d.port = 6 })(t, b)
	const crossed = "sda=NEW-SERIAL-sdb,sdb=sda"
	b.arm("restore", "--map", crossed)
	b.runs(done, "image sda belongs on disk sdb: the admin mapped it so")
	if b.disks[1].hash(t) != before["disk SERIAL-sda"] || b.disks[0].hash(t) != before["disk SERIAL-sdb"] {
		t.Error("the disks did not get the images that were mapped to them")
	}
	b.does("verify", "--map", crossed)
	b.arm("verify", "--map", "sda=sda,sdb=sdb")
	b.runs(differ)
}

// TestDiskOfAnotherKind: a disk that can be taken out is not the box's own,
// unless somebody says so.
func TestDiskOfAnotherKind(t *testing.T) {
	t.Parallel()
	stick := disk("sdb", scattered(2))
	stick.removable = true
	b := newBox(t, disk("sda", scattered(1)), stick)
	b.does("backup")
	if slices.Contains(b.files(), "sdb.raw.gz") {
		t.Error("a removable disk was backed up unasked")
	}
	b.does("backup-again", "--disks", "sda,sdb")
	b.image("sdb.raw.gz", stick.hash(t))
}

// TestNamesSwapped: two disks that differ by nothing but serial, WWN and what
// is on them, and the kernel finds them in the other order; or somebody swaps
// the cables.
func TestNamesSwapped(t *testing.T) {
	t.Parallel()
	for name, cables := range map[string]bool{"names": false, "cables": true} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, two()...)
			a, z := b.disks[0], b.disks[1]
			before := b.snapshot()
			b.does("backup")
			a.name, z.name = z.name, a.name
			if cables {
				a.port, z.port = z.port, a.port
			}
			b.plug()
			a.wreck(t)
			z.wreck(t)
			b.does("restore")
			for _, d := range b.disks {
				if d.hash(t) != before["disk "+d.serial] {
					t.Errorf("the disk with serial %s got another one's image", d.serial)
				}
			}
			// A disk keeps its image's name.
			b.does("backup-again")
			b.image("sda.raw.gz", before["disk SERIAL-sda"])
			b.image("sdb.raw.gz", before["disk SERIAL-sdb"])
			if f := b.facts("sda.json"); f.Kernel != "sdb" || f.Disk.Serial != "SERIAL-sda" {
				t.Errorf("sidecar of sda: %+v", f)
			}
		})
	}
}

// TestSwappedWithoutSerial: with nothing to tell two disks by but their place,
// the place decides; the names do not.
func TestSwappedWithoutSerial(t *testing.T) {
	t.Parallel()
	b := newBox(t, two()...)
	a, z := b.disks[0], b.disks[1]
	for _, d := range b.disks {
		d.wwn = ""
	}
	a.serial, z.serial = "", ""
	b.plug()
	ha, hz := a.hash(t), z.hash(t)
	b.does("backup")
	a.name, z.name = z.name, a.name
	b.plug()
	a.wreck(t)
	z.wreck(t)
	b.does("restore")
	if a.hash(t) != ha || z.hash(t) != hz {
		t.Error("the disks did not get the images of their places")
	}
}

// TestReplacedDisk: one of two disks was replaced by a new one.
func TestReplacedDisk(t *testing.T) {
	t.Parallel()
	b := newBox(t, two()...)
	before := b.snapshot()
	b.does("backup")
	replace(1, func(*testDisk) {})(t, b)
	b.disks[0].wreck(t)
	b.does("restore")
	if b.disks[0].hash(t) != before["disk SERIAL-sda"] || b.disks[1].hash(t) != before["disk SERIAL-sdb"] {
		t.Error("the disks are not restored")
	}
}

// TestReplacedByLarger: the backup GPT moves to the new disk's end; what that
// changes stands in the receipt and is no difference for verify.
func TestReplacedByLarger(t *testing.T) {
	t.Parallel()
	b := newBox(t, disk("sda", gptExt4(1)), disk("sdb", scattered(2)))
	old := b.disks[0]
	other := b.disks[1].hash(t)
	b.does("backup")
	replace(0, func(d *testDisk) { d.size = 13*mib + 512*7; d.fill = scattered(3) })(t, b)
	larger := b.disks[0]
	b.does("restore")
	if b.disks[1].hash(t) != other {
		t.Error("the other disk is not restored")
	}

	var changed []image.Range
	for _, r := range b.receipts() {
		if r.Disk == "sda" {
			changed = r.Changed
		} else if len(r.Changed) > 0 {
			t.Errorf("receipt of %s: %+v", r.Disk, r)
		}
	}
	want, err := os.ReadFile(old.file)
	must(t, err)
	got, err := os.ReadFile(larger.file)
	must(t, err)
	inside := int64(0)
	for _, r := range changed {
		if r.Off < old.size {
			inside += r.Len
			copy(got[r.Off:r.End()], want[r.Off:min(r.End(), old.size)])
		}
	}
	if !bytes.Equal(got[:old.size], want) {
		t.Error("the disk differs from the image where the receipt does not say so")
	}
	if len(changed) == 0 || inside > 64<<10 {
		t.Errorf("the receipt names %+v", changed)
	}
	run(t, "", "sfdisk", "--verify", larger.file)
	end := make([]byte, 8)
	f, err := os.Open(larger.file)
	must(t, err)
	defer f.Close()
	_, err = f.ReadAt(end, larger.size-512)
	must(t, err)
	if string(end) != "EFI PART" {
		t.Errorf("at the larger disk's end stands %q", end)
	}
	if out := run(t, "", "sfdisk", "--dump", larger.file); !bytes.Contains([]byte(out), []byte("start=        4096")) {
		t.Errorf("the partitions are not those of the image:\n%s", out)
	}
	b.does("verify")
	for _, r := range b.receipts() {
		if len(r.Differ) > 0 {
			t.Errorf("verify after the restore: %s differs at %+v", r.Disk, r.Differ)
		}
	}
}

// gptAndRoom is a GPT with an ext4 of 5 MiB, and room behind it that nothing uses but
// for what fill puts there.
func gptAndRoom(seed uint64, fill ...int64) content {
	return func(t testing.TB, path string) {
		t.Helper()
		run(t, "label: gpt\nstart=2048, size=10240, type=linux\n", "sfdisk", "-q", path)
		mkfsExt4(t, path, mib, 5*mib, seed)
		for _, at := range fill {
			writeAt(t, path, at, prose(seed, 4096))
		}
	}
}

// TestReplacedBySmaller: a smaller disk is taken if that is asked for and nothing gets
// lost. Its GPT is whole, the receipt says what differs, and verify expects that.
func TestReplacedBySmaller(t *testing.T) {
	t.Parallel()
	b := newBox(t, disk("sda", gptAndRoom(1)).ofSize(12*mib))
	old := b.disks[0]
	b.does("backup")
	replace(0, func(d *testDisk) { d.size = 7*mib + 512*3; d.fill = scattered(3) })(t, b)
	smaller := b.disks[0]
	b.arm("restore", "--shrink-table")
	b.runs(done, "its last 5241344 bytes are left out")
	sameTable(t, old.file, smaller.file)
	want, err := os.ReadFile(old.file)
	must(t, err)
	got, err := os.ReadFile(smaller.file)
	must(t, err)
	r := b.receipts()
	if len(r) != 1 || len(r[0].Changed) < 3 {
		t.Fatalf("the receipts are %+v", r)
	}
	for _, c := range r[0].Changed {
		if c.Off < smaller.size {
			copy(got[c.Off:min(c.End(), smaller.size)], want[c.Off:])
		}
	}
	if !bytes.Equal(got, want[:smaller.size]) {
		t.Error("the disk differs from the image where the receipt does not say so")
	}
	b.arm("verify")
	b.runs(refused, "--shrink-table")
	b.does("verify", "--shrink-table", "--replace")
	if r := b.receipts(); len(r) != 1 || len(r[0].Differ) > 0 {
		t.Errorf("verify after the restore: %+v", r)
	}
}

// TestReplacedByLargerDamaged: where the image has a GPT by its backup alone,
// the larger disk has both; where it has none, that is said beside the outcome.
func TestReplacedByLargerDamaged(t *testing.T) {
	t.Parallel()
	for _, both := range []bool{false, true} {
		b := newBox(t, disk("sda", func(t testing.TB, path string) {
			gptExt4(1)(t, path)
			writeAt(t, path, 512, make([]byte, 512))
			if both {
				writeAt(t, path, 8*mib-512, make([]byte, 512))
			}
		}))
		old := b.disks[0].file
		b.does("backup")
		replace(0, func(d *testDisk) { d.size = 13 * mib; d.fill = scattered(3) })(t, b)
		b.does("restore")
		warned := strings.Count(b.log("maintenance.log"), ": error: sda: the disk is larger than the image; its partition table is left")
		if both && warned != 2 || !both && warned > 0 {
			t.Errorf("the log warns %d times:\n%s", warned, b.log("maintenance.log"))
		}
		if !both {
			sameTable(t, old, b.disks[0].file)
		}
		b.does("verify")
		if r := b.receipts(); len(r) != 1 || len(r[0].Differ) > 0 || both != (len(r[0].Changed) == 0) {
			t.Errorf("verify after the restore: %+v", r)
		}
	}
}

// sameTable checks that a disk's GPT is whole, and has the partitions of
// another.
func sameTable(t testing.TB, of, file string) {
	t.Helper()
	got := run(t, "", "sfdisk", "--dump", file) + run(t, "", "sfdisk", "--verify", file)
	if strings.Contains(got, "corrupt") || !strings.Contains(got, "No errors detected") {
		t.Errorf("sfdisk says\n%s", got)
	}
	for line := range strings.Lines(run(t, "", "sfdisk", "--dump", of)) {
		if _, part, ok := strings.Cut(line, " : start="); ok && !strings.Contains(got, part) {
			t.Errorf("the disk has not %s, but\n%s", line, got)
		}
	}
}

// TestReplacedByLargerPlain: without a GPT nothing is moved, and a table that
// an earlier user left at the end is gone.
func TestReplacedByLargerPlain(t *testing.T) {
	t.Parallel()
	b := newBox(t, disk("sda", plainExt4(1)))
	want, err := os.ReadFile(b.disks[0].file)
	must(t, err)
	b.does("backup")
	replace(0, func(d *testDisk) { d.size = 12 * mib; d.fill = gptExt4(3) })(t, b)
	b.does("restore")
	got, err := os.ReadFile(b.disks[0].file)
	must(t, err)
	if !bytes.Equal(got[:len(want)], want) {
		t.Error("the disk is not restored")
	}
	if bytes.Contains(got[11*mib:], []byte("EFI PART")) {
		t.Error("the old backup GPT at the end is still there")
	}
	b.does("verify")
	if r := b.receipts(); len(r) != 1 || len(r[0].Differ) > 0 {
		t.Errorf("verify after the restore: %+v", r)
	}
}

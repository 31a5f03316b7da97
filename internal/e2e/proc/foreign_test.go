package proc

import (
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

// pipelines are how people make images without this program.
var pipelines = map[string]struct{ file, script string }{
	"dd and gzip":               {"sda.gz", `dd if="$1" bs=256K status=none | gzip -c >"$2"`},
	"dd and gzip, new name":     {"sda.raw.gz", `dd if="$1" bs=256K status=none | gzip -c >"$2"`},
	"gzip with a file name":     {"sda.gz", `gzip -9 -N -c "$1" >"$2"`},
	"pigz":                      {"sda.gz", `pigz -c -p 4 <"$1" >"$2"`},
	"pigz in many members":      {"sda.raw.gz", `pigz -c -i -b 128 -p 4 <"$1" >"$2"`},
	"pieces, one at a time":     {"sda.gz", `for i in 0 1 2 3 4 5 6 7; do dd if="$1" bs=1M skip=$i count=1 status=none | gzip -1; done >"$2"`},
	"not compressed at all":     {"sda.raw.gz", `pigz -0 -c <"$1" >"$2"`},
	"two programs, two members": {"sda.gz", `head -c 1500000 "$1" | pigz -c >"$2"; tail -c +1500001 "$1" | gzip >>"$2"`},
}

func TestForeignImages(t *testing.T) {
	for name, p := range pipelines {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			testenv.Root(t)
			testenv.Tools(t, "pigz")
			sda := disk("sda", gptExt4(1))
			b := newBox(t, sda)
			before := sda.hash(t)
			b.does("refresh-info")
			run(t, "", "sh", "-c", p.script, "sh", sda.file, b.folder(p.file))
			b.does("verify")
			sda.wreck(t)
			b.does("restore")
			if sda.hash(t) != before {
				t.Error("the disk is not restored")
			}
		})
	}
}

// TestForeignImagesOfTwoDisks: without sidecars nothing but the admin's word
// says which image is whose.
func TestForeignImagesOfTwoDisks(t *testing.T) {
	t.Parallel()
	b := newBox(t, two()...)
	before := b.snapshot()
	b.does("refresh-info")
	for _, d := range b.disks {
		run(t, "", "sh", "-c", `gzip -c <"$1" >"$2"`, "sh", d.file, b.folder(d.name+".gz"))
		d.wreck(t)
	}
	b.arm("restore")
	wrecked := b.snapshot()
	b.runs(refused, "sda", "sdb")
	b.unchanged(wrecked)

	b.arm("restore", "--disks", "sda,sdb", "--replace")
	b.runs(done)
	for _, d := range b.disks {
		if d.hash(t) != before["disk "+d.serial] {
			t.Errorf("%s is not restored", d.name)
		}
	}
}

// damage is something that happened to an image file of n bytes.
type damage struct {
	name string
	do   func(b []byte) []byte
}

func flip(at func(n int) int) func([]byte) []byte {
	return func(b []byte) []byte { b[at(len(b))] ^= 4; return b }
}

func cut(at func(n int) int) func([]byte) []byte {
	return func(b []byte) []byte { return b[:at(len(b))] }
}

// member gives where the i-th gzip member of ours starts, by the lengths that
// stand in the headers' extra fields (docs of package rawgz).
func member(i int) func([]byte) []byte {
	return func(b []byte) []byte {
		at := 0
		for range i {
			at += int(b[at+16]) | int(b[at+17])<<8 | int(b[at+18])<<16
		}
		return b[:at]
	}
}

// damages are found by what a gzip file itself says, ourDamages by what our
// form says. With a sidecar every bit counts, also one of a gzip header that
// changes nothing of the disk's bytes.
var (
	damages = []damage{
		{"first byte", flip(func(n int) int { return 0 })},
		{"quarter", flip(func(n int) int { return n / 4 })},
		{"middle", flip(func(n int) int { return n / 2 })},
		{"near the end", flip(func(n int) int { return n - 100 })},
		{"length", flip(func(n int) int { return n - 4 })},
		{"last byte", flip(func(n int) int { return n - 1 })},
		{"cut by one", cut(func(n int) int { return n - 1 })},
		{"cut by eight", cut(func(n int) int { return n - 8 })},
		{"cut in half", cut(func(n int) int { return n / 2 })},
		{"cut to the header", cut(func(n int) int { return 10 })},
		{"empty", cut(func(n int) int { return 0 })},
		{"something appended", func(b []byte) []byte { return append(b, "and more"...) }},
		{"middle zeroed", func(b []byte) []byte { clear(b[len(b)/2:][:4096]); return b }},
	}
	anyDamage = append([]damage{
		{"time in the header", flip(func(n int) int { return 5 })},
		{"system in the header", flip(func(n int) int { return 9 })},
		{"zeros appended", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }},
	}, ourDamages...)
	ourDamages = append([]damage{
		{"cut after a member", member(3)},
		{"cut before the end member", member(8)},
	}, damages...)
)

// refusedDamages checks that each damage of the image file is refused before
// any disk is touched.
func (b *testBox) refusedDamages(file string, damages []damage) {
	b.t.Helper()
	good, err := os.ReadFile(b.folder(file))
	must(b.t, err)
	for _, action := range []string{"restore", "verify"} {
		b.arm(action, "--replace")
		for _, d := range damages {
			must(b.t, os.WriteFile(b.folder(file), d.do(append([]byte(nil), good...)), 0o644))
			before := b.snapshot()
			if r := b.run(); r.code != refused || !strings.Contains(r.out, file) {
				b.t.Fatalf("%s, %s: the agent ended with %d:\n%s", action, d.name, r.code, r.out)
			}
			b.unchanged(before)
		}
	}
	must(b.t, os.WriteFile(b.folder(file), good, 0o644))
	b.arm("restore", "--replace")
	b.runs(done)
}

func TestDamagedImage(t *testing.T) {
	t.Run("with-sidecar", func(t *testing.T) {
		t.Parallel()
		b := newBox(t, two()...) // the other one is good: it must not be touched either
		b.does("backup")
		before := b.snapshot()
		for _, d := range b.disks {
			d.wreck(t)
		}
		b.refusedDamages("sdb.raw.gz", anyDamage)
		for _, d := range b.disks {
			if d.hash(t) != before["disk "+d.serial] {
				t.Errorf("%s is not restored", d.name)
			}
		}
	})
	t.Run("ours-without-sidecar", func(t *testing.T) {
		t.Parallel()
		b := newBox(t, one()...)
		b.does("backup")
		b.rm(b.folder("sda.json"))
		b.disks[0].wreck(t)
		b.refusedDamages("sda.raw.gz", ourDamages)
	})
	t.Run("foreign", func(t *testing.T) {
		t.Parallel()
		b := newBox(t, one()...)
		b.does("refresh-info")
		run(t, "", "sh", "-c", `dd if="$1" bs=256K status=none | gzip -c >"$2"`, "sh", b.disks[0].file, b.folder("sda.gz"))
		b.disks[0].wreck(t)
		b.refusedDamages("sda.gz", damages)
	})
}

// TestPrecheckSize: the check by size alone still finds a cut file before the
// disk is touched, and a flipped bit never ends as a success.
func TestPrecheckSize(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("backup")
	good, err := os.ReadFile(b.folder("sda.raw.gz"))
	must(t, err)
	sda.wreck(t)

	b.arm("restore", "--precheck=size")
	must(t, os.Truncate(b.folder("sda.raw.gz"), int64(len(good)-1)))
	wrecked := b.snapshot()
	b.runs(refused)
	b.unchanged(wrecked)

	for _, at := range []int{40, len(good) / 2, len(good) - 200} {
		bad := append([]byte(nil), good...)
		bad[at] ^= 1
		must(t, os.WriteFile(b.folder("sda.raw.gz"), bad, 0o644))
		if r := b.run(); r.code != failed && r.code != refused {
			t.Errorf("a flipped bit at %d: the restore ended with %d:\n%s", at, r.code, r.out)
		}
		if !b.armed() {
			t.Fatal("disarmed after a failed restore")
		}
	}
	must(t, os.WriteFile(b.folder("sda.raw.gz"), good, 0o644))
	b.runs(done)
	if sda.hash(t) != before {
		t.Error("the disk is not restored")
	}
}

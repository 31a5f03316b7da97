package proc

import (
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

// noDisks are files that people put into a box's folder and that hold no whole
// disk. The script makes $2 of the disk $1; says is part of the refusal.
var noDisks = []struct{ name, file, script, says string }{
	{"fixed VHD", "sda.raw.gz", `qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on "$1" x; gzip -c x >"$2"`, "a VHD image"},
	{"VHD", "sda.gz", `qemu-img convert -f raw -O vpc "$1" x; gzip -c x >"$2"`, "a VHD image"},
	{"qcow2", "sda.gz", `qemu-img convert -f raw -O qcow2 "$1" x; gzip -c x >"$2"`, "a qcow2 image"},
	{"VMDK", "sda.gz", `qemu-img convert -f raw -O vmdk "$1" x; gzip -c x >"$2"`, "a VMDK image"},
	{"gzip twice", "sda.raw.gz", `gzip -c "$1" | gzip -c >"$2"`, "compressed by gzip"},
	{"zstd", "sda.raw.gz", `zstd -qc "$1" | gzip -c >"$2"`, "compressed by zstd"},
	{"tar", "sda.gz", `tar -cf x "$1"; gzip -c x >"$2"`, "a tar archive"},
	{"web page", "sda.raw.gz", `yes "<html>error</html>" | head -c 4096 | gzip -c >"$2"`, "a web page"},
	{"log", "sda.gz", `seq 1 1000 | gzip -c >"$2"`, "a text file"},
	{"not gzip", "sda.raw.gz", `cp "$1" "$2"`, "not a gzip file"},
	{"name of a partition", "sda1.raw.gz", `gzip -c "$1" >"$2"`, "the name of a partition"},
	{"name of an NVMe's", "nvme0n1p1.gz", `gzip -c "$1" >"$2"`, "the name of a partition"},
	{"name with part", "sda-part1.gz", `gzip -c "$1" >"$2"`, "the name of a partition"},
	{"name of a card's", "mmcblk0p2.raw.gz", `gzip -c "$1" >"$2"`, "the name of a partition"},
	{"memory beside a card's", "mmcblk0boot0.gz", `gzip -c "$1" >"$2"`, "the name of a partition"},
	{"partition", "sda.raw.gz", `dd if="$1" bs=1M skip=2 count=4 status=none | gzip -c >"$2"`, "it is the image of a partition"},
	{"garbage behind it", "sda.gz", `{ gzip -c "$1"; echo garbage; } >"$2"`, "and 8 bytes follow that are no gzip"},
	{"two disks", "sda.gz", `cp "$1" x; cp "$1" y; gzip -c x y >"$2"`, `"y" follows "x"`},
}

// TestNoDisks: what is no image of a whole disk is neither written over one nor
// compared with one.
func TestNoDisks(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tools(t, "qemu-img", "zstd")
	sda := disk("sda", gptExt4(1))
	b := newBox(t, sda)
	b.does("refresh-info")
	made := map[string][]byte{}
	for _, n := range noDisks {
		run(t, "", "sh", "-c", `cd "$(dirname "$1")" && `+n.script, "sh", sda.file, b.folder(n.file))
		text, err := os.ReadFile(b.folder(n.file))
		must(t, err)
		made[n.name] = text
		b.rm(b.folder(n.file))
	}
	sda.wreck(t)
	for _, action := range []string{"restore", "verify"} {
		b.arm(action, "--replace")
		for i, n := range noDisks {
			if action == "verify" && i%5 != 0 {
				continue // the same code; some are enough
			}
			must(t, os.WriteFile(b.folder(n.file), made[n.name], 0o644))
			before := b.snapshot()
			if r := b.run(); r.code != refused || !strings.Contains(r.out, n.says) || !strings.Contains(r.out, n.file) {
				t.Errorf("%s of %s: the agent ended with %d:\n%s", action, n.name, r.code, r.out)
			}
			b.unchanged(before)
			b.rm(b.folder(n.file))
		}
	}
}

// TestOddDisks: what only looks odd is written, where that is what is meant:
// a disk without a partition table, padding behind the image, and whatever is
// armed with --raw.
func TestOddDisks(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tools(t, "qemu-img")
	sda := disk("sda", plainExt4(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("refresh-info")
	run(t, "", "sh", "-c", `{ gzip -c "$1"; head -c 5000 /dev/zero; } >"$2"`, "sh", sda.file, b.folder("sda.raw.gz"))
	sda.wreck(t)
	b.arm("restore")
	if r := b.run(); r.code != done || !strings.Contains(r.out, "the disk in it is whole; after it, from byte") {
		t.Errorf("the agent ended with %d:\n%s", r.code, r.out)
	}
	if sda.hash(t) != before {
		t.Error("the disk is not restored")
	}
	run(t, "", "sh", "-c", `cd "$(dirname "$1")" && qemu-img convert -f raw -O qcow2 "$1" x && head -c 4M x >y; gzip -c y >"$2"`, "sh",
		sda.file, b.folder("sda.raw.gz"))
	b.arm("restore")
	b.runs(refused, "a qcow2 image", "--raw")
	b.arm("restore", "--raw", "--replace")
	b.runs(done)
	b.does("verify", "--raw")
}

// TestFolderOfAnotherBox: images that were copied from another box's folder are
// taken, and said to be so.
func TestFolderOfAnotherBox(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("backup")
	text, err := os.ReadFile(b.folder("sda.json"))
	must(t, err)
	other := strings.Replace(string(text), `"box": "10.88.0.11"`, `"box": "10.88.0.42"`, 1)
	must(t, os.WriteFile(b.folder("sda.json"), []byte(other), 0o644))
	sda.wreck(t)
	b.arm("restore")
	b.runs(done, "image sda is in the folder of this box, but was made of box 10.88.0.42")
	if sda.hash(t) != before {
		t.Error("the disk is not restored")
	}
}

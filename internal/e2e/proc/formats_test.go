package proc

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
)

// makeFormats makes new specimens instead of using those that are there;
// testdata/formats/README.md says when.
var makeFormats = flag.String("make-formats", "", "make specimens of all formats in this new folder")

// specimens are folders of what earlier programs wrote, one for each time that
// a format was changed.
const specimens = "testdata/formats"

// The boxes of the specimens' boot files beside the box of all tests, which is
// armed for restore.
var armedBoxes = map[string][]string{
	"10.88.0.12": {"backup"},
	"10.88.0.13": {"backup-again", "--disks", "sda,SERIAL-sdb", "--accept-failing"},
	"10.88.0.14": {"verify", "--image=old", "--raw"},
	"10.88.0.15": {"refresh-info"},
	"10.88.0.16": {"rescue"},
	"10.88.0.17": {"restore", "--accept-machine", "--precheck=size"},
}

// farAway is when the specimens' armings expire.
const farAway = "2099-12-31T23:59:59Z"

// formatDisk is the disk of the specimens. It is nearly empty, so that they are
// small.
func formatDisk() *testDisk {
	return disk("sda", func(t testing.TB, path string) {
		run(t, "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nstart=2048, size=8192, type=linux\n", "sfdisk", "-q", path)
		for off := int64(mib); off < 5*mib; off += 700 << 10 {
			writeAt(t, path, off, prose(uint64(off), 5000))
		}
	})
}

// TestFormats: what earlier programs wrote is read, used and written on as if
// it were today's.
func TestFormats(t *testing.T) {
	if *makeFormats != "" {
		makeSpecimens(t, *makeFormats)
		return
	}
	sets, err := os.ReadDir(specimens)
	must(t, err)
	n := 0
	for _, set := range sets {
		if !set.IsDir() {
			continue
		}
		n++
		dir := filepath.Join(specimens, set.Name())
		t.Run(set.Name()+"/share", func(t *testing.T) { useShare(t, dir) })
		t.Run(set.Name()+"/commit", func(t *testing.T) { useCommit(t, dir) })
		t.Run(set.Name()+"/store", func(t *testing.T) { useStore(t, dir) })
	}
	if n == 0 {
		t.Fatal("there are no specimens")
	}
}

// boxFrom gives a box whose areas are specimens.
func boxFrom(t *testing.T, areas string) *testBox {
	t.Helper()
	b := newBox(t, formatDisk())
	for _, area := range []string{"testbox-tftp", "testbox-backup"} {
		run(t, "", "cp", "-r", filepath.Join(areas, area), b.root)
	}
	must(t, os.MkdirAll(filepath.Join(b.root, "testbox-nfsroot", "debian-1.0"), 0o755))
	run(t, "", "chown", "-R", "65534:65534", filepath.Join(b.root, "testbox-backup"), filepath.Join(b.root, "testbox-tftp", bootcfg.ConfigDir))
	return b
}

// wantHash reads the hash of a disk from a specimen.
func wantHash(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return strings.TrimSpace(string(text))
}

// useShare does what a lab does after an upgrade: the boxes that are armed are
// listed, one of them starts, and others are disarmed.
func useShare(t *testing.T, dir string) {
	areas := filepath.Join(dir, "areas")
	b := boxFrom(t, areas)
	cfg := filepath.Join(b.areas.dir, "testbox-tftp", bootcfg.ConfigDir)
	list := run(t, "", b.prog.testbox, "pxe-conf", "list", "-c", cfg)
	for addr, words := range armedBoxes {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(addr) + `\s.*\b` + words[0] + `\b.*2099`).MatchString(list) {
			t.Errorf("%s is not listed as armed for %s:\n%s", addr, words[0], list)
		}
	}
	sameBootFiles(t, filepath.Join(areas, "testbox-tftp", bootcfg.ConfigDir))
	status, err := exec.Command(b.prog.testbox, "pxe-conf", "status", "-c", cfg, "10.88.0.12").CombinedOutput()
	if err == nil || !strings.Contains(string(status), "armed for backup until 2099") {
		t.Errorf("the status of a box that is armed: %v\n%s", err, status)
	}

	b.boot() // by the boot file of the program before
	sda := b.disks[0]
	sda.wreck(t)
	b.runs(done)
	if got := sda.hash(t); got != wantHash(t, filepath.Join(dir, "new.blake3")) || b.armed() {
		t.Errorf("the disk is not restored, or the box is still armed (%v)", b.armed())
	}
	b.does("verify")
	b.does("restore", "--image=old")
	if got := sda.hash(t); got != wantHash(t, filepath.Join(dir, "old.blake3")) {
		t.Error("the old image is not restored")
	}
	b.does("backup-again")
	b.image("sda.raw.gz", sda.hash(t))
	b.image("sda.raw.gz.old", wantHash(t, filepath.Join(dir, "new.blake3")))
	run(t, "", b.prog.testbox, "pxe-conf", "disarm", "-c", cfg, "10.88.0.13", "10.88.0.16")
	if list := run(t, "", b.prog.testbox, "pxe-conf", "list", "-c", cfg); strings.Contains(list, "10.88.0.13") ||
		!strings.Contains(list, "10.88.0.12") {
		t.Errorf("after two boxes were disarmed, armed are\n%s", list)
	}
	if versions := run(t, "", b.prog.testbox, "maintenance", "list", b.root); !strings.Contains(versions, "ram-1.0") ||
		!strings.Contains(versions, "debian-1.0") {
		t.Errorf("the maintenance systems are\n%s", versions)
	}
}

// sameBootFiles wants boot files to be written as before, byte for byte: agents
// of earlier maintenance systems read what today's program writes.
func sameBootFiles(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "0A58*"))
	must(t, err)
	if len(names) != len(armedBoxes)+1 {
		t.Errorf("the specimens have %d boot files, not %d", len(names), len(armedBoxes)+1)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		must(t, err)
		c, kernel, initrd, err := bootcfg.ParseBootFile(text)
		must(t, err)
		again, err := bootcfg.Generate(bootcfg.BootFile{Cmdline: *c, Kernel: kernel, Initrd: initrd})
		must(t, err)
		if !bytes.Equal(again, text) {
			t.Errorf("%s is written as\n%s\nand was\n%s", name, again, text)
		}
	}
}

// useCommit finishes a commit that was broken off.
func useCommit(t *testing.T, dir string) {
	b := boxFrom(t, filepath.Join(dir, "areas"))
	run(t, "", "sh", "-c", `rm -r "$2" && cp -r "$1" "$2" && chown -R 65534:65534 "$2"`, "sh", filepath.Join(dir, "commit"), b.folder(""))
	if _, err := os.Stat(b.folder("commit.json")); err != nil {
		t.Fatal(err)
	}
	b.arm("refresh-info", "--replace")
	b.runs(done)
	if files := b.files(); slices.ContainsFunc(files, func(name string) bool {
		return strings.HasSuffix(name, ".new") ||
			name == "commit.json"
	}) {
		t.Errorf("the commit is not finished: %q", files)
	}
	b.image("sda.raw.gz", wantHash(t, filepath.Join(dir, "new.blake3")))
	b.image("sda.raw.gz.old", wantHash(t, filepath.Join(dir, "old.blake3")))
}

// storeOf runs the program's commands with a store.
func storeOf(t *testing.T, program, store string) (do func(args ...string) string, fails func(args ...string) string) {
	t.Setenv("TESTBOX_STORE", store)
	do = func(args ...string) string { t.Helper(); return run(t, "", program, args...) }
	fails = func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).CombinedOutput()
		if err == nil {
			t.Errorf("testbox %s ends well:\n%s", strings.Join(args, " "), out)
		}
		return string(out)
	}
	return do, fails
}

// useStore reads a store, adds to it, and keeps it up.
func useStore(t *testing.T, dir string) {
	prog, err := built()
	must(t, err)
	tmp := tempDir(t)
	store := filepath.Join(tmp, "store")
	run(t, "", "cp", "-r", filepath.Join(dir, "store"), store)
	do, fails := storeOf(t, prog.testbox, store)
	newHash, oldHash := wantHash(t, filepath.Join(dir, "new.blake3")), wantHash(t, filepath.Join(dir, "old.blake3"))

	list := do("image", "list")
	for _, want := range []string{`10\.88\.0\.11 .* B +first one`, `10\.88\.0\.11 .* P\n`, `web-1 .* sda, sdb `, `web-2 .* D\n`} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("no line is like %s:\n%s", want, list)
		}
	}
	restores := func(backup, want string) {
		t.Helper()
		file := filepath.Join(tmp, "disk")
		do("image", "restore", "--yes", "--full", backup, file)
		if hashFile(t, file) != want {
			t.Errorf("%s is not restored", backup)
		}
		must(t, os.Remove(file))
	}
	restores("10.88.0.11@latest", newHash)
	restores("10.88.0.11@baseline", oldHash)
	restores("web-1:sdb", oldHash)
	if said := fails("image", "verify", "web-2"); !strings.Contains(said, "damaged") {
		t.Errorf("verify of a damaged backup says\n%s", said)
	}

	// A new backup of equal disks adds nothing, and mends what is damaged.
	file := filepath.Join(tmp, "again")
	do("image", "restore", "--yes", "10.88.0.11@baseline", file)
	if said := do("image", "create", "10.88.0.11", "sda="+file); !strings.Contains(said, " 0 B are new") {
		t.Errorf("a disk that is in the store already:\n%s", said)
	}
	damaged := filepath.Join(tmp, "damaged")
	must(t, os.WriteFile(damaged, noise(7, 64<<10), 0o644))
	do("image", "create", "web-3", "sda="+damaged)
	do("image", "verify", "web-2")
	do("image", "delete", "--yes", "web-1@latest")
	do("store", "gc")
	do("store", "scrub")
	do("store", "stats")
	restores("10.88.0.11@latest", oldHash)
	restores("10.88.0.11@latest~1", newHash)
	if err := os.RemoveAll(filepath.Join(store, "index")); err != nil {
		t.Fatal(err)
	}
	do("store", "rebuild-index")
	restores("10.88.0.11@baseline", oldHash)
}

// makeSpecimens makes a set with the programs as they are.
func makeSpecimens(t *testing.T, dir string) {
	dir, err := filepath.Abs(dir)
	must(t, err)
	must(t, os.Mkdir(dir, 0o755))
	put := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644)) }

	sda := formatDisk()
	b := newBox(t, sda)
	conf := filepath.Join(b.root, "testbox-tftp", bootcfg.ConfigDir, "site.conf")
	text, err := os.ReadFile(conf)
	must(t, err)
	areas, err := madeAreas()
	must(t, err)
	must(t, os.WriteFile(conf, bytes.ReplaceAll(text, []byte(areas), []byte("/srv/testbox")), 0o644))
	must(t, addMaintenance(filepath.Join(b.root, "testbox-tftp"), bootcfg.FormDebian))
	b.does("backup")
	put("old.blake3", sda.hash(t))
	oldDisk, err := os.ReadFile(sda.file)
	must(t, err)
	first := b.path("first")
	run(t, "", "cp", "-a", b.folder(""), first)
	writeAt(t, sda.file, 3*mib, prose(99, 9000))
	put("new.blake3", sda.hash(t))

	// A commit that is broken off after its first rename.
	k := &killCase{testBox: b, action: "backup-again"}
	committed := false
	for n := 1; !committed; n++ {
		run(t, "", "rm", "-r", b.folder(""))
		run(t, "", "cp", "-a", first, b.folder(""))
		b.arm("backup-again", "--replace")
		held := k.killHeld(b.areas, n)
		_, err := os.Stat(b.folder("commit.json"))
		committed = err == nil && strings.HasPrefix(held, "rename") && !slices.Contains(b.files(), "sda.raw.gz")
	}
	run(t, "", "cp", "-r", b.folder(""), filepath.Join(dir, "commit"))
	b.runs(done)
	b.does("refresh-info")

	for addr, words := range armedBoxes {
		args := append([]string{"pxe-conf", "-c", filepath.Dir(conf)}, words[1:]...)
		run(t, "", b.prog.testbox, append(args, addr, words[0])...)
	}
	b.arm("restore")
	files, err := filepath.Glob(filepath.Join(filepath.Dir(conf), "0A58*"))
	must(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(t, err)
		text = regexp.MustCompile(`(expires=)\S+`).ReplaceAll(text, []byte("${1}"+farAway))
		must(t, os.WriteFile(name, text, 0o644))
	}
	run(t, "", "cp", "-r", b.root, filepath.Join(dir, "areas"))
	// What is other programs', or says what machine this is, is no specimen.
	run(t, "", "sh", "-c", `cd "$1" && rm -r areas/testbox-tftp/bios areas/testbox-tftp/efi* areas/testbox-tftp/modules \
		areas/testbox-tftp/*.0 areas/testbox-tftp/ldlinux.* areas/testbox-tftp/pxelinux.cfg/testbox* \
		areas/*.exports areas/testbox-backup/*/testbox-info.* areas/testbox-backup/*/testbox-firmware.json \
		commit/testbox-info.* commit/testbox-firmware.json`, "sh", dir)

	tmp := tempDir(t)
	do, fails := storeOf(t, b.prog.testbox, filepath.Join(dir, "store"))
	do("store", "init")
	oldFile, newFile, damaged := filepath.Join(tmp, "old"), filepath.Join(tmp, "new"), filepath.Join(tmp, "damaged")
	must(t, os.WriteFile(oldFile, oldDisk, 0o644))
	run(t, "", "cp", sda.file, newFile)
	must(t, os.WriteFile(damaged, noise(7, 64<<10), 0o644))
	do("image", "create", "--note", "first one", "10.88.0.11", "sda="+oldFile)
	do("image", "pin", "--baseline", "10.88.0.11@latest")
	do("image", "create", "10.88.0.11", "sda="+newFile)
	do("image", "pin", "10.88.0.11@latest")
	do("image", "create", "web-1", "sda="+newFile, "sdb="+oldFile)
	before, err := filepath.Glob(filepath.Join(dir, "store", "packs", "*"))
	must(t, err)
	do("image", "create", "web-2", "sda="+damaged)
	after, err := filepath.Glob(filepath.Join(dir, "store", "packs", "*"))
	must(t, err)
	for _, pack := range after {
		if st, err := os.Stat(pack); err == nil && st.Size() > 60<<10 && !slices.Contains(before, pack) {
			text, err := os.ReadFile(pack)
			must(t, err)
			text[len(text)/2] ^= 1
			must(t, os.WriteFile(pack, text, 0o600))
		}
	}
	fails("store", "scrub")
	must(t, os.Remove(filepath.Join(dir, "store", "lock"))) // it says which process had it last
}

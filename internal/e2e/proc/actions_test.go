package proc

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
)

// facts reads a sidecar.
func (b *testBox) facts(name string) *image.Facts {
	b.t.Helper()
	text, err := os.ReadFile(b.folder(name))
	must(b.t, err)
	f, err := image.ParseFacts(text)
	must(b.t, err)
	return f
}

func TestBackup(t *testing.T) {
	sda := disk("sda", gptExt4(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.arm("backup")
	cmdline, err := os.ReadFile(b.path("cmdline"))
	must(t, err)
	b.runs(done)

	if b.armed() {
		t.Error("the box is still armed")
	}
	if sda.hash(t) != before {
		t.Error("the backup changed the disk")
	}
	if got, want := b.files(), []string{"last-action.json", "sda.json", "sda.raw.gz"}; !slices.Equal(got, want) {
		t.Errorf("the folder has %v, want %v", got, want)
	}
	b.image("sda.raw.gz", before)

	f := b.facts("sda.json")
	if !strings.Contains(string(cmdline), "testbox-arming="+string(f.Arming)) {
		t.Errorf("the sidecar has arming %s, the box was started with %s", f.Arming, cmdline)
	}
	want := image.Identity{WWN: "naa.5000c500a1b2c301", Serial: "SERIAL-sda", Path: "pci-0000:00:1f.2-ata-1.0", Model: "TESTDISK 8",
		Size: 8 * mib, SectorSize: 512}
	if f.Disk != want {
		t.Errorf("the sidecar has disk %v, want %v", f.Disk, want)
	}
	if f.Name != "sda" || f.Kernel != "sda" || f.Box != boxAddr || f.Host != boxHost || f.UUID != boxUUID || f.BLAKE3 != before ||
		len(f.Bad) != 0 {
		t.Errorf("sidecar: %+v", f)
	}
	for _, name := range []string{boxHost, boxHex} {
		if _, err := os.Stat(b.folder(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestLogs checks what people read after an action.
func TestLogs(t *testing.T) {
	b := newBox(t, disk("sda", scattered(1)))
	out := b.does("backup")
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00: 10\.88\.0\.11: (info|error): .+$`)
	log := b.log("maintenance.log")
	for l := range strings.Lines(log) {
		l = strings.TrimSuffix(l, "\n")
		session := strings.Trim(l, "=") != l && strings.Contains(l, boxAddr) && strings.Contains(l, boxHost)
		if l != "" && !session && !line.MatchString(l) {
			t.Errorf("line of another form: %q", l)
		}
	}
	if !strings.Contains(log, "sda") || !strings.Contains(log, "===") || strings.Contains(log, ": error: ") {
		t.Errorf("maintenance.log:\n%s", log)
	}
	if output := b.log("maintenance-output.log"); !strings.Contains(output, "sda") {
		t.Errorf("maintenance-output.log:\n%s", output)
	}
	if !strings.Contains(out, "sda") {
		t.Errorf("console:\n%s", out)
	}

	// A refusal: the global log has the hello, the action and the error.
	b.arm("backup")
	b.runs(refused)
	global, err := os.ReadFile(filepath.Join(b.root, "testbox-backup", "maintenance.log"))
	must(t, err)
	for _, want := range []string{boxHost, "backup", ": error: "} {
		if !strings.Contains(string(global), want) {
			t.Errorf("the global log has no %q:\n%s", want, global)
		}
	}
	if !strings.Contains(b.log("maintenance.log"), ": error: ") {
		t.Error("the box's log has no error")
	}
}

func TestBackupAgain(t *testing.T) {
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	first := sda.hash(t)
	b.does("backup")
	firstArming := b.facts("sda.json").Arming

	change := func(seed uint64) string {
		writeAt(t, sda.file, 2*mib+12345, noise(seed, 3000))
		return sda.hash(t)
	}
	second := change(1)
	b.does("backup-again")
	b.image("sda.raw.gz", second)
	b.image("sda.raw.gz.old", first)
	if b.facts("sda.json.old").Arming != firstArming || b.facts("sda.json").Arming == firstArming {
		t.Error("the sidecars' armings are not those of the two backups")
	}

	third := change(2)
	b.does("backup-again")
	b.image("sda.raw.gz", third)
	b.image("sda.raw.gz.old", second)
	if got, want := b.files(), []string{"last-action.json", "sda.json", "sda.json.old", "sda.raw.gz", "sda.raw.gz.old"}; !slices.Equal(got,
		want) {
		t.Errorf("the folder has %v, want %v", got, want)
	}

	sda.wreck(t)
	b.does("restore")
	if sda.hash(t) != third {
		t.Error("restore did not write the newest image")
	}
	b.does("restore", "--image=old")
	if sda.hash(t) != second {
		t.Error("restore of the old image did not write it")
	}
}

// TestBackupAgainFirst: there need be nothing to keep.
func TestBackupAgainFirst(t *testing.T) {
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	b.does("backup-again")
	b.image("sda.raw.gz", sda.hash(t))
}

func TestRestore(t *testing.T) {
	sda := disk("sda", gptExt4(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("backup")
	sda.wreck(t)
	b.does("restore")
	if sda.hash(t) != before {
		t.Error("the restored disk is not the one that was backed up")
	}
	receipts := b.receipts()
	if len(receipts) != 1 || receipts[0].Disk != "sda" || receipts[0].Written != sda.size || receipts[0].Verified != sda.size ||
		receipts[0].BLAKE3 != before {
		t.Errorf("receipts: %+v", receipts)
	}
	run(t, "", "sfdisk", "--verify", sda.file)
	b.does("restore") // of a disk that holds the image already
	if sda.hash(t) != before {
		t.Error("the second restore changed the disk")
	}
}

// receipts are those of the last action.
func (b *testBox) receipts() []image.Receipt {
	b.t.Helper()
	text, err := os.ReadFile(b.folder("last-action.json"))
	must(b.t, err)
	var last struct{ Receipts []image.Receipt }
	must(b.t, json.Unmarshal(text, &last))
	return last.Receipts
}

func TestVerify(t *testing.T) {
	sda := disk("sda", gptExt4(1))
	b := newBox(t, sda)
	b.does("backup")
	before := b.snapshot()
	delete(before, "last-action.json")
	check := func() {
		t.Helper()
		after := b.snapshot()
		for name, hash := range before {
			if after[name] != hash {
				t.Errorf("verify changed %s", name)
			}
		}
	}
	b.does("verify")
	check()
	if r := b.receipts(); len(r) != 1 || len(r[0].Differ) != 0 || r[0].Verified != sda.size {
		t.Errorf("receipts: %+v", r)
	}

	writeAt(t, sda.file, 5*mib+7, []byte("different"))
	before["disk "+sda.serial] = sda.hash(t)
	b.arm("verify")
	b.runs(differ, "sda")
	if b.armed() {
		t.Error("still armed")
	}
	check()
	r := b.receipts()
	if len(r) != 1 || len(r[0].Differ) != 1 {
		t.Fatalf("receipts: %+v", r)
	}
	if d := r[0].Differ[0]; d.Off > 5*mib+7 || d.End() < 5*mib+16 || d.Len > mib {
		t.Errorf("verify says that %+v differs", d)
	}
	log := b.log("maintenance.log")
	log = log[strings.LastIndex(log, "=="):]
	for _, want := range []string{
		"sda: 512 B of 8.00 MiB differ, in 1 place (partition 2 (ext4): 512 B)",
		fmt.Sprintf("bytes %d to %d differ", r[0].Differ[0].Off, r[0].Differ[0].Off+511),
		"info: verify: done, disk and image differ",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, ": error: ") {
		t.Errorf("the log has an error, though verify did what it was asked:\n%s", log)
	}
}

func TestRefreshInfo(t *testing.T) {
	sda := disk("sda", scattered(1))
	b := newBox(t, sda)
	before := sda.hash(t)
	b.does("refresh-info")
	text := b.log("testbox-info.txt")
	for _, want := range []string{boxAddr, boxHex, boxHost, "Test CPU", "SERIAL-sda", "TESTDISK 8"} {
		if !strings.Contains(text, want) {
			t.Errorf("testbox-info.txt has no %q:\n%s", want, text)
		}
	}
	var info struct{ Address, UUID string }
	must(t, json.Unmarshal([]byte(b.log("testbox-info.json")), &info))
	if info.Address != boxAddr || info.UUID != boxUUID {
		t.Errorf("testbox-info.json: %+v", info)
	}
	z, err := zip.OpenReader(b.folder("testbox-info.zip"))
	must(t, err)
	z.Close()
	if got, want := b.files(), []string{"last-action.json"}; !slices.Equal(got, want) {
		t.Errorf("the folder has %v, want %v", got, want)
	}
	if sda.hash(t) != before {
		t.Error("refresh-info changed the disk")
	}
}

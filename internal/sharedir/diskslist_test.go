package sharedir

import (
	"errors"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

func TestReadDisks(t *testing.T) {
	f := &Folder{fsys: durable.OS{}, dir: t.TempDir()}
	if _, err := f.ReadDisks(); !errors.Is(err, ErrNoDisks) {
		t.Errorf("without a list: %v", err)
	}
	if _, err := (&Folder{fsys: durable.OS{}, dir: f.dir + "/none"}).ReadDisks(); !errors.Is(err, ErrNoDisks) {
		t.Errorf("without a folder: %v", err)
	}
	if err := os.Symlink("gone", f.Path(box.DisksFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadDisks(); err == nil || errors.Is(err, ErrNoDisks) ||
		!strings.Contains(err.Error(), "a link to a file that is not there") {
		t.Errorf("a link to nothing: %v", err)
	}
	os.Remove(f.Path(box.DisksFile))
	if err := os.Mkdir(f.Path(box.DisksFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadDisks(); err == nil || errors.Is(err, ErrNoDisks) {
		t.Errorf("a folder: %v", err)
	}
}

func TestLikeDisks(t *testing.T) {
	for _, name := range []string{
		"disk-devices.lst.txt", "disk-devices.lst~", "disk-device.lst", ".disk-devices.lst.swp", "Disk-Devices.lst", "disk-devices.list",
		"disk_devices.lst",
		"disk-devices", "#disk-devices.lst#", "disk-devices.lst.bak", "disk-devices.lst ", "disk-devcies.lst", "dsik-devices.lst", "disks.lst",
		"disk-devices.lst.tmp",
	} {
		if !likeDisks(name) {
			t.Errorf("%q is not taken for a list of disks", name)
		}
	}
	for _, name := range []string{
		box.DisksFile, box.LogFile, outputName, lastName, planName, writerName, box.InfoText, box.InfoJSON, box.InfoZip, "sda.raw.gz",
		"sda.json", "sdb.raw.gz.old",
		"box42", "0A28292A", "disk1.raw.gz", "nvme0n1.json.old", "notes.txt", "list.txt",
	} {
		if likeDisks(name) {
			t.Errorf("%q is taken for a list of disks", name)
		}
	}
}

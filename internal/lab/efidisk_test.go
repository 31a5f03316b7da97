package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/testenv"
)

// TestMakeUEFIDisk has other programs look at a disk of a system that starts by UEFI.
func TestMakeUEFIDisk(t *testing.T) {
	testenv.Tools(t, "mkfs.ext4", "e2fsck", "debugfs", "sfdisk", "mkfs.vfat", "fsck.vfat", "mmd", "mcopy", "busybox")
	for _, sector := range []int{0, 4096} {
		dir := t.TempDir()
		path := filepath.Join(dir, "disk")
		o := OwnSystem{Name: "one", Kernel: fakeKernel(), Size: 64 << 20, Data: 1 << 20, Sector: sector, First: true,
			Loaders: &Loaders{Shim: []byte("this is shim"), GRUB: []byte("this is GRUB")}}
		o.Makes = &o
		if err := o.MakeDisk(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
			t.Errorf("more than the disk is left: %q", left)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		table, err := parttab.Read(bytes.NewReader(data), int64(len(data)), int(o.sector()))
		if err != nil || table.Kind != "gpt" || len(table.Parts) != 2 || len(table.Notes) != 0 {
			t.Fatalf("the table is %+v, %v", table, err)
		}
		esp, root := o.parts()
		if p := table.Parts[0]; p.Off != esp.from || p.Len != esp.size || p.Type != "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" {
			t.Errorf("the first partition is %+v", p)
		}
		if sector == 0 {
			check(t, program("sfdisk"), "--verify", path)
		}
		check(t, program("e2fsck"), "-f", "-n", path+"?offset="+fmt.Sprint(root.from))
		check(t, program("debugfs"), "-R", "stat /etc/boot-entry", path+"?offset="+fmt.Sprint(root.from))
		image := filepath.Join(dir, "esp")
		if err := os.WriteFile(image, data[esp.from:esp.from+esp.size], 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, program("fsck.vfat"), "-n", image)
		if text := check(t, "mtype", "-i", image, "::EFI/debian/shimx64.efi"); text != "this is shim" {
			t.Errorf("the loader on the disk is %q", text)
		}
	}
}

// check runs a program, which must find nothing wrong, and returns what it said.
func check(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

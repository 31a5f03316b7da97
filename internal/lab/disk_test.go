package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/testenv"
)

// fakeKernel stands in for a kernel where none is booted.
func fakeKernel() Kernel {
	return Kernel{Image: []byte("kernel"), Modules: [][]byte{[]byte("module"), []byte("another")}}
}

func TestMakeDisk(t *testing.T) {
	testenv.Tools(t, "sfdisk", "mkfs.ext4", "e2fsck", "debugfs", "grub-mkimage", "busybox")
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	o := OwnSystem{Name: "one", Kernel: fakeKernel(), Size: 96 << 20, Data: 4 << 20}
	if err := o.MakeDisk(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("more than the disk is left: %q", left)
	}
	head := make([]byte, 2*sectorSize)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != o.Size {
		t.Errorf("size %d, %v; want %d", st.Size(), err, o.Size)
	}
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if head[510] != 0x55 || head[511] != 0xaa || head[446] != 0x80 || head[450] != 0x83 {
		t.Error("no boot signature, or no bootable Linux partition")
	}
	if head[0] == 0 || head[sectorSize] == 0 {
		t.Error("no GRUB")
	}
	at := path + "?offset=1048576"
	if out, err := exec.Command(program("e2fsck"), "-f", "-n", at).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	sums, err := exec.Command(program("debugfs"), "-R", "cat /etc/sums", at).Output()
	if err != nil || len(sums) == 0 {
		t.Fatalf("no sums on the disk: %v", err)
	}
	check := exec.Command("busybox", "sh", "-c", `cd "$1" && debugfs -R "rdump / ." "$2" 2>/dev/null && busybox sha256sum -c -s etc/sums`,
		"sh", t.TempDir(), at)
	check.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("the files do not have their sums: %v\n%s", err, out)
	}
}

func TestDataIsTheSameForTheSameName(t *testing.T) {
	sums := map[string]string{}
	for i, name := range []string{"one", "one", "two"} {
		dir := t.TempDir()
		if err := (OwnSystem{Name: name, Data: 3 << 20}).makeData(dir); err != nil {
			t.Fatal(err)
		}
		var size int64
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, _ := f.Info()
			size += info.Size()
		}
		if size != 3<<20 {
			t.Errorf("%d bytes of data, want 3 MiB", size)
		}
		sum, err := HashDisk(filepath.Join(dir, "file-000"))
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && sums[name] != sum || i == 2 && sums["one"] == sum {
			t.Errorf("system %s has the wrong data", name)
		}
		sums[name] = sum
	}
}

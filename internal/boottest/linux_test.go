package boottest_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
)

// TestLinux starts a disk with a real loader and a real system, whole and damaged.
func TestLinux(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "qemu-system-x86_64", "nice", "prlimit", "apt-get", "dpkg-deb", "sfdisk", "mkfs.ext4", "grub-mkimage", "busybox")
	kernel := getKernel(t)
	path := filepath.Join(t.TempDir(), "disk.img")
	own := lab.OwnSystem{Name: "tb", Kernel: kernel, Size: 96 << 20, Data: 1 << 20}
	must(t, own.MakeDisk(t.Context(), path))
	good, err := os.ReadFile(path)
	must(t, err)
	var r *image.BootTest
	for range 5 { // it is alone, and still a busy machine may be too slow for its clocks
		r, err = boottest.Run(t.Context(), disk(good), boottest.Emulated(boottest.Options{Timeout: long, Log: t.Logf}))
		must(t, err)
		if !strings.Contains(r.Text, "too busy") {
			break
		}
	}
	if r.Verdict != image.BootPassed || r.Sign != image.SignLogin {
		t.Errorf("a good disk: %s by %s: %s", r.Verdict, r.Sign, r.Text)
	}
	runMachines(t, long, []machineTest{
		// The firmware starts each sector that ends as one must, and the zeroes do nothing for ever.
		{"a boot sector of zeroes", with(good, 0, make([]byte, 440)), "", image.BootFailed, image.SignNothing, "read nothing", false},
		// GRUB looks at the head of a kernel, and the kernel at all that is packed in it. Both say what is wrong.
		{"a kernel without its head", with(good, in(t, good, kernel.Image, 0), make([]byte, 4096)), "", image.BootFailed, image.SignScreen,
			"grub>", false},
		{"a kernel with noise in what is packed", with(good, in(t, good, kernel.Image, len(kernel.Image)/2), noise(64<<10)), "",
			image.BootFailed, image.SignScreen, "System halted", false},
	})
}

// getKernel gets Debian's kernel with the modules that a lab's system needs. It is downloaded once.
func getKernel(t *testing.T) lab.Kernel {
	t.Helper()
	bare, err := maintenance.FetchBare(t.Context(), maintenance.Options{}, lab.KernelModules...)
	must(t, err)
	return lab.Kernel(*bare)
}

// with is the disk with other bytes at a place.
func with(disk []byte, at int, data []byte) []byte {
	disk = bytes.Clone(disk)
	copy(disk[at:], data)
	return disk
}

// in is where a place of the file is on the disk.
func in(t *testing.T, disk, file []byte, at int) int {
	t.Helper()
	at &^= 4095 // a block of the file system
	place := bytes.Index(disk, file[at:at+4096])
	if place < 0 {
		t.Fatal("the kernel is not on the disk as it is")
	}
	return place
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

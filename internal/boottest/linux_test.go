package boottest_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
)

// linux is made once for all tests.
var linux struct {
	disk   []byte
	kernel lab.Kernel
}

// linuxDisk is a disk with a real loader and a real system, and its kernel.
func linuxDisk(t *testing.T) (disk []byte, kernel lab.Kernel) {
	t.Helper()
	if linux.disk != nil {
		return linux.disk, linux.kernel
	}
	testenv.Tools(t, "apt-get", "dpkg-deb", "sfdisk", "mkfs.ext4", "grub-mkimage", "busybox")
	kernel = getKernel(t)
	path := filepath.Join(t.TempDir(), "disk.img")
	own := lab.OwnSystem{Name: "tb", Kernel: kernel, Size: 96 << 20, Data: 1 << 20}
	must(t, own.MakeDisk(t.Context(), path))
	disk, err := os.ReadFile(path)
	must(t, err)
	linux.disk, linux.kernel = disk, kernel
	return disk, kernel
}

// TestLinux starts a good disk. It is alone, and still a busy machine may be too slow for its clocks.
func TestLinux(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "qemu-system-x86_64", "nice", "prlimit")
	good, _ := linuxDisk(t)
	var r *image.BootTest
	for range 5 {
		var err error
		r, err = boottest.Run(t.Context(), disk(good), boottest.Emulated(boottest.Options{Timeout: long, Log: t.Logf}))
		must(t, err)
		if r.Busy == 0 {
			break
		}
	}
	if r.Verdict != image.BootPassed || r.Sign != image.SignLogin {
		t.Errorf("a good disk: %s by %s: %s", r.Verdict, r.Sign, r.Text)
	}
}

// damagedLinux are disks like the one of TestLinux that are damaged.
func damagedLinux(t *testing.T) []machineTest {
	t.Helper()
	good, kernel := linuxDisk(t)
	return []machineTest{
		// The firmware starts each sector that ends as one must. What follows the code is the table of partitions, so zeroes
		// would have it run as a program.
		{name: "a boot sector that does nothing", disk: with(good, 0, halt), verdict: image.BootFailed, sign: image.SignNothing,
			text: "read nothing", dead: true},
		// GRUB looks at the head of a kernel, and the kernel at all that is packed in it. Both say what is wrong.
		{name: "a kernel without its head", disk: with(good, in(t, good, kernel.Image, 0), make([]byte, 4096)), verdict: image.BootFailed,
			sign: image.SignScreen, text: "grub>"},
		{name: "a kernel with noise in what is packed", disk: with(good, in(t, good, kernel.Image, len(kernel.Image)/2), noise(64<<10)),
			verdict: image.BootFailed, sign: image.SignScreen, text: "System halted"},
	}
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

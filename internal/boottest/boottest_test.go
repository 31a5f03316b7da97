package boottest_test

import (
	"bytes"
	"image/png"
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// Pieces of a boot sector. It reads beyond the first sectors, writes a text, and ends.
var (
	begin  = []byte{0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xb8, 0x10, 0x02, 0xbb, 0, 0x80, 0xb9, 9, 0, 0xb6, 0, 0xcd, 0x13, 0xbe, 0x80, 0x7c}
	serial = []byte{0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 3, 0xee, 0xeb, 0xf8}                   // out to COM1 until a zero
	screen = []byte{0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 6, 0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf5} // by the BIOS
	halt   = []byte{0xf4, 0xeb, 0xfd}
	reset  = []byte{0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd} // by the keyboard's controller
)

// sector makes a disk whose boot sector is made of such pieces.
func sector(text string, pieces ...[]byte) []byte {
	d := make([]byte, 1<<20)
	copy(d, bytes.Join(pieces, nil))
	copy(d[0x80:], text)
	d[510], d[511] = 0x55, 0xaa
	return d
}

func disk(d []byte) []boottest.Disk {
	return []boottest.Disk{{ReaderAt: bytes.NewReader(d), Name: "sda", Kernel: "sda", Size: int64(len(d)), Sector: 512}}
}

// machineTest is a disk that is started, and what must be found.
type machineTest struct {
	name    string
	disk    []byte
	kernel  string // what the box's kernel called it; "" is sda
	expect  string
	verdict image.Verdict
	sign    image.Sign
	text    string
	uefi    bool
	dead    bool // its boot sector does nothing for ever
	kvm     bool // also KVM is tried, if it is there
}

// long is far more than any machine of the tests needs until it is judged.
const long = 15 * time.Minute

// run starts the machine. One that must be unproven runs until its time is over. That is short at first, and longer if the
// machine was too slow to get where it must be then.
func (c machineTest) run(t *testing.T) (r *image.BootTest, err error) {
	o := boottest.Options{Timeout: long, Log: func(string, ...any) {}}
	if c.expect != "" {
		o.Expect = regexp.MustCompile("(?m)" + c.expect)
	}
	if !c.kvm {
		o = boottest.Emulated(o)
	}
	if c.dead {
		o = boottest.Impatient(o)
	}
	d := disk(c.disk)
	if c.kernel != "" {
		d[0].Kernel = c.kernel
	}
	if c.verdict != image.BootUnproven || c.uefi {
		return boottest.Run(t.Context(), d, o)
	}
	for o.Timeout = 15 * time.Second; o.Timeout < long; o.Timeout *= 4 {
		if r, err = boottest.Run(t.Context(), d, o); err != nil || r.Sign == c.sign {
			break
		}
	}
	return r, err
}

// runMachines runs the tests all at once, since machines wait for most of the time.
func runMachines(t *testing.T, tests []machineTest) {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "qemu-system-x86_64", "nice", "prlimit")
	t.Run("all", func(t *testing.T) {
		// More run at once than there are processors, unlike parallel tests.
		ends := make([]func(*testing.T), len(tests))
		for i, c := range tests {
			done := make(chan struct{})
			var r *image.BootTest
			var err error
			go func() {
				defer close(done)
				r, err = c.run(t)
			}()
			ends[i] = func(t *testing.T) {
				<-done
				if err != nil {
					t.Fatal(err)
				}
				if r.Verdict != c.verdict || r.Sign != c.sign || !strings.Contains(r.Text, c.text) || (r.Firmware == "uefi") != c.uefi {
					t.Errorf("with %s it is %s by %s: %s", r.Firmware, r.Verdict, r.Sign, r.Text)
				}
				if err := r.Check(); err != nil {
					t.Error(err)
				}
				if _, err := png.Decode(bytes.NewReader(r.Picture)); err != nil {
					t.Errorf("the picture: %v", err)
				}
				t.Logf("%d seconds: %s", r.Seconds, r.Text)
			}
		}
		for i, c := range tests {
			t.Run(c.name, ends[i])
		}
	})
}

// TestMachines starts for real: small boot sectors, small programs for UEFI, and damaged systems.
func TestMachines(t *testing.T) {
	testenv.Root(t)
	broken := sector("tb login: ", begin, serial, halt)
	broken[510] = 0
	login := sector("up\r\ntb login: ", begin, serial, halt)
	loader, noise := program64("\r\ntb login: "), noise(1024)
	runMachines(t, append(damagedLinux(t), []machineTest{
		{name: "login", disk: login, verdict: image.BootPassed, sign: image.SignLogin, text: "asked for a login", kvm: true},
		{name: "login by NVMe", disk: login, kernel: "nvme0n1", verdict: image.BootPassed, sign: image.SignLogin},
		{name: "login by virtio", disk: login, kernel: "vda", verdict: image.BootPassed, sign: image.SignLogin},
		{name: "login on the screen", disk: sector("\r\ntb login: ", begin, screen, halt), verdict: image.BootPassed, sign: image.SignLogin},
		{name: "expected", disk: sector("ready 7\r\n", begin, serial, halt), expect: "^ready [0-9]$", verdict: image.BootPassed,
			sign: image.SignExpected},
		{name: "no boot sector", disk: broken, verdict: image.BootFailed, sign: image.SignNothing, text: "No bootable device"},
		{name: "empty", disk: make([]byte, 1<<20), verdict: image.BootFailed, sign: image.SignNothing, text: "No bootable device"},
		{name: "panic", disk: sector("[ 1.0] Kernel panic - not syncing: VFS\r\n", begin, serial, halt), verdict: image.BootFailed,
			sign: image.SignRead, text: "Kernel panic"},
		{name: "resets", disk: sector("\x00", begin, serial, reset), verdict: image.BootFailed, sign: image.SignRead, text: "restarted itself"},
		{name: "says nothing", disk: sector("\x00", begin, serial, halt), verdict: image.BootUnproven, sign: image.SignRead,
			text: "nothing was said"},
		{name: "UEFI", disk: espDisk(t, "EFI/BOOT/BOOTX64.EFI", loader), verdict: image.BootPassed, sign: image.SignLogin, uefi: true},
		{name: "UEFI, and a loader that only the box's firmware knows", disk: espDisk(t, "EFI/debian/shimx64.efi", loader), kernel: "nvme0n1",
			verdict: image.BootPassed, sign: image.SignLogin, uefi: true},
		{name: "UEFI, and a damaged loader", disk: espDisk(t, "EFI/BOOT/BOOTX64.EFI", noise), verdict: image.BootFailed, sign: image.SignRead,
			text: `the firmware cannot start fs0:\EFI\BOOT\BOOTX64.EFI`, uefi: true},
		{name: "UEFI, and no loader", disk: espDisk(t, "EFI/other.txt", noise), verdict: image.BootUnproven, sign: image.SignRead,
			text: "no other loader", uefi: true},
	}...))
}

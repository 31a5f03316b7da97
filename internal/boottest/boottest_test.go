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
	expect  string
	verdict image.Verdict
	sign    image.Sign
	text    string
	kvm     bool // also KVM is tried, if it is there
}

// long is far more than any machine of the tests needs until it is judged.
const long = 15 * time.Minute

// runMachines runs the tests all at once, since machines wait for most of the time. One that must be
// unproven runs until its time is over.
func runMachines(t *testing.T, unproven time.Duration, tests []machineTest) {
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
				o := boottest.Options{Timeout: long, Log: func(string, ...any) {}}
				if c.expect != "" {
					o.Expect = regexp.MustCompile("(?m)" + c.expect)
				}
				if c.verdict == image.BootUnproven {
					o.Timeout = unproven
				}
				if !c.kvm {
					o = boottest.Emulated(o)
				}
				r, err = boottest.Run(t.Context(), disk(c.disk), o)
			}()
			ends[i] = func(t *testing.T) {
				<-done
				if err != nil {
					t.Fatal(err)
				}
				if r.Verdict != c.verdict || r.Sign != c.sign || !strings.Contains(r.Text, c.text) {
					t.Errorf("it is %s by %s: %s", r.Verdict, r.Sign, r.Text)
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

// TestMachines starts small boot sectors for real.
func TestMachines(t *testing.T) {
	broken := sector("tb login: ", begin, serial, halt)
	broken[510] = 0
	runMachines(t, time.Minute, []machineTest{
		{"login", sector("up\r\ntb login: ", begin, serial, halt), "", image.BootPassed, image.SignLogin, "asked for a login", true},
		{"login on the screen", sector("\r\ntb login: ", begin, screen, halt), "", image.BootPassed, image.SignLogin, "", false},
		{"expected", sector("ready 7\r\n", begin, serial, halt), "^ready [0-9]$", image.BootPassed, image.SignExpected, "", false},
		{"no boot sector", broken, "", image.BootFailed, image.SignNothing, "No bootable device", false},
		{"empty", make([]byte, 1<<20), "", image.BootFailed, image.SignNothing, "No bootable device", false},
		{"panic", sector("[ 1.0] Kernel panic - not syncing: VFS\r\n", begin, serial, halt), "", image.BootFailed, image.SignRead,
			"Kernel panic", false},
		{"resets", sector("\x00", begin, serial, reset), "", image.BootFailed, image.SignRead, "restarted itself", false},
		{"says nothing", sector("\x00", begin, serial, halt), "", image.BootUnproven, image.SignRead, "nothing was said", false},
	})
}

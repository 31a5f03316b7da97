package boottest_test

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// TestMachines starts small boot sectors for real.
func TestMachines(t *testing.T) {
	testenv.Tools(t, "qemu-system-x86_64")
	broken := sector("tb login: ", begin, serial, halt)
	broken[510] = 0
	for _, c := range []struct {
		name    string
		disk    []byte
		timeout time.Duration
		expect  string
		verdict image.Verdict
		sign    image.Sign
		text    string
	}{
		{"login", sector("up\r\ntb login: ", begin, serial, halt), 5 * time.Minute, "", image.BootPassed, image.SignLogin, "asked for a login"},
		{"login on the screen", sector("\r\ntb login: ", begin, screen, halt), 5 * time.Minute, "", image.BootPassed, image.SignLogin, ""},
		{"expected", sector("ready 7\r\n", begin, serial, halt), 5 * time.Minute, "^ready [0-9]$", image.BootPassed, image.SignExpected, ""},
		{"no boot sector", broken, 5 * time.Minute, "", image.BootFailed, image.SignNothing, "No bootable device"},
		{"empty", make([]byte, 1<<20), 5 * time.Minute, "", image.BootFailed, image.SignNothing, "No bootable device"},
		{"panic", sector("[ 1.0] Kernel panic - not syncing: VFS\r\n", begin, serial, halt), 5 * time.Minute, "", image.BootFailed,
			image.SignRead, "Kernel panic"},
		{"resets", sector("\x00", begin, serial, reset), 5 * time.Minute, "", image.BootFailed, image.SignRead, "restarted itself"},
		{"says nothing", sector("\x00", begin, serial, halt), 30 * time.Second, "", image.BootUnproven, image.SignRead, "nothing was said"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := boottest.Options{Timeout: c.timeout, Log: t.Logf}
			if c.expect != "" {
				o.Expect = regexp.MustCompile("(?m)" + c.expect)
			}
			r, err := boottest.Run(t.Context(), disk(c.disk), o)
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
		})
	}
}

// TestInterrupted: the end of the context ends the machine, and nothing is left.
func TestInterrupted(t *testing.T) {
	testenv.Tools(t, "qemu-system-x86_64")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(3*time.Second, cancel)
	_, err := boottest.Run(ctx, disk(sector("\x00", begin, serial, halt)), boottest.Options{Timeout: time.Hour, Log: t.Logf})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	left, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		stat, _ := os.ReadFile(path)
		after := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(after) > 1 && strings.Contains(string(stat), "(qemu") && after[1] == strconv.Itoa(os.Getpid()) {
			t.Errorf("%s is left", path)
		}
	}
}

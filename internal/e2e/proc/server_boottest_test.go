package proc

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

const unproven = 12 // exit code of a boot test

// bootSector is a program that writes a text to the serial line, and ends.
func bootSector(text string) content {
	return func(t testing.TB, path string) {
		t.Helper()
		b := make([]byte, 512)
		// Segments to 0, the text's place, the line's port; then out until a zero, and halt for ever.
		copy(b, []byte{0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x80, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 3, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd})
		copy(b[0x80:0x1b0], text)
		b[510], b[511] = 0x55, 0xaa
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt(b, 0)
		must(t, err)
	}
}

// damagedSector is bootSector without the two bytes by which a BIOS knows one.
func damagedSector(text string) content {
	return func(t testing.TB, path string) {
		t.Helper()
		bootSector(text)(t, path)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte{0, 0}, 510)
		must(t, err)
	}
}

// TestServedBootTest tests backups of a running server, which keeps the results. The server tests the backups of boxes by
// itself: a good one passes, and one whose boot sector is damaged fails.
func TestServedBootTest(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "qemu-system-x86_64", "nice", "prlimit")
	s := newServerSite(t, "[upkeep]\nboot-test = \"always\"\n")
	good, bad := diskFile(t, "good.img", 4*mib, bootSector("\r\ntb login: ")), diskFile(t, "bad.img", 4*mib, bootSector("no\r\n"))
	s.does(done, []string{"image", "create", "web-1", good})
	s.does(done, []string{"image", "create", "web-2", bad})

	s.does(done, []string{"server", "--check", "--config", s.config()}, "boot tests of backups: QEMU is there")
	damaged := diskFile(t, "damaged.img", 4*mib, damagedSector("\r\ntb login: "))
	for at, disk := range map[string]string{"10.42.41.7": good, "10.42.41.8": damaged} {
		s.does(done, []string{"box", "add", at})
		s.does(done, []string{"image", "create", at, disk})
	}

	s.does(wrongUse, []string{"image", "boot-test", "web-1", "--last"}, "there was no boot test")
	s.does(done, []string{"image", "boot-test", "web-1", "--timeout", "15m"}, "passed; sign of life: it asked for a login")
	s.does(unproven, []string{"image", "boot-test", "web-2", "--timeout", "10s"}, "unproven")
	picture := filepath.Join(tempDir(t), "screen.png")
	s.does(done, []string{"image", "boot-test", "web-1", "--last", "--picture", picture}, "passed; sign of life: it asked for a login")
	if _, err := png.Decode(bytes.NewReader([]byte(mustRead(t, picture)))); err != nil {
		t.Errorf("the picture that the server kept: %v", err)
	}
	s.does(unproven, []string{"image", "boot-test", "web-2", "--last"}, "unproven")
	s.does(done, []string{"image", "show", "web-1"}, "passed")
	s.does(done, []string{"audit"}, "set boot test")

	own := func(at string, code int, says string) {
		t.Helper()
		last := []string{"image", "boot-test", at, "--last"}
		s.until("the server tests the backup of "+at, 10*time.Minute, func() bool { return s.command(last...).code != wrongUse })
		s.does(code, last, says)
	}
	own("10.42.41.7", done, "passed; sign of life: it asked for a login")
	own("10.42.41.8", failed, "No bootable device")
	for _, want := range []string{"level=ERROR msg=\"A boot test of a backup has ended.\" box=10.42.41.8", "verdict=passed"} {
		if !strings.Contains(s.said(), want) {
			t.Errorf("the log does not have %s:\n%s", want, s.said())
		}
	}

	// The results outlive the server.
	s.end()
	s.start()
	s.does(done, []string{"image", "boot-test", "web-1", "--last"}, "passed")
}

package parttab

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// Boot loaders' own first sectors are none that say anything of partitions.
func TestReadBootCode(t *testing.T) {
	for _, path := range []string{"/usr/lib/grub/i386-pc/boot.img", "/usr/lib/syslinux/mbr/mbr.bin", "/usr/lib/syslinux/mbr/gptmbr.bin",
		"/usr/lib/syslinux/mbr/altmbr.bin"} {
		code, err := os.ReadFile(path)
		if err != nil {
			t.Logf("%v; not tested", err)
			continue
		}
		b := make([]byte, 2048*512)
		copy(b, code)
		record(b)
		if _, err := Read(bytes.NewReader(b), int64(len(b)), 512); !errors.Is(err, ErrNone) {
			t.Errorf("%s alone: %v", path, err)
		}
		b = mbrDisk(512)
		copy(b[:440], code)
		if tab, err := Read(bytes.NewReader(b), int64(len(b)), 512); err != nil || !slices.Equal(tab.Parts, mbrParts(512)) {
			t.Errorf("%s with partitions: %v, %v", path, tab, err)
		}
		b = small().disk()
		copy(b[:440], code)
		if tab, err := Read(bytes.NewReader(b), int64(len(b)), 512); err != nil || len(tab.Parts) != 3 {
			t.Errorf("%s with a GPT: %v, %v", path, tab, err)
		}
	}
}

func TestReadOddDisks(t *testing.T) {
	for _, c := range []struct {
		size   int64
		sector int
		none   bool
	}{{0, 512, true}, {100, 512, true}, {511, 512, true}, {512, 512, true}, {513, 512, true}, {1024, 512, true}, {4095, 4096, true},
		{4096, 4096, true}, {-5, 512, true}, {4096, 0, false}, {4096, 520, false}, {4096, 1 << 17, false}} {
		_, err := Read(bytes.NewReader(make([]byte, 8192)), c.size, c.sector)
		if err == nil || errors.Is(err, ErrNone) != c.none {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// A disk in the middle of a sector's end is as long as its whole sectors.
	b := append(small().disk(), 1, 2, 3)
	if _, err := Read(bytes.NewReader(b), int64(len(b)), 512); err != nil {
		t.Error(err)
	}
}

// Labels in the second sector of either size; and bytes that only look like a
// label.
func TestReadForeignTable(t *testing.T) {
	for _, c := range []struct {
		sector, off int
		bytes       string
		err         string
	}{
		{512, 512, bsdMagic, "kind BSD"}, {512, 576, bsdMagic, "kind BSD"}, {512, 4096, bsdMagic, ""}, {4096, 512, bsdMagic, "kind BSD"},
		{4096, 576, bsdMagic, "kind BSD"}, {4096, 4096, bsdMagic, "kind BSD"}, {4096, 4160, bsdMagic, "kind BSD"},
		{512, 64, bsdMagic, "kind BSD"},
		{512, 508, "\xDA\xBE", ""},                 // no checksum of Sun's
		{512, 506, "\xDA\xBE\xDA\xBE", "kind Sun"}, // the words cancel out
		{512, 454 + 12, "\x01LNX", "kind Atari"}, {512, 454 + 12, "\x00LNX", ""}, {512, 454 + 12, "\x01ABC", ""},
		{512, 15 * 512, "RDSK\x00\x00\x00\x03\xAD\xBB\xAC\xB2", "kind Amiga"}, {512, 15 * 512, "RDSK\x00\x00\x00\x03\xAD\xBB\xAC\xB3", ""},
		{512, 16 * 512, "RDSK\x00\x00\x00\x03\xAD\xBB\xAC\xB2", ""},
		{512, 512, "PM\x00\x00\x00\x00\x00\x01", "kind Apple"}, {512, 512, "PM\x00\x00\x00\x00\x00\x00", ""},
		{512, 512, "PM\x00\x00\x00\x00\x01\x01", ""},
		{512, 4, "IPL1", "kind PC-98"}, {512, 0, "\x0B\xE5\xA9\x41", "kind SGI"},
	} {
		b := make([]byte, 64<<10)
		copy(b[c.off:], c.bytes)
		_, err := Read(bytes.NewReader(b), int64(len(b)), c.sector)
		if c.err == "" && !errors.Is(err, ErrNone) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// failing is a disk with one sector that cannot be read.
type failing struct {
	*bytes.Reader
	sector int64
}

var errMedium = errors.New("medium error")

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if at := f.sector * 512; off < at+512 && off+int64(len(b)) > at {
		return 0, errMedium
	}
	return f.Reader.ReadAt(b, off)
}

// A table that cannot be read is no table that is not there.
func TestReadFailingDisk(t *testing.T) {
	gpt, mbr, none := small().disk(), mbrDisk(512), make([]byte, 8192)
	end := int64(len(gpt)/512 - 1)
	for _, c := range []struct {
		disk   []byte
		sector int64
	}{{gpt, 0}, {gpt, 1}, {gpt, 2}, {gpt, 33}, {gpt, end}, {none, 0}, {none, 1}, {mbr, 0}, {mbr, 1}, {mbr, 200}, {mbr, 700}, {mbr, 300}} {
		tab, err := Read(failing{bytes.NewReader(c.disk), c.sector}, int64(len(c.disk)), 512)
		if !errors.Is(err, errMedium) {
			t.Errorf("sector %d: %v, %v", c.sector, tab, err)
		}
	}
	// The backup's entries are known by their checksum in its header.
	for _, sector := range []int64{end - 1, end - 32} {
		tab, err := Read(failing{bytes.NewReader(gpt), sector}, int64(len(gpt)), 512)
		if err != nil || len(tab.Parts) != 3 || len(tab.Notes) != 1 {
			t.Errorf("sector %d: %v, %v", sector, tab, err)
		}
	}
}

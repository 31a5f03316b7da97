package parttab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What is wrong in a GPT that is sound by its checksums is not damage: the
// other copy does not mend it.
func TestReadGPTThatContradicts(t *testing.T) {
	le := binary.LittleEndian
	header := func(off int64, change func(h []byte)) func([]byte) {
		return func(b []byte) {
			h := b[(off+int64(len(b)))%int64(len(b)):][:512]
			change(h)
			sign(h)
		}
	}
	for name, c := range map[string]struct {
		change func(b []byte)
		err    string
	}{
		"primary, revision":         {header(512, func(h []byte) { h[10] = 2 }), "revision"},
		"primary, place":            {header(512, func(h []byte) { h[24] = 2 }), "says that it stands at 2"},
		"primary, reserved":         {header(512, func(h []byte) { h[20] = 2 }), "reserved"},
		"primary, disk":             {header(512, func(h []byte) { h[56] = 2 }), "differs"},
		"primary, usable":           {header(512, func(h []byte) { h[48]++ }), "differs"},
		"primary, usable from 0":    {header(512, func(h []byte) { h[40] = 0 }), "are usable"},
		"primary, too large":        {header(512, func(h []byte) { le.PutUint64(h[48:], 8192) }), "are usable"},
		"primary, backup inside":    {header(512, func(h []byte) { le.PutUint64(h[32:], 8000) }), "among the partitions"},
		"primary, backup is itself": {header(512, func(h []byte) { h[32], h[33] = 1, 0 }), "outside the disk"},
		"backup, disk":              {header(-512, func(h []byte) { h[56] = 2 }), "differs"},
		"backup, usable":            {header(-512, func(h []byte) { h[40]++ }), "differs"},
		"backup, primary elsewhere": {header(-512, func(h []byte) { h[32]++ }), "differs"},
		"backup, other entries":     {header(-512, func(h []byte) { h[88]++ }), "differs"},
		"backup, other disk's": {func(b []byte) {
			b[512+60]++ // damages the primary
			header(-512, func(h []byte) { h[56]++ })(b)
		}, "differs"},
		"backup only, primary elsewhere": {func(b []byte) {
			clear(b[512:1024])
			header(-512, func(h []byte) { h[32]++ })(b)
		}, "differs"},
		"backup only, entries inside": {func(b []byte) {
			clear(b[512:1024])
			header(-512, func(h []byte) { le.PutUint64(h[72:], 5000) })(b)
		}, "do not lie between"},
		"backup only, FAT": {func(b []byte) {
			clear(b[512:1024])
			copy(b, fatBoot)
		}, "boot sector of a file system"},
		"no boot record":       {func(b []byte) { clear(b[:512]) }, "without a protective partition"},
		"empty boot record":    {func(b []byte) { clear(b[446:510]) }, "without a protective partition"},
		"hybrid":               {func(b []byte) { b[466] = 7; le.PutUint32(b[470:], 2048); le.PutUint32(b[474:], 2048) }, "hybrid"},
		"two protective":       {func(b []byte) { b[466] = 0xEE }, "two protective"},
		"protective elsewhere": {func(b []byte) { b[454] = 2 }, "starts at sector 2"},
		"protective, status":   {func(b []byte) { b[446] = 2 }, "status 0x02"},
		"all ones, status":     {func(b []byte) { b[446] = 2; le.PutUint32(b[458:], 0xFFFFFFFF) }, "status 0x02"},
		"overlapping": {func(b []byte) {
			tab := small()
			tab.parts = []span{{2048, 4095}, {4095, 5000}}
			copy(b, tab.disk())
		}, "share sector 4095"},
	} {
		t.Run(name, func(t *testing.T) {
			b := small().disk()
			c.change(b)
			if tab, err := Read(bytes.NewReader(b), int64(len(b)), 512); err == nil || !strings.Contains(err.Error(), c.err) ||
				errors.Is(err, ErrNone) {
				t.Errorf("%+v, error %v, want %q", tab, err, c.err)
			}
		})
	}
}

// The backup's own places are no contradiction as long as it tells the same.
func TestReadGPTWithOddBackup(t *testing.T) {
	for name, change := range map[string]func(h []byte){
		"place": func(h []byte) { h[24]-- }, "entries": func(h []byte) { binary.LittleEndian.PutUint64(h[72:], 2) },
		"revision": func(h []byte) { h[10] = 2 },
	} {
		b := small().disk()
		h := b[len(b)-512:]
		change(h)
		sign(h)
		tab, err := Read(bytes.NewReader(b), int64(len(b)), 512)
		if err != nil || len(tab.Parts) != 3 || len(tab.Notes) != 1 {
			t.Errorf("%s: %+v, %v", name, tab, err)
		}
	}
}

func TestReadGPTOnGrownDisk(t *testing.T) {
	larger := small()
	larger.sectors = 9000
	grown := func() []byte { return append(small().disk(), make([]byte, (9000-8192)*512)...) }
	other, cut := grown(), grown()
	copy(other[8900*512:], larger.disk()[8900*512:]) // of the same disk by its GUID, but its usable sectors are others
	clear(cut[8191*512 : 8192*512])
	for name, c := range map[string]struct {
		disk  []byte
		err   string
		notes int
	}{"grown": {grown(), "", 1}, "grown, no backup": {cut, "", 2}, "grown, other at the end": {other, "another GPT", 0}} {
		tab, err := Read(bytes.NewReader(c.disk), int64(len(c.disk)), 512)
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) ||
			c.err == "" && (err != nil || len(tab.Parts) != 3 || len(tab.Notes) != c.notes) {
			t.Errorf("%s: %+v, %v", name, tab, err)
		}
	}
	b := grown()
	if _, err := Read(failing{bytes.NewReader(b), 8999}, int64(len(b)), 512); !errors.Is(err, errMedium) {
		t.Errorf("the last sector fails: %v", err)
	}
}

// A GPT that counts in sectors of another size names wrong bytes.
func TestReadGPTOfOtherSectors(t *testing.T) {
	for made, read := range map[int]int{512: 4096, 4096: 512} {
		b := table{sector: made, sectors: 4000, count: 128, parts: []span{{100, 200}}}.disk()
		if tab, err := Read(bytes.NewReader(b), int64(len(b)), read); err == nil ||
			!strings.Contains(err.Error(), fmt.Sprintf("for sectors of %d bytes", made)) {
			t.Errorf("%+v, %v", tab, err)
		}
		if got := GuessSector(bytes.NewReader(b), int64(len(b))); got != made {
			t.Errorf("sectors of %d bytes, want %d", got, made)
		}
		if got := OtherSector(bytes.NewReader(b), int64(len(b)), read); got != made {
			t.Errorf("on a disk of %d: for sectors of %d bytes, want %d", read, got, made)
		}
		if got := OtherSector(bytes.NewReader(b), int64(len(b)), made); got != 0 {
			t.Errorf("on a disk of %d: for sectors of %d bytes, want none others", made, got)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 512), make([]byte, 8192), mbrDisk(4096)} {
		if got := GuessSector(bytes.NewReader(b), int64(len(b))); got != 512 {
			t.Errorf("sectors of %d bytes without a GPT", got)
		}
		if got := OtherSector(bytes.NewReader(b), int64(len(b)), 4096); got != 0 && len(b) != 4096*512 {
			t.Errorf("sectors of %d bytes without a table", got)
		}
	}
}

// A file system's remains in the first sector do not matter to a whole GPT.
func TestReadGPTAfterFAT(t *testing.T) {
	b := small().disk()
	copy(b, fatBoot)
	if tab, err := Read(bytes.NewReader(b), int64(len(b)), 512); err != nil || len(tab.Parts) != 3 || tab.Kind != "gpt" {
		t.Errorf("%+v, %v", tab, err)
	}
}

func TestGUIDAndNames(t *testing.T) {
	if got := guid([16]byte{0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D,
		0xE4}); got != "0FC63DAF-8483-4772-8E79-3D69D8477DE4" {
		t.Error(got)
	}
	for _, c := range []struct {
		units []uint16
		want  string
	}{
		{[]uint16{'a', 0, 'b'}, "a"}, {[]uint16{'a', '\n', 0x1B, '['}, "a??["}, {[]uint16{0xD83D, 0xDCBE, 0xD83D}, "💾?"},
		{[]uint16{0x202E, 'x'}, "?x"}, {[]uint16{0}, ""},
	} {
		if got := printable(c.units); got != c.want {
			t.Errorf("%x: %q, want %q", c.units, got, c.want)
		}
	}
}

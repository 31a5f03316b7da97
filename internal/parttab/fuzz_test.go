package parttab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// seeds are the ends of real shapes of disks.
func seeds(f *testing.F, add func(head, tail []byte)) {
	f.Helper()
	tabs := []table{{sector: 512, sectors: 4400, count: 128, parts: []span{{34, 99}, {2048, 4366}}},
		{sector: 512, sectors: 100, count: 128, parts: []span{{40, 60}}}, {sector: 512, sectors: 80, count: 4}}
	for _, t := range tabs {
		b := t.disk()
		add(b[:min(len(b), 20<<10)], b[max(0, len(b)-(20<<10)):])
	}
	add(nil, nil)
}

// FuzzParseGPT: whatever a disk says, a table that is accepted lies inside the
// disk, in order, and its parts do not overlap.
func FuzzParseGPT(f *testing.F) {
	seeds(f, func(head, tail []byte) {
		f.Add(head, uint64(4400), true)
		f.Add(head, uint64(100), false)
		f.Add(tail, uint64(4400), false)
	})
	f.Fuzz(func(t *testing.T, b []byte, disk uint64, fix bool) {
		disk = disk%(1<<40) + 1
		if fix { // get past the checksums
			repair(b, 512)
		}
		if g, err := parsePrimary(b, 512, disk); err == nil {
			checkTable(t, g, disk)
			if (g.entriesLBA+g.entrySectors())*512 > uint64(len(b)) || g.entriesLBA+g.entrySectors() > g.firstUsable {
				t.Fatalf("accepted %+v", g)
			}
		}
		if g, err := parseBackup(b, 512, disk); err == nil {
			checkTable(t, g, disk)
		}
		if m, err := parseMBR(b); err == nil {
			m.badStatus()
			m.protective()
		}
	})
}

func checkTable(t *testing.T, g *gpt, disk uint64) {
	if uint64(len(g.entries)) != uint64(g.count)*uint64(g.entrySize) || g.last >= disk || g.alternate >= disk {
		t.Fatalf("accepted %+v on a disk of %d", g, disk)
	}
	end := g.firstUsable
	for _, p := range g.partitions() {
		if p.first < end || p.last < p.first || p.last > g.last {
			t.Fatalf("accepted the partition %+v in %+v", p, g)
		}
		end = p.last + 1
	}
}

// repair makes the checksums of a primary table right, if it has the shape.
func repair(b []byte, sector int) {
	if len(b) < 2*sector {
		return
	}
	h := b[sector : 2*sector]
	n, size, lba := uint64(le32(h, 80)), uint64(le32(h, 84)), le64(h, 72)
	if from := lba * uint64(sector); lba < 1<<20 && n < 1<<20 && size < 1<<12 && from+n*size <= uint64(len(b)) {
		binary.LittleEndian.PutUint32(h[88:], crc(b[from:from+n*size]))
	}
	if size := le32(h, 12); size >= 92 && size <= uint32(sector) {
		binary.LittleEndian.PutUint32(h[16:], headerSum(h, size))
	}
}

// FuzzFit: edits lie inside the target, do not overlap, and touch no
// partition; and where there are any, the result is a sound GPT of the target.
func FuzzFit(f *testing.F) {
	seeds(f, func(head, tail []byte) {
		f.Add(head, tail, uint16(4399), uint16(1), false)
		f.Add(head, tail, uint16(99), uint16(2400), true)
		f.Add(head, tail, uint16(79), uint16(40), true)
	})
	f.Fuzz(func(t *testing.T, head, tail []byte, sectors, more uint16, fix bool) {
		const sector = 512
		image := make([]byte, (int(sectors)%4500+1)*sector) // up to a little more than head and tail
		more %= 2500
		copy(image, head)
		copy(image[len(image)-min(len(tail), len(image)):], tail)
		if fix {
			repair(image, sector)
		}
		size := int64(len(image)) + int64(more)*sector
		disk, f := fitted(t, image, sector, size)
		said := len(f.Notes) + len(f.Warnings)
		was, _ := Read(bytes.NewReader(image), int64(len(image)), sector)
		now, err := Read(bytes.NewReader(disk), size, sector)
		switch {
		case more == 0 && (len(f.Edits) > 0 || said > 0):
			t.Fatal("edits or notes for a disk of the image's size")
		case more > 0 && said == 0:
			t.Fatal("no note")
		case was == nil || was.Kind != "gpt" || len(f.Warnings) > 0:
		case err != nil || !slices.Equal(was.Parts, now.Parts):
			t.Fatalf("partitions %+v became %+v, %v; %+v", was, now, err, f)
		}
	})
}

// FuzzRead: whatever is on a disk, the partitions that are found lie inside it,
// in order, apart, and not on the table itself. The seeds are short, or the
// fuzzer would spend its time on what is between.
func FuzzRead(f *testing.F) {
	chain := make([]byte, 20*512)
	record(chain, [4]uint32{0, 5, 1, 4000}, [4]uint32{0x80, 7, 5000, 100}, [4]uint32{0, 0, 6000, 10})
	record(chain[512:], [4]uint32{0, 0x83, 10, 50}, [4]uint32{0, 5, 2, 60})
	record(chain[3*512:], [4]uint32{0, 0x82, 80, 50}, [4]uint32{0, 5, 4, 60})
	record(chain[5*512:], [4]uint32{0, 0x83, 200, 50})
	f.Add(chain, []byte{}, uint32(9000), false)
	f.Add([]byte{}, []byte{}, uint32(9000), false)
	for _, tab := range []table{{sector: 512, sectors: 4400, count: 4, parts: []span{{4, 99}, {2048, 4366}, {100, 100}}},
		{sector: 4096, sectors: 600, count: 8, parts: []span{{3, 9}, {100, 500}}}} {
		b := tab.disk()
		head, tail := b[:3*tab.sector], b[len(b)-2*tab.sector:]
		f.Add(head, tail, uint32(len(b)/512), true)
		f.Add(head, tail, uint32(len(b)/512+80), true)
		f.Add([]byte(fatBoot), tail, uint32(len(b)/512), true)
	}
	f.Fuzz(func(t *testing.T, head, tail []byte, sectors uint32, fix bool) {
		size := int64(sectors) * 512
		head, tail = slices.Clone(head[:min(int64(len(head)), size)]), slices.Clone(tail[:min(int64(len(tail)), size)])
		for _, sector := range []int{512, 4096} {
			if fix {
				repair(head, sector)
				repairEnd(tail, sector, uint64(size)/uint64(sector))
			}
			r := edges{head, tail, size}
			tab, err := Read(holes{r}, size, sector)
			GuessSector(holes{r}, size)
			if err == nil {
				checkRead(t, tab, size, int64(sector))
			}
		}
	})
}

// holes reads zeros where neither end is.
type holes struct{ edges }

func (h holes) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(h.head)) {
		copy(b, h.head[off:])
	}
	if at := off - (h.size - int64(len(h.tail))); at >= 0 && at < int64(len(h.tail)) {
		copy(b, h.tail[at:])
	}
	return len(b), nil
}

// repairEnd makes the checksums of a backup table right, if it has the shape.
func repairEnd(tail []byte, sector int, disk uint64) {
	if len(tail) < sector {
		return
	}
	h := tail[len(tail)-sector:]
	from := int64(len(tail)) - int64(disk-le64(h, 72))*int64(sector)
	if n := int64(le32(h, 80)) * int64(le32(h, 84)); le64(h, 72) < disk && from >= 0 && n > 0 && n <= int64(len(tail))-from {
		binary.LittleEndian.PutUint32(h[88:], crc(tail[from:from+n]))
	}
	if n := le32(h, 12); n >= 92 && n <= uint32(sector) {
		binary.LittleEndian.PutUint32(h[16:], headerSum(h, n))
	}
}

func checkRead(t *testing.T, tab *Table, size, sector int64) {
	end := sector // behind the boot record
	if tab.Kind == "gpt" {
		end = 2 * sector
	}
	for _, p := range tab.Parts {
		if p.Off < end || p.Len <= 0 || p.Off > size-p.Len || p.Off%sector != 0 || p.Len%sector != 0 {
			t.Fatalf("a disk of %d bytes has %+v", size, tab)
		}
		end = p.Off + p.Len
		if p.Type == "00" || tab.Kind == "mbr" && p.Number > 4 && (p.Off <= tab.Extended.Off || end > tab.Extended.Off+tab.Extended.Len) {
			t.Fatalf("partition %d of %+v", p.Number, tab)
		}
		if e := tab.Extended; e != nil && p.Number <= 4 && p.Off < e.Off+e.Len && end > e.Off {
			t.Fatalf("partition %d is on the extended one: %+v", p.Number, tab)
		}
	}
}

// FuzzShrink: whatever the image is, the table of a smaller disk has the same
// partitions, or there is an error.
func FuzzShrink(f *testing.F) {
	for _, sector := range []int{512, 4096} {
		tab := table{sector: sector, sectors: uint64(5<<20) / uint64(sector), count: 128, parts: []span{{100, 200}}}
		d := tab.disk()
		f.Add(d[:24<<10], d[len(d)-24<<10:], sector == 4096, uint32(4<<20))
	}
	f.Fuzz(func(t *testing.T, head, tail []byte, large bool, target uint32) {
		sector := 512
		if large {
			sector = 4096
		}
		image := make([]byte, 5<<20)
		copy(image, head[:min(len(head), 1<<20)])
		tail = tail[:min(len(tail), 1<<20)]
		copy(image[len(image)-len(tail):], tail)
		out, s, err := shrunk(t, image, int64(target)/int64(sector)*int64(sector), sector)
		if err != nil {
			return
		}
		want, err := Read(bytes.NewReader(image), int64(len(image)), sector)
		if err != nil {
			t.Fatalf("%+v, and the image has no table: %v", s, err)
		}
		got, err := Read(bytes.NewReader(out), int64(len(out)), sector)
		if err != nil || fmt.Sprint(got.Parts) != fmt.Sprint(want.Parts) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	})
}

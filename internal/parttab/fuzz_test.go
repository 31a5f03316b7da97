package parttab

import (
	"encoding/binary"
	"testing"
)

// seeds are the ends of real shapes of disks.
func seeds(f *testing.F, add func(head, tail []byte)) {
	f.Helper()
	tabs := []table{{sector: 512, sectors: 4400, count: 128, parts: []span{{34, 99}, {2048, 4366}}}, {sector: 512, sectors: 100, count: 128, parts: []span{{40, 60}}}, {sector: 512, sectors: 80, count: 4}}
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
		parseMBR(b)
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
		disk, edits, notes := fitted(t, image, sector, size)
		switch {
		case more == 0 && (len(edits) > 0 || len(notes) > 0):
			t.Fatal("edits or notes for a disk of the image's size")
		case more > 0 && len(notes) == 0:
			t.Fatal("no note")
		case len(edits) > 0:
			checkMoved(t, image, disk, sector)
		}
	})
}

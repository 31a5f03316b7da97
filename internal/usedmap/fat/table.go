package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Entries of all three types are converted to the values of FAT32.
const (
	entryMask     = 0x0FFFFFFF // the high 4 bits of a FAT32 entry are reserved
	entryReserved = 0x0FFFFFF0 // values from here on are reserved, bad, or end of chain
	entryEnd      = 0x0FFFFFF8
)

// piece is how many entries are read at once. A block of entries that are all
// free is handled in one step. Both numbers are even, because two FAT12 entries
// share three bytes.
const (
	piece = 1 << 19
	block = 1 << 10
)

// table is one pass through the FATs.
type table struct {
	v     *volume.Volume
	g     *geometry
	free  volume.Free
	named set   // clusters that follow another one
	run   int64 // first cluster of the current free run, or 0
}

func (g *geometry) bytesOf(entries int64) int64 { return (entries*int64(g.bits) + 7) / 8 }

// scan finds the free clusters by the first FAT, and compares the other FATs
// with it.
func (t *table) scan() error {
	end := firstCluster + t.g.clusters
	buf := make([]byte, t.g.bytesOf(min(piece, end)))
	other := make([]byte, len(buf))
	for first := int64(0); first < end; first += piece {
		n := min(piece, end-first)
		b := buf[:t.g.bytesOf(n)]
		if err := t.readAll(b, other[:len(b)], first); err != nil {
			return err
		}
		if err := t.entries(b, first, n); err != nil {
			return err
		}
	}
	t.endRun(end)
	for _, r := range t.free.Ranges() {
		if c := (r.Off-t.g.at(firstCluster))/t.g.cluster + firstCluster; t.named.any(c, r.Len/t.g.cluster) {
			return fmt.Errorf("a chain runs into clusters from %d on, which are free", c)
		}
	}
	return nil
}

// readAll reads a range of entries from all FATs. b gets those of the first.
func (t *table) readAll(b, other []byte, first int64) error {
	off := t.g.reserved*t.g.sector + t.g.bytesOf(first)
	for i := range t.g.fats {
		into := b
		if i > 0 {
			into = other
		}
		if err := t.v.Fill(into, off+i*t.g.fatSize*t.g.sector); err != nil {
			return err
		}
		skip := int64(0)
		if first == 0 {
			if err := t.g.head(into); err != nil {
				return err
			}
			skip = t.g.bytesOf(firstCluster) // may differ in marks, which head has checked
		}
		if i > 0 && !bytes.Equal(b[skip:], other[skip:]) {
			return fmt.Errorf("its FATs differ (entries from %d on)", first)
		}
	}
	return nil
}

// head checks the entries 0 and 1, which hold the media byte and the marks of
// FAT16 and FAT32.
func (g *geometry) head(b []byte) error {
	if b[0] != g.media {
		return fmt.Errorf("its FAT begins with %#x, not with the media byte %#x", b[0], g.media)
	}
	marks := uint32(3)
	switch g.bits {
	case 16:
		marks = uint32(binary.LittleEndian.Uint16(b[2:])) >> 14
	case 32:
		marks = binary.LittleEndian.Uint32(b[4:]) >> 26
	}
	if marks&2 == 0 {
		return errors.New("it was not cleanly unmounted (mark in the FAT)")
	}
	if marks&1 == 0 {
		return errors.New("it met errors of the disk (mark in the FAT)")
	}
	return nil
}

// entry is the i-th entry in b.
func (g *geometry) entry(b []byte, i int64) int64 {
	switch g.bits {
	case 12:
		e := int64(binary.LittleEndian.Uint16(b[i*3/2:])) >> (i % 2 * 4) & 0xFFF
		return widen(e, 0xFFF)
	case 16:
		return widen(int64(binary.LittleEndian.Uint16(b[2*i:])), 0xFFFF)
	}
	return int64(binary.LittleEndian.Uint32(b[4*i:])) & entryMask
}

// widen converts the highest 16 values, which are reserved, to those of FAT32.
func widen(e, all int64) int64 {
	if e >= all-15 {
		return e | entryMask&^all
	}
	return e
}

// entries examines n entries, which begin with that of cluster first.
func (t *table) entries(b []byte, first, n int64) error {
	zeros := make([]byte, t.g.bytesOf(block))
	for i := int64(0); i < n; {
		to := min(i+block, n)
		if from, till := t.g.bytesOf(i), t.g.bytesOf(to); bytes.Equal(b[from:till], zeros[:till-from]) {
			t.startRun(first + i)
			i = to
			continue
		}
		for ; i < to; i++ {
			if err := t.look(first+i, t.g.entry(b, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// look examines the entry e of cluster c.
func (t *table) look(c, e int64) error {
	if c < firstCluster {
		return nil
	}
	if e == 0 {
		t.startRun(c)
		return nil
	}
	t.endRun(c)
	switch {
	case t.g.is(e):
		if t.named.add(e) {
			return fmt.Errorf("two chains meet in cluster %d", e)
		}
	case e < entryReserved:
		return fmt.Errorf("the FAT says that cluster %d comes after %d; there are %d", e, c, t.g.clusters)
	}
	return nil
}

func (t *table) startRun(c int64) {
	if t.run == 0 {
		t.run = c
	}
}

func (t *table) endRun(c int64) {
	if t.run != 0 {
		t.free.Add(t.g.at(t.run), (c-t.run)*t.g.cluster)
	}
	t.run = 0
}

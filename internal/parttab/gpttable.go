package parttab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// gptTable reads the table of a disk whose boot record has a protective entry. The
// first sector may look like the boot sector of a file system too, which is fs
// then. If that file system were in use, it would have overwritten the primary GPT.
func (d disk) gptTable(m mbr, fs string) (*Table, error) {
	if _, err := m.protective(); err != nil {
		return nil, err
	}
	if err := d.otherSectors(); err != nil {
		return nil, err
	}
	g, notes, err := d.soundGPT()
	if err != nil {
		return nil, err
	}
	if fs != "" && g.my != 1 {
		return nil, fmt.Errorf("the primary GPT is damaged, and the first sector could be the boot sector of a file system (%s)", fs)
	}
	t := &Table{Kind: "gpt", ID: guid([16]byte(g.header[gptDiskGUID:])), Notes: notes}
	for _, p := range g.partitions() {
		part := Partition{Number: p.slot + 1, Type: guid(p.kind), Name: printable(p.name[:]), GUID: guid(p.id)}
		t.Parts = append(t.Parts, d.bytes(part, p.span))
	}
	return t, nil
}

// otherSectors returns an error if the GPT was made for sectors of another size.
// This happens to a disk that was behind another adapter (USB, RAID), which showed
// it with other sectors.
func (d disk) otherSectors() error {
	for _, n := range []int{512, 4096} {
		if n == d.sector {
			continue
		}
		other := disk{d.r, n, d.sectors * uint64(d.sector) / uint64(n)}
		g, err := other.header(1)
		switch {
		case g != nil:
			return fmt.Errorf("there is a GPT for sectors of %d bytes, but the disk has sectors of %d bytes", n, d.sector)
		case !isDamage(err):
			return err
		}
	}
	return nil
}

// soundGPT reads both copies of the GPT. They must agree. If one is damaged, the
// other counts. If a disk or an image was made larger, the backup lies where the
// disk ended before, and there may be the backup of another table at the new end.
func (d disk) soundGPT() (g *gpt, notes []string, err error) {
	end := d.sectors - 1
	p, perr := d.primary()
	if perr != nil && !isDamage(perr) {
		return nil, nil, perr
	}
	at := end
	if p != nil {
		at = p.alternate
	}
	b, berr := d.backup(at)
	switch {
	case b == nil && !isDamage(berr):
		return nil, nil, berr
	case p != nil && b != nil && !p.agrees(b), p == nil && b != nil && !d.trace(b):
		return nil, nil, errors.New("the backup GPT differs from the primary")
	case perr != nil && berr != nil:
		return nil, nil, fmt.Errorf("neither GPT can be used: %w (the primary); %w (the backup)", perr, berr)
	case perr != nil:
		g, notes = b, append(notes, fmt.Sprintf("the primary GPT is damaged (%v); the backup is read", perr))
	case berr != nil:
		g, notes = p, append(notes, fmt.Sprintf("the backup GPT is damaged (%v); the primary is read", berr))
	default:
		g = p
	}
	if at == end {
		return g, notes, nil
	}
	note, err := d.notAtEnd(g, at)
	return g, append(notes, note), err
}

// notAtEnd checks a GPT whose backup is not in the disk's last sector.
func (d disk) notAtEnd(g *gpt, at uint64) (note string, err error) {
	end := d.sectors - 1
	if at <= g.last {
		return "", errors.New("the GPT has its backup among the partitions")
	}
	last, err := d.header(end)
	switch {
	case last != nil && !g.agrees(last):
		return "", errors.New("there is another GPT at the disk's end")
	case last == nil && !isDamage(err):
		return "", err
	}
	return fmt.Sprintf("the backup GPT belongs to sector %d, not to the disk's last, %d; the disk was made larger", at, end), nil
}

// trace reports whether a backup can belong to the damaged primary. The backup must
// name sector 1 as the place of the primary. If there is still a header in sector
// 1, it must have the same disk GUID.
func (d disk) trace(b *gpt) bool {
	was, err := d.read(1, d.sector)
	switch {
	case err != nil || b.alternate != 1:
		return false
	case string(was[:len(gptSignature)]) != gptSignature:
		return true
	}
	return bytes.Equal(was[gptDiskGUID:gptEntriesLBA], b.header[gptDiskGUID:gptEntriesLBA])
}

// guid prints a GUID as the specification does (UEFI, appendix A). The first three
// groups are little-endian numbers.
func guid(b [16]byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(b[:]), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:])
}

// printable is a partition's name up to the first zero. Characters that are not
// printable become question marks.
func printable(name []uint16) string {
	s, _, _ := strings.Cut(string(utf16.Decode(name)), "\x00")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}

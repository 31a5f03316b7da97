package parttab

import (
	"errors"
	"fmt"
)

// maxEBRs bounds the chain of extended boot records. Neither Linux and fdisk nor
// Windows have names for so many logical partitions.
const maxEBRs = 256

func isExtended(kind byte) bool { return kind == 0x05 || kind == 0x0F || kind == 0x85 }

// logical reads an extended partition, which is a chain of extended boot records
// (EBRs). Each EBR has an entry for a partition, whose place counts from that EBR,
// and an entry for the next EBR, whose place counts from the start of the extended
// partition. The claims are those of the EBRs and of the partitions.
//
// The order of the chain need not be that of the disk. An EBR may have no
// partition. Windows leaves the first one so when its partition is deleted. The
// two entries may be exchanged, as DR-DOS does. OS/2 used all four entries. That is
// an error here, because Linux ignores the last two entries by rules of its own.
func (d disk) logical(ext claim) (claims []claim, note string, err error) {
	at, number := ext.first, 5
	for range maxEBRs {
		part, next, err := d.ebr(ext, at)
		if errors.Is(err, errNoMBR) && at == ext.first {
			return nil, fmt.Sprintf("partition %d is an extended one without any table in it", ext.number), nil
		}
		if err != nil {
			return nil, "", fmt.Errorf("the extended boot record at sector %d: %w", at, err)
		}
		claims = append(claims, claim{span: span{at, at}})
		if part.last != 0 {
			part.number = number
			claims = append(claims, part)
			number++
		}
		if next == 0 {
			return claims, "", nil
		}
		if next == at || next == ext.first {
			break
		}
		at = next
	}
	return nil, "", errors.New("the chain of extended boot records runs in a circle, or is longer than any system has")
}

// ebr reads one extended boot record. part is zero if the record has no partition,
// and next is 0 at the end of the chain.
func (d disk) ebr(ext claim, at uint64) (part claim, next uint64, err error) {
	b, err := d.read(at, mbrSize)
	if err != nil {
		return part, 0, err
	}
	m, err := parseMBR(b)
	if err != nil {
		return part, 0, err
	}
	if err := m.badStatus(); err != nil {
		return part, 0, err
	}
	for i, e := range m {
		switch {
		case e.kind == 0 && e.sectors == 0:
		case i >= 2 || e.kind == 0 || e.sectors == 0:
			return part, 0, fmt.Errorf("entry %d is none that an extended boot record has", i+1)
		case isExtended(e.kind):
			if next != 0 {
				return part, 0, errors.New("it has two links")
			}
			next = ext.first + uint64(e.first)
		case part.last != 0:
			return part, 0, errors.New("it has two partitions")
		default:
			part = claim{span: span{at + uint64(e.first), at + uint64(e.first) + uint64(e.sectors) - 1}, kind: e.kind}
		}
	}
	switch {
	case next > ext.last:
		return part, 0, errors.New("the next one is outside of the extended partition")
	case part.last > ext.last:
		return part, 0, errors.New("its partition reaches out of the extended one")
	}
	return part, next, nil
}

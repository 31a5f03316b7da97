package parttab

import (
	"encoding/binary"
	"fmt"
)

// bootSector names the file system whose boot sector is the disk's first sector, or
// returns "". FAT has no signature of its own, so its parameter block (Microsoft,
// FAT specification 1.03, "BPB") must make sense. A partitioned disk may have such
// a block too, since boot loaders preserve the block of an earlier file system.
func bootSector(head []byte) string {
	switch string(head[3:11]) {
	case "NTFS    ":
		return "NTFS"
	case "EXFAT   ":
		return "exFAT"
	case "-FVE-FS-":
		return "BitLocker"
	case "ReFS\x00\x00\x00\x00":
		return "ReFS"
	}
	le := binary.LittleEndian
	bytesPer, cluster, media := le.Uint16(head[11:]), head[13], head[21]
	sane := (head[0] == 0xEB || head[0] == 0xE9) &&
		bytesPer >= 512 && bytesPer <= 4096 && bytesPer&(bytesPer-1) == 0 && cluster != 0 && cluster&(cluster-1) == 0 &&
		le.Uint16(head[14:]) != 0 && head[16] >= 1 && head[16] <= 4 && (media == 0xF0 || media >= 0xF8) &&
		(le.Uint16(head[19:]) != 0 || le.Uint32(head[32:]) != 0)
	if sane {
		return "FAT"
	}
	return ""
}

// unpartitioned gives the error for a boot record that is a file system's boot
// sector. The error matches ErrNone if there is nothing in it that looks like
// entries of partitions. Otherwise Linux would find partitions where Windows finds
// a file system, which is another error. One entry is known to be fake and is
// ignored, that of mkfs.fat --mbr for the whole disk from sector 0 on.
func (m mbr) unpartitioned(d disk, fs string) error {
	none := fmt.Errorf("%w: the first sector is the boot sector of a file system (%s)", ErrNone, fs)
	if m.badStatus() != nil {
		return none
	}
	fakes := 0
	for _, e := range m {
		switch {
		case e.kind == 0 && e.sectors == 0:
		case fs == "FAT" && CheckType(hexType(e.kind), "fat32") == nil && e.first == 0 && uint64(e.sectors) <= d.sectors && fakes == 0:
			fakes++
		default:
			return fmt.Errorf("the first sector is both a boot record with partitions and the boot sector of a file system (%s)", fs)
		}
	}
	return none
}

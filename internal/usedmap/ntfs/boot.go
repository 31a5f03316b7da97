package ntfs

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	bootSize   = 512
	oemID      = "NTFS    "
	maxCluster = 2 << 20 // of Windows 10; 64 KiB before
	maxRecord  = 64 << 10
)

// boot has the fields of NTFS_BOOT_SECTOR that are used here. Sizes are in
// bytes.
type boot struct {
	sector, cluster int64
	record          int   // size of an MFT record
	sectors         int64 // without the backup of the boot sector, which follows them
	clusters        int64
	mftLCN, mirrLCN int64
	serial          uint64
}

func readBoot(v *volume.Volume) (*boot, error) {
	b, err := v.Bytes(0, bootSize)
	if err != nil {
		return nil, err
	}
	if !isBoot(b) {
		return nil, fmt.Errorf("it has no NTFS boot sector")
	}
	// These fields of FAT's BIOS parameter block are zero in NTFS:
	// reserved_sectors, fats, root_entries, sectors, sectors_per_fat,
	// large_sectors. Windows and ntfs-3g refuse other values.
	if !zero(b[0x0e:0x15]) || !zero(b[0x16:0x18]) || !zero(b[0x20:0x24]) {
		return nil, fmt.Errorf("its boot sector has fields of FAT")
	}
	return parseBoot(b, v.Size())
}

func isBoot(b []byte) bool {
	return string(b[3:11]) == oemID && b[510] == 0x55 && b[511] == 0xaa
}

func parseBoot(b []byte, size int64) (*boot, error) {
	le := binary.LittleEndian
	p := &boot{
		sector:  int64(le.Uint16(b[0x0b:])),
		sectors: int64(le.Uint64(b[0x28:])),
		mftLCN:  int64(le.Uint64(b[0x30:])),
		mirrLCN: int64(le.Uint64(b[0x38:])),
		serial:  le.Uint64(b[0x48:]),
	}
	if !powerOfTwo(p.sector, 256, 4096) {
		return nil, fmt.Errorf("its sectors have %d bytes", p.sector)
	}
	// A sectors_per_cluster above 128 is the negative of a power of two.
	perCluster := int64(b[0x0d])
	if perCluster > 0xf0 {
		perCluster = 1 << (256 - perCluster)
	}
	p.cluster = perCluster * p.sector
	if !powerOfTwo(p.cluster, p.sector, maxCluster) {
		return nil, fmt.Errorf("its clusters have %d sectors of %d bytes", perCluster, p.sector)
	}
	record := int64(int8(b[0x40])) * p.cluster
	if n := int8(b[0x40]); n < 0 && n > -32 {
		record = 1 << -n
	}
	if !powerOfTwo(record, 512, maxRecord) {
		return nil, fmt.Errorf("its MFT records have a size of %#x", b[0x40])
	}
	p.record = int(record)
	// A healthy volume has room for one more sector, the backup. There is none
	// where a tool made the partition only as large as sectors says.
	if p.sectors <= 0 || p.sectors > size/p.sector {
		return nil, fmt.Errorf("it has %d sectors of %d bytes, its volume %d bytes", p.sectors, p.sector, size)
	}
	p.clusters = p.sectors * p.sector / p.cluster
	for _, lcn := range []int64{p.mftLCN, p.mirrLCN} {
		if lcn <= 0 || lcn >= p.clusters {
			return nil, fmt.Errorf("its MFT or the mirror begins at cluster %d of %d", lcn, p.clusters)
		}
	}
	return p, nil
}

// checkBackup compares the boot sector with its copy behind the last sector.
// Often there is no copy there, because ntfsresize and partition managers
// change the size and leave the copy at its old place. A copy with another
// layout means that the boot sector or the copy belongs to another file system.
// Serial, boot code, place of the MFT and hidden sectors differ in healthy
// volumes too.
func (f *fileSystem) checkBackup() error {
	at := f.sectors * f.sector
	if at+bootSize > f.v.Size() {
		return nil
	}
	b, err := f.v.Bytes(at, bootSize)
	if err != nil {
		return err
	}
	if !isBoot(b) {
		f.found.Note("there is no copy of the boot sector behind the volume's last sector")
		return nil
	}
	p, err := parseBoot(b, f.v.Size())
	if err == nil && (p.sector != f.sector || p.cluster != f.cluster || p.sectors != f.sectors || p.record != f.record) {
		err = fmt.Errorf("sectors, clusters or MFT records are others")
	}
	if err != nil {
		return fmt.Errorf("its copy contradicts: %w", err)
	}
	return nil
}

func powerOfTwo(n, low, high int64) bool { return n >= low && n <= high && n&(n-1) == 0 }

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

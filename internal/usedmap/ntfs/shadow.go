package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Shadow copies (restore points, "previous versions"), of the driver volsnap
// below NTFS. The format is from "Volume Shadow Snapshot (VSS) format" of the
// project libvshadow.
const (
	shadowGUID    = "\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52"
	shadowHeader  = 0x1e00 // in the room of $Boot, which has 8 KiB
	shadowBlock   = 16 << 10
	shadowEntry   = 128
	shadowBlocks  = 1 << 10 // 128 entries each; Windows keeps at most 512 shadow copies of a volume
	shadowVolume  = 1       // record types
	shadowCatalog = 2
)

// checkShadows fails if the volume has shadow copies. A shadow copy keeps what
// is overwritten; the rest of it is read from where it was on the volume. So of
// a file that was deleted since, the content is in clusters that are free for
// NTFS and not for the shadow copy.
func (f *fileSystem) checkShadows() error {
	if f.v.Size() < shadowHeader+0x80 {
		return nil
	}
	b, err := f.v.Bytes(shadowHeader, 0x80)
	if err != nil {
		return err
	}
	if string(b[:16]) != shadowGUID {
		return nil
	}
	le := binary.LittleEndian
	if kind := le.Uint32(b[0x14:]); kind != shadowVolume {
		return fmt.Errorf("their header has the unknown type %d", kind)
	}
	if own, on := string(b[0x40:0x50]), string(b[0x50:0x60]); own != on && !zero(b[0x50:0x60]) {
		return errors.New("they are kept on another volume")
	}
	at := int64(le.Uint64(b[0x30:]))
	for range shadowBlocks {
		if at == 0 {
			return nil
		}
		if at, err = f.catalog(at); err != nil {
			return err
		}
	}
	return errors.New("their catalog has no end")
}

// catalog looks through a block of the catalog and gives where the next is.
func (f *fileSystem) catalog(at int64) (next int64, err error) {
	b, err := f.v.Bytes(at, shadowBlock)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if string(b[:16]) != shadowGUID || le.Uint32(b[0x14:]) != shadowCatalog {
		return 0, fmt.Errorf("at byte %d is no block of their catalog", at)
	}
	for e := shadowEntry; e < shadowBlock; e += shadowEntry {
		switch kind := le.Uint64(b[e:]); kind {
		case 0, 1: // never used, used no more
		case 2, 3:
			return 0, errors.New("it has shadow copies (restore points); what they hold of deleted files is in free clusters")
		default:
			return 0, fmt.Errorf("their catalog has an entry of the unknown type %d", kind)
		}
	}
	return int64(le.Uint64(b[0x28:])), nil
}

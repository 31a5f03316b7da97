package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Shadow copies (restore points, "previous versions") are made by the driver
// volsnap below NTFS. The format is from "Volume Shadow Snapshot (VSS) format"
// of the project libvshadow.
const (
	shadowGUID    = "\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52"
	shadowHeader  = 0x1e00 // inside the 8 KiB of $Boot
	shadowBlock   = 16 << 10
	shadowEntry   = 128
	shadowBlocks  = 1 << 10 // limit of blocks, 128 entries each; Windows keeps at most 512 shadow copies
	shadowVolume  = 1       // record types
	shadowCatalog = 2
)

// checkShadows fails if the volume has shadow copies. A shadow copy stores only
// what was overwritten since. It reads the rest from its old place on the
// volume. So the content of a deleted file is in clusters that are free for
// NTFS, but not for the shadow copy.
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

// catalog checks a block of the catalog and returns where the next one is.
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
		case 0, 1: // never used, or no longer used
		case 2, 3:
			return 0, errors.New("it has shadow copies (restore points); what they hold of deleted files is in free clusters")
		default:
			return 0, fmt.Errorf("their catalog has an entry of the unknown type %d", kind)
		}
	}
	return int64(le.Uint64(b[0x28:])), nil
}

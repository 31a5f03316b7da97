// Package ntfs maps NTFS. The clusters whose bit is clear in $Bitmap are free,
// if the volume was left clean.
//
// The format is from the documentation of the Linux-NTFS project ("NTFS
// Documentation", Russon and Fledel), and from the headers of the drivers
// ntfs-3g (layout.h, logfile.h) and ntfs3 (ntfs.h, fslog.c). Names of fields
// are theirs.
//
// Many special things of NTFS do not matter for the map: compressed and sparse
// files, encrypted ones (EFS), alternate streams, extended attributes, reparse
// points, files compressed by WOF (a stream named WofCompressedData) or by
// deduplication (chunk stores are files), the change journal $UsnJrnl, $Tops
// and $TxfLog of transactions, quotas. All their clusters belong to streams,
// and have their bits set. The clusters of $BadClus have their bits set too.
//
// BitLocker and ReFS have other names in the boot sector, and are not NTFS.
package ntfs

import (
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// The MFT records with fixed numbers (ntfs-3g: NTFS_SYSTEM_FILES).
const (
	fileMFT     = 0
	fileMFTMirr = 1
	fileLogFile = 2
	fileVolume  = 3
	fileRoot    = 5
	fileBitmap  = 6
	fileBoot    = 7
)

// fileSystem is an NTFS volume that is being read.
type fileSystem struct {
	boot
	v     *volume.Volume
	found *volume.Found
	mft   *stream // $MFT's data
}

// Read maps an NTFS volume.
func Read(v *volume.Volume) (*volume.Found, error) {
	b, err := readBoot(v)
	if err != nil {
		return nil, err
	}
	f := &fileSystem{boot: *b, v: v, found: &volume.Found{FS: "ntfs", UUID: fmt.Sprintf("%016X", b.serial)}}
	f.found.Size = min((b.sectors+1)*b.sector, v.Size())
	if n := int64(v.Sector()); n != b.sector { // harmless, since the map is in bytes
		f.found.Note("it was made with sectors of %d bytes, the disk has sectors of %d", b.sector, n)
	}
	free, err := f.read()
	if err != nil {
		return f.found, err
	}
	f.found.Free = free
	return f.found, nil
}

func (f *fileSystem) read() (*volume.Free, error) {
	if err := f.openMFT(); err != nil {
		return nil, fmt.Errorf("$MFT: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"root directory", f.checkHibernation}, // first, because it matters to the whole disk
		{"$Volume", f.checkVolume},
		{"boot sector", f.checkBackup},
		{"$MFTMirr", f.checkMirror},
		{"$LogFile", f.checkLog},
		{"shadow copies", f.checkShadows},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	free, err := f.bitmap()
	if err != nil {
		return nil, fmt.Errorf("$Bitmap: %w", err)
	}
	if err := f.scan(free); err != nil {
		return nil, err
	}
	return free, nil
}

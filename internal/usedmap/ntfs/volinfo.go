package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// Flags of $VOLUME_INFORMATION (VOLUME_FLAGS).
const (
	volumeDirty      = 0x0001
	volumeResizeLog  = 0x0002
	volumeUpgrade    = 0x0004
	volumeNT4        = 0x0008 // NT 4 wrote to a newer volume, so quotas and change journal are out of date
	volumeDeleteUSN  = 0x0010 // Windows will continue to delete the change journal, which is logged for each cluster
	volumeRepairID   = 0x0020
	volumeUndocument = 0x0080 // nowhere documented, and set on many healthy volumes of Windows 8 and later
	volumeChkdsk     = 0x4000
	volumeChkdskDid  = 0x8000
)

// doubts are the flags with which the map may be wrong. Some of them only
// announce work for the next mount. They are here too, since a healthy volume
// has them only for minutes.
var doubts = []struct {
	flag uint16
	text string
}{
	{volumeDirty, "it is marked dirty: it was not cleanly unmounted, or Windows found an error"},
	{volumeResizeLog, "its log is to be resized"},
	{volumeUpgrade, "it is to be upgraded"},
	{volumeRepairID, "its object IDs are to be repaired"},
	{volumeChkdsk, "chkdsk has not finished"},
	{volumeChkdskDid, "chkdsk changed it, and it was not mounted since"},
}

const harmless = volumeNT4 | volumeDeleteUSN | volumeUndocument

// checkVolume reads label, version and flags.
func (f *fileSystem) checkVolume() error {
	label, err := f.stream(fileVolume, typeVolumeName, "")
	if err == nil {
		f.found.Label = text(label.value)
	} else if !errors.Is(err, errNone) {
		return err
	}
	s, err := f.stream(fileVolume, typeVolumeInfo, "")
	if err != nil {
		return err
	}
	if len(s.value) < 12 {
		return fmt.Errorf("its information has %d bytes", len(s.value))
	}
	// NT 4 made version 1.2, Windows 2000 made 3.0, and all later ones make
	// 3.1.
	switch version := [2]byte(s.value[8:10]); version {
	case [2]byte{1, 2}, [2]byte{3, 0}, [2]byte{3, 1}:
	default:
		return fmt.Errorf("it has the unknown version %d.%d", version[0], version[1])
	}
	flags := binary.LittleEndian.Uint16(s.value[10:])
	for _, d := range doubts {
		if flags&d.flag != 0 {
			return errors.New(d.text)
		}
	}
	if flags &^= harmless; flags != 0 {
		return fmt.Errorf("it has the unknown flag %#x", flags)
	}
	return nil
}

// text converts UTF-16 to a string.
func text(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

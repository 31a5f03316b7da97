package ntfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	restartHeader = 0x1e // RESTART_PAGE_HEADER
	restartArea   = 0x30 // RESTART_AREA up to Windows 2000
	clientRecord  = 0xa0 // LOG_CLIENT_RECORD
	noClient      = 0xffff
	logClean      = 0x0002 // RESTART_VOLUME_IS_CLEAN
	minLog        = 16 << 10
	maxEmptyLog   = 64 << 20 // the largest that Windows makes by itself
)

// checkLog fails unless the volume was left clean according to its log.
//
// Windows sets no dirty flag while it has a volume mounted, so only the log can
// tell. The first two pages of the log are restart pages (RESTART_PAGE_HEADER,
// RESTART_AREA), written one after the other. At the dismount, Windows 2000 and
// earlier remove the client from the in-use list. Later ones leave it there and
// set RESTART_VOLUME_IS_CLEAN in both pages, and clear it in both before they
// write the next record. So both pages must be clean. If only one is, a
// dismount did not end. Windows 8 and later write version 2.0, and go back to
// 1.1 at the dismount unless NtfsDisableLfsDowngrade is set. A page that chkdsk
// changed (CHKD) makes doubt, since no system has mounted the volume since
// then.
//
// mkntfs, ntfs-3g and Linux's drivers fill the log with ones before they write
// anything else. Such a log does not tell how the volume was left, and ntfs-3g
// sets no flag while it has a volume mounted. Then scan must tell.
func (f *fileSystem) checkLog() error {
	s, err := f.stream(fileLogFile, typeData, "")
	if err != nil {
		return err
	}
	if s.value != nil || !s.plain() || s.hasHole() || s.initialized < minLog {
		return fmt.Errorf("it has %d bytes, %d of them written, or holes", s.size, s.initialized)
	}
	head := make([]byte, 4)
	if err := f.fill(s, head, 0); err != nil {
		return err
	}
	if bytes.Equal(head, []byte{255, 255, 255, 255}) {
		return f.emptyLog(s)
	}
	second, err := f.restartPage(s, 0)
	if err == nil {
		_, err = f.restartPage(s, second)
	}
	return err
}

// emptyLog fails unless all of the log is ones. Otherwise the log was not
// filled to its end, or only its start was lost.
func (f *fileSystem) emptyLog(s *stream) error {
	size := min(s.size, maxEmptyLog)
	b := make([]byte, min(size, 256<<10))
	ones := bytes.Repeat([]byte{255}, len(b))
	for at := int64(0); at < size; at += int64(len(b)) {
		b = b[:min(int64(len(b)), size-at)]
		if err := f.fill(s, b, at); err != nil {
			return err
		}
		if !bytes.Equal(b, ones[:len(b)]) {
			return errors.New("it begins empty and goes on with something else")
		}
	}
	return nil
}

// restartPage checks the restart page at byte off of the log. It returns the
// page size, which is also where the second restart page is.
func (f *fileSystem) restartPage(s *stream, off int64) (int64, error) {
	head := make([]byte, restartHeader)
	if err := f.fill(s, head, off); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	size := int64(le.Uint32(head[0x10:]))
	switch major, minor := le.Uint16(head[0x1c:]), le.Uint16(head[0x1a:]); {
	case string(head[:4]) == "CHKD":
		return 0, errors.New("chkdsk changed it, and it was not mounted since")
	case string(head[:4]) != "RSTR":
		return 0, fmt.Errorf("at byte %d is no restart page", off)
	case (major != 1 || minor != 1) && (major != 2 || minor != 0):
		return 0, fmt.Errorf("it has the unknown version %d.%d", major, minor)
	case !powerOfTwo(size, 512, 64<<10) || off != 0 && off != size:
		return 0, fmt.Errorf("its pages have %d bytes", size)
	}
	page := make([]byte, size)
	if err := f.fill(s, page, off); err != nil {
		return 0, err
	}
	if err := fixup(page, "RSTR"); err != nil {
		return 0, fmt.Errorf("restart page at byte %d: %w", off, err)
	}
	return size, closed(page)
}

// closed fails unless the restart page says that the log was closed.
func closed(page []byte) error {
	le := binary.LittleEndian
	at := int(le.Uint16(page[0x18:]))
	if at < restartHeader || at%8 != 0 || at > len(page)-restartArea {
		return fmt.Errorf("its restart area is at byte %d", at)
	}
	area := page[at:]
	clients, inUse, flags := int(le.Uint16(area[8:])), int(le.Uint16(area[0x0c:])), le.Uint16(area[0x0e:])
	array := int(le.Uint16(area[0x16:]))
	switch {
	case array < restartArea || array+clients*clientRecord > len(area) || inUse != noClient && inUse >= clients:
		return fmt.Errorf("its restart area has %d clients at byte %d, the first in use is %d", clients, array, inUse)
	case inUse != noClient && flags&logClean == 0:
		return errors.New("it was not cleanly unmounted, or Windows hibernates (by fast startup, perhaps): the log is open")
	}
	return nil
}

package ntfs

import (
	"errors"
	"fmt"
	"strings"
)

const hiberHeader = 4096

// checkHibernation fails if a Windows sleeps on this volume: its memory has
// what the volume does not have yet, and it will go on with the map that it
// knows. The log tells most of it; hiberfil.sys is looked at as well, as
// ntfs-3g does.
//
// The file begins with hibr or HIBR while Windows sleeps, also by fast startup.
// When it wakes it makes the first page zeros (since Windows 7) or writes wake
// (before). Anything else is not known: RSTR is a wakening that was not seen
// to end, link says that the memory is on another volume.
func (f *fileSystem) checkHibernation() error {
	refs, err := f.lookup(fileRoot, "hiberfil.sys")
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := f.awake(ref); err != nil {
			return fmt.Errorf("hiberfil.sys: %w", err)
		}
	}
	return nil
}

func (f *fileSystem) awake(ref uint64) error {
	r, err := f.readRecord(number(ref))
	if err != nil {
		return err
	}
	if r.sequence() != uint16(ref>>48) {
		return errors.New("its entry is of another file")
	}
	s := &stream{}
	if err := f.open(s, number(ref), r, typeData, ""); err != nil {
		return err
	}
	if s.size < hiberHeader || s.flags&(attrCompression|attrEncrypted) != 0 {
		return errors.New("it is compressed, or shorter than a page")
	}
	b := make([]byte, hiberHeader)
	if err := f.fill(s, b, 0); err != nil {
		return err
	}
	sign := strings.ToLower(string(b[:4]))
	if zero(b) || sign == "wake" {
		return nil
	}
	f.found.Suspended = true // or what else it may be: not awake
	if sign == "hibr" {
		return errors.New("it holds the memory of a Windows that hibernates (or shut down by fast startup)")
	}
	return fmt.Errorf("it begins with %q, which is not known", b[:4])
}

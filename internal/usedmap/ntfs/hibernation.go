package ntfs

import (
	"errors"
	"fmt"
	"strings"
)

const hiberHeader = 4096

// checkHibernation fails if a Windows sleeps on this volume. Its memory has
// changes that are not on the volume yet, and when it wakes it continues with
// the map in its memory. The log shows most such cases. Like ntfs-3g, this also
// looks at hiberfil.sys.
//
// The file begins with hibr or HIBR while Windows sleeps, also after a fast
// startup shutdown. When Windows wakes, it fills the first page with zeros
// (since Windows 7) or writes wake (before). Anything else makes doubt. For
// example RSTR is left by a resume that did not end, and link means that the
// memory is on another volume.
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
	f.found.Suspended = true // even if the signature is unknown, since Windows is not surely awake
	if sign == "hibr" {
		return errors.New("it holds the memory of a Windows that hibernates (or shut down by fast startup)")
	}
	return fmt.Errorf("it begins with %q, which is not known", b[:4])
}

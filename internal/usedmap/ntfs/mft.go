package ntfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// errNone means that a file does not have the attribute.
var errNone = errors.New("the attribute is missing")

// openMFT finds all of the MFT. Record 0 has the first piece of its runs. If
// there are so many runs that it has an attribute list, then each extension
// record is in a part of the MFT that is known from the pieces before.
func (f *fileSystem) openMFT() error {
	first, err := f.v.Bytes(f.mftLCN*f.cluster, f.record)
	if err != nil {
		return err
	}
	if err := f.check(first); err != nil {
		return err
	}
	f.mft = &stream{}
	if err := f.open(f.mft, fileMFT, first, typeData, ""); err != nil {
		return err
	}
	s := f.mft
	switch {
	case s.value != nil || !s.plain() || s.hasHole():
		return errors.New("it is resident, compressed or has holes")
	case s.runs[0].lcn != f.mftLCN:
		return fmt.Errorf("it begins at cluster %d, the boot sector says %d", s.runs[0].lcn, f.mftLCN)
	case s.initialized < 16*int64(f.record):
		return fmt.Errorf("it has %d bytes", s.initialized)
	}
	return nil
}

func (s *stream) hasHole() bool {
	for _, r := range s.runs {
		if r.lcn == hole {
			return true
		}
	}
	return len(s.runs) == 0
}

// check does the fixups of an MFT record, and fails if it is not in use.
func (f *fileSystem) check(r record) error {
	if err := fixup(r, "FILE"); err != nil {
		return err
	}
	if !r.inUse() {
		return errors.New("it is not in use")
	}
	return nil
}

// readRecord reads an MFT record, and fails if it is not in use.
func (f *fileSystem) readRecord(no int64) (record, error) {
	r := make([]byte, f.record)
	if no < 0 || no >= f.mft.initialized/int64(f.record) {
		return nil, fmt.Errorf("there is no MFT record %d", no)
	}
	err := f.fill(f.mft, r, no*int64(f.record))
	if err == nil {
		err = f.check(r)
	}
	if err != nil {
		return nil, fmt.Errorf("MFT record %d: %w", no, err)
	}
	return r, nil
}

// stream opens an attribute of a file. The error is errNone if it has none.
func (f *fileSystem) stream(no int64, typ uint32, name string) (*stream, error) {
	r, err := f.readRecord(no)
	if err != nil {
		return nil, err
	}
	s := &stream{}
	return s, f.open(s, no, r, typ, name)
}

// open collects the pieces of an attribute into s. r is the base record.
func (f *fileSystem) open(s *stream, no int64, r record, typ uint32, name string) error {
	list := &stream{}
	err := f.find(list, r, typeList, "", 0)
	switch {
	case err == nil:
		err = f.follow(s, no, r, list, typ, name)
	case errors.Is(err, errNone):
		err = f.find(s, r, typ, name, 0)
	}
	if err != nil {
		return err
	}
	return f.whole(s)
}

// find adds the piece of an attribute that is in record r.
func (f *fileSystem) find(s *stream, r record, typ uint32, name string, lowest int64) error {
	found := errNone
	err := r.attrs(func(a *attr) error {
		if !a.is(typ, name) || a.lowest != lowest {
			return nil
		}
		if found == nil {
			return fmt.Errorf("it has attribute %#x twice", typ)
		}
		found = nil
		return f.add(s, a)
	})
	if err != nil {
		return err
	}
	return found
}

// checkMirror compares the first four MFT records with their copy, as ntfs-3g
// does before it mounts. Their update sequence numbers may differ. The record
// of $Volume may differ too, since some drivers change its flags and not the
// copy, which Windows accepts.
func (f *fileSystem) checkMirror() error {
	s, err := f.stream(fileMFTMirr, typeData, "")
	switch {
	case err != nil:
		return err
	case s.value != nil || s.hasHole() || s.runs[0].lcn != f.mirrLCN:
		return fmt.Errorf("it is not at cluster %d as the boot sector says", f.mirrLCN)
	}
	for no := int64(0); no < 4; no++ {
		r, err := f.readRecord(no)
		if err != nil {
			return err
		}
		m := make(record, f.record)
		if err := f.fill(s, m, no*int64(f.record)); err != nil {
			return err
		}
		if err := f.check(m); err != nil {
			return fmt.Errorf("record %d: %w", no, err)
		}
		if same(r, m) {
			continue
		}
		if no == fileVolume {
			f.found.Note("the copy of $Volume in $MFTMirr is not up to date")
		} else {
			return fmt.Errorf("record %d is not the one of $MFT", no)
		}
	}
	return nil
}

// same compares the used bytes of two records without their update sequence
// arrays.
func same(r, m record) bool {
	at, count := int(binary.LittleEndian.Uint16(r[4:])), int(binary.LittleEndian.Uint16(r[6:]))
	end := r.used()
	return end <= len(r) && end >= at+2*count &&
		bytes.Equal(r[:at], m[:at]) && bytes.Equal(r[at+2*count:end], m[at+2*count:end])
}

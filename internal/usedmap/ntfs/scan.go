package ntfs

import (
	"bytes"
	"errors"
	"fmt"
	"sort"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

// systemRecords is how many MFT records NTFS has for its own files, with those
// that Windows reserves for them.
const systemRecords = 24

// maxPieces is how many runs all files together may have. It bounds the time
// that a hostile disk costs.
const maxPieces = 1 << 27

// scan fails if a file has a free cluster. It reads all of the MFT, at the
// speed of the disk. For a volume that lost power while ntfs-3g had it mounted
// there is no other proof. ntfs-3g keeps no log and sets no flag, and a file
// may have reached the disk while its bits in the map have not.
//
// If the MFT is larger than metadata may be, only the files of NTFS itself are
// checked, and a note says so.
func (f *fileSystem) scan(free *volume.Free) error {
	size := f.mft.initialized / int64(f.record) * int64(f.record)
	if limit := min(128<<20+f.v.Size()/64, 2<<30); size > limit {
		f.found.Note("its MFT has %d bytes; it was not compared with the map of free clusters", size)
		size = systemRecords * int64(f.record)
	}
	inUse, err := f.recordMap(size / int64(f.record))
	if err != nil {
		return fmt.Errorf("$MFT: %w", err)
	}
	s := &scanner{fileSystem: f, free: free.Ranges(), inUse: inUse}
	b := make([]byte, min(size, volume.MaxRead))
	for at := int64(0); at < size; at += int64(len(b)) {
		b = b[:min(int64(len(b)), size-at)]
		if err := f.fill(f.mft, b, at); err != nil {
			return err
		}
		for i := 0; i < len(b); i += f.record {
			no := (at + int64(i)) / int64(f.record)
			if err := s.record(no, b[i:i+f.record]); err != nil {
				return fmt.Errorf("MFT record %d: %w", no, err)
			}
		}
	}
	return s.system()
}

// recordMap is $MFT's own $BITMAP, with a bit for each record that is in use.
func (f *fileSystem) recordMap(records int64) ([]byte, error) {
	s, err := f.stream(fileMFT, typeBitmap, "")
	if err != nil {
		return nil, err
	}
	b := make([]byte, min((records+7)/8, s.size))
	return b, f.fill(s, b, 0)
}

type scanner struct {
	*fileSystem
	free   []image.Range
	inUse  []byte
	bootAt bool // record 7 ($Boot) has cluster 0
	pieces int
}

// record checks one record. Both the record and the map of records say whether
// it is in use. Like the drivers, this trusts the record. But if the map says
// in use and the record is not readable, it may be a file.
func (s *scanner) record(no int64, r record) error {
	if !bytes.Equal(r[:4], []byte("FILE")) {
		if no/8 < int64(len(s.inUse)) && s.inUse[no/8]>>(no%8)&1 != 0 {
			return errors.New("it is in use and is none")
		}
		return nil
	}
	if !r.inUse() {
		return nil
	}
	if err := fixup(r, "FILE"); err != nil {
		return err
	}
	return r.attrs(func(a *attr) error {
		if a.pairs == nil {
			return nil
		}
		return s.runs(a, func(r run) error {
			if r.lcn == hole {
				return nil
			}
			if s.pieces++; s.pieces > maxPieces {
				return errors.New("with it, the files are in more pieces than a volume has")
			}
			s.bootAt = s.bootAt || no == fileBoot && r.lcn == 0
			return s.used(r.lcn*s.cluster, r.n*s.cluster)
		})
	})
}

// used fails if one of n bytes at off is free.
func (s *scanner) used(off, n int64) error {
	i := sort.Search(len(s.free), func(i int) bool { return s.free[i].End() > off })
	if i < len(s.free) && s.free[i].Off < off+n {
		return fmt.Errorf("it has cluster %d, which is free", max(off, s.free[i].Off)/s.cluster)
	}
	return nil
}

// system checks the clusters that must be used whatever the records say.
func (s *scanner) system() error {
	if !s.bootAt {
		return errors.New("$Boot: it does not have the first cluster")
	}
	for _, lcn := range []int64{0, s.mftLCN, s.mirrLCN} {
		if err := s.used(lcn*s.cluster, s.cluster); err != nil {
			return fmt.Errorf("boot sector: %w", err)
		}
	}
	return nil
}

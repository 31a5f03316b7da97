// Package exfat says what an exFAT does not use.
//
// Source: Microsoft, "exFAT file system specification", revision 1.00 (2019);
// names like VolumeFlags are its. Where systems are known to differ from it,
// Linux fs/exfat was compared.
//
//	boot regions    the checksums of both; both say the same of the layout
//	FileSystemRevision  1.00 only
//	VolumeFlags     ActiveFat, VolumeDirty, MediaFailure and unknown bits are
//	                doubt; ClearToZero says nothing of the clusters
//	NumberOfFats    2 is TexFAT, in which two bitmaps take turns: doubt
//	directory entries   an unknown critical primary one is doubt: whoever does
//	                not know it must not mount; benign ones are passed over
//	allocation bitmap   exactly one, in one piece; its clear bits are free
//
// PercentInUse is not kept up to date by Linux, so it is not looked at. Some
// devices write without setting VolumeDirty, and have left bitmaps that lack
// files; so the bitmap is held against all folders and files.
package exfat

import (
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Read says what the exFAT on v does not use.
func Read(v *volume.Volume) (*volume.Found, error) {
	b, err := v.Bytes(0, bootSize)
	if err != nil {
		return nil, err
	}
	if string(b[3:11]) != "EXFAT   " {
		return nil, errors.New("it is no exFAT: the name in the boot sector is missing")
	}
	serial := binary.LittleEndian.Uint32(b[100:])
	found := &volume.Found{FS: "exfat", UUID: fmt.Sprintf("%04X-%04X", serial>>16, serial&0xFFFF)}
	g, err := parse(b)
	if err != nil {
		return found, err
	}
	found.Size = g.total * g.sector
	if err := g.trust(v, b); err != nil {
		return found, err
	}
	f := &fat{v: v, g: g}
	if err := f.head(); err != nil {
		return found, err
	}
	s, err := system(f)
	found.Label = s.label
	if err != nil {
		return found, fmt.Errorf("root directory: %w", err)
	}
	free, notes, err := read(f, s)
	if err != nil {
		return found, err
	}
	found.Free, found.Notes = free, notes
	return found, nil
}

// read takes the bitmap, and holds it against everything that has clusters.
func read(f *fat, s files) (*volume.Free, []string, error) {
	free, err := f.bitmap(s.bitmap)
	if err != nil {
		return nil, nil, fmt.Errorf("allocation bitmap: %w", err)
	}
	if err := f.upcase(s.upcase, s.upcaseSum); err != nil {
		return nil, nil, fmt.Errorf("up-case table: %w", err)
	}
	w := &walk{f: f, free: free.Ranges(), seen: map[int64]bool{}}
	for _, own := range []extent{s.bitmap, s.upcase} {
		if err := w.used(own.first, f.g.clustersOf(own.length)); err != nil {
			return nil, nil, err
		}
	}
	if err := w.all(); err != nil {
		return nil, nil, err
	}
	var notes []string
	if w.partly {
		notes = append(notes, "it has many files: only the first of them were held against the allocation bitmap")
	}
	return free, notes, nil
}

// bitmap is what is free. It must be in one piece: Linux takes that for
// granted and does not look at the FAT, so systems could read different ones.
func (f *fat) bitmap(e extent) (*volume.Free, error) {
	need := (f.g.clusters + 7) / 8
	if e.length < need { // some sticks are sold with some bytes more
		return nil, fmt.Errorf("it has %d bytes for %d clusters", e.length, f.g.clusters)
	}
	if err := f.onePiece(e); err != nil {
		return nil, err
	}
	free := &volume.Free{}
	buf := make([]byte, min(need, volume.MaxRead))
	for at := int64(0); at < need; at += int64(len(buf)) {
		b := buf[:min(need-at, int64(len(buf)))]
		if err := f.v.Fill(b, f.g.at(e.first)+at); err != nil {
			return nil, err
		}
		c := firstCluster + at*8
		free.AddClear(b, f.g.clusters+firstCluster-c, f.g.at(c), f.g.cluster)
	}
	return free, nil
}

// upcase checks the table, whose checksum (section 7.2.2) is of all its bytes.
func (f *fat) upcase(e extent, sum uint32) error {
	if e.length > 128<<10 {
		return fmt.Errorf("it has %d bytes", e.length)
	}
	if err := f.onePiece(e); err != nil {
		return err
	}
	b, err := f.v.Bytes(f.g.at(e.first), int(e.length))
	if err != nil {
		return err
	}
	if got := checksum(0, b, nil); got != sum {
		return fmt.Errorf("its checksum is wrong (%#x, not %#x)", got, sum)
	}
	return nil
}

// checksum goes on with a checksum of 32 bits; the bytes at skip do not count.
func checksum(sum uint32, b []byte, skip []int) uint32 {
	for i, c := range b {
		if len(skip) > 0 && i == skip[0] {
			skip = skip[1:]
			continue
		}
		sum = sum<<31 | sum>>1
		sum += uint32(c)
	}
	return sum
}

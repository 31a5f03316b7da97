// Package exfat maps exFAT.
//
// The source is Microsoft's "exFAT file system specification", revision 1.00
// (2019). Names like VolumeFlags are from there. Where systems are known to
// differ from it, Linux fs/exfat was compared.
//
//	boot regions    both need a right checksum and the same layout
//	FileSystemRevision  must be 1.00
//	VolumeFlags     ActiveFat, VolumeDirty, MediaFailure and unknown bits make
//	                doubt; ClearToZero does not concern the clusters
//	NumberOfFats    2 is TexFAT, in which two bitmaps take turns, and makes doubt
//	directory entries   an unknown critical primary entry makes doubt, since a
//	                system that does not know it must not mount; benign ones are
//	                ignored
//	allocation bitmap   there must be one, in one piece; its clear bits are free
//
// PercentInUse is ignored, since Linux does not keep it up to date. Some
// devices write and do not set VolumeDirty, and have left bitmaps that lack
// files. So the bitmap is compared with all folders and files.
package exfat

import (
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// Read maps the exFAT on v.
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

// read reads the bitmap, and compares it with everything that has clusters.
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

// bitmap returns what is free. The bitmap must be in one piece. Linux assumes
// that and does not read its FAT chain, so in other cases two systems could
// read different bitmaps.
func (f *fat) bitmap(e extent) (*volume.Free, error) {
	need := (f.g.clusters + 7) / 8
	if e.length < need { // some new sticks have a few bytes more
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

// upcase checks the up-case table by its checksum of all bytes (section 7.2.2).
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

// checksum continues a checksum of 32 bits. It leaves out the bytes at the
// positions skip.
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

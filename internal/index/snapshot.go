package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// This is the format of a snapshot. All numbers are little-endian. A sum is the
// xxh3-64 of the run of bytes before it.
//
//	"TBXINDEX" u32 version (2) u32 number of packs
//	u64        number of entries
//	16 bytes   owner, the UUID of the store
//	u64        sum
//	24 bytes   for each pack, sorted: u32 number, u32 objects, u64 size, u8 1 if it holds pages and roots, 7 zero bytes
//	u64        sum
//	27 bytes   for each object, sorted, an entry as in memory but without marks
//	u64        sum, after each 65536 objects and after the last
//
// Nothing follows.
const (
	snapMagic   = "TBXINDEX"
	snapVersion = 2
	headSize    = 40
	packSize    = 24
	runLen      = 1 << 16 // entries
)

// errSnapshot is the error for a snapshot that WriteTo cannot have written.
var errSnapshot = errors.New("the index is damaged")

// WriteTo writes a snapshot. packs has all packs that the index names, sorted
// by number.
func (x *Index) WriteTo(w io.Writer, owner [16]byte, packs []Pack) error {
	var known packSet
	s := sumWriter{w: w}
	b := append([]byte(nil), snapMagic...)
	b = binary.LittleEndian.AppendUint32(b, snapVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(packs)))
	b = binary.LittleEndian.AppendUint64(b, uint64(x.n))
	s.write(append(b, owner[:]...))
	s.sum()
	for i, p := range packs {
		if p.Number > MaxPack || i > 0 && p.Number <= packs[i-1].Number {
			return fmt.Errorf("pack %d is out of order", p.Number)
		}
		known.add(p.Number)
		s.write(p.append(b[:0]))
	}
	s.sum()
	if s.err == nil {
		s.err = x.writeEntries(&s, known)
	}
	return s.err
}

func (x *Index) writeEntries(s *sumWriter, known packSet) error {
	n := 0
	for _, shard := range x.shards {
		for _, e := range shard {
			if !known.has(e.pack()) {
				return fmt.Errorf("the index has an object in pack %d, which is not there", e.pack())
			}
			e.setTouched(false)
			s.write(e[:])
			if n++; n%runLen == 0 || n == x.n {
				s.sum()
			}
		}
	}
	return s.err
}

// maxExpected limits the number of objects for which memory is prepared before
// they are read.
const maxExpected = 1 << 26

// Read reads a snapshot that was written for owner. It accepts only what
// WriteTo writes.
func Read(r io.Reader, owner [16]byte) (*Index, []Pack, error) {
	x := &Index{}
	packs, err := read(r, owner, func(run []entry, n uint64) {
		x.fit(int(min(n, maxExpected)))
		x.load(run)
		x.n += len(run)
	})
	if err != nil {
		return nil, nil, err
	}
	return x, packs, nil
}

// Verify returns the error that Read would return. It needs little memory.
func Verify(r io.Reader, owner [16]byte) error {
	_, err := read(r, owner, func([]entry, uint64) {})
	return err
}

// OwnerOf returns the owner that a snapshot was written for, if the beginning
// of the snapshot is undamaged.
func OwnerOf(r io.Reader) (owner [16]byte, err error) {
	head, err := readHead(&sumReader{r: r})
	if err != nil {
		return owner, err
	}
	return [16]byte(head[24:]), nil
}

func readHead(s *sumReader) ([]byte, error) {
	head := s.read(headSize)
	s.sum()
	if s.err == nil && (string(head[:8]) != snapMagic || binary.LittleEndian.Uint32(head[8:]) != snapVersion) {
		return nil, errors.New("the index is of another version")
	}
	return head, s.err
}

// read calls keep for all n entries, in consecutive runs. The memory of a run
// is reused for the next.
func read(r io.Reader, owner [16]byte, keep func(run []entry, n uint64)) ([]Pack, error) {
	s := sumReader{r: r}
	head, err := readHead(&s)
	if err != nil {
		return nil, err
	}
	if [16]byte(head[24:]) != owner {
		return nil, errors.New("the index belongs to another store")
	}
	nPacks, n := binary.LittleEndian.Uint32(head[12:]), binary.LittleEndian.Uint64(head[16:])
	var known packSet
	packs, err := readPacks(&s, nPacks, &known)
	if err != nil {
		return nil, err
	}
	if err := readEntries(&s, n, known, keep); err != nil {
		return nil, err
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return nil, errSnapshot
	} else if err != io.EOF {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return packs, nil
}

func readPacks(s *sumReader, n uint32, known *packSet) ([]Pack, error) {
	var packs []Pack
	for last := -1; n > 0; n-- {
		b := s.read(packSize)
		if s.err != nil {
			return nil, s.err
		}
		p, ok := parsePack(b)
		if !ok || int(p.Number) <= last {
			return nil, errSnapshot
		}
		last = int(p.Number)
		known.add(p.Number)
		packs = append(packs, p)
	}
	s.sum()
	return packs, s.err
}

func readEntries(s *sumReader, n uint64, known packSet, keep func([]entry, uint64)) error {
	run := make([]entry, 0, min(n, runLen))
	var last entry // less than any entry, since its kind is 0
	for left := n; left > 0; left -= uint64(len(run)) {
		b := s.read(int(min(left, runLen)) * entrySize)
		s.sum()
		if s.err != nil {
			return s.err
		}
		run = run[:0]
		for e := range slices.Chunk(b, entrySize) {
			run = append(run, entry(e))
		}
		for i := range run {
			e := &run[i]
			if last.compare(e) >= 0 || e.kind() == 0 || e.marks() != 0 || !known.has(e.pack()) {
				return errSnapshot
			}
			last = *e
		}
		keep(run, n)
	}
	return nil
}

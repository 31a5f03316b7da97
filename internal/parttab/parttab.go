// Package parttab reads the partition tables of a whole disk, GPT and MBR with
// logical partitions, and makes a GPT fit a larger disk. It
// is strict: where systems could read a table in two ways, or where a table is
// not as the UEFI specification (2.10, chapter 5) has it, the answer is an
// error. It imports nothing of this project.
package parttab

import (
	"errors"
	"fmt"
	"io"
)

// Table is the partition table of a disk.
type Table struct {
	Kind     string      // "gpt" or "mbr"
	ID       string      // the disk's GUID, or an MBR's signature as 8 hexadecimal digits; "" if it has none
	Parts    []Partition // in the order of the disk; they lie inside it and do not overlap
	Extended *Partition  // MBR: what holds the logical partitions and their boot records, not in Parts; nil: none
	Notes    []string    // for people: what is odd, and what was made of it
}

// Partition is a part of a disk that is a file system's or something else's.
type Partition struct {
	Number   int   // as Linux counts: the entry's place from 1, logical ones from 5 along their chain
	Off, Len int64 // bytes
	// Type is for an MBR two hexadecimal digits ("83"), for a GPT the GUID in
	// capitals ("0FC63DAF-8483-4772-8E79-3D69D8477DE4").
	Type string
	Name string // GPT only; made fit for printing
}

// ErrNone is the error of a disk that has no partition table, only perhaps a
// file system from its start.
var ErrNone = errors.New("there is no partition table")

// headSize is how much of a disk's start tables of all kinds are looked for
// in: the 16 blocks of the Amiga's are the longest, and four sectors of 4096
// bytes.
const headSize = 16 << 10

// ErrBeyond is matched by errors that say that a partition table speaks of
// sectors behind the disk's end, as that of a file does which is cut off.
var ErrBeyond = errors.New("the partition table speaks of sectors behind the end")

type beyondError struct{ text string }

func (e *beyondError) Error() string { return e.text }

// Is implements the protocol of errors.Is.
func (e *beyondError) Is(target error) bool { return target == ErrBeyond }

// Read reads the partition table of a disk of size bytes, whose logical
// sectors have so many bytes. Bytes after the last whole sector are passed
// over, as every system does.
//
// The error is ErrNone, or says why it cannot be told which bytes are whose:
// tables that are broken, contradict each other or are of a kind that is not
// understood, or a sector that cannot be read. Then nothing may be concluded
// from what else is on the disk.
func Read(r io.ReaderAt, size int64, sector int) (*Table, error) {
	if !isSector(sector) {
		return nil, fmt.Errorf("sectors of %d bytes are none that a disk has", sector)
	}
	d := newDisk(r, size, sector)
	head, err := d.read(0, int(min(headSize, d.sectors*uint64(sector))))
	if err != nil {
		return nil, err
	}
	if name := foreignTable(head, sector); name != "" {
		return nil, fmt.Errorf("there is a partition table of the kind %s, which is not understood", name)
	}
	return d.table(head)
}

// table decides what a disk's first sector is.
func (d disk) table(head []byte) (*Table, error) {
	m, err := parseMBR(head)
	if err != nil {
		return nil, d.none("the first sector has no signature")
	}
	bad := m.badStatus()
	fs := bootSector(head)
	switch {
	case bad == nil && m.has(protectiveType):
		return d.gptTable(m, fs)
	case fs != "":
		return nil, m.unpartitioned(d, fs)
	case bad != nil && m.plausible(d):
		return nil, bad
	case bad != nil: // Linux sees none; so did whoever put a boot loader there
		return nil, d.none("the first sector is no boot record")
	case m.empty():
		return nil, d.none("the boot record has no partitions")
	}
	t, err := d.mbrTable(m)
	if id := le32(head, mbrSignature); t != nil && id != 0 {
		t.ID = fmt.Sprintf("%08X", id)
	}
	return t, err
}

// mbrSignature is where a boot record has the number by which systems know the
// disk.
const mbrSignature = 440

// none is ErrNone, unless there is a GPT that no boot record speaks of: the
// specification wants it passed over, but people have lost boot records.
func (d disk) none(why string) error {
	g, err := d.header(1)
	switch {
	case g != nil:
		return fmt.Errorf("there is a GPT without a protective partition, and no other table (%s)", why)
	case !isDamage(err):
		return err
	}
	return fmt.Errorf("%w: %s", ErrNone, why)
}

// GuessSector is the size of the logical sectors of a disk that is in a file,
// where nobody says it: what a GPT shows, or else 512. The backup is asked where
// there is no primary.
func GuessSector(r io.ReaderAt, size int64) int {
	sizes := []int{512, 4096}
	for _, sector := range sizes {
		if g, _ := newDisk(r, size, sector).header(1); g != nil {
			return sector
		}
	}
	for _, sector := range sizes {
		d := newDisk(r, size, sector)
		if g, _ := d.header(d.sectors - 1); g != nil {
			return sector
		}
	}
	return 512
}

func isSector(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

// disk is a disk that is read by its logical sectors.
type disk struct {
	r       io.ReaderAt
	sector  int // bytes
	sectors uint64
}

func newDisk(r io.ReaderAt, size int64, sector int) disk {
	return disk{r, sector, uint64(max(size, 0)) / uint64(sector)}
}

// read reads n bytes from the start of a sector.
func (d disk) read(lba uint64, n int) ([]byte, error) {
	if lba > d.sectors || uint64(n) > (d.sectors-lba)*uint64(d.sector) {
		return nil, fmt.Errorf("sector %d is beyond the disk's end", lba)
	}
	b := make([]byte, n)
	if got, err := d.r.ReadAt(b, int64(lba)*int64(d.sector)); got < n {
		return nil, fmt.Errorf("read the partition table at sector %d: %w", lba, err)
	}
	return b, nil
}

// bytes is a partition's place in bytes.
func (d disk) bytes(p Partition, s span) Partition {
	p.Off = int64(s.first) * int64(d.sector)
	p.Len = int64(s.last-s.first+1) * int64(d.sector)
	return p
}

// span is sectors from the first to the last, both included.
type span struct{ first, last uint64 }

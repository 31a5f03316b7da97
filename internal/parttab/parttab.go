// Package parttab reads the partition table of a whole disk, and makes a GPT fit
// a larger or smaller disk. It reads GPT, and MBR with logical partitions. It is strict. If
// systems could read a table in two ways, or if a table is not as the UEFI
// specification (2.10, chapter 5) wants it, the result is an error. The package
// imports nothing of this project.
package parttab

import (
	"errors"
	"fmt"
	"io"
)

// Table is the partition table of a disk.
type Table struct {
	Kind  string      // "gpt" or "mbr"
	ID    string      // the disk's GUID, or an MBR's signature as 8 hexadecimal digits, or "" if it has none
	Parts []Partition // in the order of the disk, inside of it and without overlap
	// Extended is the extended partition of an MBR, or nil if there is none. The
	// logical partitions in it are among Parts, but the extended one is not.
	Extended *Partition
	Notes    []string // for people, to say what is odd, and how it was understood
}

// Partition is a partition of a disk.
type Partition struct {
	Number   int   // as Linux counts entries, from 1, and logical partitions from 5 along their chain
	Off, Len int64 // bytes
	// Type has two hexadecimal digits on an MBR ("83"). On a GPT it is the GUID
	// in capitals ("0FC63DAF-8483-4772-8E79-3D69D8477DE4").
	Type string
	Name string // GPT only, with other characters in the place of those that are not printable
	GUID string // the partition's own, in capitals like Type; "" on an MBR
}

// ErrNone is matched by the error for a disk without a partition table. Such a
// disk may have a file system that begins at its first sector.
var ErrNone = errors.New("there is no partition table")

// headSize is how many bytes at a disk's start are searched for tables of all
// kinds. The largest place to search is four sectors of 4096 bytes. The Amiga's
// table lies in the first 16 blocks of 512 bytes.
const headSize = 16 << 10

// ErrBeyond is matched by errors that say that a partition table names sectors
// behind the disk's end. The file of a disk that was cut off has such a table.
var ErrBeyond = errors.New("the partition table speaks of sectors behind the end")

type beyondError struct{ text string }

func (e *beyondError) Error() string { return e.text }

// Is implements the protocol of errors.Is.
func (e *beyondError) Is(target error) bool { return target == ErrBeyond }

// Read reads the partition table of a disk of size bytes, with logical sectors of
// sector bytes. It ignores bytes behind the last whole sector, as every system
// does.
//
// The error matches ErrNone if there is no table. Any other error says why the
// partitions are not known. A table may be broken or of an unknown kind, two
// tables may contradict each other, or a sector may be unreadable. After such an
// error nothing may be concluded from other bytes of the disk.
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

// table decides what a disk's first sector is, and reads the table by it.
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
	case bad != nil: // Linux sees no table here either, and the sector may be some boot loader
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

// mbrSignature is the place of the number by which systems know the disk, in bytes
// from the start of the boot record.
const mbrSignature = 440

// none gives an error that matches ErrNone, unless there is a GPT without a
// protective entry in a boot record. The specification says that such a GPT is to
// be ignored. But some people have lost their boot record, so it is an error here.
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

// GuessSector guesses the size of the logical sectors of a disk that is in a file.
// It looks for a primary GPT, then for a backup GPT, and takes the size for which
// it finds one. Without a GPT the guess is 512.
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

// OtherSector says for which sector size the table of a disk was made, if that is
// surely another one than sector. Otherwise it is 0. It is for images of which
// nobody has noted the sector size.
func OtherSector(r io.ReaderAt, size int64, sector int) int {
	for _, other := range []int{512, 4096} {
		if other == sector {
			continue
		}
		if here, _ := newDisk(r, size, sector).header(1); here != nil {
			return 0
		}
		if g, _ := newDisk(r, size, other).header(1); g != nil {
			return other
		}
		_, err := Read(r, size, sector)
		if _, fits := Read(r, size, other); fits == nil && errors.Is(err, ErrBeyond) {
			return other
		}
	}
	return 0
}

func isSector(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

// disk reads a disk by its logical sectors.
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

// bytes gives p with the place of s in bytes.
func (d disk) bytes(p Partition, s span) Partition {
	p.Off = int64(s.first) * int64(d.sector)
	p.Len = int64(s.last-s.first+1) * int64(d.sector)
	return p
}

// span is the sectors from first to last, both included.
type span struct{ first, last uint64 }

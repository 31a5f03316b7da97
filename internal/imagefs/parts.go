package imagefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap/lvm"
	"testbox-imaging/internal/usedmap/volume"
)

// Disk is a disk that is shown with its partitions.
type Disk struct {
	File
	SectorSize int // logical sector, in bytes
}

// Shown is a file that is shown. It is a disk, a partition or a logical volume.
type Shown struct {
	File
	Number int    // of a partition, as Linux counts, or 0 if it is no partition
	Volume string // name of a logical volume in LVM, or "" if it is no logical volume
}

// maxParts bounds the number of partitions and logical volumes of all disks.
const maxParts = 4096

// Show lists the files for disks. After each disk come its partitions and its linear
// logical volumes, with names such as sda-part1 and sda-GROUP-VOLUME. Names of
// volumes come from the disk, so characters that could harm a shell or a path are
// replaced. notes say what is not shown and why. Show reads only partition tables
// and LVM's metadata, and no file system.
func Show(ctx context.Context, disks []Disk) (shown []Shown, notes []string) {
	s := &shower{ctx: ctx, taken: map[string]bool{}}
	for _, d := range disks {
		s.taken[d.Name] = true
	}
	for _, d := range disks {
		s.shown = append(s.shown, Shown{File: d.File})
		s.parts(d)
	}
	if len(s.shown) > len(disks)+maxParts {
		s.shown = s.shown[:len(disks)+maxParts]
		s.note("there are more than %d partitions and logical volumes; the others are not shown", maxParts)
	}
	return s.shown, s.notes
}

type shower struct {
	ctx   context.Context
	taken map[string]bool // names that are in use
	shown []Shown
	notes []string
}

func (s *shower) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// parts adds the partitions and logical volumes of a disk. A panic is a bug of a
// reader. It costs only these files.
func (s *shower) parts(d Disk) {
	defer func() {
		if bug := recover(); bug != nil {
			s.note("%s: a bug of this program, please report it: %v", d.Name, bug)
		}
	}()
	v := volume.New(s.ctx, d.ReaderAt, d.Size, d.SectorSize, nil)
	table, err := parttab.Read(v, d.Size, d.SectorSize)
	if errors.Is(err, parttab.ErrNone) {
		s.volumes(d, 0, d.Size, v)
		return
	} else if err != nil {
		s.note("%s: its partitions are not shown: %v", d.Name, err)
		return
	}
	for _, p := range table.Parts {
		name := s.name(fmt.Sprintf("%s-part%d", d.Name, p.Number))
		file := File{name, p.Len, d.ModTime, io.NewSectionReader(d.ReaderAt, p.Off, p.Len)}
		s.shown = append(s.shown, Shown{File: file, Number: p.Number})
		s.volumes(d, p.Off, p.Len, v.Part(p.Off, p.Len))
	}
}

// volumes adds the logical volumes of the physical volume v, which has size bytes and
// lies at off on the disk.
func (s *shower) volumes(d Disk, off, size int64, v *volume.Volume) {
	pv, err := lvm.Read(v)
	if pv == nil {
		return // no LVM here
	}
	if err != nil {
		s.note("%s: the logical volumes of %q are not shown: %v", d.Name, pv.VG, err)
		return
	}
	for i := range pv.LVs {
		lv := &pv.LVs[i]
		if lv.Why != "" {
			s.note("%s: the logical volume %q is not shown: %s", d.Name, lv.Name, lv.Why)
			continue
		}
		name := s.name(d.Name + "-" + harmless(pv.VG) + "-" + harmless(lv.Name))
		r := volumeReader{lv, io.NewSectionReader(d.ReaderAt, off, size)}
		s.shown = append(s.shown, Shown{File: File{name, lv.Size, d.ModTime, r}, Volume: lv.Name})
	}
}

// maxName bounds the name of a part, in bytes. With a number behind it and ".raw", it
// is still short enough for any file system.
const maxName = 200

// name gives a name that no other file has. It is want, or want with a number.
func (s *shower) name(want string) string {
	want = want[:min(len(want), maxName)]
	name := want
	for i := 2; s.taken[name]; i++ {
		name = fmt.Sprintf("%s~%d", want, i)
	}
	s.taken[name] = true
	return name
}

// harmless replaces all characters that LVM does not allow in a name (lvm(8)).
func harmless(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+_.-", r) {
			return r
		}
		return '_'
	}, name)
}

// volumeReader reads a logical volume from its physical volume.
type volumeReader struct {
	lv *lvm.LV
	pv io.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (r volumeReader) ReadAt(p []byte, off int64) (n int, err error) {
	for _, at := range r.lv.Place(off, int64(len(p))) {
		got, err := r.pv.ReadAt(p[n:n+int(at.Len)], at.Off)
		n += got
		if int64(got) < at.Len {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

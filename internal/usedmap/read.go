package usedmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap/btrfs"
	"testbox-imaging/internal/usedmap/exfat"
	"testbox-imaging/internal/usedmap/ext"
	"testbox-imaging/internal/usedmap/fat"
	"testbox-imaging/internal/usedmap/ntfs"
	"testbox-imaging/internal/usedmap/probe"
	"testbox-imaging/internal/usedmap/swap"
	"testbox-imaging/internal/usedmap/volume"
	"testbox-imaging/internal/usedmap/xfs"
)

// readers has a reader for each file system that is understood, by the name of its
// signature in package probe. LVM is not among them, since it has volumes inside
// (lvm.go).
var readers = map[string]func(*volume.Volume) (*volume.Found, error){
	"ext": ext.Read, "ntfs": ntfs.Read, "fat": fat.Read, "exfat": exfat.Read, "xfs": xfs.Read, "btrfs": btrfs.Read, "swap": swap.Read,
}

// Read maps a disk of size bytes, with logical sectors of sector bytes. Whatever
// is on the disk makes doubt, and never an error. The error is that of the context,
// or says that no disk has such a size.
func Read(ctx context.Context, r io.ReaderAt, size int64, sector int) (*Map, error) {
	if size <= 0 || !image.ValidSectorSize(sector) {
		return nil, fmt.Errorf("there is no disk of %d bytes in sectors of %d", size, sector)
	}
	m := &mapper{Map: &Map{Size: size, SectorSize: sector}, v: volume.New(ctx, r, size, sector, nil)}
	m.safely()
	if m.needed != "" {
		m.doubtFree()
	}
	m.Free = m.free.Ranges()
	if n := m.free.Dropped(); n != 0 {
		m.Notes = append(m.Notes, fmt.Sprintf("free space is in so many pieces that those below %d bytes count as used", n))
	}
	return m.Map, ctx.Err()
}

// mapper makes one map.
type mapper struct {
	*Map
	v    *volume.Volume
	free volume.Free // of the disk
	// needed is why bytes that file systems call free may be needed by something
	// else on the disk. It is "" if there is no such reason.
	needed string
}

// safely makes the map. A panic is a bug of a reader. Then the whole disk counts as
// used.
func (m *mapper) safely() {
	defer func() {
		if bug := recover(); bug != nil {
			m.doubtAll(fmt.Errorf("a bug of this program, please report it: %v", bug))
		}
	}()
	m.disk()
}

// disk maps the disk by its partition table, or as one volume if there is none.
func (m *mapper) disk() {
	table, err := parttab.Read(m.v, m.Size, m.SectorSize)
	switch {
	case errors.Is(err, parttab.ErrNone):
		p := Part{Kind: WholeDisk, Ranges: []image.Range{{Off: 0, Len: m.Size}}}
		m.part(&p)
		m.Parts = []Part{p}
		return
	case err == nil:
		m.Table, m.Notes = table.Kind, table.Notes
		err = m.aroundPartitions(table)
	}
	if err != nil {
		m.doubtAll(err)
		return
	}
	at := int64(0)
	for _, tp := range table.Parts {
		m.gap(at, tp.Off)
		p := Part{Kind: Partition, Ranges: []image.Range{{Off: tp.Off, Len: tp.Len}}, Number: tp.Number, Type: tp.Type, Name: tp.Name}
		if strings.Contains(parttab.TypeName(tp.Type), "verity") {
			m.verity()
		}
		m.part(&p)
		m.Parts = append(m.Parts, p)
		at = tp.Off + tp.Len
	}
	m.gap(at, m.Size)
}

// aroundPartitions looks for signatures outside of the partitions of a disk. For
// instance, if the disk is also a member of a RAID, its content lies elsewhere than
// its partition table says.
func (m *mapper) aroundPartitions(table *parttab.Table) error {
	first, end := m.Size, int64(0)
	for _, p := range table.Parts {
		first, end = min(first, p.Off), max(end, p.Off+p.Len)
	}
	found, err := probe.FindDisk(m.v, first, end)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("beside its partition table the disk has the signature of %s", names(found))
	}
	return err
}

func (m *mapper) doubtAll(err error) {
	m.Doubt, m.Table, m.free = err.Error(), "", volume.Free{}
	m.Parts = []Part{{Kind: WholeDisk, Ranges: []image.Range{{Off: 0, Len: m.Size}}, Doubt: m.Doubt}}
}

// suspended notes that a suspended system is on the disk. When it wakes up, it
// uses the file systems as it had them in memory, and the pages that it has in
// other swap areas. So the file systems on the disk may not be up to date.
func (m *mapper) suspended(where string) {
	m.needed = "a system is suspended on this disk (" + where + "), and may use what is called free here"
}

// verity notes that the disk has a hash tree of dm-verity. The tree covers every
// block of a partition, even blocks that the file system there does not use.
func (m *mapper) verity() {
	m.needed = "there is a hash tree of dm-verity on this disk, which may cover what is called free here"
}

// doubtFree makes everything used, and gives the reason as doubt to each part that
// had free bytes.
func (m *mapper) doubtFree() {
	doubt := func(p *Part) {
		if p.Free > 0 {
			p.doubt(errors.New(m.needed))
		}
	}
	for i := range m.Parts {
		p := &m.Parts[i]
		doubt(p)
		for j := range p.Volumes {
			doubt(&p.Volumes[j])
		}
	}
	m.free = volume.Free{}
}

func (m *mapper) gap(from, to int64) {
	if from < to {
		m.Parts = append(m.Parts, Part{Kind: Gap, Ranges: []image.Range{{Off: from, Len: to - from}}})
	}
}

// part maps a partition, or a disk without a table.
func (m *mapper) part(p *Part) {
	v := m.v.Part(p.Off(), p.Len())
	place := func(off, n int64) []image.Range { return []image.Range{{Off: p.Off() + off, Len: n}} }
	name, err := m.only(v)
	p.FS = name
	switch {
	case errors.Is(err, errNothing) && parttab.IsRaw(p.Type):
		p.Notes, err = append(p.Notes, fmt.Sprintf("all of it is used: %s holds no file system", parttab.TypeName(p.Type))), nil
	case err != nil:
	case name == lvmMember:
		err = m.physicalVolume(p, v)
	default:
		err = m.fileSystem(p, v, name, place)
	}
	p.doubt(err)
}

// errNothing says that a volume has no signature that is known.
var errNothing = errors.New("no file system is known here")

func (p *Part) doubt(err error) {
	if err != nil {
		p.Doubt, p.Free = err.Error(), 0
	}
}

// only gives the name of the one signature that a volume has. Two signatures are
// an error, since one of them is left over from before. The old file system may
// still look sound, but its map has nothing to do with what is there now.
func (m *mapper) only(v *volume.Volume) (string, error) {
	found, err := probe.Find(v)
	for _, f := range found {
		switch f.Name {
		case "swsuspend":
			m.suspended("its memory is in swap space")
		case "DM_verity_hash":
			m.verity()
		}
	}
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", errNothing
	case len(found) > 1:
		return "", fmt.Errorf("it has the signatures of %s; it is not known which of them is right", names(found))
	}
	return found[0].Name, nil
}

func names(found []probe.Match) string {
	var out []string
	for _, f := range found {
		out = append(out, f.Name)
	}
	return strings.Join(out, " and ")
}

// fileSystem maps a volume by its file system. place says where bytes of the
// volume lie on the disk.
func (m *mapper) fileSystem(p *Part, v *volume.Volume, name string, place func(off, n int64) []image.Range) error {
	read, ok := readers[name]
	if !ok {
		return fmt.Errorf("the contents of %s are not understood", name)
	}
	found, err := read(v)
	if found != nil {
		p.FS, p.Label, p.UUID, p.Notes = found.FS, found.Label, found.UUID, found.Notes
		if found.Suspended {
			m.suspended("a Windows that hibernates, or shut down by fast startup")
		}
	}
	if err == nil && p.Type != "" {
		err = parttab.CheckType(p.Type, p.FS)
	}
	if err != nil {
		return err
	}
	for _, r := range found.Free.Ranges() {
		for _, on := range place(r.Off, r.Len) {
			m.free.Add(on.Off, on.Len)
		}
	}
	p.Free = found.Free.Bytes()
	if n := found.Free.Dropped(); n != 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("free space is in so many pieces that those below %d bytes count as used", n))
	}
	return nil
}

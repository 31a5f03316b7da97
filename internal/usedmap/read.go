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

// readers are the file systems that are understood, by the name that their
// signature has in package probe. LVM has its own way: it holds others.
var readers = map[string]func(*volume.Volume) (*volume.Found, error){
	"ext": ext.Read, "ntfs": ntfs.Read, "fat": fat.Read, "exfat": exfat.Read, "xfs": xfs.Read, "btrfs": btrfs.Read, "swap": swap.Read,
}

// Read maps a disk of size bytes with logical sectors of so many bytes. What
// is on the disk never makes an error, only doubt; an error is that of the
// context, or a size that no disk has.
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
	// needed is why something else on the disk may need what its file systems
	// call free; "": nothing does.
	needed string
}

// safely makes the map. A panic is a bug; it must cost space and nothing else.
func (m *mapper) safely() {
	defer func() {
		if bug := recover(); bug != nil {
			m.doubtAll(fmt.Errorf("a bug of this program, please report it: %v", bug))
		}
	}()
	m.disk()
}

// disk maps by the partition table, or as one file system if there is none.
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

// aroundPartitions looks at what a partitioned disk holds outside of its
// partitions: a disk that is also a member of a RAID, say, has its content
// elsewhere than its table says.
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

// suspended notes that a system sleeps on the disk. It will go on with the file
// systems as it has them in memory, and with the pages that it has in other
// swap areas; what lies here is not the last word.
func (m *mapper) suspended(where string) {
	m.needed = "a system is suspended on this disk (" + where + "), and may use what is called free here"
}

// verity notes a hash tree of dm-verity: it covers every block of its
// partition, also those that the file system there does not use.
func (m *mapper) verity() {
	m.needed = "there is a hash tree of dm-verity on this disk, which may cover what is called free here"
}

// doubtFree takes all for used.
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

// errNothing is that nothing announces itself on a volume.
var errNothing = errors.New("no file system is known here")

func (p *Part) doubt(err error) {
	if err != nil {
		p.Doubt, p.Free = err.Error(), 0
	}
}

// only is the name of the one thing that announces itself on a volume. Two are
// a contradiction: one of them is left over from before, and may still look
// whole, with a map that has nothing to do with what is there now.
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
		return "", fmt.Errorf("it has the signatures of %s; which of them counts is not to be guessed", names(found))
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

// fileSystem maps a volume by its file system; place is where its bytes lie on
// the disk.
func (m *mapper) fileSystem(p *Part, v *volume.Volume, name string, place func(off, n int64) []image.Range) error {
	read, ok := readers[name]
	if !ok {
		return fmt.Errorf("what %s holds is not looked into", name)
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

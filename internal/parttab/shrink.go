package parttab

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Shrunk is how the partition table of an image is made to fit a smaller disk.
type Shrunk struct {
	// Edits are whole sectors, in the order of the disk, all of them inside of the
	// target's first and last MiB. Where the image has bytes too, the edit counts.
	Edits []Edit
	// Limit is where the target's room for data ends, in bytes. Behind it is only a
	// backup GPT. Whatever the image has behind it gets lost.
	Limit int64
	// Old is where the image has the entries and the header of its backup GPT, in bytes. Len is 0 if it has
	// none. There may be something else between the two.
	Old [2]struct{ Off, Len int64 }
}

// HasOld reports whether a byte of the image is one of its backup GPT.
func (s *Shrunk) HasOld(at int64) bool {
	for _, o := range s.Old {
		if at >= o.Off && at < o.Off+o.Len {
			return true
		}
	}
	return false
}

// maxEdge is how many bytes at the beginning and at the end of the target may have
// edits.
const maxEdge = 1 << 20

// Shrink finds out how the table of an image of size bytes fits a disk of target
// bytes, which is smaller. No partition is changed. The error says what does not
// fit, and by how much. It says so too if the table is not as clear as it must be
// to be written anew. Whether the image has anything behind Limit that is not in a
// partition is for the caller to find out.
func Shrink(r io.ReaderAt, size, target int64, sector int) (*Shrunk, error) {
	t, err := Read(r, size, sector)
	switch {
	case errors.Is(err, ErrNone):
		return nil, fmt.Errorf("%w, so that nothing says where its file systems end", err)
	case err != nil:
		return nil, err
	case len(t.Parts) == 0:
		return nil, errors.New("its partition table has no partitions")
	case target%int64(sector) != 0 || target >= size:
		return nil, fmt.Errorf("the disk has %d bytes and the image %d, in sectors of %d", target, size, sector)
	case target < 4*maxEdge:
		return nil, fmt.Errorf("a disk of %d bytes is too small for that", target)
	}
	d := newDisk(r, size, sector)
	s := &Shrunk{Limit: target}
	var g *gpt
	if t.Kind == "gpt" {
		if g, err = d.bothSound(); err != nil {
			return nil, err
		}
		s.Limit -= int64(g.entrySectors()+1) * int64(sector)
	}
	parts := t.Parts
	if t.Extended != nil {
		parts = append(slices.Clone(parts), *t.Extended)
	}
	last := int64(0)
	for _, p := range parts {
		if last = max(last, p.Off+p.Len); p.Off+p.Len > s.Limit {
			return nil, fmt.Errorf("partition %d ends at byte %d, which is %d bytes behind the last one that the disk has for partitions",
				p.Number, p.Off+p.Len, p.Off+p.Len-s.Limit)
		}
	}
	if g != nil {
		err = s.gpt(d, g, uint64(target)/uint64(sector), uint64(last)/uint64(sector))
	}
	return s, err
}

// bothSound reads the primary GPT. Its backup must be as sound, and at the image's
// end or before it.
func (d disk) bothSound() (*gpt, error) {
	p, err := d.primary()
	if err != nil {
		return nil, fmt.Errorf("its primary GPT cannot be used: %w", err)
	}
	b, err := d.backup(p.alternate)
	switch {
	case err != nil:
		return nil, fmt.Errorf("its backup GPT cannot be used: %w", err)
	case !p.agrees(b):
		return nil, errors.New("its backup GPT differs from the primary")
	case p.entriesLBA+p.entrySectors() > maxEdge/uint64(d.sector) || p.entrySectors()+1 > maxEdge/uint64(d.sector):
		return nil, errors.New("its GPT has its entries too far from its header, or too many of them")
	}
	return p, nil
}

// gpt makes the edits for a GPT. target is in sectors, and last is the first sector
// behind the last partition.
func (s *Shrunk) gpt(d disk, g *gpt, target, last uint64) error {
	b, err := d.backup(g.alternate)
	if err != nil {
		return err
	}
	sector := int64(d.sector)
	s.Old[0].Off, s.Old[0].Len = int64(b.entriesLBA)*sector, int64(b.entrySectors())*sector
	s.Old[1].Off, s.Old[1].Len = int64(g.alternate)*sector, sector
	end := target - 1
	usable := end - g.entrySectors() - 1
	if free := g.alternate - g.last; free < end && end-free < usable && end-free+1 >= last {
		usable = end - free // as far from the end as before
	}
	if usable < g.firstUsable {
		return errors.New("the disk has no room for partitions beside the GPT")
	}
	head, err := d.read(0, d.sector)
	if err != nil {
		return err
	}
	m, err := parseMBR(head)
	if err != nil {
		return err
	}
	slot, err := m.protective()
	if err != nil {
		return err
	}
	if all := protectiveSectors(target); m[slot].sectors > all {
		setSectors(head, slot, all)
		s.Edits = append(s.Edits, Edit{0, head})
	}
	f := fit{image: d, target: target}
	s.Edits = append(s.Edits, Edit{sector, g.newHeader(1, end, usable, g.entriesLBA)})
	s.Edits = append(s.Edits, f.backupAt(g, 1, usable)...)
	return nil
}

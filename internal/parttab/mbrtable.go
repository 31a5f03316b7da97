package parttab

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// claim is the sectors that belong to a partition, or the one sector of an extended
// boot record.
type claim struct {
	span
	number int // of the partition, or 0 if the claim is no partition
	kind   byte
}

func (c claim) String() string {
	if c.number == 0 {
		return fmt.Sprintf("something that is no partition at sector %d", c.first)
	}
	return fmt.Sprintf("partition %d", c.number)
}

// mbrTable makes the table from a boot record without a protective entry.
func (d disk) mbrTable(m mbr) (*Table, error) {
	t := &Table{Kind: "mbr"}
	claims, err := d.primaries(m, t)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(claims, claim.isExtended); i >= 0 {
		ext := claims[i]
		if slices.ContainsFunc(claims[i+1:], claim.isExtended) {
			return nil, errors.New("there are two extended partitions")
		}
		inner, err := d.inside(ext, t)
		if err != nil {
			return nil, err
		}
		claims = append(slices.Delete(claims, i, i+1), inner...)
		p := d.partition(ext)
		t.Extended = &p
	}
	slices.SortFunc(claims, byFirst)
	for _, c := range claims {
		if c.number > 0 {
			t.Parts = append(t.Parts, d.partition(c))
		}
	}
	return t, d.noteGPT(t)
}

func (c claim) isExtended() bool { return c.number > 0 && isExtended(c.kind) }

func (d disk) partition(c claim) Partition {
	return d.bytes(Partition{Number: c.number, Type: hexType(c.kind)}, c.span)
}

// primaries gives the claims of the four entries of a boot record. The extended
// partition is among them. An entry without a length counts for no system. An entry
// with a length but without a type is a partition for Linux, but not for fdisk and
// Windows. It does not become a partition here, so its sectors count as outside of
// all partitions.
func (d disk) primaries(m mbr, t *Table) ([]claim, error) {
	var claims []claim
	for i, e := range m {
		if e.sectors == 0 {
			continue
		}
		c := claim{span{uint64(e.first), uint64(e.first) + uint64(e.sectors) - 1}, i + 1, e.kind}
		switch {
		case e.kind == dynamicType:
			return nil, errors.New("it is a dynamic disk of Windows (LDM)")
		case e.kind == 0:
			t.Notes = append(t.Notes, fmt.Sprintf("entry %d of the boot record has a length but no type; it does not count as a partition", i+1))
			c.number = 0
		case e.first == 0:
			return nil, fmt.Errorf("partition %d starts at the boot record itself", i+1)
		case c.last >= d.sectors:
			return nil, &beyondError{fmt.Sprintf("partition %d reaches to sector %d, but the disk ends at %d", i+1, c.last, d.sectors)}
		}
		claims = append(claims, c)
	}
	return claims, apart(claims)
}

// inside gives the claims inside an extended partition.
func (d disk) inside(ext claim, t *Table) ([]claim, error) {
	claims, note, err := d.logical(ext)
	if err != nil {
		return nil, err
	}
	if note != "" {
		t.Notes = append(t.Notes, note)
	}
	return claims, apart(claims)
}

func byFirst(a, b claim) int { return cmp.Compare(a.first, b.first) }

// apart returns an error if two claims overlap.
func apart(claims []claim) error {
	sorted := slices.SortedFunc(slices.Values(claims), byFirst)
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; b.first <= a.last {
			return fmt.Errorf("%v and %v overlap", a, b)
		}
	}
	return nil
}

// noteGPT adds a note if there is a GPT beside the partitions of a boot record. All
// systems ignore such a GPT. It is left over from before the boot record was made.
func (d disk) noteGPT(t *Table) error {
	g, err := d.header(1)
	if g != nil {
		t.Notes = append(t.Notes, "there is an old GPT that the boot record does not mention; it is ignored")
		return nil
	}
	if isDamage(err) {
		return nil
	}
	return err
}

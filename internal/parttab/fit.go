package parttab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// Edit is bytes that a disk gets instead of the image's.
type Edit struct {
	Off  int64 // bytes from the disk's start, a multiple of the sector size
	Data []byte
}

// Fit gives a function that makes an image's GPT fit a larger disk, in
// sectors of so many bytes:
//
//	edits, notes, err := Fit(512)(head, tail, imageSize, targetSize)
//
// head is the image's first MiB, tail its last (less if the image is smaller;
// whether the two then overlap does not matter). Neither is changed.
//
// The edits are whole sectors and win over the image's bytes where both have
// some: the protective boot record and the primary header at the start, the
// backup entries and header at the target's end. They never touch a sector
// that a partition has, do not overlap, and each lies wholly in head, in tail
// or beyond the image. The same arguments give the same edits.
//
// What the image had as backup GPT stays where it was, in what is now free
// space: nothing refers to it any more.
//
// notes are for the log; without edits they say why. err means that the sizes
// make no sense, as a target smaller than the image. An image that fills the
// target gives nothing at all.
func Fit(sector int) func(head, tail []byte, imageSize, targetSize int64) (edits []Edit, notes []string, err error) {
	return func(head, tail []byte, imageSize, targetSize int64) ([]Edit, []string, error) {
		if err := checkSizes(sector, len(head), len(tail), imageSize, targetSize); err != nil {
			return nil, nil, err
		}
		if targetSize == imageSize {
			return nil, nil, nil
		}
		f := fit{edges: edges{head, tail, imageSize}, sector: sector, old: uint64(imageSize) / uint64(sector), disk: uint64(targetSize) / uint64(sector)}
		if err := f.read(); err != nil {
			return nil, []string{fmt.Sprintf("the disk is larger than the image; its partition table is left as in the image: %v", err)}, nil
		}
		edits := split(f.edits(), int64(len(head)), imageSize-int64(len(tail)), imageSize)
		return edits, append(f.notes, fmt.Sprintf("the disk is larger than the image; its backup GPT is moved from sector %d to %d", f.old-1, f.disk-1)), nil
	}
}

// checkSizes refuses what only a mistake of the caller's can give.
func checkSizes(sector, head, tail int, imageSize, targetSize int64) error {
	switch {
	case !isSector(sector):
		return fmt.Errorf("sectors of %d bytes are none that a disk has", sector)
	case imageSize <= 0 || targetSize < imageSize:
		return fmt.Errorf("the disk (%d bytes) is smaller than the image (%d bytes)", targetSize, imageSize)
	case imageSize%int64(sector) != 0 || targetSize%int64(sector) != 0:
		return fmt.Errorf("the image (%d bytes) and the disk (%d bytes) are not whole sectors of %d", imageSize, targetSize, sector)
	case int64(head) > imageSize || int64(tail) > imageSize:
		return errors.New("the image's first and last bytes are more than it has")
	}
	return nil
}

// edges reads an image of which the first and the last bytes are at hand.
// Together they may be all of it, with a backup GPT across their border.
type edges struct {
	head, tail []byte
	size       int64
}

func (e edges) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, e.head[min(off, int64(len(e.head))):])
	if n == len(b) {
		return n, nil
	}
	at := off + int64(n) - (e.size - int64(len(e.tail)))
	if at < 0 || at > int64(len(e.tail))-int64(len(b)-n) {
		return n, errors.New("it is neither in the disk's first MiB nor in its last")
	}
	return n + copy(b[n:], e.tail[at:]), nil
}

// fit is one GPT being moved. Sizes are in sectors.
type fit struct {
	edges
	sector    int
	old, disk uint64 // of the image, of the target
	slot      int    // of the protective entry
	mbr       mbr
	gpt       *gpt
	notes     []string
}

// read checks all that must hold before anything is moved.
func (f *fit) read() (err error) {
	if f.mbr, err = parseMBR(f.head); err != nil {
		return err
	}
	if err = f.mbr.badStatus(); err != nil {
		return err
	}
	if f.slot, err = f.mbr.protective(); err != nil {
		return err
	}
	head := edges{head: f.head, size: f.size} // a primary that goes on at the disk's end is left alone
	if f.gpt, err = (disk{head, f.sector, f.old}).primary(); err != nil {
		return err
	}
	g := f.gpt
	switch {
	case g.alternate != f.old-1:
		return fmt.Errorf("the GPT has its backup at sector %d, not at the image's last, %d", g.alternate, f.old-1)
	case g.last+g.entrySectors()+1 > f.old-1:
		return errors.New("the GPT leaves no room for its backup")
	}
	return f.compareBackup()
}

// compareBackup looks at the image's backup GPT. One that is sound and says
// something else than the primary is a contradiction that is not ours to
// settle; a damaged one is made anew from the primary, as every system that
// repairs a GPT does.
func (f *fit) compareBackup() error {
	b, err := disk{f.edges, f.sector, f.old}.backup(f.old - 1)
	if err != nil {
		f.notes = append(f.notes, fmt.Sprintf("the image's backup GPT is damaged (%v); the new one is made from the primary", err))
		return nil
	}
	if !f.gpt.agrees(b) {
		return errors.New("the image's backup GPT differs from its primary")
	}
	return nil
}

// edits are the runs to write, in the order of the disk.
func (f *fit) edits() []Edit {
	g, s := f.gpt, int64(f.sector)
	last := f.disk - 1
	entriesLBA := last - g.entrySectors()
	usable := g.last + f.disk - f.old // as far from the end as before
	var edits []Edit
	if f.mbr[f.slot].sectors == protectiveSectors(f.old) && protectiveSectors(f.disk) != protectiveSectors(f.old) {
		boot := slices.Clone(f.head[:f.sector])
		setSectors(boot, f.slot, protectiveSectors(f.disk))
		edits = append(edits, Edit{0, boot})
	}
	array := make([]byte, int64(g.entrySectors())*s)
	copy(array, g.entries)
	return append(edits,
		Edit{s, g.newHeader(1, last, usable, g.entriesLBA)},
		Edit{int64(entriesLBA) * s, append(array, g.newHeader(last, 1, usable, entriesLBA)...)})
}

// newHeader is the header with other places and a checksum that is right.
func (g *gpt) newHeader(my, alternate, usable, entriesLBA uint64) []byte {
	b := slices.Clone(g.header)
	le := binary.LittleEndian
	le.PutUint64(b[gptMyLBA:], my)
	le.PutUint64(b[gptAlternate:], alternate)
	le.PutUint64(b[gptLastUsable:], usable)
	le.PutUint64(b[gptEntriesLBA:], entriesLBA)
	le.PutUint32(b[gptEntriesCRC:], crc32.ChecksumIEEE(g.entries))
	le.PutUint32(b[gptHeaderCRC:], headerSum(b, g.size))
	return b
}

// split cuts edits at the given bytes of the disk.
func split(edits []Edit, at ...int64) []Edit {
	slices.Sort(at)
	var out []Edit
	for _, e := range edits {
		for _, cut := range at {
			if n := cut - e.Off; n > 0 && n < int64(len(e.Data)) {
				out = append(out, Edit{e.Off, e.Data[:n:n]})
				e = Edit{cut, e.Data[n:]}
			}
		}
		out = append(out, e)
	}
	return out
}

package parttab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// Edit has bytes that are written to the disk instead of the image's bytes.
type Edit struct {
	Off  int64 // bytes from the disk's start, a multiple of the sector size
	Data []byte
}

// Fitted is how a partition table is made to fit a larger disk.
type Fitted struct {
	// Edits are whole sectors, in the order of the disk. Where the image has
	// bytes too, the edit counts.
	Edits    []Edit
	Notes    []string // for the log, which say what is done, or why nothing is done
	Warnings []string // what nobody should miss
}

// Fit gives a function that makes an image's GPT fit a larger disk. sector is the
// sector size in bytes.
//
//	fitted, err := Fit(512)(head, tail, imageSize, targetSize)
//
// head is the image's first MiB, and tail its last MiB. Both are shorter if the
// image is smaller, and they may overlap then. Neither is changed.
//
// The GPT that counts is the one that Read finds. That is the primary, or if the
// primary is damaged, the backup at the image's end. Both tables are written from
// it. The backup is written to the target's end, because nobody looks for a backup
// elsewhere. The primary is written because the kernel reads no backup without a
// primary. If the primary cannot be made anew, only the backup is moved, so that
// programs that look for it in the disk's last sector still find it.
//
// The edits never touch a sector of a partition, and do not overlap. Each lies
// completely in head, in tail or beyond the image. The same arguments give the same
// edits. The old backup GPT stays at its place, which is now free space. Nothing
// refers to it any more.
//
// The error means that the sizes make no sense, as for a target smaller than the
// image, or that the target would have no partitions while the image's disk has
// some. If image and target have the same size, there are no edits and no notes.
func Fit(sector int) func(head, tail []byte, imageSize, targetSize int64) (Fitted, error) {
	return func(head, tail []byte, imageSize, targetSize int64) (Fitted, error) {
		if err := checkSizes(sector, len(head), len(tail), imageSize, targetSize); err != nil {
			return Fitted{}, err
		}
		if targetSize == imageSize {
			return Fitted{}, nil
		}
		f := fit{
			image:  disk{edges{head, tail, imageSize}, sector, uint64(imageSize) / uint64(sector)},
			target: uint64(targetSize) / uint64(sector), head: head,
		}
		err := f.run()
		f.Edits = split(f.Edits, int64(len(head)), imageSize-int64(len(tail)), imageSize)
		return f.Fitted, err
	}
}

// checkSizes refuses sizes that only a mistake of the caller can give.
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

// edges reads an image of which only the first and the last bytes are in memory.
// They may be the whole image together, and then a backup GPT may lie across their
// border.
type edges struct {
	head, tail []byte
	size       int64
}

// errFar is the error of a read that is not inside the edges.
var errFar = errors.New("it is neither in the disk's first MiB nor in its last")

func (e edges) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, e.head[min(off, int64(len(e.head))):])
	if n == len(b) {
		return n, nil
	}
	at := off + int64(n) - (e.size - int64(len(e.tail)))
	if at < 0 || at > int64(len(e.tail))-int64(len(b)-n) {
		return n, errFar
	}
	return n + copy(b[n:], e.tail[at:]), nil
}

// fit is one GPT being moved.
type fit struct {
	Fitted
	image  disk
	target uint64 // sectors
	head   []byte
	mbr    mbr
}

func (f *fit) note(format string, args ...any) {
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}
func (f *fit) warn(format string, args ...any) {
	f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...))
}

const leftAsItIs = "the disk is larger than the image; its partition table is left as in the image: %v"

// run decides which GPT counts, and makes the edits.
func (f *fit) run() (err error) {
	p, perr := f.primary()
	b, berr := f.image.backup(f.image.sectors - 1)
	if f.mbr, err = parseMBR(f.head); err == nil && !f.mbr.has(protectiveType) {
		err = errNoGPT
	}
	switch {
	case err != nil && f.mbr.empty() && perr == nil:
		f.warn(leftAsItIs, "there is a GPT, but no boot record that speaks of it, so that systems do not see it")
	case err != nil:
		f.note(leftAsItIs, err)
	case perr == nil:
		f.fromPrimary(p, b, berr)
	case berr == nil:
		f.fromBackup(b, p, perr)
	case b != nil && errors.Is(berr, errFar):
		return fmt.Errorf("the image's primary GPT cannot be used (%w), and its backup GPT cannot be moved to the end of a larger disk (%w), "+
			"so the disk would have no partitions; restore to a disk of exactly %d bytes", perr, berr, f.image.sectors*uint64(f.image.sector))
	default:
		f.warn(leftAsItIs, fmt.Sprintf("neither GPT can be used: %v (the primary); %v (the backup)", perr, berr))
	}
	return nil
}

// primary reads the table at the start. If its entries lie outside of the edges, it
// uses the entries of the backup, which are the same if the checksums agree.
func (f *fit) primary() (*gpt, error) {
	p, err := f.image.primary()
	if p == nil || !errors.Is(err, errFar) {
		return p, err
	}
	b, berr := f.image.backup(p.alternate)
	if berr != nil || !p.agrees(b) {
		return p, err
	}
	return p, p.setEntries(b.entries)
}

// fromPrimary makes both tables from the primary.
func (f *fit) fromPrimary(p, b *gpt, berr error) {
	if err := f.contradiction(p, b, berr); err != nil {
		f.warn(leftAsItIs, err)
		return
	}
	end := f.image.sectors - 1
	if p.alternate == end && berr != nil {
		f.note("the image's backup GPT is damaged (%v); the new one is made from the primary", berr)
	}
	edits, err := f.both(p, p.entriesLBA, p.alternate)
	if err == nil {
		err = f.hits(edits)
	}
	if err != nil {
		f.warn(leftAsItIs, err)
		return
	}
	f.Edits = edits
	f.note("the disk is larger than the image; its backup GPT is moved from sector %d to %d", p.alternate, f.target-1)
}

// contradiction gives the reason why nothing is changed although the primary is
// sound. One reason is a sound backup that differs from the primary, since nobody
// can tell here which of them is right. A damaged backup is no reason. It is made
// anew from the primary, as every system does that repairs a GPT.
func (f *fit) contradiction(p, b *gpt, berr error) error {
	atEnd := p.alternate == f.image.sectors-1
	switch err := f.oddBootRecord(); {
	case err != nil:
		return err
	case p.alternate <= p.last:
		return errors.New("the GPT has its backup among the partitions")
	case atEnd && berr == nil && !p.agrees(b):
		return errors.New("the image's backup GPT differs from its primary")
	case !atEnd && b != nil && !p.agrees(b):
		return errors.New("there is another GPT at the image's end")
	}
	return nil
}

// oddBootRecord gives the reason why nothing is changed if the boot record is odd
// beside its protective entry. A hybrid is no reason, since its other entries stay
// as they are.
func (f *fit) oddBootRecord() error {
	if err := f.mbr.badStatus(); err != nil {
		return err
	}
	plain := f.mbr
	for i := range plain {
		if plain[i].kind != protectiveType {
			plain[i] = mbrEntry{}
		}
	}
	_, err := plain.protective()
	return err
}

// fromBackup makes both tables from the backup. If the primary cannot be made anew,
// it makes only the backup.
func (f *fit) fromBackup(b, p *gpt, perr error) {
	at, err := f.newPrimary(b, p, perr)
	if err == nil {
		var edits []Edit
		if edits, err = f.both(b, at, f.image.sectors-1); err == nil {
			err = f.hits(edits)
		}
		if err == nil {
			f.Edits = edits
			f.note("the image's primary GPT is damaged (%v); the disk gets a new one, made from the backup, which is moved from sector %d to %d",
				perr,
				f.image.sectors-1, f.target-1)
			return
		}
	}
	edits := f.backupAt(b, b.alternate, b.last)
	if hit := f.hits(edits); hit != nil {
		f.warn(leftAsItIs, hit)
		return
	}
	f.Edits = edits
	f.warn("the image's primary GPT is damaged (%v) and is left so, because %v; only the backup is moved, from sector %d to %d. "+
		"The kernel sees no partitions by it; `sgdisk --verify DISK` says more", perr, err, f.image.sectors-1, f.target-1)
}

// newPrimary says where the entries of a new primary go. The error says why no new
// primary is made.
func (f *fit) newPrimary(b, p *gpt, perr error) (entriesLBA uint64, err error) {
	entriesLBA = 2
	if p != nil && isDamage(perr) { // the header is sound, only the entries are damaged
		entriesLBA = p.entriesLBA
	}
	switch fs := bootSector(f.head); {
	case errors.Is(perr, errFar):
		return 0, errors.New("the backup differs from it")
	case !isDamage(perr):
		return 0, errors.New("its checksums are right and what it says is not")
	case !f.image.trace(b):
		return 0, errors.New("the backup is that of another disk or table")
	case fs != "":
		return 0, fmt.Errorf("the first sector could be the boot sector of a file system (%s)", fs)
	case entriesLBA+b.entrySectors() > min(b.firstUsable, uint64(len(f.head)/f.image.sector)):
		return 0, errors.New("there is no room for it before the partitions")
	case f.loader(b):
		return 0, errors.New("the boot record starts a boot loader that lies in its place")
	}
	return entriesLBA, f.oddBootRecord()
}

// loader reports whether the boot record is GRUB's, and loads the rest of GRUB from
// the place of the primary. The number of that sector is at 0x5C for GRUB 2
// (GRUB_BOOT_MACHINE_KERNEL_SECTOR in include/grub/i386/pc/boot.h), and at 0x44 for
// GRUB legacy (STAGE1_STAGE2_SECTOR in stage1/stage1.h).
func (f *fit) loader(b *gpt) bool {
	if string(f.head[f.image.sector:][:len(gptSignature)]) == gptSignature || !bytes.Contains(f.head[:mbrEntries], []byte("GRUB")) {
		return false
	}
	for _, at := range []uint64{le64(f.head, 0x5C), uint64(le32(f.head, 0x44))} {
		if at > 0 && at < b.firstUsable {
			return true
		}
	}
	return false
}

// hits returns an error if an edit would overwrite a partition that only the boot
// record has. A hybrid boot record has such partitions beside the protective entry.
func (f *fit) hits(edits []Edit) error {
	for i, e := range f.mbr {
		from := int64(e.first) * int64(f.image.sector)
		to := from + int64(e.sectors)*int64(f.image.sector)
		for _, ed := range edits {
			if e.kind != 0 && e.kind != protectiveType && from < ed.Off+int64(len(ed.Data)) && ed.Off < to && ed.Off > 0 {
				return fmt.Errorf("partition %d of the boot record lies where the GPT would be", i+1)
			}
		}
	}
	return nil
}

// both gives the edits that write a GPT, with its backup at the target's end. was
// is the sector where the backup should be on the image's disk.
func (f *fit) both(g *gpt, entriesLBA, was uint64) ([]Edit, error) {
	s, end := int64(f.image.sector), f.target-1
	usable := g.last + end - was // as far from the end as before
	if most := end - g.entrySectors() - 1; g.entrySectors()+1 > end || most < g.last {
		return nil, errors.New("the GPT leaves no room for its backup")
	} else if usable > most {
		usable = most
	}
	var edits []Edit
	if boot := f.bootRecord(was + 1); boot != nil {
		edits = append(edits, Edit{0, boot})
	}
	edits = append(edits, Edit{s, g.newHeader(1, end, usable, entriesLBA)})
	if g.my != 1 {
		edits = append(edits, Edit{int64(entriesLBA) * s, g.array()})
	}
	return append(edits, f.backupAt(g, 1, usable)...), nil
}

// bootRecord gives the boot record with a protective entry as long as the target.
// It returns nil if the boot record stays as it is. That is so for a hybrid, and if
// the entry was not as long as the old disk, or is as long as the target already.
func (f *fit) bootRecord(was uint64) []byte {
	slot, err := f.mbr.protective()
	if err != nil {
		return nil
	}
	n, all := f.mbr[slot].sectors, protectiveSectors(f.target)
	if n == all || n != protectiveSectors(was) && n != protectiveSectors(f.image.sectors) {
		return nil
	}
	boot := slices.Clone(f.head[:f.image.sector])
	setSectors(boot, slot, all)
	return boot
}

// backupAt gives the edit that writes a backup GPT at the target's end.
func (f *fit) backupAt(g *gpt, alternate, usable uint64) []Edit {
	end := f.target - 1
	at := end - g.entrySectors()
	return []Edit{{int64(at) * int64(f.image.sector), append(g.array(), g.newHeader(end, alternate, usable, at)...)}}
}

// array gives the entries, filled up with zeros to whole sectors.
func (g *gpt) array() []byte {
	b := make([]byte, int64(g.entrySectors())*int64(g.sector))
	copy(b, g.entries)
	return b
}

// newHeader gives the header with new places and new checksums.
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

// split cuts edits in two at the given places of the disk, in bytes.
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

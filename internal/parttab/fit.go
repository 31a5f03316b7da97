package parttab

import (
	"bytes"
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

// Fitted is how a partition table is made to fit a larger disk.
type Fitted struct {
	// Edits are whole sectors in the order of the disk, and win over the
	// image's bytes where both have some.
	Edits    []Edit
	Notes    []string // for the log: what is done, or why nothing is
	Warnings []string // what nobody should miss
}

// Fit gives a function that makes an image's GPT fit a larger disk, in
// sectors of so many bytes:
//
//	fitted, err := Fit(512)(head, tail, imageSize, targetSize)
//
// head is the image's first MiB, tail its last (less if the image is smaller;
// whether the two then overlap does not matter). Neither is changed.
//
// The GPT that counts is the one that Read finds: the primary, or the backup at
// the image's end where the primary is damaged. Both are written from it, the
// backup at the target's end, because the kernel reads no backup without a
// primary, and nobody looks for a backup elsewhere. Where the primary cannot be
// made anew, the backup is moved alone, so that who read it in the image's last
// sector finds it again. The edits never touch a sector that a partition has, do
// not overlap, and each lies wholly in head, in tail or beyond the image. The
// same arguments give the same edits.
//
// What the image had as backup GPT stays where it was, in what is now free
// space: nothing refers to it any more.
//
// err means that the sizes make no sense, as a target smaller than the image,
// or that the target would have no partitions where the image's disk has some.
// An image that fills the target gives nothing at all.
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

// errFar is what cannot be known by the edges.
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

// run finds out which GPT counts, and makes the edits.
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

// primary reads the table at the start. Its entries may lie where only those of
// the backup are at hand, which are the same by their checksum.
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

// fromPrimary writes both tables by the primary.
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

// contradiction says why a sound primary is left alone. One of them is a sound
// backup that says something else, which is not ours to settle. A damaged
// backup is none: it is made anew from the primary, as every system that repairs
// a GPT does.
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

// oddBootRecord says why a boot record is left alone that has a protective
// entry. A hybrid is none of these: its other entries stay as they are.
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

// fromBackup writes both tables by the backup, or where the primary cannot be
// made anew the backup alone.
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

// newPrimary is where the entries of a new primary go, or why none is made.
func (f *fit) newPrimary(b, p *gpt, perr error) (entriesLBA uint64, err error) {
	entriesLBA = 2
	if p != nil && isDamage(perr) { // its header is sound
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

// loader reports whether GRUB's boot record loads the rest of it from where the
// primary should be. GRUB 2 has the sector at 0x5C (GRUB_BOOT_MACHINE_KERNEL_SECTOR
// in include/grub/i386/pc/boot.h), GRUB legacy at 0x44 (STAGE1_STAGE2_SECTOR in
// stage1/stage1.h).
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

// hits is an error if an edit would write over a partition. Asked are the
// partitions that only a hybrid boot record has, beside the protective entry.
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

// both are the edits that write a GPT with its backup at the target's end. was
// is where the backup was meant to be until now.
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

// bootRecord is the boot record with a protective entry as long as the target,
// if it was as long as the disk was until now; else nil. A hybrid stays.
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

// backupAt is a backup GPT at the target's end.
func (f *fit) backupAt(g *gpt, alternate, usable uint64) []Edit {
	end := f.target - 1
	at := end - g.entrySectors()
	return []Edit{{int64(at) * int64(f.image.sector), append(g.array(), g.newHeader(end, alternate, usable, at)...)}}
}

// array is the entries in whole sectors.
func (g *gpt) array() []byte {
	b := make([]byte, int64(g.entrySectors())*int64(g.sector))
	copy(b, g.entries)
	return b
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

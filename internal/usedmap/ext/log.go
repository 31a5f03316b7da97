package ext

import (
	"cmp"
	"fmt"
	"slices"

	"testbox-imaging/internal/usedmap/volume"
	"testbox-imaging/internal/words"
)

// The journal of a file system that lost power is replayed in memory, as
// fs/jbd2/recovery.c does it. The log is a row of transactions with rising
// numbers. A transaction has descriptor blocks, each followed by copies of the
// blocks that it writes, then revoke blocks, which say which older copies must
// not be written any more, and a commit block. The log ends at the first block
// that is not of the expected transaction.
//
// The copies stay on the disk. Memory only has their places, first of all those
// of the blocks that matter: the superblock, the group descriptors and the
// block bitmaps.
//
// A free block must be free wherever a replay ends, whether this kernel, an
// older one or e2fsck replays. Therefore a block is only free if the bitmap on
// the disk and every copy of it in the log say so. The bitmap on the disk and a
// copy in the middle may be torn, but that only makes more blocks used. The
// last copy is the state of the file system, so all checks are made with it.

const (
	maxVersions = 1 << 20 // copies of blocks that are recorded; 16 MiB
	aheadBytes  = 1 << 20
)

// matter is a block that the map is made of, whose copies in the log are
// recorded. group is the group whose bitmap it is, or -1 if it is no bitmap.
type matter struct {
	block uint64
	group int32
}

// version is a copy of a block in the log.
type version struct {
	at       uint32 // block of the journal
	sequence uint32
	matter   uint32
	escaped  bool
	final    bool // a replay leaves this copy in the block
}

// replay is the log of a file system that needs recovery.
type replay struct {
	j        *journal
	matters  []matter // by block
	versions []version
	revoked  map[uint64]uint32 // by block, the last transaction that revokes it
	all      []written         // every copy of any block, nil once there are too many
	final    map[uint64]version
	tooMany  bool // all and revoked lack blocks that do not matter
}

// written is a copy in the log of any block, not only of one that matters.
type written struct {
	block uint64
	version
}

// recover replays the journal, unless it is empty.
func (f *fsys) recover(j *journal, found *volume.Found) error {
	switch {
	case j.start != 0 && !f.sb.needsRecovery():
		// The kernel would ignore the log, and e2fsck would ask.
		return fmt.Errorf("it is not empty, although the file system needs no recovery")
	case !f.sb.needsRecovery():
		return nil
	case j.start == 0:
		return f.reloadGroups() // no replay will write them again, so now they must be right
	}
	r := &replay{j: j, revoked: map[uint64]uint32{}}
	r.findMatters()
	s := &scan{r: r, sequence: j.sequence, at: j.start}
	if err := s.run(); err != nil {
		return err
	}
	if err := j.checkFastCommits(); err != nil {
		return err
	}
	r.findFinal()
	r.findAll()
	f.log = r
	if err := f.reloadSuper(); err != nil {
		return err
	}
	if err := f.reloadGroups(); err != nil {
		return err
	}
	n := s.sequence - j.sequence
	found.Note("it was not unmounted: %s of its journal %s replayed in memory", words.Count(n, "transaction"), words.Verb(n, "was", "were"))
	return nil
}

// findMatters lists the blocks that matter.
func (r *replay) findMatters() {
	f := r.j.f
	add := func(block uint64, group int) { r.matters = append(r.matters, matter{block, int32(group)}) }
	add(f.sb.superBlock(), -1)
	for i := range f.sb.descBlocks() {
		add(f.sb.descBlock(i), -1)
	}
	for g := range f.groups {
		add(f.groups[g].blockBitmap, g)
	}
	slices.SortFunc(r.matters, func(a, b matter) int { return cmp.Compare(a.block, b.block) })
}

func (r *replay) matter(block uint64) (int, bool) {
	return slices.BinarySearchFunc(r.matters, block, func(m matter, b uint64) int { return cmp.Compare(m.block, b) })
}

// findFinal marks for each block the copy that a replay leaves there. That is
// the last one that is not revoked by its own or a later transaction. Then it
// sorts the copies by their blocks.
func (r *replay) findFinal() {
	done := make([]bool, len(r.matters))
	for i := len(r.versions) - 1; i >= 0; i-- {
		v := &r.versions[i]
		by, revoked := r.revoked[r.matters[v.matter].block]
		if done[v.matter] || revoked && !after(v.sequence, by) {
			continue
		}
		v.final, done[v.matter] = true, true
	}
	slices.SortStableFunc(r.versions, func(a, b version) int { return cmp.Compare(a.matter, b.matter) })
}

// findAll finds the final copies of all blocks, not only of those that matter.
func (r *replay) findAll() {
	if r.tooMany {
		return
	}
	r.final = map[uint64]version{}
	for i := len(r.all) - 1; i >= 0; i-- {
		w := r.all[i]
		by, revoked := r.revoked[w.block]
		if _, done := r.final[w.block]; !done && (!revoked || after(w.sequence, by)) {
			r.final[w.block] = w.version
		}
	}
	r.all = nil
}

// of returns the copies of a block that matters, in the order of the log.
func (r *replay) of(matter int) []version {
	from, _ := slices.BinarySearchFunc(r.versions, uint32(matter), func(v version, m uint32) int { return cmp.Compare(v.matter, m) })
	to := from
	for to < len(r.versions) && r.versions[to].matter == uint32(matter) {
		to++
	}
	return r.versions[from:to]
}

// after reports whether transaction a is later than b. The numbers wrap around.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// read reads a copy as the replay writes it to its block.
func (r *replay) read(v version) ([]byte, error) {
	b, err := r.j.read(v.at, 1)
	if err != nil || !v.escaped {
		return b, err
	}
	b = append([]byte(nil), b...)
	be.PutUint32(b, jbdMagic)
	return b, nil
}

// overlay replaces blocks in data, which begins with block at, by their final
// copies.
func (r *replay) overlay(data []byte, at uint64) error {
	size := int(r.j.f.sb.blockSize)
	i, _ := r.matter(at)
	for ; i < len(r.matters) && r.matters[i].block < at+uint64(len(data)/size); i++ {
		for _, v := range r.of(i) {
			if !v.final {
				continue
			}
			b, err := r.read(v)
			if err != nil {
				return err
			}
			copy(data[int(r.matters[i].block-at)*size:][:size], b)
		}
	}
	return nil
}

// apply applies the copies in the log to some bitmaps. It reads them in the
// order of the log.
func (r *replay) apply(b *bitmaps) error {
	var some []version
	for g := b.from; g < b.to; g++ {
		if i, ok := r.matter(r.j.f.groups[g].blockBitmap); ok {
			some = append(some, r.of(i)...)
		}
	}
	slices.SortFunc(some, func(a, b version) int { return cmp.Compare(a.at, b.at) })
	for _, v := range some {
		data, err := r.read(v)
		if err != nil {
			return err
		}
		g := int(r.matters[v.matter].group)
		if g < b.from || g >= b.to {
			return fmt.Errorf("two groups have one bitmap")
		}
		or(b.of(b.used, g), data)
		if v.final {
			copy(b.of(b.now, g), data)
		}
	}
	return nil
}

// reloadSuper checks the superblock that the replay leaves, which may record
// new errors. It must describe the same layout as the one on the disk.
func (f *fsys) reloadSuper() error {
	at := f.sb.superBlock()
	block, err := f.blocks(at, 1)
	if err != nil {
		return err
	}
	sb := parseSuper(block[superAt-int64(at)*f.sb.blockSize:][:superSize])
	if sb == nil {
		return fmt.Errorf("it overwrites the superblock")
	}
	if err := sb.check(f.v.Size()); err != nil {
		return fmt.Errorf("the superblock in it: %w", err)
	}
	if !sb.sameShape(f.sb) {
		return fmt.Errorf("it changes the file system's size or layout")
	}
	return nil
}

// checkFastCommits fails if fast commits (fast_commit.h) were ever made, since
// their records change what is used without a change of a bitmap. The kernel
// ignores records of older transactions, which stay there. But e2fsck 1.47.0
// fails at them, drops the log, and repairs the file system without it.
func (j *journal) checkFastCommits() error {
	if j.incompat&jbdFastCommit == 0 {
		return nil
	}
	// The kernel begins to read one block behind the log's end, so check both
	// blocks.
	for n := uint64(j.last); n < min(uint64(j.last)+2, uint64(j.length)); n++ {
		b, err := j.read(uint32(n), 1)
		if err != nil {
			return err
		}
		if le.Uint32(b) != 0 { // struct ext4_fc_tl
			return fmt.Errorf("it has fast commits")
		}
	}
	return nil
}

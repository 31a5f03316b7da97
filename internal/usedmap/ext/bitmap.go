package ext

import (
	"fmt"
	"math/bits"

	"testbox-imaging/internal/usedmap/volume"
)

// bitmaps are the block bitmaps of some consecutive groups, one block each.
type bitmaps struct {
	from, to int
	// now has the current state of the file system. If a journal is replayed,
	// used also has every block that any state of the bitmap marks, from the
	// one on the disk to the last one of the journal. So the map is right
	// wherever a replay ends. Without a journal both are the same bytes.
	now, used []byte
	size      int
}

func (b *bitmaps) of(data []byte, g int) []byte {
	i := (g - b.from) * b.size
	return data[i : i+b.size]
}

// mapFree reads and checks all bitmaps, and returns what is free.
func (f *fsys) mapFree() (*volume.Free, error) {
	free, clusters := &volume.Free{}, uint64(0)
	err := f.checkBitmaps(func(g int, _, used []byte) {
		clusters += uint64(f.groups[g].free)
		f.addFree(free, g, used)
	})
	if err != nil {
		return nil, err
	}
	return free, f.checkFree(clusters)
}

// checkBitmaps reads and checks all bitmaps, and calls do for each.
func (f *fsys) checkBitmaps(do func(g int, now, used []byte)) error {
	meta, err := f.metadata()
	if err != nil {
		return err
	}
	some := volume.MaxRead / int(f.sb.blockSize)
	for from := 0; from < f.sb.groups; from += some {
		b, err := f.readBitmaps(from, min(from+some, f.sb.groups))
		if err != nil {
			return err
		}
		for g := b.from; g < b.to; g++ {
			if meta, err = f.checkBitmap(b, g, meta); err != nil {
				return err
			}
			do(g, b.of(b.now, g), b.of(b.used, g))
		}
	}
	return nil
}

func (f *fsys) addFree(free *volume.Free, g int, used []byte) {
	unit := int64(f.sb.ratio) * f.sb.blockSize
	start := int64(f.sb.groupStart(g)) * f.sb.blockSize
	free.AddClear(used, int64(f.sb.groupBlocks(g)/f.sb.ratio), start, unit) // a last cluster that is not complete is left out
}

// checkFree compares the sum of the groups with the superblock, whose count is
// only up to date after an unmount. The superblock counts blocks, and the last
// cluster may have fewer of them.
func (f *fsys) checkFree(clusters uint64) error {
	if f.sb.needsRecovery() {
		return nil
	}
	if n := clusters * f.sb.ratio; n < f.sb.freeBlocks || n-f.sb.freeBlocks >= f.sb.ratio {
		return fmt.Errorf("its superblock counts %d free blocks, its groups %d", f.sb.freeBlocks, n)
	}
	return nil
}

// readBitmaps reads the bitmaps of some groups, and their copies in the
// journal.
func (f *fsys) readBitmaps(from, to int) (*bitmaps, error) {
	size := int(f.sb.blockSize)
	b := &bitmaps{from: from, to: to, size: size, used: make([]byte, (to-from)*size)}
	for g := from; g < to; {
		if !f.onDisk(g) {
			g++
			continue
		}
		run := 1 // with flex_bg the bitmaps of many groups lie side by side
		for g+run < to && f.onDisk(g+run) && f.groups[g+run].blockBitmap == f.groups[g].blockBitmap+uint64(run) {
			run++
		}
		if err := f.v.Fill(b.used[(g-from)*size:(g-from+run)*size], int64(f.groups[g].blockBitmap)*f.sb.blockSize); err != nil {
			return nil, err
		}
		g += run
	}
	b.now = b.used
	if f.log != nil {
		b.now = append([]byte(nil), b.used...)
		return b, f.log.apply(b)
	}
	return b, nil
}

// onDisk reports whether the bitmap on the disk is valid, before a replay or
// after it.
func (f *fsys) onDisk(g int) bool { return f.groups[g].wasWritten || !f.groups[g].uninit }

// checkBitmap checks a group's bitmap against its descriptor, and that it marks
// the file system's own metadata. meta is the metadata from this group on. The
// result is the metadata behind this group.
func (f *fsys) checkBitmap(b *bitmaps, g int, meta spans) (spans, error) {
	now := b.of(b.now, g)
	d, n := f.groups[g], f.sb.groupClusters(g)
	if d.uninit {
		// Nothing was ever allocated here. The only used blocks are metadata of
		// this group and, with flex_bg, of others.
		clear(now)
	} else if err := f.checkSum(g, now); err != nil {
		return nil, err
	} else if from := firstClear(now, n, int64(f.sb.clustersPerGroup)); from >= 0 {
		return nil, fmt.Errorf("the bitmap of group %d has block %d as free, which is beyond the end", g, from)
	}
	meta, err := f.markMeta(g, now, d.uninit, meta)
	if err != nil {
		return nil, err
	}
	if free := countClear(now, n); free != int64(d.free) {
		return nil, fmt.Errorf("the bitmap of group %d has %d free, its descriptor says %d", g, free, d.free)
	}
	if used := b.of(b.used, g); &used[0] != &now[0] {
		or(used, now)
	}
	return meta, nil
}

func (f *fsys) checkSum(g int, bitmap []byte) error {
	if !f.sb.has(roMetadataCsum) {
		return nil
	}
	sum := crc32c(f.sb.seed, bitmap[:f.sb.clustersPerGroup/8])
	if f.sb.descSize < 64 {
		sum &= 0xFFFF
	}
	if sum != f.groups[g].bitmapSum {
		return fmt.Errorf("the checksum of group %d's bitmap is wrong", g)
	}
	return nil
}

// markMeta checks that metadata is marked as used. If mark is set, it marks it,
// in a bitmap that was never written.
func (f *fsys) markMeta(g int, bitmap []byte, mark bool, meta spans) (spans, error) {
	start := f.sb.groupStart(g)
	end := start + f.sb.groupBlocks(g)
	for len(meta) > 0 && meta[0].at < end {
		m := meta[0]
		from, to := max(m.at, start), min(m.end(), end)
		for c := (from - start) / f.sb.ratio; c <= (to-1-start)/f.sb.ratio; c++ {
			if mark {
				bitmap[c/8] |= 1 << (c % 8)
			} else if bitmap[c/8]>>(c%8)&1 == 0 {
				return nil, fmt.Errorf("the bitmap of group %d has the file system's own structures as free", g)
			}
		}
		if m.end() > end {
			break
		}
		meta = meta[1:]
	}
	return meta, nil
}

// countClear is how many of the first n bits are clear.
func countClear(bitmap []byte, n int64) int64 {
	set, whole := 0, n/64*8
	for i := int64(0); i < whole; i += 8 {
		set += bits.OnesCount64(le.Uint64(bitmap[i:]))
	}
	for i := whole * 8; i < n; i++ {
		set += int(bitmap[i/8] >> (i % 8) & 1)
	}
	return n - int64(set)
}

// firstClear is the first clear bit in [from, to), or -1.
func firstClear(bitmap []byte, from, to int64) int64 {
	for i := from; i < to; i++ {
		if bitmap[i/8]>>(i%8)&1 == 0 {
			return i
		}
	}
	return -1
}

func or(to, from []byte) {
	for i := range to {
		to[i] |= from[i]
	}
}

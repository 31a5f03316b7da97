package exfat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/words"
)

// Limits for reading folders and chains. They bound the time on a spinning
// disk, and are no sign of damage. The files beyond the limits are not compared
// with the bitmap.
const (
	maxReads   = 1 << 17
	maxFolders = 1 << 18
	maxLinks   = 1 << 24
)

// walk goes through the folders and checks that no file has a free cluster.
type walk struct {
	f      *fat
	free   []image.Range
	seen   map[int64]bool // first clusters of folders
	todo   []extent
	reads  int
	links  int
	partly bool
}

func (w *walk) all() error {
	root := &folder{f: w.f, at: w.f.g.rootExtent(), root: true}
	if err := w.folder(root); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	for len(w.todo) > 0 && !w.partly {
		last := len(w.todo) - 1
		at := w.todo[last]
		w.todo = w.todo[:last]
		if err := w.folder(&folder{f: w.f, at: at}); err != nil {
			return err
		}
	}
	return nil
}

// folder examines all entries of a folder.
func (w *walk) folder(d *folder) error {
	d.cluster = func(c int64) error { return w.used(c, 1) }
	defer func() { w.reads += d.reads }()
	for !w.partly {
		w.partly = w.reads+d.reads+w.f.reads > maxReads
		e, err := d.next()
		if err != nil || e == nil {
			return err
		}
		switch {
		case e[0] == typeFile:
			if err := w.set(d, e); err != nil {
				return err
			}
		case !d.root && (e[0] == typeBitmap || e[0] == typeUpcase):
			return fmt.Errorf("the directory entry %#x in a folder", e[0])
		case e[0] == typeBitmap, e[0] == typeUpcase, e[0] == typeLabel:
		case known(e[0]) != nil:
			return known(e[0])
		case e[0]&(typeInUse|typeSecondary) == typeInUse|typeSecondary:
			// A secondary entry without its file. Windows leaves some, and
			// ignores them.
			if err := w.secondary(e, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// set examines a file: its primary entry and the secondary ones that belong to
// it (section 7.4). The first secondary entry has the place of the data.
func (w *walk) set(d *folder, e []byte) error {
	set := bytes.Clone(e)
	for range e[1] {
		s, err := d.next()
		if err != nil {
			return err
		}
		if s == nil || s[0]&typeSecondary == 0 {
			return errors.New("a file has fewer entries than it says")
		}
		set = append(set, s...)
	}
	if got, want := setChecksum(set), binary.LittleEndian.Uint16(set[2:]); got != want {
		return fmt.Errorf("the checksum of a file's entries is wrong (%#x, not %#x)", got, want)
	}
	if len(set) < 64 || set[32] != typeStream {
		return errors.New("a file does not say where it is")
	}
	isFolder := set[4]&0x10 != 0
	for at := 32; at < len(set); at += 32 {
		if s := set[at : at+32]; s[0]&typeInUse != 0 {
			if err := w.secondary(s, isFolder && at == 32); err != nil {
				return err
			}
		}
	}
	return nil
}

// setChecksum is the checksum of section 6.3.3. It leaves out its own two
// bytes.
func setChecksum(b []byte) uint16 {
	sum := uint16(0)
	for i, c := range b {
		if i != 2 && i != 3 {
			sum = sum<<15 | sum>>1
			sum += uint16(c)
		}
	}
	return sum
}

// secondary checks the clusters that a secondary entry may have. All types have
// them in the same fields, by the template of section 6.4.
func (w *walk) secondary(e []byte, isFolder bool) error {
	const possible, noChain = 1, 2
	at := extent{
		first:      int64(binary.LittleEndian.Uint32(e[20:])),
		length:     int64(binary.LittleEndian.Uint64(e[24:])),
		contiguous: e[1]&noChain != 0,
	}
	// An empty file has no clusters. Some systems do not clear its first
	// cluster.
	if e[0] == typeName || e[0] != typeStream && e[1]&possible == 0 || at.length == 0 {
		return nil
	}
	if at.length < 0 || at.length > w.f.g.clusters*w.f.g.cluster || isFolder && at.length > maxFolder {
		return fmt.Errorf("a file of %d bytes", uint64(at.length))
	}
	if err := w.file(at); err != nil || !isFolder {
		return err
	}
	if w.seen[at.first] {
		return fmt.Errorf("two folders share cluster %d", at.first)
	}
	if len(w.seen) == maxFolders {
		w.partly = true
		return nil
	}
	w.seen[at.first] = true
	w.todo = append(w.todo, at)
	return nil
}

// file checks that all clusters of a file are used.
func (w *walk) file(at extent) error {
	left := w.f.g.clustersOf(at.length)
	if at.contiguous {
		return w.used(at.first, left)
	}
	run, c := at.first, at.first // run is the start of the consecutive clusters up to c
	for ; left > 1 && w.links < maxLinks && w.reads+w.f.reads < maxReads; left-- {
		if !w.f.g.is(c) {
			break
		}
		next, err := w.f.next(c)
		if err != nil {
			return err
		}
		w.links++
		if next != c+1 {
			if err := w.used(run, c+1-run); err != nil {
				return err
			}
			run = next
		}
		c = next
	}
	w.partly = w.partly || left > 1
	return w.used(run, c+1-run)
}

// used fails unless all n clusters from c on are used.
func (w *walk) used(c, n int64) error {
	if !w.f.g.is(c) || n > w.f.g.clusters || !w.f.g.is(c+n-1) {
		return fmt.Errorf("a file has %s from %#x on, of %d", words.Count(n, "cluster"), c, w.f.g.clusters)
	}
	off, end := w.f.g.at(c), w.f.g.at(c+n)
	i := sort.Search(len(w.free), func(i int) bool { return w.free[i].End() > off })
	if i < len(w.free) && w.free[i].Off < end {
		return fmt.Errorf("a file has clusters from %d to %d, of which the bitmap calls at least one free", c, c+n-1)
	}
	return nil
}

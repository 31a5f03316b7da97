package fat

import (
	"encoding/binary"
	"fmt"
	"slices"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

// Limits for reading folders. They bound the time on a spinning disk, and are
// no sign of damage. A file system with more folders is healthy, and its FAT
// was read completely. But the folders beyond the limits are not compared with
// the FAT.
const (
	maxReads   = 1 << 17
	maxFolders = 1 << 20
	maxPiece   = 64 << 10
)

// walk goes through the folders and checks that no file begins at a free
// cluster. The other clusters of a file need no check here, since table checks
// all chains.
type walk struct {
	v      *volume.Volume
	g      *geometry
	free   []image.Range
	seen   set     // clusters of folders
	todo   []int64 // first clusters of folders
	root   bool    // the current folder is the root directory
	label  string
	reads  int
	partly bool
	window []byte // part of the FAT, for the chains of folders
	from   int64  // first entry of window
}

func (w *walk) all() error {
	w.root = true
	if w.g.bits != 32 {
		if _, err := w.room(w.g.rootStart()*w.g.sector, w.g.rootEntries*32); err != nil {
			return err
		}
		w.root = false
	} else if err := w.begins(w.g.root, true); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	for len(w.todo) > 0 && !w.partly {
		last := len(w.todo) - 1
		c := w.todo[last]
		w.todo = w.todo[:last]
		if err := w.folder(c); err != nil {
			return err
		}
		w.root = false
	}
	return nil
}

// begins checks the first cluster of a file. If it is a folder, it is queued.
func (w *walk) begins(c int64, folder bool) error {
	if !w.g.is(c) {
		return fmt.Errorf("a file begins at cluster %d; there are %d", c, w.g.clusters)
	}
	off := w.g.at(c)
	_, found := slices.BinarySearchFunc(w.free, off, func(r image.Range, off int64) int {
		switch {
		case r.End() <= off:
			return -1
		case r.Off > off:
			return 1
		}
		return 0
	})
	if found {
		return fmt.Errorf("a file begins at cluster %d, which the FAT says is free", c)
	}
	if !folder {
		return nil
	}
	if w.seen.add(c) {
		return fmt.Errorf("two folders share cluster %d", c)
	}
	if len(w.todo) == maxFolders {
		w.partly = true
		return nil
	}
	w.todo = append(w.todo, c)
	return nil
}

// folder reads a folder along its chain.
func (w *walk) folder(c int64) error {
	for {
		done, err := w.room(w.g.at(c), w.g.cluster)
		if err != nil || done {
			return err
		}
		next, err := w.next(c)
		if err != nil || next >= entryEnd || w.partly {
			return err
		}
		if !w.g.is(next) {
			return fmt.Errorf("a folder goes on at cluster %d; there are %d", next, w.g.clusters)
		}
		if w.seen.add(next) {
			return fmt.Errorf("two folders share cluster %d", next)
		}
		c = next
	}
}

// next is the FAT entry of a cluster.
func (w *walk) next(c int64) (int64, error) {
	const entries = 1 << 14
	if w.window == nil || c < w.from || c >= w.from+entries {
		w.from = c / entries * entries
		n := w.g.bytesOf(min(entries, firstCluster+w.g.clusters-w.from))
		b, err := w.v.Bytes(w.g.reserved*w.g.sector+w.g.bytesOf(w.from), int(n))
		if err != nil {
			return 0, err
		}
		w.window = b
		w.count()
	}
	return w.g.entry(w.window, c-w.from), nil
}

func (w *walk) count() {
	w.reads++
	w.partly = w.partly || w.reads >= maxReads
}

// room reads n bytes of a folder, and reports whether the folder ends there.
// Most folders are short, so a large cluster is read in growing pieces until
// the end of the folder.
func (w *walk) room(off, n int64) (done bool, err error) {
	for size := int64(4 << 10); n > 0 && !w.partly; size = min(2*size, maxPiece) {
		b, err := w.v.Bytes(off, int(min(n, size)))
		if err != nil {
			return false, err
		}
		w.count()
		for i := 0; i < len(b); i += 32 {
			if b[i] == 0 { // the end of the folder, followed by garbage
				return true, nil
			}
			if err := w.file(b[i : i+32]); err != nil {
				return false, err
			}
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return w.partly, nil
}

// Attributes of a file (DIR_Attr).
const (
	attrVolume = 0x08
	attrFolder = 0x10
	attrMask   = 0x3F
	attrLong   = 0x0F // a piece of a long name
)

// file examines a folder entry of 32 bytes.
func (w *walk) file(e []byte) error {
	attr := e[11] & attrMask
	name := string(e[:11])
	switch {
	case e[0] == 0xE5, attr == attrLong, name == ".          ", name == "..         ":
		return nil
	case attr&(attrVolume|attrFolder) == attrVolume:
		if w.root && w.label == "" {
			w.label = text(e[:11])
		}
		return nil
	}
	c := int64(binary.LittleEndian.Uint16(e[26:]))
	if w.g.bits == 32 { // in other FATs, OS/2 and Windows NT use this field for something else
		c |= int64(binary.LittleEndian.Uint16(e[20:])) << 16
	}
	// An empty file has no cluster, whatever this field says. The size of a
	// folder is always 0.
	if folder := attr&attrFolder != 0; c != 0 && (folder || binary.LittleEndian.Uint32(e[28:]) != 0) {
		return w.begins(c, folder)
	}
	return nil
}

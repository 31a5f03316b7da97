package exfat

import (
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// extent is the place of a file: its first cluster and its length in bytes.
type extent struct {
	first, length int64
	contiguous    bool // NoFatChain: the clusters follow each other, and their FAT entries are invalid
}

const chainEnd = 0xFFFFFFFF

// fat reads the FAT. exFAT needs it only for files that are not in one piece.
type fat struct {
	v      *volume.Volume
	g      *geometry
	window []byte
	from   int64 // first entry of window
	reads  int
}

// head checks entry 0 of the FAT, which holds the media type and then all ones
// (section 4.1).
func (f *fat) head() error {
	e, err := f.next(0)
	if err != nil {
		return err
	}
	if e>>8 != 0xFFFFFF {
		return fmt.Errorf("its FAT begins with %#x", e)
	}
	return nil
}

// next is the FAT entry of a cluster.
func (f *fat) next(c int64) (int64, error) {
	const entries = 1 << 14
	if f.window == nil || c < f.from || c >= f.from+entries {
		f.from = c / entries * entries
		n := min(entries, firstCluster+f.g.clusters-f.from)
		b, err := f.v.Bytes(f.g.fat*f.g.sector+4*f.from, int(4*n))
		if err != nil {
			return 0, err
		}
		f.window = b
		f.reads++
	}
	return int64(binary.LittleEndian.Uint32(f.window[4*(c-f.from):])), nil
}

// onePiece checks that the clusters of a file follow each other, and that the
// FAT has their chain.
func (f *fat) onePiece(e extent) error {
	n := f.g.clustersOf(e.length)
	if n < 1 || !f.g.is(e.first) || n > f.g.clusters || !f.g.is(e.first+n-1) {
		return fmt.Errorf("it has %d bytes from cluster %d on, of %d clusters", e.length, e.first, f.g.clusters)
	}
	for c := e.first; c < e.first+n; c++ {
		want := c + 1
		if want == e.first+n {
			want = chainEnd
		}
		got, err := f.next(c)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("it is not in one piece (%#x comes after cluster %d)", got, c)
		}
	}
	return nil
}

// maxFolder is the most bytes that a folder can have, 2^28 (section 7.4).
const maxFolder = 256 << 20

// rootExtent is the root directory. Its length is only known by its chain, so
// this is the most that it can have.
func (g *geometry) rootExtent() extent {
	return extent{first: g.root, length: min(maxFolder, g.clusters*g.cluster)}
}

// folder reads the entries of a folder, one after the other.
type folder struct {
	f       *fat
	at      extent
	root    bool                // the chain alone gives the length
	cluster func(c int64) error // called for each cluster; may be nil
	c, in   int64               // current cluster and byte in it
	size    int64               // bytes of the next read
	buf     []byte
	reads   int
}

// next returns the next entry of 32 bytes, or nil at the end.
func (d *folder) next() ([]byte, error) {
	if len(d.buf) == 0 {
		if err := d.more(); err != nil || len(d.buf) == 0 {
			return nil, err
		}
	}
	e := d.buf[:32:32]
	if e[0] == 0 {
		return nil, nil
	}
	d.buf = d.buf[32:]
	return e, nil
}

// more reads more of the folder. Most folders are short, so a large cluster is
// read in growing pieces until the end of the folder.
func (d *folder) more() error {
	if d.at.length < 32 {
		if d.root {
			return errors.New("a folder without an end")
		}
		return nil
	}
	if d.c == 0 || d.in == d.f.g.cluster {
		if end, err := d.step(); err != nil || end {
			return err
		}
		d.size = 4 << 10
	}
	n := min(d.size, d.f.g.cluster-d.in, d.at.length) &^ 31
	b, err := d.f.v.Bytes(d.f.g.at(d.c)+d.in, int(n))
	if err != nil {
		return err
	}
	d.buf, d.in, d.at.length, d.size = b, d.in+n, d.at.length-n, min(2*d.size, 64<<10)
	d.reads++
	return nil
}

// step goes to the next cluster.
func (d *folder) step() (end bool, err error) {
	next := d.at.first
	if d.c != 0 && d.at.contiguous {
		next = d.c + 1
	} else if d.c != 0 {
		if next, err = d.f.next(d.c); err != nil {
			return false, err
		}
	}
	if next == chainEnd && d.root {
		return true, nil
	}
	if !d.f.g.is(next) {
		return false, fmt.Errorf("a folder goes on at cluster %#x, of %d", next, d.f.g.clusters)
	}
	d.c, d.in = next, 0
	if d.cluster != nil {
		return false, d.cluster(next)
	}
	return false, nil
}

package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// cellSize is the length of all chunks of a fakeDisk, bytes.
const cellSize = 4096

// fakeDisk is a disk for tests of the store: large in addresses, so that it
// has several pages, and small in bytes. It has a chunk for each cell.
type fakeDisk struct {
	size  int64
	cells map[int64]uint64 // place on the disk, bytes -> what is there, see cell
}

// newDisk makes a disk of some regions; each has a cell for each of the seeds
// that were given for it, at its start, with a gap after every second.
func newDisk(regions ...[]uint64) fakeDisk {
	d := fakeDisk{size: int64(len(regions)-1)*chunk.RegionSize + 1<<20, cells: map[int64]uint64{}}
	for i, seeds := range regions {
		for j, seed := range seeds {
			d.cells[int64(i)*chunk.RegionSize+int64(j+j/2)*cellSize] = seed
		}
	}
	return d
}

// cell is the content of a seed; half of it can be compressed.
func cell(seed uint64) []byte {
	b := make([]byte, cellSize)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(b[:cellSize/2])
	return b
}

// page is that of a region.
func (d fakeDisk) page(region image.Range) (*chunk.Page, []uint64) {
	p, end, seeds := new(chunk.Page), region.Off, []uint64(nil)
	for _, off := range slices.Sorted(maps.Keys(d.cells)) {
		if off < region.Off || off >= region.End() {
			continue
		}
		p.Append(image.Unused, off-end)
		p.Append(image.Data, cellSize)
		p.Chunks = append(p.Chunks, chunk.Ref{Name: object.NameOf(cell(d.cells[off])), Len: cellSize})
		seeds = append(seeds, d.cells[off])
		end = off + cellSize
	}
	p.Append(image.Unused, region.End()-end)
	return p, seeds
}

// root gives the root with its pages, and what is in the chunks of each.
func (d fakeDisk) root() (*chunk.Root, []*chunk.Page, [][]uint64) {
	r := &chunk.Root{Size: d.size, SectorSize: 512, Pages: make([]object.Name, (d.size+chunk.RegionSize-1)/chunk.RegionSize)}
	var pages []*chunk.Page
	var seeds [][]uint64
	for i := range r.Pages {
		p, s := d.page(r.Region(i))
		r.Pages[i] = object.NameOf(p.Marshal())
		pages, seeds = append(pages, p), append(seeds, s)
	}
	return r, pages, seeds
}

// putMissing is what a backup does with each object.
func putMissing(ctx context.Context, st chunk.Session, kind object.Kind, raw []byte) error {
	key := object.Key{Kind: kind, Name: object.NameOf(raw)}
	missing, err := st.Missing(ctx, []object.Key{key})
	if err != nil || len(missing) == 0 {
		return err
	}
	return st.Put(ctx, object.Encode(key, raw, nil))
}

// steps are what a backup of the disk does, object by object.
func (d fakeDisk) steps() (out []func(context.Context, chunk.Session) error) {
	add := func(kind object.Kind, raw []byte) {
		out = append(out, func(ctx context.Context, st chunk.Session) error { return putMissing(ctx, st, kind, raw) })
	}
	root, pages, seeds := d.root()
	for i, p := range pages {
		for _, seed := range seeds[i] {
			add(object.Chunk, cell(seed))
		}
		add(object.Page, p.Marshal())
	}
	add(object.Root, root.Marshal())
	return out
}

// save sends a disk.
func (d fakeDisk) save(ctx context.Context, st chunk.Session) error {
	for _, step := range d.steps() {
		if err := step(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

// recordOf is the record of a backup with these disks.
func recordOf(box string, at time.Time, disks ...fakeDisk) *image.Record {
	r := &image.Record{Format: image.RecordFormat, Box: box, Time: at}
	for i, d := range disks {
		root, _, _ := d.root()
		data := int64(len(d.cells)) * cellSize
		r.Disks = append(r.Disks, image.RecordedDisk{Name: "sd" + string('a'+rune(i)), Disk: image.Identity{Size: d.size, SectorSize: 512},
			Root: object.NameOf(root.Marshal()), Data: data, Unused: d.size - data})
	}
	return r
}

// backup is a whole backup in a session of its own. The record is given also if
// it fails; without an id, it was not tried to be written.
func backup(ctx context.Context, s *Store, box string, at time.Time, disks ...fakeDisk) (*image.Record, error) {
	session := s.Begin()
	defer session.Close()
	r := recordOf(box, at, disks...)
	for _, d := range disks {
		if err := d.save(ctx, session); err != nil {
			return r, err
		}
	}
	return r, session.Commit(ctx, r)
}

// restored reads an image and says where it is not that of the disk.
func (d fakeDisk) restored(ctx context.Context, s *Store, name object.Name) error {
	raw, err := s.objects.raw(ctx, object.Key{Kind: object.Root, Name: name})
	if err != nil {
		return err
	}
	root, err := chunk.ParseRoot(raw)
	if err != nil {
		return err
	}
	if root.Size != d.size {
		return fmt.Errorf("%w: it has %d bytes, want %d", errWrong, root.Size, d.size)
	}
	seen := 0
	for i, page := range root.Pages {
		n, err := d.restoredPage(ctx, s, root.Region(i).Off, page)
		if err != nil {
			return err
		}
		seen += n
	}
	if seen != len(d.cells) {
		return fmt.Errorf("%w: %d cells of %d", errWrong, seen, len(d.cells))
	}
	return nil
}

// errWrong is matched by what must never be: a restore that is not exact and
// does not say so.
var errWrong = errors.New("restored wrong")

func (d fakeDisk) restoredPage(ctx context.Context, s *Store, off int64, name object.Name) (n int, err error) {
	raw, err := s.objects.raw(ctx, object.Key{Kind: object.Page, Name: name})
	if err != nil {
		return 0, err
	}
	p, err := chunk.ParsePage(raw)
	if err != nil {
		return 0, err
	}
	for sp := range p.Spans() {
		if sp.Content != image.Data {
			continue
		}
		raw, err := s.objects.raw(ctx, object.Key{Kind: object.Chunk, Name: p.Chunks[sp.Chunk].Name})
		if err != nil {
			return n, err
		}
		seed, ok := d.cells[off+sp.Off]
		if want := cell(seed); !ok || sp.Len != cellSize || !bytes.Equal(raw[sp.At:sp.At+cellSize], want) {
			return n, fmt.Errorf("%w: at %d", errWrong, off+sp.Off)
		}
		n++
	}
	return n, nil
}

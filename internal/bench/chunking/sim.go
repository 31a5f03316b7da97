package main

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// way is a way to cut disks.
type way struct {
	name     string
	bits     int // of a block's hash that are zero at a boundary
	tail     int // or bytes at its end that are zero; 0: does not count
	min, max int // of a chunk, bytes
	region   int64
	gap      int64 // unused runs below it count as used
}

// ways are the way taken, and others that differ in one constant.
func ways() []way {
	taken := way{tail: 64, bits: 7, min: chunk.MinSize, max: chunk.MaxSize, region: chunk.RegionSize}
	list := []way{taken}
	add := func(name string, change func(*way)) {
		w := taken
		w.name = name
		change(&w)
		list = append(list, w)
	}
	list[0].name = "**as it is**"
	for _, n := range []int{8, 512} {
		add(fmt.Sprintf("%d zeros", n), func(w *way) { w.tail = n })
	}
	for _, bits := range []int{5, 6, 8} {
		add(fmt.Sprint("bits ", bits), func(w *way) { w.bits = bits })
	}
	for _, n := range []int{24, 48, 64} {
		add(fmt.Sprintf("at least %d KiB", n), func(w *way) { w.min = n * kib })
	}
	add("at most 512 KiB", func(w *way) { w.max = 512 * kib })
	hash := func(bits, min int) {
		add(fmt.Sprintf("hash alone: bits %d, at least %d KiB", bits, min), func(w *way) { w.tail, w.bits, w.min = 0, bits, min*kib })
	}
	for _, bits := range []int{3, 4, 5, 6} {
		hash(bits, 64)
	}
	hash(5, 16)
	hash(3, 16)
	add("all of 192 KiB", func(w *way) { w.tail, w.bits, w.min = 0, 0, 192*kib })
	add("all of 4 KiB", func(w *way) { w.tail, w.bits, w.min = 0, 0, 4*kib })
	for _, n := range []int64{64, 1024} {
		add(fmt.Sprintf("regions of %d MiB", n), func(w *way) { w.region = n * mib })
	}
	for _, n := range []int64{16, 32, 64} {
		add(fmt.Sprintf("gaps below %d KiB kept", n), func(w *way) { w.gap = n * kib })
	}
	return list
}

// figures are of one disk.
type figures struct {
	chunks          int
	data            int64 // bytes in chunks
	stored          int64 // bytes of new chunks, packed
	pages, newPages int64 // bytes, packed
}

// sim is a store that keeps nothing but names.
type sim struct {
	way
	there map[object.Name]bool
	page  chunk.Page
	chunk []byte
	block []byte
	dst   []byte
	figures
}

func newSim(w way) *sim {
	return &sim{way: w, there: map[object.Name]bool{}, block: make([]byte, chunk.BlockSize), dst: make([]byte, object.MaxChunk+object.Slack)}
}

// disk brings a disk into the store.
func (s *sim) disk(d *source) (figures, error) {
	s.figures = figures{}
	at := int64(0)
	for _, r := range d.merged(s.gap) {
		s.unused(at, r.Off)
		for at = r.Off; at < r.End(); {
			s.begin(at)
			b := s.block[:min(chunk.BlockSize, r.End()-at)]
			if _, err := d.ReadAt(b, at); err != nil {
				return s.figures, err
			}
			s.add(b)
			at += int64(len(b))
		}
	}
	s.unused(at, d.size)
	s.endPage()
	return s.figures, nil
}

// begin ends a region if a new one begins at an offset of the disk.
func (s *sim) begin(at int64) {
	if at%s.region == 0 && at > 0 {
		s.endPage()
	}
}

func (s *sim) unused(at, end int64) {
	for at < end {
		s.begin(at)
		n := min(end, at-at%s.region+s.region) - at
		s.page.Append(image.Unused, n)
		at += n
	}
}

func (s *sim) add(b []byte) {
	if image.IsZero(b) {
		s.page.Append(image.Zero, int64(len(b)))
		return
	}
	s.page.Append(image.Data, int64(len(b)))
	s.chunk = append(s.chunk, b...)
	boundary := xxh3.Hash(b)&(1<<s.bits-1) == 0 || s.tail > 0 && image.IsZero(b[len(b)-s.tail:])
	if boundary && len(s.chunk) >= s.min || len(s.chunk) > s.max-chunk.BlockSize {
		s.endChunk()
	}
}

func (s *sim) endChunk() {
	if len(s.chunk) == 0 {
		return
	}
	name := object.NameOf(s.chunk)
	s.page.Chunks = append(s.page.Chunks, chunk.Ref{Name: name, Len: len(s.chunk)})
	s.chunks++
	s.data += int64(len(s.chunk))
	s.stored += s.put(object.Key{Kind: object.Chunk, Name: name}, s.chunk)
	s.chunk = s.chunk[:0]
}

// endPage ends a region.
func (s *sim) endPage() {
	s.endChunk()
	raw := s.page.Marshal()
	key := object.Key{Kind: object.Page, Name: object.NameOf(raw)}
	s.newPages += s.put(key, raw)
	s.pages += int64(len(object.Encode(key, raw, s.dst).Data))
	s.page = chunk.Page{}
}

// put gives what an object takes in the store, 0 if it was there.
func (s *sim) put(key object.Key, raw []byte) int64 {
	if s.there[key.Name] {
		return 0
	}
	s.there[key.Name] = true
	return int64(len(object.Encode(key, raw, s.dst).Data))
}

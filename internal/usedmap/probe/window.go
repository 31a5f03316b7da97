package probe

import "testbox-imaging/internal/usedmap/volume"

// Where most signatures are: up to the end of the second ZFS label at the
// start, and in the last MiB (the database of a Windows dynamic disk).
const (
	headSize  = 512<<10 + pieceSize
	tailSize  = 1 << 20
	pieceSize = 4 << 10 // of a read elsewhere
)

// window is the part of a volume where signatures count, read in few pieces.
type window struct {
	v          *volume.Volume
	first, end int64 // what touches the bytes between is not seen
	pieces     []piece
}

type piece struct {
	off   int64
	bytes []byte
}

func newWindow(v *volume.Volume, first, end int64) *window {
	first = min(max(first, 0), v.Size())
	return &window{v: v, first: first, end: min(max(end, first), v.Size())}
}

// bytes are n bytes at off, or nil where there are none or they do not count.
// They are to be read only.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	if off < 0 || off > w.v.Size()-int64(n) || off < w.end && off+int64(n) > w.first {
		return nil, nil
	}
	for _, p := range w.pieces {
		if in := off - p.off; in >= 0 && in <= int64(len(p.bytes)-n) {
			return p.bytes[in : in+int64(n)], nil
		}
	}
	p, err := w.read(off, n)
	if err != nil {
		return nil, err
	}
	w.pieces = append(w.pieces, p)
	return p.bytes[off-p.off:][:n], nil
}

// read reads the piece of which n bytes at off are a part: the head, the tail,
// or what lies around the bytes. A piece never reaches into the partitions:
// a sector there that cannot be read is no matter of the disk's.
func (w *window) read(off int64, n int) (piece, error) {
	from, to := off&^(pieceSize-1), (off+int64(n)+pieceSize-1)&^(pieceSize-1)
	tail := max(w.v.Size()-tailSize, 0) &^ (pieceSize - 1)
	switch {
	case to <= headSize:
		from, to = 0, headSize
	case from >= tail:
		from, to = tail, w.v.Size()
	}
	if off < w.end {
		to = min(to, w.first)
	} else {
		from = max(from, w.end)
	}
	to = min(to, w.v.Size())
	b, err := w.v.Bytes(from, int(to-from))
	return piece{from, b}, err
}

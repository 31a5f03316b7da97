package probe

import "testbox-imaging/internal/usedmap/volume"

// Most signatures lie in the head or in the tail. The head reaches up to the end of
// the second ZFS label. The tail has the last MiB, where the database of a Windows
// dynamic disk is.
const (
	headSize  = 512<<10 + pieceSize
	tailSize  = 1 << 20
	pieceSize = 4 << 10 // unit of reads at other places
)

// window is the part of a volume where signatures count. It is read in few pieces.
type window struct {
	v          *volume.Volume
	first, end int64 // the bytes from first to end do not count
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

// bytes gives n bytes at off. It gives nil if some of them lie outside of the volume
// or do not count. The caller must not change them.
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

// read reads the piece that has the n bytes at off. The piece is the head, the tail,
// or the 4 KiB blocks of these bytes. A piece never reaches into the partitions,
// since an unreadable sector in a partition must not be an error here.
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

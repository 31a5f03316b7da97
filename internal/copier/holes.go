package copier

// holes remembers what a Sparse said last; the zero value of it knows none.
type holes struct {
	sparse   Sparse // nil: nothing is known
	size     int64
	at       int64 // from here on, up to from, all is zero
	from, to int64
}

func holesOf(src Source) holes {
	h := holes{size: src.Size()}
	h.sparse, _ = src.(Sparse)
	return h
}

// end is where the zeros end that off lies in; off itself if it lies in none.
func (h *holes) end(off int64) int64 {
	if h.sparse == nil || off >= h.size {
		return off
	}
	if off < h.at || off >= h.to {
		from, to := h.sparse.NextData(off)
		if from < off || from > h.size || to < from || to == from && from < h.size {
			h.sparse = nil // it cannot be trusted
			return off
		}
		h.at, h.from, h.to = off, from, to
		if from >= h.size {
			h.from, h.to = h.size, h.size
		}
	}
	return max(off, h.from)
}

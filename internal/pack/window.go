package pack

import "io"

// readAhead is how many bytes are read at once. In object storage each read is
// a request.
const readAhead = 4 << 20

// window reads a pack from front to back, each byte once.
type window struct {
	r   io.ReaderAt
	end int64  // end of the pack; reduced when a read finds that the pack is shorter
	off int64  // place of buf in the pack
	buf []byte // bytes of the pack from off on
}

// bytes returns at least n bytes from at on, fewer only at the pack's end. They
// are valid until the next call.
func (w *window) bytes(at int64, n int) ([]byte, error) {
	if at >= w.end {
		return nil, nil
	}
	if at < w.off || at > w.off+int64(len(w.buf)) {
		w.off, w.buf = at, w.buf[:0]
	}
	n = int(min(int64(n), w.end-at))
	if skip := int(at - w.off); skip+n > len(w.buf) {
		if err := w.fill(skip, n); err != nil {
			return nil, err
		}
	}
	return w.buf[at-w.off:], nil
}

// fill drops the first skip bytes, and reads on until there are at least n.
func (w *window) fill(skip, n int) error {
	have := len(w.buf) - skip
	all := grow(w.buf, int(min(int64(max(n, readAhead)), w.end-w.off-int64(skip))))
	copy(all, w.buf[skip:])
	w.off += int64(skip)
	got, err := w.r.ReadAt(all[have:], w.off+int64(have))
	w.buf = all[:have+got]
	if have+got == len(all) {
		return nil
	}
	if err == nil || err == io.EOF {
		w.end = w.off + int64(len(w.buf))
		return nil
	}
	return err
}

package fat

import "io"

// Volume returns the number of the FAT that begins at byte off, such as "4A3B-0C1D", by
// which boot loaders find it. It is "" if there is no FAT, or if it has no number.
func Volume(r io.ReaderAt, off int64) string {
	b := make([]byte, bootSize)
	if n, err := r.ReadAt(b, off); n < len(b) && err != nil {
		return ""
	}
	g, err := parse(b)
	if err != nil {
		return ""
	}
	_, number := g.name(b)
	return number
}

package copier

import (
	"cmp"
	"slices"

	"testbox-imaging/internal/image"
)

func total(list []image.Range) (n int64) {
	for _, r := range list {
		n += r.Len
	}
	return n
}

// appendRange adds a range to an ordered list. If it begins where the last range
// ends, the last range becomes longer.
func appendRange(list []image.Range, r image.Range) []image.Range {
	if n := len(list) - 1; n >= 0 && list[n].End() == r.Off {
		list[n].Len += r.Len
		return list
	}
	return append(list, r)
}

// inOrder sorts ranges that do not overlap, and joins those that touch.
func inOrder(list []image.Range) (out []image.Range) {
	slices.SortFunc(list, func(a, b image.Range) int { return cmp.Compare(a.Off, b.Off) })
	for _, r := range list {
		out = appendRange(out, r)
	}
	return out
}

// without gives the parts of the list's ranges that lie in none of the holes. Both
// lists are in order.
func without(list, holes []image.Range) (out []image.Range) {
	for _, r := range list {
		at := r.Off
		for _, h := range holes {
			if h = h.Clip(at, r.End()); h.Len > 0 {
				if h.Off > at {
					out = append(out, image.Range{Off: at, Len: h.Off - at})
				}
				at = h.End()
			}
		}
		if at < r.End() {
			out = append(out, image.Range{Off: at, Len: r.End() - at})
		}
	}
	return out
}

// within appends to out the parts of the list's ranges that lie in the runs. Both
// lists are in order.
func within(out, list, runs []image.Range) []image.Range {
	for _, r := range list {
		for _, run := range runs {
			if c := r.Clip(run.Off, run.End()); c.Len > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

package pack

import (
	"bytes"
)

// next says where to go on behind an object that is not whole: where it ends,
// if its header is whole and another header or the end is there; else at the
// next header. Disks of stores are backed up too, so there are headers within
// objects: nothing is looked for there if it can be helped.
func (s *scanner) next(at int64, e Entry, end int64) (int64, error) {
	switch {
	case e == Entry{}:
		return s.find(at+1, end)
	case e.End() == end:
		return end, nil
	case e.End() > end:
		return s.find(at+ObjectHeaderSize, end)
	}
	// Hashing is bounded: a pack that is made to be slow has headers everywhere,
	// of long objects that are not whole.
	if s.wasted += int64(e.Stored); s.wasted > MaxSize {
		return e.End(), nil
	}
	n := int(e.End() - at)
	b, err := s.w.bytes(at, n+ObjectHeaderSize) // from at, which may be asked for again
	if err != nil {
		return 0, err
	}
	if !isHeader(b[min(n, len(b)):]) {
		return s.find(at+ObjectHeaderSize, end)
	}
	return e.End(), nil
}

func isHeader(b []byte) bool {
	if len(b) < ObjectHeaderSize {
		return false
	}
	_, _, err := parseObject(b, 0)
	return err == nil
}

// find gives the place of the next header of an object from at on, or end.
func (s *scanner) find(at, end int64) (int64, error) {
	for {
		if err := s.ctx.Err(); err != nil {
			return 0, err
		}
		b, err := s.w.bytes(at, ObjectHeaderSize)
		if err != nil {
			return 0, err
		}
		if len(b) < ObjectHeaderSize || at >= end {
			return end, nil
		}
		n := findHeader(b)
		at += int64(n)
		if n+ObjectHeaderSize <= len(b) {
			return min(at, end), nil
		}
	}
}

// findHeader gives the place of the first header in b; if there is none, the
// first one where one could begin that goes on behind b.
func findHeader(b []byte) int {
	at := 0
	for {
		n := bytes.Index(b[at:], []byte(objectMagic))
		if n < 0 {
			return max(at, len(b)-len(objectMagic)+1)
		}
		if at += n; at+ObjectHeaderSize > len(b) || isHeader(b[at:]) {
			return at
		}
		at++
	}
}

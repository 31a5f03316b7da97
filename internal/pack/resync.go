package pack

import (
	"bytes"
)

// next returns where to go on after a damaged object that begins at at. e is
// empty if the object's header is damaged too. If the header is undamaged, and
// another header or the end follows the object, next returns the object's end.
// Otherwise it returns the place of the next header. It avoids looking for
// headers inside of objects, since disks of stores are backed up too, and so
// objects can contain headers.
func (s *scanner) next(at int64, e Entry, end int64) (int64, error) {
	switch {
	case e == Entry{}:
		return s.find(at+1, end)
	case e.End() == end:
		return end, nil
	case e.End() > end:
		return s.find(at+ObjectHeaderSize, end)
	}
	// The time for hashing is limited. A hostile pack could have headers
	// everywhere, each of a long object that is damaged.
	if s.wasted += int64(e.Stored); s.wasted > MaxSize {
		return e.End(), nil
	}
	n := int(e.End() - at)
	b, err := s.w.bytes(at, n+ObjectHeaderSize) // from at, since find may start there
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

// find returns the place of the next object header from at on, or end.
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

// findHeader returns the place of the first header in b. If there is none, it
// returns the first place where a header could begin that continues after b.
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

package pack

import (
	"context"
	"errors"
	"io"

	"testbox-imaging/internal/object"
)

// Visit gets what Scan finds, in the order of the pack. This is either an
// object as it was stored, or a fault. The object's Data is reused after the
// return. An error of Visit ends the scan.
type Visit func(e Entry, o object.Object, fault *FaultError) error

// Scan reads every byte of a pack, once and from front to back, except for the
// table. Every byte is either part of an undamaged header, object, table or
// trailer, or part of exactly one fault. So a sealed pack without damage has no
// fault. Scan finds objects before, between and after faults by the table, or
// by their headers if the table is damaged. Scan fails only if the pack cannot
// be read, or visit fails.
func Scan(ctx context.Context, r io.ReaderAt, size int64, visit Visit) error {
	if size > MaxSize {
		return visit(Entry{}, object.Object{}, fault(0, size, "a pack cannot be so long"))
	}
	s := &scanner{ctx: ctx, w: window{r: r, end: size}, size: size, visit: visit}
	if _, err := ReadHeader(r); err != nil {
		if err := s.fault(0, min(HeaderSize, size), err); err != nil {
			return err
		}
	}
	entries, end, err := readTable(r, size)
	if err == nil {
		return s.byTable(entries)
	}
	return s.byHeaders(end, err)
}

type scanner struct {
	ctx    context.Context
	w      window
	size   int64
	visit  Visit
	wasted int64 // bytes of damaged objects that were hashed
}

// fault calls visit with a fault that has the reason from err. If err is not a
// FaultError, it ends the scan.
func (s *scanner) fault(off, n int64, err error) error {
	var f *FaultError
	if !errors.As(err, &f) {
		return err
	}
	return s.visit(Entry{}, object.Object{}, &FaultError{off, n, f.Err})
}

// byTable reads the objects that the table lists. The table says where each
// object begins, even if the one before is damaged.
func (s *scanner) byTable(entries []Entry) error {
	for _, e := range entries {
		got, o, err := s.object(int64(e.Off), int64(e.Off)+ObjectHeaderSize+int64(e.Stored))
		if err == nil && got != e {
			err = fault(0, 0, "%v is where the table has %v", got.Key, e.Key)
		}
		if err != nil {
			err = s.fault(int64(e.Off), e.End()-int64(e.Off), err)
		} else {
			err = s.visit(e, o, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// byHeaders goes from object to object up to end, and after a fault to the next
// header. The end of the pack is a fault with the reason tableErr.
func (s *scanner) byHeaders(end int64, tableErr error) error {
	at := min(HeaderSize, end)
	for at < end {
		e, o, err := s.object(at, end)
		if err == nil {
			if err := s.visit(e, o, nil); err != nil {
				return err
			}
			at = e.End()
			continue
		}
		if !errors.Is(err, object.ErrDamaged) {
			return err
		}
		next, nextErr := s.next(at, e, end)
		if nextErr != nil {
			return nextErr
		}
		if next == s.size {
			break // the object is cut off, or this is the rest of a table without a trailer
		}
		if err := s.fault(at, next-at, err); err != nil {
			return err
		}
		at = next
	}
	return s.fault(at, s.size-at, tableErr)
}

// object reads an object that must end before end. If its header is undamaged,
// the Entry is returned even if the rest is damaged.
func (s *scanner) object(at, end int64) (Entry, object.Object, error) {
	e, sum, err := s.header(at, end)
	if err != nil {
		return Entry{}, object.Object{}, err
	}
	n := int(e.End() - at)
	if e.End() > end {
		return e, object.Object{}, fault(at, end-at, "%v would end at %d, behind the last object's end", e.Key, e.End())
	}
	b, err := s.w.bytes(at, n)
	if err != nil {
		return e, object.Object{}, err
	}
	if len(b) < n {
		return e, object.Object{}, fault(at, int64(n), "the pack ends within %v", e.Key)
	}
	o, err := e.object(b[:n], sum)
	return e, o, err
}

// header reads an object's header.
func (s *scanner) header(at, end int64) (Entry, uint64, error) {
	if err := s.ctx.Err(); err != nil {
		return Entry{}, 0, err
	}
	b, err := s.w.bytes(at, ObjectHeaderSize)
	if err != nil {
		return Entry{}, 0, err
	}
	if len(b) < ObjectHeaderSize || at+ObjectHeaderSize > end {
		return Entry{}, 0, fault(at, end-at, "there is no room for an object")
	}
	e, sum, err := parseObject(b, at)
	if err != nil {
		return Entry{}, 0, &FaultError{at, ObjectHeaderSize, err}
	}
	return e, sum, nil
}

package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
)

// ReadHeader reads the header of a pack. If it is damaged, the error is a
// *FaultError.
func ReadHeader(r io.ReaderAt) (Header, error) {
	b := make([]byte, HeaderSize)
	if err := readFull(r, b, 0); err != nil {
		return Header{}, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return Header{}, &FaultError{0, HeaderSize, err}
	}
	return h, nil
}

// ReadTable reads the header and the table of a sealed pack of size bytes. It
// checks all that can be checked without reading the objects, including that
// the objects fill the space from the header to the table. Damage is reported
// as a *FaultError.
func ReadTable(r io.ReaderAt, size int64) (Header, []Entry, error) {
	h, err := ReadHeader(r)
	if err != nil {
		return Header{}, nil, err
	}
	entries, _, err := readTable(r, size)
	return h, entries, err
}

// tailSize is how many bytes are read to get trailer and table at once. The
// table of a full pack of small chunks has about this size.
const tailSize = 64 << 10

// readTable also returns where the table begins. It returns size if the trailer
// does not say.
func readTable(r io.ReaderAt, size int64) ([]Entry, int64, error) {
	if size < HeaderSize+trailerSize || size > MaxSize {
		return nil, size, fault(0, size, "a whole pack cannot have %d bytes", size)
	}
	tail := make([]byte, min(size, tailSize))
	if err := readFull(r, tail, size-int64(len(tail))); err != nil {
		return nil, size, err
	}
	off, sum, err := parseTrailer(tail[len(tail)-trailerSize:], size)
	if err != nil {
		return nil, size, &FaultError{size - trailerSize, trailerSize, err}
	}
	n := size - trailerSize - off
	if have := int64(len(tail)) - trailerSize; n <= have {
		tail = tail[have-n : have]
	} else {
		tail = make([]byte, n)
		if err := readFull(r, tail, off); err != nil {
			return nil, off, err
		}
	}
	entries, err := parseTable(tail, off, sum)
	if err != nil {
		return nil, off, &FaultError{off, n, err}
	}
	return entries, off, nil
}

// parseTrailer returns the place of the table and its hash.
func parseTrailer(b []byte, size int64) (off int64, sum [32]byte, err error) {
	if string(b[:8]) != tableMagic || !sumFits(b) || binary.LittleEndian.Uint64(b[48:]) != 0 {
		return 0, sum, errors.New("the pack does not end as a whole one does; it was cut off, or its end is damaged")
	}
	count, off := int64(binary.LittleEndian.Uint32(b[8:])), int64(binary.LittleEndian.Uint32(b[12:]))
	if off < HeaderSize+count*(ObjectHeaderSize+1) || off+count*tableEntrySize+trailerSize != size {
		return 0, sum, fmt.Errorf("%d objects and a table at %d do not make a pack of %d bytes", count, off, size)
	}
	return off, [32]byte(b[16:]), nil
}

func parseTable(table []byte, end int64, sum [32]byte) ([]Entry, error) {
	if blake3.Sum256(table) != sum {
		return nil, errors.New("the table does not match its hash")
	}
	entries := make([]Entry, 0, len(table)/tableEntrySize)
	at := int64(HeaderSize)
	for ; len(table) > 0; table = table[tableEntrySize:] {
		e, err := parseTableEntry(table)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the table: %w", len(entries), err)
		}
		if int64(e.Off) != at || e.End() > end {
			return nil, fmt.Errorf("the table has bytes %d to %d for %v, which begins at %d in front of %d", e.Off, e.End(), e.Key, at, end)
		}
		at = e.End()
		entries = append(entries, e)
	}
	if at != end {
		return nil, fmt.Errorf("the objects end at %d, the table begins at %d", at, end)
	}
	return entries, nil
}

// ReadObject reads the object at off, in buf's memory if that is large enough
// for hint bytes and for the object with its header. If hint is at least the
// length of header and stored bytes, it reads only once. It checks the sums. It
// does not check the name, which object.Object.Decode does. Damage is reported
// as a *FaultError.
func ReadObject(r io.ReaderAt, off int64, hint int, buf []byte) (object.Object, error) {
	b := grow(buf, min(max(hint, ObjectHeaderSize), object.MaxRoot+ObjectHeaderSize))
	n, err := r.ReadAt(b, off)
	if n < ObjectHeaderSize {
		if err == nil || err == io.EOF {
			err = fault(off, ObjectHeaderSize, "the pack ends at %d, before or within them", off+int64(n))
		}
		return object.Object{}, err
	}
	e, sum, err := parseObject(b, off)
	if err != nil {
		return object.Object{}, &FaultError{off, ObjectHeaderSize, err}
	}
	whole := ObjectHeaderSize + int(e.Stored)
	if n < whole {
		all := grow(b, whole)
		copy(all, b[:n])
		if err := readFull(r, all[n:], off+int64(n)); err != nil {
			return object.Object{}, err
		}
		b = all
	}
	return e.object(b[:whole], sum)
}

// ParseObject is ReadObject for bytes that were read already. b begins with the object,
// which is at off in its pack, and may go on behind it. The object's bytes are in b.
func ParseObject(b []byte, off int64) (object.Object, error) {
	if len(b) < ObjectHeaderSize {
		return object.Object{}, fault(off, ObjectHeaderSize, "only %d of them are there", len(b))
	}
	e, sum, err := parseObject(b[:ObjectHeaderSize], off)
	if err != nil {
		return object.Object{}, &FaultError{off, ObjectHeaderSize, err}
	}
	whole := ObjectHeaderSize + int(e.Stored)
	if len(b) < whole {
		return object.Object{}, fault(off, int64(whole), "only %d of them are there", len(b))
	}
	return e.object(b[:whole:whole], sum)
}

// object makes the object from b, which has its header and stored bytes, and
// checks the sum.
func (e Entry) object(b []byte, sum uint64) (object.Object, error) {
	o := object.Object{Key: e.Key, Codec: e.Codec, RawLen: int(e.Raw), Data: b[ObjectHeaderSize:]}
	if xxh3.Hash(o.Data) != sum {
		return object.Object{}, fault(int64(e.Off), int64(len(b)), "%v is not what was stored", e.Key)
	}
	return o, nil
}

// grow returns n bytes, in b's memory if that is large enough.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

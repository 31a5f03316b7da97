// Package form knows what files look like that hold a disk in another form
// than its raw bytes, or no disk at all: images of other tools, archives,
// compressed streams, text. Taken for raw bytes, such a file would be written
// over a disk, which then holds nothing that starts.
//
// Most forms begin with a mark, some end with one. Two rules keep real disks
// from being taken for one of them. A mark shorter than eight bytes does not
// count beside a partition table, since four bytes of somebody's boot code can
// be anything. And a form that has fields beside its mark must have values in
// them that make sense.
//
// File systems are none of these forms: a disk may hold one without a
// partition table. Neither is LUKS, which encrypts whole disks too.
package form

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Form is what a file is instead of the raw bytes of a disk.
type Form struct {
	Kind Kind
	What string // "a VHD image", to follow "it is"
	How  string // what to do, to follow a semicolon
}

func (f *Form) String() string { return f.What + "; " + f.How }

// Kind tells the forms that this program can read from the others.
type Kind int

// The kinds.
const (
	Other Kind = iota
	Gzip
	Zstd
	Qcow2
)

// headLen is how much of the beginning is looked at, bytes. A GPT of a disk
// with sectors of 4096 bytes has its header in it.
const headLen = 8 << 10

// tailLen is how much of the end is looked at, bytes.
const tailLen = 4 << 10

// Of says which form a file of size bytes has; nil is none that is known, so
// that its bytes may be a disk's.
func Of(r io.ReaderAt, size int64) (*Form, error) {
	head, err := part(r, 0, min(size, headLen))
	if err != nil {
		return nil, err
	}
	tail, err := part(r, max(size-tailLen, 0), min(size, tailLen))
	if err != nil {
		return nil, err
	}
	f := file{r: r, size: size, head: head, tail: tail}
	partitioned := isPartitioned(head)
	for i := range heads {
		m := &heads[i]
		if partitioned && m.fixed() < sureLen {
			continue
		}
		if m.fits(&f) {
			return &m.Form, nil
		}
	}
	for i := range tails {
		if tails[i].fits(&f) {
			return &tails[i].Form, nil
		}
	}
	return f.text(), nil
}

// file is a file that is looked at.
type file struct {
	r          io.ReaderAt
	size       int64
	head, tail []byte // both have all of a file that is shorter
}

func part(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	k, err := r.ReadAt(b, off)
	if int64(k) < n && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read at byte %d: %w", off, err)
	}
	return b[:k], nil
}

// isPartitioned reports whether the beginning of a file is that of a disk with
// a partition table: a boot record with a partition in it, or a GPT.
func isPartitioned(head []byte) bool {
	for _, at := range []int{512, 4096} {
		if len(head) >= at+16 && string(head[at:at+12]) == "EFI PART\x00\x00\x01\x00" {
			return true
		}
	}
	if len(head) < 512 || string(head[510:512]) != "\x55\xaa" {
		return false
	}
	used := false
	for e := head[446:510]; len(e) > 0; e = e[16:] {
		if e[0]&0x7f != 0 { // the status is 00 or 80
			return false
		}
		used = used || e[4] != 0 && binary.LittleEndian.Uint32(e[12:]) != 0
	}
	return used
}

// Ends are the beginning and the end of bytes of which only these are known,
// as those of an image that was read in order. What lies between reads as
// zeros.
type Ends struct {
	Head, Tail []byte // of all bytes, if there are not more
	Size       int64
}

// ReadAt implements io.ReaderAt.
func (e *Ends) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at byte %d", off)
	}
	if off >= e.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), e.Size-off))
	clear(p[:n])
	if off < int64(len(e.Head)) {
		copy(p[:n], e.Head[off:])
	}
	if skip := e.Size - int64(len(e.Tail)) - off; skip < int64(n) {
		copy(p[max(skip, 0):n], e.Tail[max(-skip, 0):])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Form is Of for what is known of the bytes.
func (e *Ends) Form() *Form {
	f, _ := Of(e, e.Size) // memory can be read
	return f
}

// hasAt reports whether b has text at a place.
func hasAt(b []byte, at int, text string) bool {
	return at >= 0 && at <= len(b) && bytes.HasPrefix(b[at:], []byte(text))
}

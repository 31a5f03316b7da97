// Package form recognizes files that are not the raw bytes of a disk, such as
// images of other tools, archives, compressed streams and text. If such a file
// were taken for raw bytes, it would be written over a disk, and the disk would
// not boot.
//
// Most forms begin with a mark, and some end with one. Two rules keep the raw
// bytes of a real disk from being taken for another form. First, a mark shorter
// than eight bytes does not count beside a partition table, since boot code can
// have any four bytes at any place. Second, if a form has fields beside its mark,
// their values must make sense.
//
// File systems are not among these forms, since a disk may have one without a
// partition table. LUKS is not among them either, since it can encrypt a whole
// disk.
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
	What string // "a VHD image", to be put behind "it is"
	How  string // what to do, to be put behind a semicolon
}

func (f *Form) String() string { return f.What + "; " + f.How }

// Kind names the forms that this program can read. All others are Other.
type Kind int

// The kinds of forms.
const (
	Other Kind = iota
	Gzip
	Zstd
	Qcow2
)

// headLen is how many bytes at the beginning are looked at. They include the GPT
// header of a disk with sectors of 4096 bytes.
const headLen = 8 << 10

// tailLen is how many bytes at the end are looked at.
const tailLen = 4 << 10

// Of says which form a file of size bytes has. It returns nil if the file has none
// of the known forms, so that it may be the raw bytes of a disk.
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

// file is the file whose form is in question.
type file struct {
	r          io.ReaderAt
	size       int64
	head, tail []byte // its beginning and its end, or the whole file if that is short
}

func part(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	k, err := r.ReadAt(b, off)
	if int64(k) < n && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read at byte %d: %w", off, err)
	}
	return b[:k], nil
}

// isPartitioned reports whether the beginning of a file has a partition table,
// which is a boot record with a partition in it, or a GPT.
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

// Ends are the beginning and the end of a disk of which nothing else is kept, as
// of an image that is read in order. Bytes between them read as zeros.
type Ends struct {
	Head, Tail []byte // they may overlap if the disk is small
	Size       int64  // of the disk, in bytes
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

// Form gives the form as Of does, from the beginning and the end alone.
func (e *Ends) Form() *Form {
	f, _ := Of(e, e.Size) // reads of memory do not fail
	return f
}

// hasAt reports whether b has text at the place at.
func hasAt(b []byte, at int, text string) bool {
	return at >= 0 && at <= len(b) && bytes.HasPrefix(b[at:], []byte(text))
}

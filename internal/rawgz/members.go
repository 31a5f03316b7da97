package rawgz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"

	"testbox-imaging/internal/image"
)

// isEndHeader reports whether h begins an end member.
func isEndHeader(h []byte) bool {
	return len(h) >= len(endHeader) && string(h[:len(endHeader)]) == endHeader
}

// nextMember reads the next member of a file of ours.
func (z *Reader) nextMember() (image.Piece, error) {
	if z.in.pos() == z.in.size-endLen {
		if z.off != z.end.rawSize {
			return image.Piece{}, fmt.Errorf("the disk has %d bytes, the image says %d", z.off, z.end.rawSize)
		}
		return image.Piece{}, io.EOF // NewReader has read and checked the end member
	}
	head, err := z.in.buf.Peek(headerLen)
	if err != nil {
		return image.Piece{}, notEOF(err)
	}
	n, raw, err := parseHeader(head)
	if err != nil {
		return image.Piece{}, err
	}
	if z.off+int64(raw) > z.end.rawSize || z.in.pos()+int64(n) > z.in.size-endLen {
		return image.Piece{}, errors.New("a length in it is out of bounds")
	}
	if zero, err := z.skipZero(n, raw); zero || err != nil {
		return image.Piece{Content: image.Zero, Len: int64(raw)}, err
	}
	m := getBuffer(n)
	if _, err := io.ReadFull(z.in.buf, *m); err != nil {
		return image.Piece{}, notEOF(err)
	}
	off := z.off
	return image.Piece{Len: int64(raw), Decode: func(dst []byte) error {
		defer buffers.Put(m)
		return damaged(off, decodeMember(dst[:raw], *m))
	}}, nil
}

// skipZero reports whether the next member is the fixed member of a piece of
// zeros, and skips it then.
func (z *Reader) skipZero(n, raw int) (bool, error) {
	want := zeroPiece()
	if raw < image.PieceSize {
		want = zeroMember(raw)
	}
	if n != len(want) {
		return false, nil
	}
	m, err := z.in.buf.Peek(n)
	if err != nil {
		return false, notEOF(err)
	}
	if !bytes.Equal(m, want) {
		return false, nil
	}
	_, err = z.in.buf.Discard(n)
	return true, err
}

// buffers hold members between Next and Decode.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func getBuffer(n int) *[]byte {
	b := buffers.Get().(*[]byte)
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

// inflater is a decompressor and its input.
type inflater struct {
	in bytes.Reader
	fr io.ReadCloser
}

var inflaters = sync.Pool{New: func() any {
	f := new(inflater)
	f.fr = flate.NewReader(&f.in)
	return f
}}

// decodeMember fills dst with the piece of a member. It checks the CRC-32 and the
// length that the member has.
func decodeMember(dst, member []byte) error {
	body, trailer := member[headerLen:len(member)-trailerLen], member[len(member)-trailerLen:]
	if err := inflate(dst, body); err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(trailer) != crc32.ChecksumIEEE(dst):
		return errors.New("CRC-32 does not match")
	case binary.LittleEndian.Uint32(trailer[4:]) != uint32(len(dst)):
		return errors.New("length does not match")
	}
	return nil
}

// inflate decompresses body into dst. body must give exactly len(dst) bytes, and
// have nothing behind them.
func inflate(dst, body []byte) error {
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	f.in.Reset(body)
	f.fr.(flate.Resetter).Reset(&f.in, nil)
	if _, err := io.ReadFull(f.fr, dst); err != nil {
		return notEOF(err)
	}
	var more [1]byte
	switch n, err := f.fr.Read(more[:]); {
	case n > 0:
		return errors.New("more bytes than its length says")
	case err != io.EOF:
		return notEOF(err)
	case f.in.Len() > 0:
		return errors.New("something follows the compressed bytes")
	}
	return nil
}

// Package rawgz reads and writes the image files of share mode, <disk>.raw.gz.
// Such a file has the exact bytes of a disk as a gzip file (RFC 1952). `gunzip -c`
// gives the bytes back. Many processors can write or read a file at once.
//
// # Format
//
// The disk is cut into pieces of image.PieceSize bytes. The last piece may be
// shorter. Each piece is a gzip member of its own. Its header is always
//
//	1f 8b 08 04  00 00 00 00  00 ff   deflate, extra field, no time, unknown system
//	0c 00                             12 bytes of extra field follow
//	54 42 08 00                       subfield "TB", 8 bytes
//	u32 length of the member in bytes, u32 length of the piece in bytes (little endian)
//
// A piece of zeros has one fixed member for each length (see zeroMember). A reader
// recognizes it by comparison. Behind the last piece follows an end member. It has
// an empty piece and a second subfield. Thanks to it, a file that was cut off is
// never taken for complete, even if it was cut between two members. The second
// subfield is
//
//	54 45 28 00                       subfield "TE", 40 bytes
//	u64 length of the disk in bytes, 32 bytes BLAKE3 of the disk
//
// The same version of this program always makes the same file from the same disk.
package rawgz

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"testbox-imaging/internal/image"
)

const (
	headerLen  = 24         // length of the header of a piece's member
	endExtra   = 44         // how much longer the end member's header is
	trailerLen = 8          // CRC-32 and length at a member's end
	endBody    = "\x03\x00" // the deflate form of no bytes
	endLen     = headerLen + endExtra + 2 + trailerLen
	hashLen    = 32
	// maxMember bounds a member's length. A piece that does not compress needs
	// 5 more bytes for each 64 KiB, and an encoder may need a few more.
	maxMember = image.PieceSize + 4096
	minMember = headerLen + 2 + trailerLen
)

// fixedHeader is the start of every member of a piece, up to the lengths.
const fixedHeader = "\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x0c\x00TB\x08\x00"

// endHeader is the start of the end member, up to the lengths. endMark follows the
// lengths.
const (
	endHeader = "\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x38\x00TB\x08\x00"
	endMark   = "TE\x28\x00"
)

var errNotOurs = errors.New("not a member of ours")

// parseHeader reads a member's header. It gives the length of the member, and of
// the piece in it.
func parseHeader(h []byte) (member, raw int, err error) {
	if len(h) < headerLen || string(h[:len(fixedHeader)]) != fixedHeader {
		return 0, 0, errNotOurs
	}
	m := binary.LittleEndian.Uint32(h[16:])
	n := binary.LittleEndian.Uint32(h[20:])
	if m < minMember || m > maxMember || n == 0 || n > image.PieceSize {
		return 0, 0, errors.New("a length in it is out of bounds")
	}
	return int(m), int(n), nil
}

// appendTrailer appends the end of a member, which has the piece's CRC-32 and
// length.
func appendTrailer(dst, piece []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(piece))
	return binary.LittleEndian.AppendUint32(dst, uint32(len(piece)))
}

// putLengths writes the lengths into the header of the member m.
func putLengths(m []byte, raw int) {
	binary.LittleEndian.PutUint32(m[16:], uint32(len(m)))
	binary.LittleEndian.PutUint32(m[20:], uint32(raw))
}

// end is what the end member says of the disk.
type end struct {
	rawSize int64
	blake3  [hashLen]byte
}

func (e end) marshal() []byte {
	b := append(make([]byte, 0, endLen), endHeader...)
	b = binary.LittleEndian.AppendUint32(b, uint32(endLen))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, endMark...)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.rawSize))
	b = append(b, e.blake3[:]...)
	b = append(b, endBody...)
	return appendTrailer(b, nil)
}

// parseEnd reads an end member. Every byte must be as marshal writes it.
func parseEnd(b []byte) (end, bool) {
	var e end
	if len(b) != endLen {
		return e, false
	}
	const at = headerLen + len(endMark)
	e.rawSize = int64(binary.LittleEndian.Uint64(b[at:]))
	copy(e.blake3[:], b[at+8:])
	return e, e.rawSize >= 0 && string(e.marshal()) == string(b)
}

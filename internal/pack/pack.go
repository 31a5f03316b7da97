// Package pack reads and writes the files in which a store keeps its objects. A
// pack has a header, then the objects, each with a header of its own, and a
// table at the end. A pack is written once and never changes. docs/format.md
// describes the bytes. All numbers are little-endian.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
)

// TargetSize is the length in bytes at which a pack is full.
const TargetSize = 64 << 20

// MaxSize is the length of the longest pack, in bytes. A pack can exceed
// TargetSize, since one object can be larger than the space that is left. The
// index allows offsets up to MaxSize.
const MaxSize = 256 << 20

// These are the lengths of the fixed parts, in bytes.
const (
	HeaderSize       = 40
	ObjectHeaderSize = 64
	tableEntrySize   = 48
	trailerSize      = 64
)

const (
	packMagic   = "TBXPACK1"
	objectMagic = "TBXO"
	tableMagic  = "TBXTABLE"
)

// Header is the beginning of a pack.
type Header struct {
	Number uint32   // of the pack, in its store
	Store  [16]byte // the store's UUID
}

// Entry describes an object in a pack.
type Entry struct {
	object.Key
	Codec  object.Codec
	Off    uint32 // offset of the object's header in the pack, in bytes
	Stored uint32 // bytes of the stored form, without the header
	Raw    uint32 // bytes before compression
}

// End returns where the next object begins.
func (e Entry) End() int64 { return int64(e.Off) + ObjectHeaderSize + int64(e.Stored) }

// FaultError is a part of a pack that is not as it was written.
type FaultError struct {
	Off, Len int64 // bytes of the pack; Len is 0 if something is missing at Off
	Err      error
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("%d bytes at %d: %v", e.Len, e.Off, e.Err)
}

// Unwrap returns the reason, and object.ErrDamaged, which all faults match.
func (e *FaultError) Unwrap() []error { return []error{e.Err, object.ErrDamaged} }

func fault(off, n int64, format string, args ...any) *FaultError {
	return &FaultError{off, n, fmt.Errorf(format, args...)}
}

// appendSum ends a fixed part with the xxh3-64 of its bytes, which begin at
// start.
func appendSum(b []byte, start int) []byte {
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b[start:]))
}

// sumFits checks the sum that appendSum wrote.
func sumFits(b []byte) bool {
	n := len(b) - 8
	return binary.LittleEndian.Uint64(b[n:]) == xxh3.Hash(b[:n])
}

func (h Header) append(b []byte) []byte {
	start := len(b)
	b = append(b, packMagic...)
	b = binary.LittleEndian.AppendUint32(b, h.Number)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, h.Store[:]...)
	return appendSum(b, start)
}

func parseHeader(b []byte) (Header, error) {
	if string(b[:8]) != packMagic || !sumFits(b) || binary.LittleEndian.Uint32(b[12:]) != 0 {
		return Header{}, errors.New("this is no header of a pack")
	}
	return Header{binary.LittleEndian.Uint32(b[8:]), [16]byte(b[16:])}, nil
}

// appendHeader appends the header of the object. sum is the xxh3-64 of its
// stored bytes.
func (e Entry) appendHeader(b []byte, sum uint64) []byte {
	start := len(b)
	b = append(b, objectMagic...)
	b = append(b, byte(e.Kind), byte(e.Codec), 0, 0)
	b = e.appendRest(b)
	b = binary.LittleEndian.AppendUint64(b, sum)
	return appendSum(b, start)
}

var errNoHeader = errors.New("this is no header of an object")

// parseObject parses an object's header, which is at off in the pack.
func parseObject(b []byte, off int64) (e Entry, sum uint64, err error) {
	if string(b[:4]) != objectMagic || !sumFits(b[:ObjectHeaderSize]) {
		return Entry{}, 0, errNoHeader
	}
	e, err = parseEntry(b[4:8], b[8:48], uint32(off))
	return e, binary.LittleEndian.Uint64(b[48:]), err
}

// appendTable appends the object's entry in the table.
func (e Entry) appendTable(b []byte) []byte {
	b = append(b, byte(e.Kind), byte(e.Codec), 0, 0)
	b = binary.LittleEndian.AppendUint32(b, e.Off)
	return e.appendRest(b)
}

func parseTableEntry(b []byte) (Entry, error) {
	return parseEntry(b[:4], b[8:48], binary.LittleEndian.Uint32(b[4:]))
}

func (e Entry) appendRest(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, e.Stored)
	b = binary.LittleEndian.AppendUint32(b, e.Raw)
	return append(b, e.Name[:]...)
}

// parseEntry parses what an object's header and its table entry have in common.
// what has the kind and the codec, rest has two lengths and the name.
func parseEntry(what, rest []byte, off uint32) (Entry, error) {
	e := Entry{
		Key:   object.Key{Kind: object.Kind(what[0]), Name: object.Name(rest[8:40])},
		Codec: object.Codec(what[1]), Off: off,
		Stored: binary.LittleEndian.Uint32(rest), Raw: binary.LittleEndian.Uint32(rest[4:]),
	}
	if what[2] != 0 || what[3] != 0 {
		return e, errors.New("it has more than this version knows")
	}
	return e, object.CheckForm(e.Kind, e.Codec, int(e.Raw), int(e.Stored))
}

// readFull fills b. If the pack is too short, the error is a *FaultError.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		return fault(off, int64(len(b)), "the pack ends at %d, before or within them", off+int64(n))
	}
	return err
}

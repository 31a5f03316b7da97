// Package object has the types of what a store keeps. An object has a kind, is
// named by the BLAKE3-256 of its bytes, and is compressed independently of
// others. The package imports nothing of this project.
package object

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// Kind is the kind of an object. An object of one kind is never used as one of
// another kind, whatever its bytes are. The bytes of chunks come from disks,
// and could be made to look like a page.
type Kind uint8

// These are the kinds, with their numbers on disk (docs/format.md).
const (
	Chunk Kind = 1 // bytes of a disk
	Page  Kind = 2 // what a region of a disk holds (package chunk)
	Root  Kind = 3 // an image, that is, its pages and the facts of its disk (package chunk)
)

// These are the sizes of the largest objects, in bytes before compression.
const (
	MaxChunk = 1 << 20
	MaxPage  = 1 << 20
	MaxRoot  = 32 << 20
)

// Max returns the largest length of an object of this kind, in bytes. It
// returns 0 if there is no such kind.
func (k Kind) Max() int {
	switch k {
	case Chunk:
		return MaxChunk
	case Page:
		return MaxPage
	case Root:
		return MaxRoot
	}
	return 0
}

func (k Kind) String() string {
	switch k {
	case Chunk:
		return "chunk"
	case Page:
		return "page"
	case Root:
		return "root"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Name is the BLAKE3-256 of an object's bytes before compression.
type Name [32]byte

// NameOf returns the name of an object with these bytes.
func NameOf(raw []byte) Name { return blake3.Sum256(raw) }

// String returns the name as 64 hexadecimal digits.
func (n Name) String() string { return hex.EncodeToString(n[:]) }

// ParseName parses 64 lower-case hexadecimal digits.
func ParseName(s string) (n Name, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(n) || hex.EncodeToString(b) != s {
		return Name{}, fmt.Errorf("%q is not a name: 64 hexadecimal digits", s)
	}
	return Name(b), nil
}

// MarshalText returns the 64 hexadecimal digits, so that a name is a string in
// JSON.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText parses the text as ParseName does.
func (n *Name) UnmarshalText(text []byte) (err error) {
	*n, err = ParseName(string(text))
	return err
}

// Key identifies an object.
type Key struct {
	Kind Kind
	Name Name
}

func (k Key) String() string { return k.Kind.String() + " " + k.Name.String() }

// Codec says how an object's bytes are stored.
type Codec uint8

// These are the codecs, with their numbers on disk.
const (
	Raw  Codec = 0
	Zstd Codec = 1 // one frame (RFC 8878) with its content size
)

// Object is an object as it is stored and sent.
type Object struct {
	Key
	Codec  Codec
	RawLen int    // bytes before compression, 1 to Kind.Max()
	Data   []byte // stored form, never longer than RawLen
}

// Slack is a number of extra bytes in a buffer for Decode. With them Decode is
// faster by a fifth, since the decoder can copy whole words up to the end.
const Slack = 64

// ErrDamaged is matched by errors that say that an object's bytes do not match
// its name.
var ErrDamaged = errors.New("damaged")

// Encode makes the stored form of an object whose name is known, in dst's
// memory if that is large enough. If compression gains nothing, the bytes are
// stored uncompressed, and Data is raw itself.
func Encode(key Key, raw, dst []byte) Object {
	if packed := encoder().EncodeAll(raw, dst[:0]); len(packed) < len(raw) {
		return Object{key, Zstd, len(raw), packed}
	}
	return Object{key, Raw, len(raw), raw}
}

// Decode returns the object's bytes, in dst's memory if that is large enough,
// and checks that they match the name. Errors match ErrDamaged. Up to Slack
// bytes of dst's memory after the object's bytes may be overwritten.
func (o Object) Decode(dst []byte) ([]byte, error) {
	raw, err := o.Unpack(dst)
	if err == nil && NameOf(raw) != o.Name {
		return nil, o.damaged(errors.New("its bytes have another name"))
	}
	return raw, err
}

// Unpack is Decode without the comparison with the name, for callers that make it
// later.
func (o Object) Unpack(dst []byte) ([]byte, error) {
	raw, err := o.unpack(dst)
	if err != nil {
		return nil, o.damaged(err)
	}
	return raw, nil
}

func (o Object) damaged(err error) error { return fmt.Errorf("%v is %w: %w", o.Key, ErrDamaged, err) }

// Check returns an error if the lengths and the codec are not possible. It does
// not look into Data.
func (o Object) Check() error { return CheckForm(o.Kind, o.Codec, o.RawLen, len(o.Data)) }

// CheckForm is Check for an object of which only the form is known. raw is its
// RawLen, stored is the length of its Data.
func CheckForm(kind Kind, codec Codec, raw, stored int) error {
	switch {
	case kind.Max() == 0 || codec > Zstd:
		return fmt.Errorf("kind %d with codec %d is nothing that this version knows", kind, codec)
	case raw < 1 || raw > kind.Max():
		return fmt.Errorf("%v of %d bytes: out of range", kind, raw)
	case codec == Raw && stored != raw, codec == Zstd && (stored < 1 || stored >= raw):
		return fmt.Errorf("%d bytes cannot be stored as %d", raw, stored)
	}
	return nil
}

func (o Object) unpack(dst []byte) ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if cap(dst) < o.RawLen {
		dst = make([]byte, o.RawLen+Slack)
	}
	if o.Codec == Raw {
		return append(dst[:0], o.Data...), nil
	}
	if err := checkFrame(o.Data, o.RawLen); err != nil {
		return nil, err
	}
	// The limited capacity stops a frame that has more bytes than it claims.
	raw, err := decoder().DecodeAll(o.Data, dst[:0:min(cap(dst), o.RawLen+Slack)])
	if err == nil && len(raw) != o.RawLen {
		err = fmt.Errorf("it unpacks to %d bytes, not to %d", len(raw), o.RawLen)
	}
	return raw, err
}

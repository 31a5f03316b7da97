package pack

import (
	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
)

// Frame is the header of an object that is sent by itself, as over a connection.
// It has the bytes of an object's header in a pack.
type Frame struct {
	Entry        // with Off 0
	Sum   uint64 // xxh3-64 of the stored bytes
}

// AppendFrame appends the header of an object. The object's stored bytes follow it.
// The caller has checked the object's form.
func AppendFrame(b []byte, o object.Object) []byte {
	e := Entry{Key: o.Key, Codec: o.Codec, Stored: uint32(len(o.Data)), Raw: uint32(o.RawLen)}
	return e.appendHeader(b, xxh3.Hash(o.Data))
}

// ParseFrame parses a header of ObjectHeaderSize bytes. It accepts only lengths
// that an object can have.
func ParseFrame(b []byte) (Frame, error) {
	e, sum, err := parseObject(b, 0)
	return Frame{e, sum}, err
}

// Object makes the object from its stored bytes, and checks the sum. It does not
// check the name. If the sum does not match, the error matches object.ErrDamaged.
func (f Frame) Object(stored []byte) (object.Object, error) {
	o := object.Object{Key: f.Key, Codec: f.Codec, RawLen: int(f.Raw), Data: stored}
	if xxh3.Hash(stored) != f.Sum {
		return object.Object{}, fault(0, int64(len(stored)), "%v does not match its sum", f.Key)
	}
	return o, nil
}

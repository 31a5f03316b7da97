package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// FrameSize is the length of the header of each object that is sent, in bytes.
const FrameSize = pack.ObjectHeaderSize

// lackMagic begins the header that is sent instead of an object that cannot be
// sent. It is as long as an object's header.
const lackMagic = "TBXN"

// Verdict says what is known of an object, in the answer to a check and in place of
// an object.
type Verdict byte

// These are the verdicts.
const (
	Sound   Verdict = 0
	Missing Verdict = 1
	Damaged Verdict = 2
	Failed  Verdict = 3 // it is not known, because something broke
)

var verdicts = [...]Code{Missing: CodeMissing, Damaged: CodeDamaged, Failed: CodeFailed}

// VerdictOf returns the verdict that goes with an error of a chunk.Getter.
func VerdictOf(err error) Verdict {
	if err == nil {
		return Sound
	}
	switch ProblemOf(err).Code {
	case CodeMissing:
		return Missing
	case CodeDamaged:
		return Damaged
	}
	return Failed
}

// Problem returns the problem that goes with a verdict, or nil if the object is
// sound.
func (v Verdict) Problem(text string) *Problem {
	if v == Sound {
		return nil
	}
	return &Problem{Code: verdicts[v], Text: Clean(text)}
}

func (v Verdict) String() string {
	return [...]string{"sound", "missing at the server", "damaged at the server", "not readable at the server"}[min(v, Failed)]
}

// Valid reports whether there is such a verdict.
func (v Verdict) Valid() bool { return v <= Failed }

// AppendLack appends what is sent instead of an object that could not be read.
//
//	"TBXN", u8 verdict (not 0), 3 zero bytes
//	u32 length of the text, 36 zero bytes
//	u64 xxh3-64 of the text
//	u64 xxh3-64 of the 56 bytes before
//	the text
func AppendLack(b []byte, err error) []byte {
	text := Clean(err.Error())
	start := len(b)
	b = append(b, lackMagic...)
	b = append(b, byte(VerdictOf(err)), 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, make([]byte, 36)...)
	b = binary.LittleEndian.AppendUint64(b, xxh3.HashString(text))
	b = binary.LittleEndian.AppendUint64(b, xxh3.Hash(b[start:]))
	return append(b, text...)
}

// parseLack parses the header that AppendLack writes. It returns the length of the
// text, and its sum.
func parseLack(b []byte) (v Verdict, n int, sum uint64, err error) {
	n, v = int(binary.LittleEndian.Uint32(b[8:])), Verdict(b[4])
	switch {
	case xxh3.Hash(b[:56]) != binary.LittleEndian.Uint64(b[56:]):
		return 0, 0, 0, errors.New("a header does not match its sum")
	case v == Sound || !v.Valid() || n > MaxText || [3]byte(b[5:]) != [3]byte{} || [36]byte(b[12:]) != [36]byte{}:
		return 0, 0, 0, errors.New("a header says something unknown in place of an object")
	}
	return v, n, binary.LittleEndian.Uint64(b[48:]), nil
}

// Header is what ReadHeader found: an object of which the stored bytes follow, or
// the reason why there is none.
type Header struct {
	pack.Frame
	Lack *Problem // nil for an object
}

// ReadHeader reads the header of the next object, and all that is sent instead of
// one. If nothing follows, the error is io.EOF.
func ReadHeader(r io.Reader) (Header, error) {
	var b [FrameSize + MaxText]byte
	if _, err := io.ReadFull(r, b[:FrameSize]); err != nil {
		return Header{}, err
	}
	if string(b[:4]) != lackMagic {
		f, err := pack.ParseFrame(b[:FrameSize])
		return Header{Frame: f}, err
	}
	v, n, sum, err := parseLack(b[:FrameSize])
	if err != nil {
		return Header{}, err
	}
	text := b[FrameSize:][:n]
	if _, err := io.ReadFull(r, text); err != nil {
		return Header{}, unexpected(err)
	}
	if xxh3.Hash(text) != sum {
		return Header{}, errors.New("a text does not match its sum")
	}
	return Header{Lack: v.Problem(string(text))}, nil
}

// ReadObject reads the stored bytes that follow a header, in buf's memory if that is
// large enough. It checks the sum, and not the name.
func (h *Header) ReadObject(r io.Reader, buf []byte) (object.Object, error) {
	n := int(h.Stored)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return object.Object{}, unexpected(err)
	}
	return h.Object(buf[:n])
}

// AppendHeader appends the header of an object. The object's stored bytes follow it.
func AppendHeader(b []byte, o object.Object) []byte { return pack.AppendFrame(b, o) }

// ReadEnd returns an error unless nothing follows.
func ReadEnd(r io.Reader) error {
	var b [1]byte
	switch n, err := io.ReadFull(r, b[:]); {
	case n > 0:
		return errors.New("something follows the last object")
	case err != io.EOF:
		return err
	}
	return nil
}

// ReadAll reads what has at most so many bytes.
func ReadAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return b, err
}

// unexpected makes an error of the end of a stream that came too early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"
)

// sumWriter writes runs of bytes, each followed by its sum. It buffers short
// writes. After an error it does nothing.
type sumWriter struct {
	w    io.Writer
	hash xxh3.Hasher
	buf  []byte // bytes of the run that are neither hashed nor written yet
	err  error
}

const writeSize = 64 << 10 // bytes

func (s *sumWriter) write(b []byte) {
	if s.buf = append(s.buf, b...); len(s.buf) >= writeSize {
		s.flush()
	}
}

// sum ends a run and writes its sum.
func (s *sumWriter) sum() {
	s.flush()
	s.buf = binary.LittleEndian.AppendUint64(s.buf, s.hash.Sum64())
	s.flush()
	s.hash.Reset()
}

func (s *sumWriter) flush() {
	if s.err == nil {
		s.hash.Write(s.buf)
		_, s.err = s.w.Write(s.buf)
	}
	s.buf = s.buf[:0]
}

// sumReader reads what sumWriter has written. After an error it does nothing.
type sumReader struct {
	r    io.Reader
	hash xxh3.Hasher
	buf  []byte
	err  error
}

// read returns the next n bytes of a run. They are valid until the next call,
// and only if err is nil.
func (s *sumReader) read(n int) []byte {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	b := s.buf[:n]
	if s.err == nil {
		s.fill(b)
		s.hash.Write(b)
	}
	return b
}

// sum ends a run, and checks the sum that follows it.
func (s *sumReader) sum() {
	var b [8]byte
	if s.fill(b[:]); s.err == nil && binary.LittleEndian.Uint64(b[:]) != s.hash.Sum64() {
		s.err = errSnapshot
	}
	s.hash.Reset()
}

func (s *sumReader) fill(b []byte) {
	if s.err != nil {
		return
	}
	_, err := io.ReadFull(s.r, b)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		s.err = errSnapshot
	} else if err != nil {
		s.err = fmt.Errorf("read the index: %w", err)
	}
}

package copier

import (
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/zeebo/blake3"

	"testbox-imaging/internal/image"
)

// zeroRun bounds how many bytes of zeros go as one slot: long enough for a
// disk to zero them in one command, short enough to stop soon.
const zeroRun = 64 << 20

// zeros is read only.
var zeros = make([]byte, image.PieceSize)

// stream reads an image for a pipeline: produce joins runs of zero pieces and
// checks that the pieces leave nothing out, decode unpacks, and hash, in
// order, proves the whole.
type stream struct {
	job   *Job
	r     image.Reader
	join  bool        // make runs of zero pieces
	off   int64       // where the next piece must begin
	end   error       // what Next ended with
	ahead image.Piece // read already, if its Len is not 0
	sum   hash.Hash
}

func openStream(j *Job, join bool) (*stream, error) {
	r, err := j.Open()
	if err != nil {
		return nil, err
	}
	return &stream{job: j, r: r, join: join, sum: blake3.New()}, nil
}

func (st *stream) close() {
	if c, ok := st.r.(io.Closer); ok {
		c.Close()
	}
}

// next gives the next piece, and checks what the reader promised.
func (st *stream) next() (image.Piece, error) {
	p := st.ahead
	if st.ahead = (image.Piece{}); p.Len > 0 || st.end != nil {
		return p, st.end
	}
	p, err := st.r.Next()
	st.end = err
	switch {
	case err == io.EOF && st.off != st.job.RawSize:
		return p, fmt.Errorf("the image ends at byte %d of %d", st.off, st.job.RawSize)
	case err != nil:
		return p, err
	case p.Off != st.off || p.Len <= 0 || p.Len > image.PieceSize || p.Zero != (p.Decode == nil):
		return p, fmt.Errorf("the image has a piece of %d bytes at %d where one at %d was due", p.Len, p.Off, st.off)
	case p.Len < image.PieceSize && p.Off+int64(p.Len) != st.job.RawSize, p.Off+int64(p.Len) > st.job.RawSize:
		return p, fmt.Errorf("the image has a piece of %d bytes at %d, but %d bytes in all", p.Len, p.Off, st.job.RawSize)
	}
	st.off += int64(p.Len)
	return p, nil
}

// produce fills a slot with the next piece, or with a run of zero pieces that
// ends at a multiple of zeroRun or before another piece.
func (st *stream) produce(s *slot) error {
	p, err := st.next()
	if err != nil {
		return err
	}
	s.off, s.n, s.zero, s.piece, s.bad = p.Off, int64(p.Len), p.Zero, p, nil
	for s.zero && st.join && (s.off+s.n)%zeroRun != 0 {
		p, err := st.next()
		if err == io.EOF {
			return nil // and again at the next call
		}
		if err != nil {
			return err
		}
		if !p.Zero {
			st.ahead = p
			return nil
		}
		s.n += int64(p.Len)
	}
	return nil
}

// decode unpacks a slot.
func (st *stream) decode(s *slot) error {
	if s.zero {
		return nil
	}
	if err := s.piece.Decode(s.data()); err != nil {
		return err
	}
	s.zero = image.IsZero(s.data())
	return nil
}

// hash takes the slots in order.
func (st *stream) hash(s *slot) {
	if !s.zero {
		st.sum.Write(s.data())
		return
	}
	for left := s.n; left > 0; left -= image.PieceSize {
		st.sum.Write(zeros[:min(left, image.PieceSize)])
	}
}

// finish gives the hash of the image's bytes, which must be the expected one.
func (st *stream) finish() (string, error) {
	sum := hex.EncodeToString(st.sum.Sum(nil))
	if st.job.BLAKE3 != "" && sum != st.job.BLAKE3 {
		return sum, fmt.Errorf("the image's bytes have the BLAKE3 %s, its sidecar says %s", sum, st.job.BLAKE3)
	}
	return sum, nil
}

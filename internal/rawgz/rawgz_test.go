package rawgz

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"testbox-imaging/internal/image"
)

func TestZeroMemberIsGzip(t *testing.T) {
	for _, n := range []int{1, 2, 258, 259, 260, 516, 517, 518, 4096, image.PieceSize - 1, image.PieceSize} {
		m := zeroMember(n)
		if member, raw, err := parseHeader(m); err != nil || member != len(m) || raw != n {
			t.Fatalf("%d zeros: header says %d, %d, %v", n, member, raw, err)
		}
		z, err := gzip.NewReader(bytes.NewReader(m))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil || len(got) != n || !image.IsZero(got) {
			t.Fatalf("%d zeros: gzip reads %d bytes, %v", n, len(got), err)
		}
	}
	if n := len(zeroPiece()); n > 1100 {
		t.Errorf("a piece of zeros takes %d bytes", n)
	}
}

// member is a piece's own member.
func member(t *testing.T, piece []byte) []byte {
	t.Helper()
	m, err := NewWriter(io.Discard).Encode(nil, piece)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMemberChecks: each thing that a member says of its piece is compared, also
// where the others are right.
func TestMemberChecks(t *testing.T) {
	piece := bytes.Repeat([]byte("a disk "), 500)
	whole := member(t, piece)
	body := len(whole) - trailerLen
	altered := func(at int) []byte {
		m := bytes.Clone(whole)
		m[at] ^= 4
		return m
	}
	for what, c := range map[string]struct {
		member []byte
		length int
		good   bool
	}{
		"whole":            {whole, len(piece), true},
		"another checksum": {altered(body), len(piece), false},
		"another length":   {altered(body + 4), len(piece), false},
		"more bytes than its length and checksum say": {appendTrailer(bytes.Clone(whole[:body]), piece[:len(piece)-1]), len(piece) - 1, false},
		"something behind the compressed bytes":       {slices.Insert(bytes.Clone(whole), body, 0), len(piece), false},
	} {
		dst := make([]byte, c.length)
		if err := decodeMember(dst, c.member); (err == nil) != c.good || c.good && !bytes.Equal(dst, piece) {
			t.Errorf("%s: %v", what, err)
		}
	}
	e := end{rawSize: int64(2 * len(piece)), blake3: blake3.Sum256(slices.Concat(piece, piece))}
	if got, err := readAll(slices.Concat(whole, whole, e.marshal()), 1<<20); err == nil {
		t.Errorf("two short pieces are read as %d bytes", len(got))
	}
}

// TestWriterMisuse: a writer takes whole pieces, each with its own stored form,
// and nothing after a short one.
func TestWriterMisuse(t *testing.T) {
	a, b := []byte("a disk"), []byte("another disk")
	if NewWriter(io.Discard).Append(a, member(t, b)) == nil {
		t.Error("the stored form of another piece is taken")
	}
	if NewWriter(io.Discard).Append(a, append(member(t, a), 0)) == nil {
		t.Error("a stored form with something behind it is taken")
	}
	w := NewWriter(io.Discard)
	if err := w.Append(a, member(t, a)); err != nil {
		t.Fatal(err)
	}
	if w.Append(b, member(t, b)) == nil {
		t.Error("a piece after the last one is taken")
	}
}

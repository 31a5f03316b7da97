package rawgz

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

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

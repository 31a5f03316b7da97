package convert

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/rawgz"
)

func TestUnpackZstd(t *testing.T) {
	for _, size := range []int{512, image.PieceSize, 3<<20 + 512} {
		disk := conform.Disks(size)["mixed"]
		enc, _ := zstd.NewWriter(nil)
		packed := enc.EncodeAll(disk, nil)
		f := tempFile(t)
		r, err := NewZstdReader(bytes.NewReader(packed))
		must(t, err)
		n, err := Unpack(t.Context(), r, f, 1<<30)
		got, _ := os.ReadFile(f.Name())
		if err != nil || n != int64(size) || !bytes.Equal(got, disk) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
		for _, cut := range []int{0, 1, len(packed) / 2, len(packed) - 1} {
			r, err := NewZstdReader(bytes.NewReader(packed[:cut]))
			must(t, err)
			if n, err := Unpack(t.Context(), r, tempFile(t), 1<<30); err == nil && n > 0 {
				t.Errorf("%d bytes cut to %d: %d bytes without an error", len(packed), cut, n)
			}
		}
		if size > 512 {
			r, err = NewZstdReader(bytes.NewReader(packed))
			must(t, err)
			if _, err := Unpack(t.Context(), r, tempFile(t), 1000); err == nil {
				t.Error("the limit is not held")
			}
		}
	}
}

func TestUnpackGzip(t *testing.T) {
	disk := conform.Disks(3<<20 + 512)["mixed"]
	var packed bytes.Buffer
	w := rawgz.NewWriter(&packed)
	for b := range slices.Chunk(disk, image.PieceSize) {
		enc, err := w.Encode(nil, b)
		must(t, err)
		must(t, w.Append(b, enc))
	}
	_, err := w.Close()
	must(t, err)
	r, err := rawgz.NewReader(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
	must(t, err)
	f := tempFile(t)
	n, err := Unpack(t.Context(), r, f, 1<<30)
	got, _ := os.ReadFile(f.Name())
	if err != nil || n != int64(len(disk)) || !bytes.Equal(got, disk) {
		t.Errorf("%d, %v", n, err)
	}
}

package swap

import (
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
)

// What is free lies behind a first page that ends with the signature, and
// inside of the area; its pages are counted by the header.
func FuzzRead(f *testing.F) {
	for _, data := range realfs.Seeds(f, "testdata") { // made by mkswap
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := realfs.Unpack(data, 1<<50)
		found, err := read(p)
		if err != nil {
			if found != nil && found.Free != nil {
				t.Error("something is free beside an error")
			}
			return
		}
		free := found.Free.Ranges()
		if len(free) != 1 || found.FS != "swap" {
			t.Fatal(found.FS, free)
		}
		page := free[0].Off
		mark := make([]byte, len(signed))
		p.ReadAt(mark, page-int64(len(signed)))
		if string(mark) != signed || page < minPage || page > maxPage || free[0] != (image.Range{Off: page, Len: found.Size - page}) ||
			found.Size > p.Size || found.Size%page != 0 {
			t.Errorf("%v is free of %d", free, p.Size)
		}
	})
}

package ntfs

import (
	"testing"

	"testbox-imaging/internal/image"
)

// Each cluster of each stream must be used: a bit that is lost is seen,
// wherever it is.
func TestScan(t *testing.T) {
	for _, seed := range seeds {
		i := load(t, seed)
		f := i.open()
		seen := 0
		for no := range f.mft.initialized / int64(f.record) {
			r, err := f.readRecord(no)
			if err != nil {
				continue // not in use
			}
			r.attrs(func(a *attr) error {
				if a.pairs == nil {
					return nil
				}
				return f.runs(a, func(r run) error {
					if r.lcn == hole {
						return nil
					}
					for _, lcn := range []int64{r.lcn, r.lcn + r.n - 1} {
						seen++
						i.setBit(lcn, false)
						found, err := i.read()
						if err == nil && contains(found.Free.Ranges(), image.Range{Off: lcn * f.cluster, Len: 1}) {
							t.Errorf("%s: cluster %d of record %d is free", seed, lcn, no)
						}
						i.setBit(lcn, true)
					}
					return nil
				})
			})
		}
		if seen < 40 {
			t.Errorf("%s: only %d clusters", seed, seen)
		}
		if _, err := i.read(); err != nil {
			t.Error(err)
		}
	}
}

// lastFile is the number of the last MFT record that is in use.
func (i *img) lastFile() int64 {
	f := i.open()
	for no := f.mft.initialized/int64(f.record) - 1; ; no-- {
		if _, err := f.readRecord(no); err == nil {
			return no
		}
	}
}

func TestRecords(t *testing.T) {
	const file = -1
	raw := func(no int64, off int, v ...byte) func(*img) {
		return func(i *img) {
			f := i.open()
			if no == file {
				no = i.lastFile()
			}
			copy(i.b[f.place(f.mft, no*int64(f.record))+int64(off):], v)
		}
	}
	edit := func(off int, v ...byte) func(*img) {
		return func(i *img) { i.edit(i.lastFile(), func(r record) { copy(r[off:], v) }) }
	}
	try(t, "plain", []change{
		{"a torn record", raw(file, 510, 0xee, 0xee), "as a whole"},
		{"a bad record", raw(file, 0, 'B', 'A', 'A', 'D'), "in use and is none"},
		{"a record of zeros", raw(file, 0, make([]byte, 1024)...), "in use and is none"},
		{"attributes outside", edit(0x14, 0xf8, 3), "no end"},
		{"attributes in the header", edit(0x14, 8, 0), "attributes from byte 8"},
		{"attributes without an end", edit(0x18, 0x40, 0), "no end"},
		{"more bytes than it has", edit(0x18, 0, 8), "says that it has 2048 bytes"},
		{"an attribute of no bytes", edit(0x38+4, 0, 0), "attribute has 0 bytes"},
		{"mirror of an older time", raw(2, 8, 1), "not the one of $MFT"},
		{"mirror of $Volume of an older time", raw(3, 8, 1), ""},
		{"mirror bad", func(i *img) { i.b[i.open().mirrLCN*4096] = 'B' }, "begins with"},
		{"MFT: sequence array outside", raw(0, 4, 0xfe, 1), "update sequence array"},
		{"MFT: sequence array too long", raw(0, 6, 9), "update sequence array"},
		{"boot file elsewhere", func(i *img) {
			i.editAttr(fileBoot, typeData, "", func(a []byte) { copy(a[le.Uint16(a[0x20:]):], []byte{0x11, 2, 4, 0}) })
		}, "$Boot"},
	})
}

func TestIndex(t *testing.T) {
	block := func(no int64, off int, v ...byte) func(*img) {
		return func(i *img) {
			f := i.open()
			s, err := f.stream(fileRoot, typeIndexBlocks, i30)
			if err != nil {
				i.Fatal(err)
			}
			at := f.place(s, no*4096)
			unfix(i.b[at : at+4096])
			copy(i.b[at+int64(off):], v)
			fix(i.b[at : at+4096])
		}
	}
	try(t, "plain", []change{
		{"a torn block", func(i *img) {
			f := i.open()
			s, _ := f.stream(fileRoot, typeIndexBlocks, i30)
			i.b[f.place(s, 510)]++
		}, "as a whole"},
		{"another block", block(1, 0x10, 7), "VCN 7"},
		{"no block", block(1, 0, 'X'), "begins with"},
		{"entries outside", block(1, 0x1c, 0, 0, 1), "entries are bytes"},
		{"entries in the header", block(1, 0x18, 8, 0), "entries are bytes"},
		{"an entry of no bytes", block(1, 0x40+8, 0, 0), "entry has 0 bytes"},
		{"entries without an end", block(1, 0x1c, 0x30, 0), "end"},
		{"no map of blocks", func(i *img) {
			i.editAttr(fileRoot, typeBitmap, i30, func(a []byte) { a[0] = 0xb1 })
		}, "missing"},
		{"no root", func(i *img) {
			i.editAttr(fileRoot, typeIndexRoot, i30, func(a []byte) { a[0] = 0x91 })
		}, "missing"},
		{"root of something else", func(i *img) {
			i.editAttr(fileRoot, typeIndexRoot, i30, func(a []byte) { a[le.Uint16(a[0x14:])] = 0x10 })
		}, "not one of names"},
		{"blocks of 3000 bytes", func(i *img) {
			i.editAttr(fileRoot, typeIndexRoot, i30, func(a []byte) { le.PutUint32(a[le.Uint16(a[0x14:])+8:], 3000) })
		}, "blocks of 3000"},
		{"blocks missing", func(i *img) {
			i.editAttr(fileRoot, typeIndexBlocks, i30, func(a []byte) { a[0] = 0xa1 })
		}, "missing"},
	})
}

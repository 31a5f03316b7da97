package ntfs

import (
	"slices"
	"testing"
)

// $Bitmap in many pieces: its clusters are moved apart first.
func TestFragmentedBitmap(t *testing.T) {
	i := load(t, "small")
	f := i.open()
	s, err := f.stream(fileBitmap, typeData, "")
	if err != nil {
		t.Fatal(err)
	}
	var runs []run
	content := make([]byte, s.end()*f.cluster)
	if err := f.fill(s, content[:s.size], 0); err != nil {
		t.Fatal(err)
	}
	for vcn := range s.end() {
		lcn := i.freeCluster()
		i.freeCluster()
		runs = append(runs, run{vcn, lcn, 1})
	}
	// The bits as they are now.
	if err := f.fill(s, content[:s.size], 0); err != nil {
		t.Fatal(err)
	}
	for n, r := range runs {
		copy(i.b[r.lcn*f.cluster:], content[int64(n)*f.cluster:][:f.cluster])
	}
	want, err := i.read()
	if err != nil {
		t.Fatal(err)
	}
	i.edit(fileBitmap, func(r record) {
		var all [][]byte
		for _, a := range attributes(r) {
			if le.Uint32(a) == typeData {
				a = nonResident(typeData, "", runs, s.end(), f.cluster, s.size)
			}
			all = append(all, slices.Clone(a))
		}
		setAttributes(r, all)
	})
	for _, what := range []string{"in runs", "in extensions"} {
		found, err := i.read()
		if err != nil || !slices.Equal(found.Free.Ranges(), want.Free.Ranges()) {
			t.Fatalf("%s: %v", what, err)
		}
		i.split(fileBitmap, false, 0, nil)
	}
}

func TestBitmap(t *testing.T) {
	sizes := func(size, initialized uint64) func(*img) {
		return func(i *img) {
			i.editAttr(fileBitmap, typeData, "", func(a []byte) {
				le.PutUint64(a[0x30:], size)
				le.PutUint64(a[0x38:], initialized)
			})
		}
	}
	flags := func(v uint16) func(*img) {
		return func(i *img) {
			i.editAttr(fileBitmap, typeData, "", func(a []byte) { le.PutUint16(a[0x0c:], v) })
		}
	}
	try(t, "plain", []change{
		{"larger", sizes(1000, 1000), ""},
		{"too small", sizes(191, 191), "it has 191 bytes"},
		{"not all of it written", sizes(192, 191), "191 of them written"},
		{"more written than it has", sizes(192, 193), "193 of them written"},
		{"larger than its runs", sizes(1<<30, 1<<30), "clusters"},
		{"negative", sizes(1<<63, 1<<63), "bytes"},
		{"compressed", flags(1), "compressed"},
		{"sparse", flags(attrSparse), "compressed"},
		{"encrypted", flags(attrEncrypted), "compressed"},
		{"resident", func(i *img) {
			f := i.open()
			s, _ := f.stream(fileBitmap, typeData, "")
			b := make([]byte, s.size)
			f.fill(s, b, 0)
			i.edit(fileBitmap, func(r record) {
				var all [][]byte
				for _, a := range attributes(r) {
					if le.Uint32(a) == typeData {
						a = resident(typeData, "", b)
					}
					all = append(all, slices.Clone(a))
				}
				setAttributes(r, all)
			})
		}, ""},
		{"a hole", func(i *img) {
			i.editAttr(fileBitmap, typeData, "", func(a []byte) { copy(a[le.Uint16(a[0x20:]):], []byte{1, 1, 0}) })
		}, "holes"},
		{"all clear", func(i *img) {
			f := i.open()
			s, _ := f.stream(fileBitmap, typeData, "")
			clear(i.b[f.place(s, 0):][:s.size])
		}, "which is free"},
		{"elsewhere", func(i *img) {
			i.editAttr(fileBitmap, typeData, "", func(a []byte) { a[le.Uint16(a[0x20:])+2]++ })
		}, ", which is free"},
	})
}

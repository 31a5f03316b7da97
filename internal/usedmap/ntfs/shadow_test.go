package ntfs

import "testing"

// shadowsAt is a place for the catalog, among what is free in "plain".
func (i *img) shadowsAt() int64 {
	found, err := i.read()
	if err != nil {
		i.Fatal(err)
	}
	for _, r := range found.Free.Ranges() {
		if r.Len >= shadowBlock {
			return r.Off
		}
	}
	i.Fatal("there is no room")
	return 0
}

// shadows makes a header and a catalog of shadow copies.
func shadows(kinds ...uint64) func(*img) {
	return func(i *img) {
		at := i.shadowsAt()
		h := i.b[shadowHeader:]
		copy(h, shadowGUID)
		le.PutUint32(h[0x10:], 1)
		le.PutUint32(h[0x14:], shadowVolume)
		le.PutUint64(h[0x18:], shadowHeader)
		le.PutUint64(h[0x30:], uint64(at))
		copy(h[0x40:], "0123456789abcdef0123456789abcdef")
		c := i.b[at : at+shadowBlock]
		clear(c)
		copy(c, shadowGUID)
		le.PutUint32(c[0x10:], 1)
		le.PutUint32(c[0x14:], shadowCatalog)
		le.PutUint64(c[0x20:], uint64(at))
		for n, kind := range kinds {
			le.PutUint64(c[(n+1)*shadowEntry:], kind)
		}
	}
}

func TestShadowCopies(t *testing.T) {
	then := func(first func(*img), at int, v ...byte) func(*img) {
		return func(i *img) {
			first(i)
			copy(i.b[at:], v)
		}
	}
	try(t, "plain", []change{
		{"never any", shadows(), ""},
		{"none left", shadows(1, 1, 0, 1), ""},
		{"no catalog", then(shadows(2, 3), shadowHeader+0x30, make([]byte, 8)...), ""},
		{"one", shadows(1, 1, 2, 3), "shadow copies"},
		{"only its second half", shadows(3), "shadow copies"},
		{"in the last entry", func(i *img) {
			shadows()(i)
			i.b[i.shadowsAt()+shadowBlock-shadowEntry] = 2
		}, "shadow copies"},
		{"something else", shadows(4), "unknown type 4"},
		{"on another volume", then(shadows(), shadowHeader+0x50, 'X'), "another volume"},
		{"header of another type", then(shadows(), shadowHeader+0x14, 2), "unknown type 2"},
		{"catalog outside", then(shadows(), shadowHeader+0x37, 0x7f), "outside"},
		{"catalog overwritten", func(i *img) {
			shadows()(i)
			i.b[i.shadowsAt()] = 'X'
		}, "no block of their catalog"},
		{"catalog in a circle", func(i *img) {
			shadows()(i)
			at := i.shadowsAt()
			le.PutUint64(i.b[at+0x28:], uint64(at))
		}, "no end"},
	})
}

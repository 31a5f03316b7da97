package ntfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

// img is a whole volume in memory. The ones of testdata are of mkntfs and
// ntfs-3g (make.sh says how); tests put there what Windows leaves.
type img struct {
	testing.TB
	b []byte
}

var seeds = []string{"plain", "small", "large"}

func load(t testing.TB, name string) *img {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return &img{t, b}
}

func (i *img) clone() *img { return &img{i.TB, bytes.Clone(i.b)} }

func (i *img) volume() *volume.Volume {
	return volume.New(context.Background(), bytes.NewReader(i.b), int64(len(i.b)), 512, nil)
}

func (i *img) read() (*volume.Found, error) { return Read(i.volume()) }

// open is the volume with its MFT found.
func (i *img) open() *fileSystem {
	i.Helper()
	v := i.volume()
	b, err := readBoot(v)
	if err != nil {
		i.Fatal(err)
	}
	f := &fileSystem{boot: *b, v: v, found: &volume.Found{}}
	if err := f.openMFT(); err != nil {
		i.Fatal(err)
	}
	return f
}

// place is where bytes of a stream lie in the volume.
func (f *fileSystem) place(s *stream, off int64) int64 {
	for _, r := range s.runs {
		if in := off - r.vcn*f.cluster; in < r.n*f.cluster {
			return r.lcn*f.cluster + in
		}
	}
	panic("beyond the end")
}

// unfix and fix undo and redo the fixups of a record in place.
func unfix(b []byte) {
	if err := fixup(b, string(b[:4])); err != nil {
		panic(err)
	}
}

func fix(b []byte) {
	at := int(binary.LittleEndian.Uint16(b[4:]))
	count := int(binary.LittleEndian.Uint16(b[6:]))
	if count != len(b)/stride+1 || at < 0 || at+2*count > stride-2 {
		return
	}
	for n := 1; n < count; n++ {
		end := b[n*stride-2:]
		copy(b[at+2*n:at+2*n+2], end[:2])
		copy(end[:2], b[at:at+2])
	}
}

// edit changes an MFT record, and its copy in $MFTMirr where it has one.
func (i *img) edit(no int64, do func(r record)) {
	i.Helper()
	f := i.open()
	at := f.place(f.mft, no*int64(f.record))
	places := []int64{at}
	if no < 4 {
		places = append(places, f.mirrLCN*f.cluster+no*int64(f.record))
	}
	r := record(i.b[at : at+int64(f.record)])
	if string(r[:4]) == "FILE" {
		unfix(r)
	}
	do(r)
	fix(r)
	for _, to := range places[1:] {
		copy(i.b[to:], r)
	}
}

// editAttr changes an attribute of an MFT record.
func (i *img) editAttr(no int64, typ uint32, name string, do func(a []byte)) {
	i.Helper()
	i.edit(no, func(r record) {
		for _, a := range attributes(r) {
			var p attr
			if p.parse(a) == nil && p.is(typ, name) {
				do(a)
				return
			}
		}
		i.Fatalf("record %d has no attribute %#x", no, typ)
	})
}

// attributes are the attributes of a record, in place.
func attributes(r record) [][]byte {
	var all [][]byte
	le := binary.LittleEndian
	for at := int(le.Uint16(r[0x14:])); le.Uint32(r[at:]) != typeEnd; {
		n := int(le.Uint32(r[at+4:]))
		all = append(all, r[at:at+n:at+n])
		at += n
	}
	return all
}

// setAttributes makes a record of these attributes, in their order.
func setAttributes(r record, all [][]byte) {
	le := binary.LittleEndian
	at := int(le.Uint16(r[0x14:]))
	body := slices.Concat(append(slices.Clone(all), []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})...)
	clear(r[at:])
	if copy(r[at:], body) < len(body) {
		panic("the record is too small")
	}
	le.PutUint32(r[0x18:], uint32(at+len(body)))
}

// resident and nonResident make attributes.
func resident(typ uint32, name string, value []byte) []byte {
	le := binary.LittleEndian
	at := (0x18 + len(name) + 7) / 8 * 8
	b := make([]byte, (at+len(value)+7)/8*8)
	le.PutUint32(b, typ)
	le.PutUint32(b[4:], uint32(len(b)))
	b[9] = byte(len(name) / 2)
	le.PutUint16(b[0x0a:], 0x18)
	copy(b[0x18:], name)
	le.PutUint32(b[0x10:], uint32(len(value)))
	le.PutUint16(b[0x14:], uint16(at))
	copy(b[at:], value)
	return b
}

func nonResident(typ uint32, name string, runs []run, clusters, cluster, size int64) []byte {
	le := binary.LittleEndian
	at := (0x40 + len(name) + 7) / 8 * 8
	pairs := encodeRuns(runs)
	b := make([]byte, (at+len(pairs)+7)/8*8)
	le.PutUint32(b, typ)
	le.PutUint32(b[4:], uint32(len(b)))
	b[8], b[9] = 1, byte(len(name)/2)
	le.PutUint16(b[0x0a:], 0x40)
	copy(b[0x40:], name)
	last := runs[len(runs)-1]
	le.PutUint64(b[0x10:], uint64(runs[0].vcn))
	le.PutUint64(b[0x18:], uint64(last.vcn+last.n-1))
	le.PutUint16(b[0x20:], uint16(at))
	if runs[0].vcn == 0 {
		le.PutUint64(b[0x28:], uint64(clusters*cluster))
		le.PutUint64(b[0x30:], uint64(size))
		le.PutUint64(b[0x38:], uint64(size))
	}
	copy(b[at:], pairs)
	return b
}

func encodeRuns(runs []run) []byte {
	var b []byte
	lcn := int64(0)
	for _, r := range runs {
		n := number8(r.n)
		if r.lcn == hole {
			b = append(append(b, byte(len(n))), n...)
			continue
		}
		d := number8(r.lcn - lcn)
		lcn = r.lcn
		b = append(append(append(b, byte(len(n)|len(d)<<4)), n...), d...)
	}
	return append(b, 0)
}

// number8 is the shortest signed little-endian form.
func number8(n int64) []byte {
	var b []byte
	for {
		b = append(b, byte(n))
		if int64(int8(n)) == n {
			return b
		}
		n >>= 8
	}
}

func contains(free []image.Range, r image.Range) bool {
	for _, f := range free {
		if f.Off <= r.Off && r.End() <= f.End() {
			return true
		}
	}
	return false
}

// subset reports whether all of a is in b.
func subset(a, b []image.Range) bool {
	for _, r := range a {
		if !contains(b, r) {
			return false
		}
	}
	return true
}

package ntfs

import (
	"slices"
	"testing"
)

// listOf is the value of an attribute list.
func listOf(entries ...entry) []byte {
	var b []byte
	for _, e := range entries {
		n := (listEntry + len(e.name) + 7) / 8 * 8
		x := make([]byte, n)
		le.PutUint32(x, e.typ)
		le.PutUint16(x[4:], uint16(n))
		x[6], x[7] = byte(len(e.name)/2), listEntry
		le.PutUint64(x[8:], uint64(e.lowest))
		le.PutUint64(x[0x10:], uint64(e.in)|1<<48)
		copy(x[listEntry:], e.name)
		b = append(b, x...)
	}
	return b
}

// spare are records that mkntfs keeps for extensions, in use and empty.
var spare = []int64{12, 13, 14, 15}

// split puts the runs of a file's data into several extension records, as it
// is where a stream is in very many pieces. first is how much of it stays in
// the base record; the list stands in a cluster of its own if at is not 0.
func (i *img) split(no int64, first bool, at int64, damage func(*entry)) {
	i.Helper()
	f := i.open()
	s, err := f.stream(no, typeData, "")
	if err != nil {
		i.Fatal(err)
	}
	pieces := pieces(s.runs)
	var list []entry
	where := spare
	if first {
		where = append([]int64{no}, spare...)
	}
	data := make([][]byte, len(pieces))
	for n, p := range pieces {
		list = append(list, entry{typ: typeData, lowest: p[0].vcn, in: where[n]})
		data[n] = nonResident(typeData, "", p, s.end(), f.cluster, s.size)
	}
	if damage != nil {
		damage(&list[len(list)-1])
	}
	for n := range pieces {
		if where[n] == no {
			continue
		}
		i.edit(where[n], func(r record) {
			le.PutUint64(r[0x20:], uint64(no)|1<<48)
			setAttributes(r, [][]byte{data[n]})
		})
	}
	value := i.listFor(no, list)
	attrList := resident(typeList, "", value)
	if at != 0 {
		copy(i.b[at*f.cluster:], value)
		attrList = nonResident(typeList, "", []run{{0, at, 1}}, 1, f.cluster, int64(len(value)))
	}
	i.edit(no, func(r record) {
		var all [][]byte
		for _, a := range attributes(r) {
			var p attr
			p.parse(a)
			switch {
			case p.is(typeData, "") && first:
				a = data[0]
			case p.is(typeData, ""):
				continue
			case p.typ > 0x10 && attrList != nil:
				all = append(all, attrList)
				attrList = nil
			}
			all = append(all, slices.Clone(a))
		}
		setAttributes(r, all)
	})
}

// listFor is the attribute list of a record: its own attributes, and for its
// data these.
func (i *img) listFor(no int64, data []entry) []byte {
	var all []entry
	i.edit(no, func(r record) {
		for _, a := range attributes(r) {
			var p attr
			p.parse(a)
			if p.is(typeData, "") {
				all = append(all, data...)
			} else {
				all = append(all, entry{typ: p.typ, name: string(p.name), in: no})
			}
		}
	})
	return listOf(all...)
}

// pieces cuts runs into up to four pieces.
func pieces(runs []run) [][]run {
	var cut []run
	for _, r := range runs {
		if r.n > 1 {
			n := r.n / 2
			cut = append(cut, run{r.vcn, r.lcn, n}, run{r.vcn + n, r.lcn + n, r.n - n})
		} else {
			cut = append(cut, r)
		}
	}
	n := min(4, len(cut))
	var out [][]run
	for k := range n {
		out = append(out, cut[k*len(cut)/n:(k+1)*len(cut)/n])
	}
	return out
}

// freeCluster is one that is free, and no more: its bit is set.
func (i *img) freeCluster() int64 {
	i.Helper()
	f := i.open()
	found, err := i.read()
	if err != nil {
		i.Fatal(err)
	}
	lcn := (found.Free.Ranges()[0].Off + f.cluster - 1) / f.cluster
	i.setBit(lcn, true)
	return lcn
}

// setBit changes a bit of $Bitmap.
func (i *img) setBit(lcn int64, used bool) {
	i.Helper()
	f := i.open()
	s, err := f.stream(fileBitmap, typeData, "")
	if err != nil {
		i.Fatal(err)
	}
	b := &i.b[f.place(s, lcn/8)]
	*b &^= 1 << (lcn % 8)
	if used {
		*b |= 1 << (lcn % 8)
	}
}

func TestAttributeLists(t *testing.T) {
	for _, seed := range []string{"plain", "small"} {
		changes := []change{
			{"of $LogFile", func(i *img) { i.split(fileLogFile, true, 0, nil) }, ""},
			{"of $LogFile, all in extensions", func(i *img) { i.split(fileLogFile, false, 0, nil) }, ""},
			{"of $MFT", func(i *img) { i.split(fileMFT, true, 0, nil) }, ""},
			{"of $MFT, all in extensions", func(i *img) { i.split(fileMFT, false, 0, nil) }, "$MFT"},
			{"of $MFT, into nowhere", func(i *img) { i.split(fileMFT, true, 0, func(e *entry) { e.in = 1 << 40 }) }, "no MFT record"},
			{"of $MFT, into another file", func(i *img) { i.split(fileMFT, true, 0, func(e *entry) { e.in = fileRoot }) }, "said to extend"},
			{"of $MFT, into itself", func(i *img) { i.split(fileMFT, true, 0, func(e *entry) { e.in = fileMFT }) }, "no piece of"},
			{"of $MFT, out of order", func(i *img) { i.split(fileMFT, true, 0, func(e *entry) { e.lowest = 1 }) }, "no piece of"},
			{"of $LogFile, one too few", func(i *img) { i.split(fileLogFile, true, 0, func(e *entry) { e.typ = 0xf0 }) }, "$LogFile: it has"},
			{"of $LogFile, one twice", func(i *img) {
				i.split(fileLogFile, true, 0, func(e *entry) { e.in, e.lowest = fileLogFile, 0 })
			}, "goes on at VCN"},
			{"garbled", func(i *img) {
				i.split(fileLogFile, true, 0, nil)
				i.editAttr(fileLogFile, typeList, "", func(a []byte) { a[0x18+4] = 8 })
			}, "garbled"},
			{"cut", func(i *img) {
				i.split(fileLogFile, true, 0, nil)
				i.editAttr(fileLogFile, typeList, "", func(a []byte) { a[0x10]-- })
			}, "garbled"},
		}
		for n := range changes {
			do := changes[n].do
			changes[n].do = func(i *img) { do(i); i.mirrorRecords() }
		}
		try(t, seed, changes)
	}
}

// mirrorRecords brings $MFTMirr up to date, which only edit does by itself.
func (i *img) mirrorRecords() {
	v := i.volume()
	b, err := readBoot(v)
	if err != nil {
		i.Fatal(err)
	}
	copy(i.b[b.mirrLCN*b.cluster:], i.b[b.mftLCN*b.cluster:][:4*b.record])
}

// A list that is not resident takes a cluster of its own, which must be used.
func TestNonResidentList(t *testing.T) {
	i := load(t, "plain")
	lcn := i.freeCluster()
	want, err := i.read()
	if err != nil {
		t.Fatal(err)
	}
	i.split(fileLogFile, true, lcn, nil)
	found, err := i.read()
	if err != nil || !slices.Equal(found.Free.Ranges(), want.Free.Ranges()) {
		t.Fatal(err)
	}
	i.setBit(lcn, false)
	if _, err := i.read(); err == nil {
		t.Error("the cluster of an attribute list is free")
	}
}

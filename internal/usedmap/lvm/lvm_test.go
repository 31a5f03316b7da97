package lvm

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"testbox-imaging/internal/image"
)

const mib = 1 << 20

// plain is a group with a volume in three pieces, and one in between.
func plain() string {
	return vgText(
		lvText("root", visible, lin(0, 5, 0), lin(5, 3, 10), lin(8, 2, 40)),
		lvText("home", visible, lin(0, 5, 5)))
}

func TestLinear(t *testing.T) {
	d := newDisk(64*mib, plain()).build()
	pv, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	check(t, pv, d)
	if pv.UUID != testUUID || pv.VG != "vg0" || pv.Size != 51*mib || len(pv.LVs) != 2 {
		t.Errorf("%+v", pv)
	}
	want := []image.Range{{Off: 14 * mib, Len: 27 * mib}, {Off: 43 * mib, Len: 8 * mib}}
	if got := pv.Free.Ranges(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v is free, not %v", got, want)
	}
	root := pv.LVs[0]
	want = []image.Range{{Off: 1 * mib, Len: 5 * mib}, {Off: 11 * mib, Len: 3 * mib}, {Off: 41 * mib, Len: 2 * mib}}
	if root.Name != "root" || root.UUID != "root-id" || root.Size != 10*mib || root.Why != "" || fmt.Sprint(root.Extents) != fmt.Sprint(want) {
		t.Errorf("%+v", root)
	}
}

// What a logical volume shows are the bytes of its extents in its own order.
func TestVolumeShowsTheExtents(t *testing.T) {
	d := newDisk(64*mib, plain()).build()
	var content []byte
	for i := range int64(10) {
		at := []int64{1, 2, 3, 4, 5, 11, 12, 13, 41, 42}[i] * mib
		block := bytes.Repeat([]byte{byte(i + 1)}, mib)
		block[0], block[mib-1] = 100, 101
		d.WriteAt(block, at)
		content = append(content, block...)
	}
	pv, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	v := pv.LVs[0].Volume(d.volume())
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.Int64Range(0, 10*mib).Draw(t, "off")
		n := rapid.IntRange(0, 4*mib).Draw(t, "n")
		b, err := v.Bytes(off, n)
		if off+int64(n) > 10*mib {
			if err == nil {
				t.Fatal("it can be read beyond its end")
			}
		} else if err != nil || !bytes.Equal(b, content[off:off+int64(n)]) {
			t.Fatal(err, "it shows other bytes")
		}
	})
	for _, c := range [][2]int64{{-1, 5}, {10 * mib, 1}, {0, 0}, {5, -1}} {
		if p := pv.LVs[0].Place(c[0], c[1]); p != nil {
			t.Errorf("%v has a place: %v", c, p)
		}
	}
	if p := pv.LVs[0].Place(10*mib-1, 100); len(p) != 1 || p[0] != (image.Range{Off: 43*mib - 1, Len: 1}) {
		t.Error(p)
	}
}

// A bit that is wrong anywhere in the label, a metadata area's header or the
// text is seen.
func TestEveryBitCounts(t *testing.T) {
	d := newDisk(64*mib, plain()).build()
	if _, err := d.read(); err != nil {
		t.Fatal(err)
	}
	for _, where := range []image.Range{{Off: 512, Len: 512}, {Off: 4096, Len: 512 + int64(len(plain()))}} {
		for at := where.Off; at < where.End(); at++ {
			b := make([]byte, 1)
			d.ReadAt(b, at)
			for bit := range 8 {
				d.WriteAt([]byte{b[0] ^ 1<<bit}, at)
				if pv, err := d.read(); err == nil || pv != nil && pv.Free != nil {
					t.Errorf("bit %d of byte %d is not seen", bit, at)
				}
			}
			d.WriteAt(b, at)
		}
	}
}

// A group of many volumes in many pieces is read in a moment and in little memory.
func TestManyVolumes(t *testing.T) {
	var lvs []string
	for i := range 4000 {
		lvs = append(lvs, lvText(fmt.Sprintf("lv%d", i), visible, lin(0, 2, 6*i), lin(2, 1, 6*i+3)))
	}
	text := strings.Replace(vgText(lvs...), "pe_count = 50", "pe_count = 30000", 1)
	text = strings.Replace(text, "dev_size = 131072", "dev_size = 81920000", 1)
	d := newDisk(40000*mib, text)
	d.meta = []image.Range{{Off: 35000 * mib, Len: 16 * mib}}
	pv, err := d.build().read()
	if err != nil {
		t.Fatal(len(text), err)
	}
	check(t, pv, d)
	if n := pv.Free.Bytes(); n != (30000-4000*3)*mib || len(pv.LVs) != 4000 {
		t.Error(n)
	}
	start := time.Now()
	if n := allocated(func() { d.read() }); n > 64*mib || time.Since(start) > time.Minute {
		t.Errorf("%d bytes of text took %d bytes of memory and %v", len(text), n, time.Since(start))
	}
}

// allocated is how many bytes of memory do takes in all, given back or not.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

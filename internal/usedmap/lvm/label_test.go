package lvm

import (
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
)

// What the headers can say wrongly with right checksums.
func TestHeaders(t *testing.T) {
	second := image.Range{Off: 60 * mib, Len: mib}
	other := strings.Replace(plain(), "seqno = 7", "seqno = 8", 1)
	for name, c := range map[string]struct {
		change func(d *disk)
		want   string // "": it is read
	}{
		"label in sector 0":         {func(d *disk) { d.number = 0 }, ""},
		"label in sector 3":         {func(d *disk) { d.number = 3 }, ""},
		"label in sector 4":         {func(d *disk) { d.number = 4 }, "no LVM label"},
		"no extension":              {func(d *disk) { d.ext = [2]uint32{} }, ""},
		"version 1":                 {func(d *disk) { d.ext = [2]uint32{1, 0} }, ""},
		"version 3":                 {func(d *disk) { d.ext = [2]uint32{3, 1} }, "unknown extension 3"},
		"flags":                     {func(d *disk) { d.ext = [2]uint32{2, 3} }, "flags 0x3"},
		"two areas":                 {func(d *disk) { d.meta = append(d.meta, second) }, ""},
		"two areas that differ":     {func(d *disk) { d.meta = append(d.meta, second); d.texts = append(d.texts, other) }, "do not say the same"},
		"one is ignored":            {func(d *disk) { d.meta = append(d.meta, second); d.texts = []string{other, plain()}; d.flags = 1 }, ""},
		"the only one is ignored":   {func(d *disk) { d.flags = 1 }, "no LVM metadata"},
		"no area":                   {func(d *disk) { d.meta = nil }, "no LVM metadata"},
		"no text":                   {func(d *disk) { d.texts = []string{""}; d.at = 0 }, "no LVM metadata"},
		"one of two is of no group": {func(d *disk) { d.meta = append(d.meta, second); d.texts = append(d.texts, "") }, "do not say the same"},
		"area of unknown flags":     {func(d *disk) { d.flags = 3 }, "unknown flags 0x3"},
		"not committed":             {func(d *disk) { d.second = 5120 }, "begun and not finished"},
		"the text wraps":            {func(d *disk) { d.at = 1<<20 - 4096 - 100 }, ""},
		"text to the end":           {func(d *disk) { d.at = 1<<20 - 4096 - int64(len(plain())) }, ""},
		"area outside":              {func(d *disk) { d.meta[0].Len = 64 * mib }, "area of"},
		"area of one sector":        {func(d *disk) { d.meta = append(d.meta, image.Range{Off: 61 * mib, Len: 512}) }, "has 512 bytes"},
		"area over the extents":     {func(d *disk) { d.meta = append(d.meta, image.Range{Off: 50 * mib, Len: 2 * mib}) }, "same bytes"},
		"area over the label":       {func(d *disk) { d.meta[0] = image.Range{Off: 1536, Len: 512 * 512} }, "same bytes"},
		"areas over each other":     {func(d *disk) { d.meta = append(d.meta, image.Range{Off: 512 * 1024, Len: 8192}) }, "same bytes"},
		"boot loader":               {func(d *disk) { d.boot = []image.Range{{Off: 55 * mib, Len: mib}} }, ""},
		"boot loader over extents":  {func(d *disk) { d.boot = []image.Range{{Off: 49 * mib, Len: mib}} }, "same bytes"},
		"boot loader outside":       {func(d *disk) { d.boot = []image.Range{{Off: 64 * mib, Len: mib}} }, "area of"},
		"boot loader of nothing":    {func(d *disk) { d.boot = []image.Range{{Off: 55 * mib}} }, "area of"},
		"list without an end":       {func(d *disk) { d.boot = make([]image.Range, 40); fill(d.boot) }, "list without an end"},
		"disk too short":            {func(d *disk) { d.Size = 51*mib - 1 }, "131072 sectors"},
		"disk a sector short":       {func(d *disk) { d.Size -= 512 }, "131072 sectors"},
		"disk longer":               {func(d *disk) { d.Size += 10 * mib }, ""},
	} {
		d := newDisk(64*mib, plain())
		c.change(d)
		pv, err := d.build().read()
		expect(t, name, d, pv, err, c.want)
	}
	// Two labels; one that is stale and says so; no room for a label.
	d := newDisk(64*mib, plain()).build()
	b := make([]byte, 512)
	d.ReadAt(b, 512)
	d.WriteAt(b, 1024)
	pv, err := d.read()
	expect(t, "two labels", d, pv, err, "labels in sector 1 and in sector 2")
	d.WriteAt(make([]byte, 512), 512)
	pv, err = d.read()
	expect(t, "moved label", d, pv, err, "says that it is in sector 1")
	d.Size = 2047
	pv, err = d.read()
	expect(t, "tiny disk", d, pv, err, "outside")
}

func fill(r []image.Range) {
	for i := range r {
		r[i] = image.Range{Off: 55 * mib, Len: 512}
	}
}

// expect checks a result against the error that is wanted, "" for none.
func expect(t *testing.T, name string, d *disk, pv *PV, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want == "":
		check(t, pv, d)
		if pv.Free.Bytes() == 0 {
			t.Errorf("%s: nothing is free", name)
		}
	case err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("%s: the error is %v, not %q", name, err, want)
	case pv != nil && pv.Free != nil:
		t.Errorf("%s: something is free beside an error", name)
	}
}

// Lies with right checksums, byte by byte: in the label (sector 1), the header
// of the physical volume (from byte 544 on) and that of the area at 4096.
func TestLies(t *testing.T) {
	for _, c := range []struct {
		at   int64
		b    string
		want string
	}{
		{536, "LVM1 001", "unknown type"},
		{532, "\x1f", "content at byte 31"},
		{532, "\x00", "content at byte 0"},
		{532, "\xd9\x01", "content at byte 473"},
		{532, "\xff\xff\xff\xff", "content at byte 4294967295"},
		{544, "-", "no UUID"},
		{544, "\x00", "no UUID"},
		{544, "Z", "this is"},
		{4100, "X", "no magic"},
		{4116, "\x02", "unknown version 2"},
		{4120, "\x00\x20", "bytes at byte 8192"},
		{4128, "\x00\x10", "says that it has"},
		{4136, "\xff\x01", "at byte 511"},
		{4136, "\x00\xf0\x0f", "at byte 1044480"},
		{4136, "\xff\xff\xff\xff\xff\xff\xff\xff", "bytes of text"},
		{4144, "\x00\x00", "has 0 bytes"},
		{4144, "\x01\xee\x0f", "has 1043969 bytes"}, // a byte more than the ring
		{4144, "\x01\x00\x40", "has 4194305 bytes"},
		{4144, "\xff\xff\xff\xff\xff\xff\xff\xff", "bytes of text"},
		{4156, "\x00\x00\x00\x01", "unknown flags"},
		{4184, "\x01\x00\x00\x00\x00\x00\x00\x00\x01", "not finished"}, // a third location
	} {
		d := newDisk(64*mib, plain()).build()
		if c.want == "has 4194305 bytes" {
			d.meta = []image.Range{{Off: 55 * mib, Len: 8 * mib}}
			c.at += 55*mib - 4096
			d.build()
		}
		d.WriteAt([]byte(c.b), c.at)
		d.sum()
		pv, err := d.read()
		expect(t, fmt.Sprintf("%q at %d", c.b, c.at), d, pv, err, c.want)
	}
}

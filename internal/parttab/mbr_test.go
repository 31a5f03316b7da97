package parttab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

// fatBoot is the start of a FAT's boot sector.
const fatBoot = "\xEB\x3C\x90mkdosfs\x00\x00\x02\x08\x08\x00\x02\x00\x02\x00\x08\xF8"

// record writes a boot record's signature and its entries, {status, type,
// first, sectors} each, into a sector.
func record(b []byte, entries ...[4]uint32) {
	b[510], b[511] = 0x55, 0xAA
	for i, e := range entries {
		p := b[446+16*i:]
		p[0], p[4] = byte(e[0]), byte(e[1])
		binary.LittleEndian.PutUint32(p[8:], e[2])
		binary.LittleEndian.PutUint32(p[12:], e[3])
	}
}

// mbrDisk is a disk of 2048 sectors with two primary and three logical
// partitions; the chain of the latter is not in the order of the disk.
func mbrDisk(sector int) []byte {
	b := make([]byte, 2048*sector)
	at := func(n int) []byte { return b[n*sector : (n+1)*sector] }
	record(at(0), [4]uint32{0x80, 0x07, 64, 100}, [4]uint32{0, 0x0F, 200, 800}, [4]uint32{}, [4]uint32{0, 0x83, 1100, 948})
	record(at(200), [4]uint32{0, 0x83, 2, 50}, [4]uint32{0, 0x05, 500, 100})
	record(at(700), [4]uint32{0, 0x82, 1, 99}, [4]uint32{0, 0x05, 100, 300})
	record(at(300), [4]uint32{0, 0x8E, 63, 200})
	return b
}

func mbrParts(sector int64) []Partition {
	return []Partition{
		{1, 64 * sector, 100 * sector, "07", "", ""}, {5, 202 * sector, 50 * sector, "83", "", ""}, {7, 363 * sector, 200 * sector, "8e", "", ""},
		{6, 701 * sector, 99 * sector, "82", "", ""}, {4, 1100 * sector, 948 * sector, "83", "", ""},
	}
}

func TestReadMBR(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		b := mbrDisk(sector)
		tab, err := Read(bytes.NewReader(b), int64(len(b)), sector)
		if err != nil {
			t.Fatal(err)
		}
		s := int64(sector)
		if want := (Partition{2, 200 * s, 800 * s, "0f", "", ""}); *tab.Extended != want {
			t.Errorf("extended %+v", tab.Extended)
		}
		if tab.Kind != "mbr" || !slices.Equal(tab.Parts, mbrParts(s)) || len(tab.Notes) > 0 {
			t.Errorf("%+v", tab)
		}
	}
}

// What other tools leave in a boot record, and what contradicts.
func TestReadMBRInTrouble(t *testing.T) {
	le := binary.LittleEndian
	entry := func(n, slot int) func(b []byte) []byte { // of a boot record in sector n
		return func(b []byte) []byte { return b[n*512+446+16*slot:] }
	}
	set := func(n, slot int, e [4]uint32) func([]byte) {
		return func(b []byte) {
			p := entry(n, slot)(b)
			p[0], p[4] = byte(e[0]), byte(e[1])
			le.PutUint32(p[8:], e[2])
			le.PutUint32(p[12:], e[3])
		}
	}
	for name, c := range map[string]struct {
		change func(b []byte)
		err    string // or
		gone   []int  // numbers that are not in the table
		note   string
	}{
		"entry without length":         {set(0, 2, [4]uint32{0, 0x83, 1000, 0}), "", nil, ""},
		"entry without type":           {set(0, 2, [4]uint32{0, 0, 1000, 50}), "", nil, "entry 3 of the boot record has a length but no type"},
		"entry without type, overlaps": {set(0, 2, [4]uint32{0, 0, 990, 50}), "something that is no partition", nil, ""},
		"entry without type, outside":  {set(0, 2, [4]uint32{0, 0, 5000, 50}), "", nil, "no type"},
		"status":                       {set(0, 2, [4]uint32{1, 0, 0, 0}), "status 0x01", nil, ""},
		"from sector 0":                {set(0, 2, [4]uint32{0, 0xA5, 0, 20}), "starts at the boot record", nil, ""},
		"beyond the end":               {set(0, 3, [4]uint32{0, 0x83, 1100, 949}), "partition 4 reaches to sector 2048", nil, ""},
		"far beyond the end":           {set(0, 2, [4]uint32{0, 0x83, 0xFFFFFFFF, 0xFFFFFFFF}), "reaches to", nil, ""},
		"overlap":                      {set(0, 2, [4]uint32{0, 0x83, 163, 2}), "partition 1 and partition 3 overlap", nil, ""},
		"in the extended one":          {set(0, 2, [4]uint32{0, 0x83, 260, 2}), "partition 2 and partition 3 overlap", nil, ""},
		"same twice":                   {set(0, 2, [4]uint32{0, 0x07, 64, 100}), "overlap", nil, ""},
		"two extended":                 {set(0, 2, [4]uint32{0, 0x05, 1000, 100}), "two extended", nil, ""},
		"linux extended too":           {set(0, 2, [4]uint32{0, 0x85, 1000, 100}), "two extended", nil, ""},
		"dynamic disk":                 {set(0, 2, [4]uint32{0, 0x42, 1000, 100}), "dynamic disk", nil, ""},
		"protective beside":            {set(0, 2, [4]uint32{0, 0xEE, 1, 60}), "hybrid", nil, ""},
		"unknown type":                 {set(0, 2, [4]uint32{0, 0x99, 1000, 100}), "", nil, ""},
		"first EBR empty":              {set(200, 0, [4]uint32{}), "", []int{7}, ""}, // the others are 5 and 6 then
		"DR-DOS: link first": {func(b []byte) {
			record(b[200*512:], [4]uint32{0, 0x05, 500, 100}, [4]uint32{0, 0x83, 2, 50})
		}, "", nil, ""},
		"links of other types":    {set(700, 1, [4]uint32{0, 0x0F, 100, 300}), "", nil, ""},
		"no first EBR":            {func(b []byte) { clear(b[200*512 : 201*512]) }, "", []int{5, 6, 7}, "without any table"},
		"no second EBR":           {func(b []byte) { clear(b[700*512 : 701*512]) }, "sector 700: there is none", nil, ""},
		"EBR is a boot sector":    {func(b []byte) { copy(b[700*512+446:], "Press any key to restart") }, "sector 700: entry 1", nil, ""},
		"EBR outside":             {set(200, 1, [4]uint32{0, 0x05, 800, 100}), "the next one is outside", nil, ""},
		"EBR far outside":         {set(200, 1, [4]uint32{0, 0x05, 0xFFFFFFFF, 100}), "the next one is outside", nil, ""},
		"chain to itself":         {set(700, 1, [4]uint32{0, 0x05, 500, 100}), "circle", nil, ""},
		"chain to the start":      {set(300, 1, [4]uint32{0, 0x05, 0, 100}), "circle", nil, ""},
		"chain in a circle":       {set(300, 1, [4]uint32{0, 0x05, 500, 100}), "circle", nil, ""},
		"link without length":     {set(200, 1, [4]uint32{0, 0x05, 500, 0}), "entry 2 is none", nil, ""},
		"two links":               {set(200, 0, [4]uint32{0, 0x05, 500, 100}), "two links", nil, ""},
		"two partitions":          {set(300, 1, [4]uint32{0, 0x83, 300, 10}), "two partitions", nil, ""},
		"third entry":             {set(300, 2, [4]uint32{0, 0x83, 300, 10}), "entry 3 is none", nil, ""},
		"third entry, garbage":    {set(300, 3, [4]uint32{0, 0, 0, 10}), "entry 4 is none", nil, ""},
		"logical on its EBR":      {set(300, 0, [4]uint32{0, 0x83, 0, 10}), "overlap", nil, ""},
		"logical on another EBR":  {set(300, 0, [4]uint32{0, 0x83, 350, 100}), "overlap", nil, ""},
		"logical on another":      {set(200, 0, [4]uint32{0, 0x83, 2, 163}), "overlap", nil, ""},
		"logical out of extended": {set(700, 0, [4]uint32{0, 0x83, 1, 300}), "out of the extended", nil, ""},
		"logical without type":    {set(700, 0, [4]uint32{0, 0, 1, 99}), "entry 1 is none", nil, ""},
		"logical far out":         {set(700, 0, [4]uint32{0, 0x83, 0xFFFFFFFF, 0xFFFFFFFF}), "out of the extended", nil, ""},
		"active logical":          {set(700, 0, [4]uint32{0x80, 0x82, 1, 99}), "", nil, ""},
		"old GPT": {func(b []byte) { copy(b[512:], table{sector: 512, sectors: 2048, count: 4}.disk()[512:2048]) }, "", nil,
			"old GPT"},
		"old GPT, header damaged":  {func(b []byte) { copy(b[512:], "EFI PART") }, "", nil, ""},
		"BSD label":                {func(b []byte) { copy(b[512:], bsdMagic) }, "the kind BSD", nil, ""},
		"BSD label, NetBSD's":      {func(b []byte) { copy(b[512+64:], bsdMagic) }, "the kind BSD", nil, ""},
		"BSD label, Alpha's":       {func(b []byte) { copy(b[64:], bsdMagic) }, "the kind BSD", nil, ""},
		"Solaris VTOC":             {func(b []byte) { copy(b[512+12:], "\xEE\xDE\x0D\x60") }, "the kind Solaris", nil, ""},
		"Apple's map":              {func(b []byte) { copy(b[2048:], "PM\x00\x00\x00\x00\x00\x02") }, "the kind Apple", nil, ""},
		"not Apple's map":          {func(b []byte) { copy(b[2048:], "PM\x00\x00\x01\x00\x00\x02") }, "", nil, ""},
		"AIX":                      {func(b []byte) { copy(b, "\xC9\xC2\xD4\xC1") }, "the kind AIX", nil, ""},
		"SysV68":                   {func(b []byte) { copy(b[248:], "MOTOROLA") }, "the kind SysV68", nil, ""},
		"Atari":                    {func(b []byte) { copy(b[454+24:], "\x01BGM") }, "the kind Atari", nil, ""},
		"not Amiga":                {func(b []byte) { copy(b[1024:], "RDSK\x00\x00\xFF\xFF") }, "", nil, ""},
		"boot sector of FAT":       {func(b []byte) { copy(b, fatBoot) }, "boot sector of a file system (FAT)", nil, ""},
		"boot sector of NTFS":      {func(b []byte) { copy(b, "\xEB\x52\x90NTFS    ") }, "boot sector of a file system (NTFS)", nil, ""},
		"boot sector of exFAT":     {func(b []byte) { copy(b, "\xEB\x76\x90EXFAT   ") }, "boot sector of a file system (exFAT)", nil, ""},
		"boot sector of BitLocker": {func(b []byte) { copy(b, "\xEB\x58\x90-FVE-FS-") }, "boot sector of a file system (BitLocker)", nil, ""},
		"NTFS with text": {func(b []byte) {
			copy(b, "\xEB\x52\x90NTFS    ")
			copy(b[440:], strings.Repeat("Press Ctrl+Alt+Del", 3))
		}, ErrNone.Error(), nil, ""},
		"boot code of Linux": {func(b []byte) { copy(b[440:], bytes.Repeat([]byte{0xB4, 0x0E, 0xCD, 0x10}, 17)) }, ErrNone.Error(), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := mbrDisk(512)
			c.change(b)
			tab, err := Read(bytes.NewReader(b), int64(len(b)), 512)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrNone) != (c.err == ErrNone.Error()) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range mbrParts(512) {
				has := slices.ContainsFunc(tab.Parts, func(q Partition) bool { return q.Number == p.Number })
				if has == slices.Contains(c.gone, p.Number) {
					t.Errorf("partition %d in the table: %v", p.Number, has)
				}
			}
			if notes := strings.Join(tab.Notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
}

// A chain may be long, but not without end.
func TestReadLongChain(t *testing.T) {
	for links, want := range map[int]string{100: "", 255: "", 256: "longer than any"} {
		b := make([]byte, 2048*512)
		record(b, [4]uint32{0, 0x05, 100, 1900})
		for i := range uint32(links) {
			at := b[(100+3*i)*512:]
			record(at, [4]uint32{0, 0x83, 1, 2}, [4]uint32{0, 0x05, 3 * (i + 1), 3})
		}
		record(b[(100+3*links)*512:], [4]uint32{0, 0x83, 1, 2})
		tab, err := Read(bytes.NewReader(b), int64(len(b)), 512)
		switch {
		case want == "" && (err != nil || len(tab.Parts) != links+1 || tab.Parts[links].Number != links+5):
			t.Errorf("%d links: %v, %v", links, tab, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%d links: %v", links, err)
		}
	}
}

// The one entry that mkfs.fat makes for the whole disk is no partition; all
// else that stands in a boot sector in the place of entries might be one.
func TestReadFakeTable(t *testing.T) {
	for name, c := range map[string]struct {
		entries [][4]uint32
		none    bool
	}{
		"no entry":     {nil, true},
		"whole disk":   {[][4]uint32{{0x80, 0x0C, 0, 2048}}, true},
		"file system":  {[][4]uint32{{}, {}, {0, 0x06, 0, 2000}}, true},
		"two":          {[][4]uint32{{0x80, 0x0C, 0, 2048}, {0x80, 0x0C, 0, 2048}}, false},
		"and another":  {[][4]uint32{{0x80, 0x0C, 0, 2048}, {0, 0x0C, 1000, 24}}, false},
		"from 1":       {[][4]uint32{{0x80, 0x0C, 1, 2047}}, false},
		"too long":     {[][4]uint32{{0x80, 0x0C, 0, 2049}}, false},
		"other type":   {[][4]uint32{{0x80, 0x83, 0, 2048}}, false},
		"without type": {[][4]uint32{{0x80, 0, 0, 2048}}, false},
		"no length":    {[][4]uint32{{0x80, 0x83, 0, 0}}, false},
		"text":         {[][4]uint32{{'P', 'r', 1, 2}, {'e', 's', 3, 4}}, true},
	} {
		b := make([]byte, 2048*512)
		copy(b, fatBoot)
		record(b, c.entries...)
		if tab, err := Read(bytes.NewReader(b), int64(len(b)), 512); err == nil || errors.Is(err, ErrNone) != c.none {
			t.Errorf("%s: %v, %v", name, tab, err)
		}
	}
}

// A boot CD that was written to a stick: its first entry is the whole of it,
// from sector 0, with the EFI partition inside.
func TestReadHybridISO(t *testing.T) {
	for _, kind := range []uint32{0x00, 0x17, 0xCD, 0x83} {
		b := make([]byte, 4096*512)
		record(b, [4]uint32{0x80, kind, 0, 3000}, [4]uint32{0, 0xEF, 200, 500})
		if tab, err := Read(bytes.NewReader(b), int64(len(b)), 512); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("type %#x: %v, %v", kind, tab, err)
		}
	}
}

package parttab

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawSpans are spans of the sectors [from, to), in order and apart.
func drawSpans(t *rapid.T, from, to uint64, most int) []span {
	cuts := rapid.SliceOfNDistinct(rapid.Uint64Range(from, to-1), 0, 2*most, rapid.ID).Draw(t, "cuts")
	slices.Sort(cuts)
	var spans []span
	for pair := range slices.Chunk(cuts, 2) {
		if len(pair) == 2 {
			spans = append(spans, span{pair[0], pair[1] - 1})
		}
	}
	return spans
}

// Any MBR that has its partitions apart is read back.
func TestAnyMBRIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const sectors = 4096
		sector := rapid.SampledFrom([]int{512, 4096}).Draw(t, "sector")
		d := newDisk(nil, sectors*int64(sector), sector)
		b := make([]byte, sectors*sector)
		spans := drawSpans(t, 1, sectors+1, 4)
		slots := rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "slots")
		extended := rapid.IntRange(0, 4).Draw(t, "extended")
		var want []Partition
		entries := make([][4]uint32, 4)
		for i, s := range spans {
			kind := rapid.SampledFrom([]byte{0x83, 0x07, 0xA5, 0x99, 0xFF}).Draw(t, "type")
			if i == extended {
				kind = rapid.SampledFrom([]byte{0x05, 0x0F, 0x85}).Draw(t, "extended")
				want = append(want, drawLogical(t, d, b, s)...)
			} else {
				want = append(want, d.partition(claim{s, slots[i] + 1, kind}))
			}
			entries[slots[i]] = [4]uint32{rapid.SampledFrom([]uint32{0, 0x80}).Draw(t, "status"), uint32(kind), uint32(s.first),
				uint32(s.last - s.first + 1)}
		}
		record(b, entries...)
		tab, err := Read(bytes.NewReader(b), int64(len(b)), sector)
		if len(spans) == 0 {
			if !errors.Is(err, ErrNone) {
				t.Fatal(err)
			}
			return
		}
		slices.SortFunc(want, func(a, b Partition) int { return int(a.Off/512 - b.Off/512) })
		if err != nil || !slices.Equal(tab.Parts, want) || (tab.Extended != nil) != (extended < len(spans)) {
			t.Fatalf("%+v, %v; want %+v", tab, err, want)
		}
	})
}

// drawLogical fills an extended partition: EBRs in any order but for the
// first, each with nothing or with a partition somewhere behind it.
func drawLogical(t *rapid.T, d disk, b []byte, ext span) []Partition {
	starts := []uint64{ext.first}
	if ext.last > ext.first {
		more := rapid.SliceOfNDistinct(rapid.Uint64Range(ext.first+1, ext.last), 0, 8, rapid.ID).Draw(t, "EBRs")
		starts = append(starts, more...)
	}
	sorted := slices.Sorted(slices.Values(starts))
	var parts []Partition
	for i, at := range starts {
		end := ext.last + 1
		if n, _ := slices.BinarySearch(sorted, at); n+1 < len(sorted) {
			end = sorted[n+1]
		}
		var entries [][4]uint32
		if room := drawSpans(t, at+1, max(at+2, end), 1); len(room) > 0 && room[0].last < end {
			s := room[0]
			parts = append(parts, d.partition(claim{s, 5 + len(parts), 0x83}))
			entries = append(entries, [4]uint32{0, 0x83, uint32(s.first - at), uint32(s.last - s.first + 1)})
		} else if rapid.Bool().Draw(t, "empty first") {
			entries = append(entries, [4]uint32{})
		}
		if i+1 < len(starts) {
			entries = append(entries, [4]uint32{0, 0x05, uint32(starts[i+1] - ext.first), uint32(ext.last - starts[i+1] + 1)})
		}
		record(b[at*uint64(d.sector):], entries...)
	}
	return parts
}

// Any GPT that has its partitions apart is read back, from either copy.
func TestAnyGPTIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := table{sector: rapid.SampledFrom([]int{512, 4096}).Draw(t, "sector"), sectors: rapid.Uint64Range(600, 3000).Draw(t, "sectors"),
			count: rapid.Uint32Range(16, 1000).Draw(t, "entries"), reserve: rapid.Uint64Range(0, 20).Draw(t, "reserve")}
		spans := drawSpans(t, 2+tab.entryLen(), tab.sectors-1-tab.entryLen()-tab.reserve, 16)
		tab.parts = rapid.Permutation(spans).Draw(t, "slots")
		b := tab.disk()
		d := newDisk(nil, int64(len(b)), tab.sector)
		var want []Partition
		for _, s := range spans {
			n := slices.Index(tab.parts, s) + 1
			p := Partition{Number: n, Type: "AFAFAFAF-AFAF-AFAF-AFAF-AFAFAFAFAFAF", GUID: guid([16]byte(bytes.Repeat([]byte{byte(n)}, 16)))}
			want = append(want, d.bytes(p, s))
		}
		notes := 0
		if at := rapid.SampledFrom([]int{0, 1, 2, int(tab.sectors - 1), int(tab.sectors - 2)}).Draw(t, "damaged"); at != 0 {
			b[at*tab.sector+17]++
			notes = 1
			if at > 2 && at < int(tab.sectors-1) && (tab.count*128)%uint32(tab.sector) != 0 && int(tab.count*128)%tab.sector <= 17 {
				notes = 0 // behind the last entry
			}
		}
		got, err := Read(bytes.NewReader(b), int64(len(b)), tab.sector)
		if err != nil || got.Kind != "gpt" || !slices.Equal(got.Parts, want) || len(got.Notes) != notes {
			t.Fatal(fmt.Sprintf("%+v, %v; want %+v", got, err, want))
		}
	})
}

package parttab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// shrunk is the disk as it is after Shrink: the beginning of the image, with the
// edits.
func shrunk(t testing.TB, image []byte, target int64, sector int) ([]byte, *Shrunk, error) {
	t.Helper()
	before := bytes.Clone(image)
	s, err := Shrink(bytes.NewReader(image), int64(len(image)), target, sector)
	if !bytes.Equal(before, image) {
		t.Fatal("the image was changed")
	}
	if err != nil {
		return nil, nil, err
	}
	out := bytes.Clone(image[:target])
	for _, e := range s.Edits {
		if end := e.Off + int64(len(e.Data)); end > maxEdge && e.Off < target-maxEdge || end > target {
			t.Fatalf("an edit of %d bytes at %d of %d", len(e.Data), e.Off, target)
		}
		copy(out[e.Off:], e.Data)
	}
	return out, s, nil
}

func TestShrinkGPT(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, reserve := range []uint64{0, 100} {
			tab := table{sector: sector, sectors: uint64(24<<20) / uint64(sector), count: 128, reserve: reserve}
			end := uint64(16<<20) / uint64(sector)
			tab.parts = []span{{end / 2, end/2 + 99}, {end - 200 - tab.entryLen() - 1, end - tab.entryLen() - 2}}
			image := tab.disk()
			size := int64(len(image))
			want, err := Read(bytes.NewReader(image), size, sector)
			if err != nil {
				t.Fatal(err)
			}
			for _, target := range []int64{16 << 20, 16<<20 + int64(sector), 23 << 20, size - int64(sector)} {
				out, s, err := shrunk(t, image, target, sector)
				if err != nil {
					t.Fatal(err)
				}
				got, err := Read(bytes.NewReader(out), target, sector)
				if err != nil || fmt.Sprint(got.Parts, got.ID) != fmt.Sprint(want.Parts, want.ID) || len(got.Notes) > 0 {
					t.Fatalf("%d-byte sectors onto %d bytes: %+v, %v", sector, target, got, err)
				}
				if s.Limit != target-int64(tab.entryLen()+1)*int64(sector) || !s.HasOld(size-1) ||
					!s.HasOld(size-int64(tab.entryLen()+1)*int64(sector)) || s.HasOld(size-int64(tab.entryLen()+1)*int64(sector)-1) {
					t.Errorf("%+v", s)
				}
				// Each copy alone gives the same partitions.
				for _, at := range []int64{int64(sector), target - int64(sector)} {
					one := bytes.Clone(out)
					clear(one[at : at+int64(sector)])
					if got, err := Read(bytes.NewReader(one), target, sector); err != nil || fmt.Sprint(got.Parts) != fmt.Sprint(want.Parts) {
						t.Errorf("without the header at %d: %+v, %v", at, got, err)
					}
				}
			}
			_, _, err = shrunk(t, image, 16<<20-int64(sector), sector)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("partition 2 ends at byte %d, which is %d bytes behind",
				16<<20-int64(tab.entryLen()+1)*int64(sector), sector)) {
				t.Errorf("one sector too small: %v", err)
			}
		}
	}
}

// TestShrinkBetween: what lies between the entries and the header of the old backup is not of the backup.
func TestShrinkBetween(t *testing.T) {
	tab := table{sector: 512, sectors: 24 << 11, count: 128, reserve: 100, parts: []span{{2048, 4095}}}
	image := tab.disk()
	header := image[len(image)-512:]
	was := int(le64(header, gptEntriesLBA))
	now := was - 50
	copy(image[now*512:], image[was*512:len(image)-512])
	clear(image[was*512 : len(image)-512])
	le := binary.LittleEndian
	le.PutUint64(header[gptEntriesLBA:], uint64(now))
	le.PutUint32(header[gptHeaderCRC:], headerSum(header, gptMinHeader))
	_, s, err := shrunk(t, image, 16<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]bool{now*512 - 1: false, now * 512: true, was*512 - 18*512 - 1: true, was*512 - 18*512: false,
		len(image) - 513: false, len(image) - 512: true, len(image) - 1: true} {
		if s.HasOld(int64(at)) != want {
			t.Errorf("byte %d of %d: %v", at, len(image), !want)
		}
	}
}

func TestShrinkRefused(t *testing.T) {
	tab := table{sector: 512, sectors: 24 << 11, count: 128, parts: []span{{2048, 4095}}}
	at := func(off int, b ...byte) func([]byte) { return func(d []byte) { copy(d[(off+len(d))%len(d):], b) } }
	for _, c := range []struct {
		what, say string
		hurt      func([]byte)
	}{
		{"no table", "nothing says where its file systems end", func(d []byte) { clear(d) }},
		{"a file system", "nothing says where its file systems end", func(d []byte) {
			clear(d)
			copy(d[1024+56:], "\x53\xef")
		}},
		{"the primary is damaged", "primary GPT cannot be used", at(512+20, 1)},
		{"the backup is damaged", "backup GPT cannot be used", at(-512+20, 1)},
		{"a hybrid", "other partitions beside", func(d []byte) { d[466], d[470], d[474] = 0x83, 64, 8 }},
		{"no partitions", "no partitions", func(d []byte) { copy(d, table{sector: 512, sectors: 24 << 11, count: 128}.disk()) }},
	} {
		d := tab.disk()
		c.hurt(d)
		if _, _, err := shrunk(t, d, 16<<20, 512); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v; want %q", c.what, err, c.say)
		}
	}
	if _, _, err := shrunk(t, tab.disk(), 2<<20, 512); err == nil {
		t.Error("a disk of 2 MiB was taken")
	}
	if _, _, err := shrunk(t, tab.disk(), 24<<20, 512); err == nil {
		t.Error("a disk that is no smaller was taken")
	}
}

func TestShrinkMBR(t *testing.T) {
	image := append(mbrDisk(4096), make([]byte, 4<<20)...)
	target := int64(2048 * 4096)
	out, s, err := shrunk(t, image, target, 4096)
	if err != nil || len(s.Edits) > 0 || s.Limit != target || s.Old[0].Len+s.Old[1].Len != 0 || !bytes.Equal(out, image[:target]) {
		t.Errorf("%+v, %v", s, err)
	}
	_, _, err = shrunk(t, image, target-4096, 4096)
	if err == nil || !strings.Contains(err.Error(), "partition 4 ends at byte 8388608, which is 4096 bytes") {
		t.Errorf("%v", err)
	}
}

// TestShrinkProperties: whatever the table is, it is refused, or the smaller disk
// has the same partitions and nothing of them is beyond its end.
func TestShrinkProperties(t *testing.T) {
	taken := 0
	rapid.Check(t, func(r *rapid.T) {
		sector := rapid.SampledFrom([]int{512, 4096}).Draw(r, "sector")
		tab := table{sector: sector, sectors: uint64(rapid.Int64Range(6<<20, 12<<20).Draw(r, "bytes")) / uint64(sector),
			count: rapid.SampledFrom([]uint32{128, 256, 4}).Draw(r, "entries"), reserve: rapid.Uint64Range(0, 50).Draw(r, "reserve")}
		at := 2 + tab.entryLen()
		for range rapid.IntRange(0, 3).Draw(r, "partitions") {
			first := at + rapid.Uint64Range(0, 300).Draw(r, "gap")
			last := first + rapid.Uint64Range(0, 1000).Draw(r, "length")
			if last+tab.entryLen()+tab.reserve+2 < tab.sectors {
				tab.parts = append(tab.parts, span{first, last})
			}
			at = last + 1
		}
		image := tab.disk()
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(r, "bits") {
			image[rapid.SampledFrom([]int{512, 4096, 0, len(image) - 4096}).Draw(r, "near")+rapid.IntRange(0, 511).Draw(r, "byte")] ^= 1
		}
		target := rapid.Int64Range(4<<20/int64(sector), int64(len(image))/int64(sector)-1).Draw(r, "target") * int64(sector)
		want, werr := Read(bytes.NewReader(image), int64(len(image)), sector)
		out, s, err := shrunk(t, image, target, sector)
		if err != nil {
			return
		}
		taken++
		got, err := Read(bytes.NewReader(out), target, sector)
		if werr != nil || err != nil || fmt.Sprint(got.Parts, got.ID, got.Kind) != fmt.Sprint(want.Parts, want.ID, want.Kind) {
			r.Fatalf("%+v, %v; want %+v, %v", got, err, want, werr)
		}
		for _, p := range got.Parts {
			if p.Off+p.Len > s.Limit {
				r.Fatalf("%+v ends behind %d", p, s.Limit)
			}
		}
	})
	if taken == 0 {
		t.Fatal("nothing was taken; the test shows nothing")
	}
}

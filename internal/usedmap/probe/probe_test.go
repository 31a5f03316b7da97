package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"testbox-imaging/internal/usedmap/volume"
)

func volumeOf(r io.ReaderAt, size int64) *volume.Volume {
	return volume.New(context.Background(), r, size, 512, nil)
}

func mustFind(t testing.TB, r io.ReaderAt, size int64) []Match {
	t.Helper()
	got, err := Find(volumeOf(r, size))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustFindDisk(t testing.TB, r io.ReaderAt, size, first, end int64) []Match {
	t.Helper()
	got, err := FindDisk(volumeOf(r, size), first, end)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEachSampleIsFound(t *testing.T) {
	for _, s := range samples() {
		if got := mustFind(t, s.disk(), s.size); !slices.Equal(got, []Match{{s.name, s.off}}) {
			t.Errorf("%v: found %v", s, got)
		}
	}
}

// Whatever lies over another thing's signature, both are found: in that is the
// doubt. Here each sample meets ext4, as after a format that did not wipe it.
func TestTwoThingsAreTwoMatches(t *testing.T) {
	var old sample
	met := 0
	for _, s := range samples() {
		if s.name == "ext" {
			old = s
			break
		}
	}
	for _, s := range samples() {
		p := old.disk()
		clash := false
		for off := range s.at {
			clash = clash || off >= 1024 && off < 2048 || s.name == "minix" || s.name == "ext"
		}
		if clash {
			continue // it would have overwritten the superblock
		}
		p.over(s.disk(), 0)
		names := map[string]bool{}
		for _, m := range mustFind(t, p, s.size) {
			names[m.Name] = true
		}
		if len(names) != 2 || !names["ext"] || !names[s.name] {
			t.Errorf("%v over an ext4: found %v", s, names)
		}
		met++
	}
	if met < 250 {
		t.Errorf("only %d samples met an ext4", met)
	}
}

// TestSizesThatAreNotWhole: places that count from the end do so from the last
// whole sector, 4 KiB or 64 KiB, as each driver does.
func TestSizesThatAreNotWhole(t *testing.T) {
	for name, c := range map[string]struct {
		align, back int64
		magic       string
	}{
		"linux_raid_member":    {64 << 10, 64 << 10, "\xFC\x4E\x2B\xA9\x00\x00\x00\x00\x5A\x00\x00\x00"},
		"apple_raid":           {4 << 10, 4 << 10, "AppleRAIDHeader"},
		"lsi_mega_raid_member": {512, 512, "$XIDE$"},
	} {
		for _, size := range []int64{64 << 20, 64<<20 + 511, 64<<20 + 3000, 64<<20 + 5000, 64<<20 + 60000} {
			at := size/c.align*c.align - c.back
			d := &disk{size: size}
			d.put(at, []byte(c.magic))
			if got := mustFind(t, d, size); !slices.Equal(got, []Match{{name, at}}) {
				t.Errorf("%s at %d of %d: found %v", name, at, size, got)
			}
		}
	}
}

// What touches the partitions is theirs; what lies in front of them or behind
// them is the disk's.
func TestDiskEndsWhereItsPartitionsStart(t *testing.T) {
	for _, s := range places() {
		if s.name == "dos" || s.name == "gpt" {
			continue
		}
		p, want := s.disk(), []Match{{s.name, s.off}}
		var first, last int64 = 1 << 62, 0 // of all that was written
		for _, w := range p.spots {
			first, last = min(first, w.off&^511), max(last, w.off+1024&^511)
		}
		ring := s.name == "zfs_member" // one slot is enough
		after := max(last, headSize+pieceSize)
		for _, c := range []struct {
			first, end int64
			want       []Match
		}{
			{0, s.size, nil},
			{first, last, nil},
			{after, s.size, want}, // all of it in front
			{s.off + 1, s.size, nil},
			{0, s.off + 1, nil},
			{0, max(0, min(first, s.off-2048)), want}, // all of it behind
			{-5, 1 << 62, nil},
		} {
			if ring && c.first == 0 && c.end == s.off+1 {
				continue
			}
			if got := mustFindDisk(t, p, s.size, c.first, c.end); !slices.Equal(got, c.want) {
				t.Errorf("%v with partitions from %d to %d: found %v", s, c.first, c.end, got)
			}
		}
	}
	for _, s := range samples() { // the disk's own table is no news
		if s.name == "dos" || s.name == "gpt" {
			if got := mustFindDisk(t, s.disk(), s.size, 1<<20, s.size); got != nil {
				t.Errorf("%v: found %v", s, got)
			}
		}
	}
}

// A structure of which the end is cut off is not there.
func TestVolumeMayBeShort(t *testing.T) {
	for _, s := range samples() {
		p := s.disk()
		last := int64(0)
		for _, w := range p.spots {
			if w.off <= s.off {
				last = max(last, w.off)
			}
		}
		for _, size := range []int64{0, 1, 511, 512, s.off, last} {
			if s.off < s.size/2 && size <= s.off {
				for _, m := range mustFind(t, p, size) {
					if m.Name == s.name {
						t.Errorf("%v cut to %d: found %v", s, size, m)
					}
				}
			}
		}
	}
}

// broken cannot be read where it has a bad sector.
type broken struct {
	io.ReaderAt
	sector int64
}

var errSector = errors.New("bad sector")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off < b.sector*512+512 && off+int64(len(p)) > b.sector*512 {
		return 0, errSector
	}
	return b.ReaderAt.ReadAt(p, off)
}

func TestBadSectorIsAnError(t *testing.T) {
	for _, s := range places() {
		bad := broken{s.disk(), s.off / 512}
		if _, err := Find(volumeOf(bad, s.size)); !errors.Is(err, errSector) {
			t.Errorf("%v: the error is %v", s, err)
		}
		// In a partition it is the partition's.
		part, end := s.off&^4095, s.off&^4095+4096
		if s.name == "zfs_member" {
			end += 32 << 10 // all slots that the sample has
		}
		if got, err := FindDisk(volumeOf(bad, s.size), part, end); err != nil ||
			slices.ContainsFunc(got, func(m Match) bool { return m.Name == s.name }) {
			t.Errorf("%v: %v and the error %v, though it lies in a partition", s, got, err)
		}
	}
}

// counter counts what is read of a disk.
type counter struct {
	io.ReaderAt
	reads, bytes int
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

func TestLittleIsRead(t *testing.T) {
	c := &counter{ReaderAt: sample{size: 16 << 40}.disk()}
	if got := mustFind(t, c, 16<<40); got != nil {
		t.Errorf("found %v", got)
	}
	if c.reads > 8 || c.bytes > 2<<20 {
		t.Errorf("%d bytes in %d reads", c.bytes, c.reads)
	}
	c = &counter{ReaderAt: bytes.NewReader(make([]byte, 1<<20))}
	mustFindDisk(t, c, 1<<20, 32256, 1<<20)
	if c.reads > 1 || c.bytes > 32256 {
		t.Errorf("%d bytes in %d reads before a partition at sector 63", c.bytes, c.reads)
	}
}

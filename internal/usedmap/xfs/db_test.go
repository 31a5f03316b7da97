package xfs

import (
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// sameAsDB compares with xfs_db, which names every free extent, and beside
// them the blocks of the free lists. It gives the bytes of those.
func sameAsDB(t testing.TB, img string, found *volume.Found) (lists int64) {
	t.Helper()
	var s superblock
	realfs.Map(t, img, func(v *volume.Volume) (*volume.Found, error) {
		first, err := readSuperblock(v)
		if err != nil {
			t.Fatal(err)
		}
		s = *first.superblock
		return nil, nil
	})
	var want volume.Free
	for _, line := range strings.Split(realfs.Run(t, "xfs_db", "-r", "-c", "freesp -d", img), "\n") {
		var no, at, n int64
		if len(strings.Fields(line)) != 3 { // the table at the end has five
			continue
		}
		if k, _ := fmt.Sscan(line, &no, &at, &n); k == 3 {
			want.Add(s.groupOffset(uint32(no))+at*int64(s.BlockSize), n*int64(s.BlockSize))
		}
	}
	for no := range s.Groups {
		out := realfs.Run(t, "xfs_db", "-r", "-c", fmt.Sprintf("agf %d", no), "-c", "p flcount", img)
		var n int64
		if _, err := fmt.Sscanf(out, "flcount = %d", &n); err != nil {
			t.Fatal(err, out)
		}
		lists += n * int64(s.BlockSize)
	}
	wrong := func(r image.Range) bool {
		for _, w := range want.Ranges() {
			if w.Off <= r.Off && r.End() <= w.End() {
				return false
			}
		}
		return true
	}
	for _, r := range found.Free.Ranges() {
		if wrong(r) {
			t.Errorf("%v is not free for xfs_db", r)
		}
	}
	if got := found.Free.Bytes(); got != want.Bytes() && got != want.Bytes()-lists {
		t.Errorf("%d bytes are free; %d for xfs_db, %d of them in free lists", got, want.Bytes(), lists)
	}
	return lists
}

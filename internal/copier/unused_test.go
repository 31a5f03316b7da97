package copier

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

// randomDisk is noise, text and zeros in runs of any length.
func randomDisk(t *rapid.T, size int) []byte {
	seed := rapid.Uint64().Draw(t, "seed")
	rnd := rand.New(rand.NewPCG(seed, 1))
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	disk := make([]byte, size)
	for at := 0; at < size; {
		n := min(size-at, 1+rnd.IntN(1<<(4+rnd.IntN(17))))
		if rnd.IntN(2) == 0 {
			noise.Read(disk[at : at+n])
		}
		at += n
	}
	return disk
}

// expected is what a disk must hold after a restore: what the image has, and
// elsewhere what it held, or zeros in its first and last MiB.
func expected(disk, before []byte, used []image.Range) []byte {
	want := bytes.Clone(before)
	clear(want[:min(len(want), bootArea)])
	clear(want[max(0, len(want)-bootArea):])
	for _, r := range used {
		copy(want[r.Off:r.End()], disk[r.Off:])
	}
	return want
}

// TestRandomDisks saves disks of which anything is not used, and restores them
// over anything.
func TestRandomDisks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sectors := rapid.OneOf(rapid.Int64Range(1, 5000), rapid.Int64Range(4000, 9000)).Draw(rt, "sectors")
		m := drawMap(rt, sectors, rapid.SampledFrom([]int64{300, 9000}).Draw(rt, "longest"))
		disk := randomDisk(rt, int(m.Size))
		used := usedBlocks(m)
		s := saveOf(t, faults.NewDisk(disk), m, SourceOptions{})
		if s.Disk.Data+s.Disk.Zero != total(used) || s.Disk.Unused != m.Size-total(used) || s.Receipt.Read != total(used) {
			rt.Fatalf("saved %+v, used are %d bytes", s.Saved, total(used))
		}
		before := old(len(disk))
		if rapid.Bool().Draw(rt, "near") {
			before = bytes.Clone(disk)
			before[rapid.IntRange(0, len(disk)-1).Draw(rt, "at")] ^= 1
		}
		want := expected(disk, before, used)
		target, r := s.restoreTo(t, before, RestoreOptions{Verify: ReadBack(rapid.IntRange(0, 2).Draw(rt, "verify"))})
		if r.Written == 0 {
			want = before
		}
		if !bytes.Equal(target.Bytes(), want) || r.Written+r.Skipped+r.Unused != m.Size {
			rt.Fatalf("not restored: %+v", r)
		}
		checkVerify(t, s, target.Bytes(), used)
	})
}

// checkVerify flips a byte that is used and one that is not, if there are such.
func checkVerify(t *testing.T, s stored, disk []byte, used []image.Range) {
	t.Helper()
	all := []image.Range{{Len: int64(len(disk))}}
	for i, list := range [][]image.Range{used, without(all, used)} {
		if len(list) == 0 {
			continue
		}
		at := list[len(list)/2].Off
		other := bytes.Clone(disk)
		other[at] ^= 1
		v, err := Verify(t.Context(), s.job(t, "sda", faults.NewDisk(other)), Options{}, nil)
		var want []image.Range
		if i == 0 {
			want = []image.Range{{Off: at &^ 511, Len: 512}}
		}
		if err != nil || !slices.Equal(v.Differ, want) || v.Read != total(used) || v.Unused != int64(len(disk))-total(used) ||
			v.Read-v.Verified != total(want) {
			t.Fatalf("byte %d flipped: %+v, %v", at, v, err)
		}
	}
}

// discarding is a disk that fills what is discarded with something.
type discarding struct {
	*faults.Disk
	cannot bool
	mu     sync.Mutex // guards ranges
	ranges []image.Range
}

func (d *discarding) CanDiscard() bool { return !d.cannot }

func (d *discarding) Discard(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ranges = append(d.ranges, image.Range{Off: off, Len: n})
	_, err := d.WriteAt(bytes.Repeat([]byte{0xdd}, int(n)), off)
	return err
}

func TestUnused(t *testing.T) {
	disk := conform.Disks(6 * mib)["noise"]
	unused := []image.Range{{Off: 4096, Len: 4096}, {Off: mib - 4096, Len: 8192}, {Off: 3 * mib, Len: 4096}, {Off: 5*mib - 4096, Len: 8192}}
	s := mustSave(t, disk, unused...)
	used := without([]image.Range{{Len: 6 * mib}}, unused)
	want := expected(disk, old(6*mib), used)
	keep, r := s.restoreTo(t, old(6*mib), RestoreOptions{})
	if !bytes.Equal(keep.Bytes(), want) || r.Unused != 3*4096 || r.Written != 6*mib-3*4096 {
		t.Errorf("keep: %+v", r)
	}

	d := &discarding{Disk: faults.NewDisk(old(6 * mib))}
	_, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, RestoreOptions{Unused: UnusedDiscard})
	must(t, err)
	wantDiscarded := []image.Range{{Off: mib, Len: 4096}, {Off: 3 * mib, Len: 4096}, {Off: 5*mib - 4096, Len: 4096}}
	if !slices.Equal(inOrder(d.ranges), wantDiscarded) {
		t.Errorf("discarded are %v, want %v", d.ranges, wantDiscarded)
	}
	v, err := Verify(t.Context(), s.job(t, "sda", d), Options{}, nil)
	if err != nil || len(v.Differ) > 0 {
		t.Errorf("after discard: %+v, %v", v, err)
	}

	for _, r := range unused {
		clear(want[r.Off:r.End()])
	}
	zero, r := s.restoreTo(t, keep.Bytes(), RestoreOptions{Unused: UnusedZero})
	if !bytes.Equal(zero.Bytes(), want) || r.Unused != 0 || r.Written+r.Skipped != 6*mib || r.Verified != 6*mib {
		t.Errorf("zero: %+v", r)
	}
	again, _ := s.restoreTo(t, want, RestoreOptions{Unused: UnusedZero})
	onlyReads(t, again)
}

// TestDiscardRefused: a disk that cannot discard is refused before anything is
// written, to any disk.
func TestDiscardRefused(t *testing.T) {
	s := mustSave(t, make([]byte, 3*mib), image.Range{Off: mib, Len: mib})
	can := &discarding{Disk: faults.NewDisk(old(3 * mib))}
	for _, cannot := range []Target{faults.NewDisk(old(3 * mib)), &discarding{Disk: faults.NewDisk(old(3 * mib)), cannot: true}} {
		jobs := []Job{s.job(t, "sda", can), s.job(t, "sdb", cannot)}
		if _, err := Restore(t.Context(), jobs, RestoreOptions{Unused: UnusedDiscard}); err == nil {
			t.Error("no error")
		}
	}
	if len(can.Log()) > 0 {
		t.Error("a disk was touched")
	}
}

// TestFitSeesZerosWhereNothingIsUsed: what a target held there before must not
// decide what is written.
func TestFitSeesZerosWhereNothingIsUsed(t *testing.T) {
	s := mustSave(t, conform.Disks(4 * mib)["noise"], image.Range{Off: 0, Len: 4096}, image.Range{Off: 4*mib - 4096, Len: 4096})
	job := s.job(t, "sda", faults.NewDisk(old(5*mib)))
	job.Fit = func(head, tail []byte, _, _ int64) ([]parttab.Edit, error) {
		if !image.IsZero(head[:4096]) || !image.IsZero(tail[mib-4096:]) {
			t.Error("fit sees something where nothing is used")
		}
		return []parttab.Edit{{Off: 0, Data: bytes.Repeat([]byte{9}, 512)}}, nil // unused there: it counts as used from now on
	}
	rs, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
	must(t, err)
	v, err := Verify(t.Context(), job, Options{}, nil)
	if err != nil || v.Verified != 4*mib-8192+512 || v.Unused != 8192-512 || len(v.Differ) > 0 || rs[0].Written != 4*mib {
		t.Errorf("%+v, %v; restored %+v", v, err, rs[0])
	}
	again, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
	if err != nil || again[0].Written != 0 || again[0].Skipped != v.Verified {
		t.Errorf("again: %+v, %v", again, err)
	}
}

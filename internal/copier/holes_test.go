package copier

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// sparseDisk tells holes, and does not let anybody read in them but in the
// first and last MiB, which are always compared.
type sparseDisk struct {
	Target
	holes []image.Range // in order
	lies  bool
	open  bool // they may be read
}

func (d *sparseDisk) NextData(off int64) (from, to int64) {
	if d.lies {
		return off - 1, off + 1
	}
	for _, h := range d.holes {
		if off >= h.Off && off < h.End() {
			off = h.End()
		}
	}
	for _, h := range d.holes {
		if h.Off > off {
			return off, h.Off
		}
	}
	return off, d.Size()
}

func (d *sparseDisk) ReadAt(b []byte, off int64) (int, error) {
	for _, h := range d.holes {
		if !d.open && off >= mib && off < d.Size()-mib && off >= h.Off && off+int64(len(b)) <= h.End() && len(b) > 64<<10 {
			return 0, errors.New("a hole is read")
		}
	}
	return d.Target.ReadAt(b, off)
}

// withHoles is a disk of noise and zeros.
func withHoles(size int64, holes []image.Range) []byte {
	disk := bytes.Clone(conform.Disks(int(size))["noise"])
	for _, h := range holes {
		clear(disk[h.Off:h.End()])
	}
	return disk
}

// TestHolesAreZeros: a disk that tells its holes gives the image that it gives
// when it is read, and its holes are not read, neither to save it, nor to compare
// it, nor to find out what to restore.
func TestHolesAreZeros(t *testing.T) {
	const size = 40*mib + 512
	holes := []image.Range{
		{Off: 0, Len: 3 * mib}, {Off: 4*mib + 512, Len: 10*mib + 300}, {Off: 20 * mib, Len: 512}, {Off: 30 * mib, Len: size - 30*mib},
	}
	disk := withHoles(size, holes)
	m := mapOf(size, image.Range{Off: 5 * mib, Len: mib}, image.Range{Off: 25 * mib, Len: 8 * mib})
	for _, m := range []*usedmap.Map{nil, m} {
		want := saveOf(t, faults.NewDisk(bytes.Clone(disk)), m, SourceOptions{})
		src := &sparseDisk{Target: faults.NewDisk(bytes.Clone(disk)), holes: holes}
		got := saveOf(t, src, m, SourceOptions{})
		if got.Disk.Root != want.Disk.Root || got.Disk.Zero != want.Disk.Zero || got.Receipt.Read != want.Receipt.Read {
			t.Errorf("with holes %+v, without %+v", got.Disk, want.Disk)
		}
		v, err := Verify(t.Context(), storedJob("sda", got.im, src), Options{}, nil)
		if err != nil || len(v.Differ) > 0 || v.Read+v.Unused != size || v.Verified != v.Read {
			t.Errorf("verify: %+v, %v", v, err)
		}
		// Only what was read counts for the disk's speed. It is read in whole sectors.
		if st := v.Stages[0]; st.Name != "compare" || st.Bytes > v.Read-v.Zero/2 || st.Bytes < v.Read-v.Zero-2*bootArea {
			t.Errorf("verify: %+v of %d bytes, of which %d are zero", st, v.Read, v.Zero)
		}
		rs, err := Restore(t.Context(), []Job{storedJob("sda", got.im, src)}, RestoreOptions{})
		if err != nil || rs[0].Written != 0 {
			t.Errorf("restore: %+v, %v", rs, err)
		}
	}
	src := &sparseDisk{Target: faults.NewDisk(bytes.Clone(disk)), holes: holes, lies: true, open: true}
	want := saveOf(t, faults.NewDisk(bytes.Clone(disk)), nil, SourceOptions{})
	if got := saveOf(t, src, nil, SourceOptions{}); got.Disk.Root != want.Disk.Root {
		t.Error("a reader that says what cannot be is believed")
	}
}

// TestRestoreIntoHoles: a target with holes where the image has data, and data
// where it has zeros, gets the image's bytes.
func TestRestoreIntoHoles(t *testing.T) {
	const size = 24 * mib
	disk := withHoles(size, []image.Range{{Off: 2 * mib, Len: 12 * mib}, {Off: 20 * mib, Len: 2 * mib}})
	s := saveOf(t, faults.NewDisk(bytes.Clone(disk)), nil, SourceOptions{})
	holes := []image.Range{{Off: 6*mib + 4096, Len: 10 * mib}}
	old := withHoles(size, holes)
	for i := range old[:mib] {
		old[i] ^= 1
	}
	target := &sparseDisk{Target: faults.NewDisk(old), holes: holes, open: true}
	v, err := Verify(t.Context(), storedJob("sda", s.im, target), Options{}, nil)
	if err != nil || len(v.Differ) == 0 || v.Read != size {
		t.Errorf("verify before: %d places, %v", len(v.Differ), err)
	}
	for _, opt := range []RestoreOptions{{}, {Full: true}, {Unused: UnusedZero}} {
		f := faults.NewDisk(bytes.Clone(old))
		// What is written to is no hole any more.
		_, err := Restore(t.Context(), []Job{storedJob("sda", s.im, &written{sparseDisk: sparseDisk{Target: f, holes: holes, open: true}})}, opt)
		must(t, err)
		if !bytes.Equal(f.Bytes(), disk) {
			t.Errorf("%+v: other bytes", opt)
		}
	}
}

// TestWhatIsBehindAHole: a long hole is compared as one part. What was found of
// the pieces behind it is still remembered of these pieces.
func TestWhatIsBehindAHole(t *testing.T) {
	const size = 16 * mib
	holes := []image.Range{{Off: 2 * mib, Len: 6 * mib}}
	disk := withHoles(size, holes)
	s := saveOf(t, faults.NewDisk(bytes.Clone(disk)), nil, SourceOptions{})
	for _, verify := range []ReadBack{VerifyAll, VerifyWritten, VerifyNone} {
		f := faults.NewDisk(bytes.Clone(disk))
		if _, err := f.WriteAt([]byte("changed"), 9*mib+100); err != nil {
			t.Fatal(err)
		}
		rs, err := Restore(t.Context(), []Job{s.job(t, "sda", &sparseDisk{Target: f, holes: holes})}, RestoreOptions{Verify: verify})
		if err != nil || !bytes.Equal(f.Bytes(), disk) || rs[0].Written > 4*mib {
			t.Errorf("verify %d: %+v, %v", verify, rs, err)
		}
	}
}

// written is a sparse disk that forgets its holes at the first write.
type written struct {
	sparseDisk
	mu sync.Mutex // guards holes while many write
}

func (w *written) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holes = nil
}

func (w *written) WriteAt(b []byte, off int64) (int, error) {
	w.forget()
	return w.sparseDisk.WriteAt(b, off)
}

func (w *written) ZeroAt(off, n int64) error {
	w.forget()
	return w.sparseDisk.ZeroAt(off, n)
}

// TestHolesModel: whatever the holes and whatever is used, the image is the
// same as without holes.
func TestHolesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const size = 5*mib + 4096
		cuts := rapid.SliceOfN(rapid.Int64Range(0, size/512), 0, 9).Draw(rt, "cuts")
		var holes, free []image.Range
		at := int64(0)
		for i, c := range cuts {
			if c *= 512; c > at {
				switch i % 3 {
				case 0:
					holes = append(holes, image.Range{Off: at, Len: c - at})
				case 1:
					free = append(free, image.Range{Off: at, Len: c - at})
				}
				at = c
			}
		}
		disk := withHoles(size, holes)
		m := mapOf(size, free...)
		a := saveOf(t, faults.NewDisk(bytes.Clone(disk)), m, SourceOptions{})
		b := saveOf(t, &sparseDisk{Target: faults.NewDisk(bytes.Clone(disk)), holes: holes, open: true}, m, SourceOptions{})
		if a.Disk.Root != b.Disk.Root {
			rt.Fatal(fmt.Sprint("other images with the holes ", holes, " and free ", free))
		}
	})
}

package copier

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/testenv"
)

// gptLen is the length of a backup GPT of 128 entries with its header.
const gptLen = 33 * 512

// shrinkable is a disk of 24 MiB with a partition from 1 to 5 MiB that is full, and
// nothing else but the places of fill, which get noise.
func shrinkable(t *testing.T, fill ...image.Range) []byte {
	t.Helper()
	disk := gptDisk(t, 24*mib)
	noise := rand.NewChaCha8([32]byte{7})
	for _, r := range append(fill, image.Range{Off: mib, Len: 4 * mib}) {
		noise.Read(disk[r.Off:r.End()])
	}
	return disk
}

// jobsFor are the jobs that restore a disk from a file and from a store.
func jobsFor(t *testing.T, disk []byte, unused ...image.Range) map[string]func(Target) Job {
	f, s := mustBackup(t, disk), mustSave(t, disk, unused...)
	return map[string]func(Target) Job{
		"file":  func(target Target) Job { return f.job("sda", target) },
		"store": func(target Target) Job { return s.job(t, "sda", target) },
	}
}

func TestShrink(t *testing.T) {
	targets := []int64{6*mib + 512, 24*mib - gptLen - 512, 7 * mib, 24*mib - 512}
	for _, target := range targets[:testenv.Effort(2, len(targets))] {
		// What lies in the last place of the gap shares a chunk with the old backup GPT.
		disk := shrinkable(t, image.Range{Off: target - gptLen - 8192, Len: 8192})
		for kind, job := range jobsFor(t, disk) {
			t.Run(fmt.Sprint(kind, target), func(t *testing.T) { shrinks(t, disk, target, job) })
		}
	}
}

func shrinks(t *testing.T, disk []byte, target int64, jobOn func(Target) Job) {
	d := faults.NewDisk(old(int(target)))
	calls := 0
	job, err := Shrink(t.Context(), jobOn(d), func() { calls++ })
	must(t, err)
	onlyReads(t, d)
	if calls == 0 || !strings.Contains(job.Shrunk(), fmt.Sprint("last ", 24*mib-target, " bytes")) {
		t.Errorf("%d signs of life; it says %q", calls, job.Shrunk())
	}
	receipts, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
	must(t, err)
	got, r := d.Bytes(), receipts[0]
	table, err := parttab.Read(bytes.NewReader(got), target, 512)
	if err != nil || len(table.Parts) != 1 || len(table.Notes) > 0 || table.Parts[0].Off != mib || table.Parts[0].Len != 4*mib {
		t.Errorf("the smaller disk has %+v, %v", table, err)
	}
	changed := int64(0)
	for _, c := range r.Changed {
		if c.Off < target {
			copy(got[c.Off:min(c.End(), target)], disk[c.Off:])
			changed += c.Len
		}
	}
	if !bytes.Equal(got, disk[:target]) {
		t.Error("the disk differs from the image where the receipt does not say so")
	}
	if last := r.Changed[len(r.Changed)-1]; changed > 64<<10 || last.Off != target || last.Len != 24*mib-target {
		t.Errorf("the receipt names %+v", r.Changed)
	}
	if r.Written != target || r.Verified != target || r.Root+r.BLAKE3 == "" {
		t.Errorf("the receipt is %+v", r)
	}
	v, err := Verify(t.Context(), job, Options{}, nil)
	if err != nil || len(v.Differ) > 0 || v.Read != target || !reflect.DeepEqual(v.Changed, r.Changed) ||
		v.BLAKE3 != r.BLAKE3 || v.Root != r.Root {
		t.Errorf("verify: %+v, %v", v, err)
	}
	wrong := d.Bytes()
	wrong[target-gptLen-1] ^= 1
	job, err = Shrink(t.Context(), jobOn(faults.NewDisk(wrong)), nil)
	must(t, err)
	if v, err := Verify(t.Context(), job, Options{}, nil); err != nil || len(v.Differ) != 1 || v.Differ[0].End() != target-gptLen {
		t.Errorf("verify of a wrong bit: %+v, %v", v, err)
	}
	if r.Root != "" {
		again := faults.NewDisk(d.Bytes())
		job, err = Shrink(t.Context(), jobOn(again), nil)
		must(t, err)
		same, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
		must(t, err)
		onlyReads(t, again)
		if same[0].Skipped != target || !reflect.DeepEqual(same[0].Changed, r.Changed) {
			t.Errorf("again: %+v", same[0])
		}
	}
}

// TestShrinkRefuses: what may be needed is never left out, and the disk stays as it
// was.
func TestShrinkRefuses(t *testing.T) {
	const target = 8 * mib
	for _, c := range []struct {
		what   string
		target int64
		fill   image.Range
		say    string
	}{
		{"a partition ends behind it", 5*mib + gptLen - 512, image.Range{}, "partition 1 ends at byte 5242880, which is 512 bytes behind"},
		{"something in the gap", target, image.Range{Off: 12 * mib, Len: 1}, fmt.Sprintf("lies %d bytes behind", 4*mib+gptLen+1)},
		{"something where the new backup comes", target, image.Range{Off: target - gptLen, Len: 1}, "lies 1 bytes behind"},
		{"something right before the old backup", target, image.Range{Off: 24*mib - gptLen - 1, Len: 1}, "nobody can say that it is not needed"},
		{"a very small disk", 2 * mib, image.Range{}, "too small"},
	} {
		for kind, job := range jobsFor(t, shrinkable(t, c.fill)) {
			d := faults.NewDisk(old(int(c.target)))
			_, err := Shrink(t.Context(), job(d), nil)
			if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%s, %s: %v; want %q", c.what, kind, err, c.say)
			}
			onlyReads(t, d)
			if _, err := Restore(t.Context(), []Job{job(d)}, RestoreOptions{}); !errors.Is(err, ErrUnfit) {
				t.Errorf("%s: without Shrink: %v", c.what, err)
			}
			onlyReads(t, d)
		}
	}
}

// TestShrinkByMap: what the used map calls unused may be left out, whatever is
// there, and an image in a store alone has such a map.
func TestShrinkByMap(t *testing.T) {
	const target = 8 * mib
	unused := image.Range{Off: 10 * mib, Len: 6 * mib}
	disk := shrinkable(t, unused)
	for kind, job := range jobsFor(t, disk, unused) {
		_, err := Shrink(t.Context(), job(faults.NewDisk(old(target))), nil)
		if kind == "store" {
			must(t, err)
			shrinks(t, disk, target, job)
		} else if !errors.Is(err, ErrUnfit) {
			t.Errorf("an image without a map: %v", err)
		}
	}
}

// TestShrinkNot: a disk that is large enough needs none of this.
func TestShrinkNot(t *testing.T) {
	for kind, job := range jobsFor(t, shrinkable(t)) {
		for _, size := range []int{24 * mib, 30 * mib} {
			j, err := Shrink(t.Context(), job(faults.NewDisk(old(size))), nil)
			if err != nil || j.Image.Size() != 24*mib || j.Shrunk() != "" {
				t.Errorf("%s onto %d bytes: %+v, %v", kind, size, j, err)
			}
		}
	}
}

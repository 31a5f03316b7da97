package copier

import (
	"bytes"
	"reflect"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

func TestVerifyNamesTheDifference(t *testing.T) {
	disk := conform.Disks(6*mib + 4096)["mixed"]
	f := mustBackup(t, disk)
	for _, want := range [][]image.Range{
		nil,
		{{Off: 0, Len: 512}},
		{{Off: 6*mib + 3584, Len: 512}},
		{{Off: 1024, Len: 512}, {Off: 3 * mib, Len: 2048}, {Off: 4*mib - 512, Len: 1024}, {Off: 6 * mib, Len: 512}},
	} {
		got := bytes.Clone(disk)
		differing := int64(0)
		for _, r := range want {
			differing += r.Len
			for at := r.Off; at < r.End(); at += 512 {
				got[at+7] ^= 0x10
			}
		}
		target := faults.NewDisk(got)
		v, err := Verify(t.Context(), f.job("sda", target), Options{}, nil)
		if err != nil || !reflect.DeepEqual(v.Differ, want) || v.Read != int64(len(disk)) || v.Read-v.Verified != differing {
			t.Errorf("differ %v, want %v; %d of %d verified, %v", v.Differ, want, v.Verified, v.Read, err)
		}
		for _, op := range target.Log() {
			if op.Kind != "read" {
				t.Fatalf("verify did %v", op)
			}
		}
	}
}

// TestVerifyListsTheFirst: a disk that differs everywhere has a short list, in
// the disk's order.
func TestVerifyListsTheFirst(t *testing.T) {
	f := mustBackup(t, make([]byte, 3*mib))
	disk := make([]byte, 3*mib)
	for at := 0; at < len(disk); at += 1024 {
		disk[at] = 1
	}
	v, err := Verify(t.Context(), f.job("sda", faults.NewDisk(disk)), Options{}, nil)
	if err != nil || len(v.Differ) != maxDiffer || v.Read-v.Verified != 3*mib/2 {
		t.Fatalf("%d ranges, %d of %d verified, %v", len(v.Differ), v.Verified, v.Read, err)
	}
	for i, r := range v.Differ {
		if r != (image.Range{Off: int64(i) * 1024, Len: 512}) {
			t.Fatalf("range %d is %v", i, r)
		}
	}
}

// TestLargerDisk restores to larger disks, with and without edits, and expects
// verify to agree with what was written.
func TestLargerDisk(t *testing.T) {
	disk := conform.Disks(4*mib + 512)["noise"]
	f := mustBackup(t, disk)
	for _, size := range []int{4*mib + 1024, 5 * mib, 9 * mib} {
		end := int64(size)
		edits := []parttab.Edit{
			{Off: end - 512, Data: bytes.Repeat([]byte{3}, 512)}, {Off: 512, Data: bytes.Repeat([]byte{1}, 1024)},
			{Off: 4 * mib, Data: bytes.Repeat([]byte{2}, 512)},
		}
		want := old(size)
		clear(want[size-mib:])
		copy(want, disk)
		fitted := bytes.Clone(want)
		for _, e := range edits {
			copy(fitted[e.Off:], e.Data)
		}
		fit := func(head, tail []byte, imageSize, targetSize int64) ([]parttab.Edit, error) {
			if !bytes.Equal(head, disk[:mib]) || !bytes.Equal(tail, disk[len(disk)-mib:]) || imageSize != int64(len(disk)) || targetSize != end {
				t.Error("fit is called with something else than the image's ends")
			}
			return edits, nil
		}
		target := faults.NewDisk(old(size))
		job := f.job("sda", target)
		restoreLarger(t, job, want, nil)
		job.Fit = fit
		changed := []image.Range{{Off: 512, Len: 1024}, {Off: 4 * mib, Len: 512}, {Off: end - 512, Len: 512}}
		if size == 4*mib+1024 {
			changed = []image.Range{{Off: 512, Len: 1024}, {Off: 4 * mib, Len: 1024}}
		}
		restoreLarger(t, job, fitted, changed)

		broken := target.Bytes()
		broken[end-1] ^= 1
		job.Target = faults.NewDisk(broken)
		v, err := Verify(t.Context(), job, Options{}, nil)
		if err != nil || !reflect.DeepEqual(v.Differ, []image.Range{{Off: end - 512, Len: 512}}) {
			t.Errorf("verify of a broken edit: %v, %v", v.Differ, err)
		}
	}
}

func restoreLarger(t *testing.T, job Job, want []byte, changed []image.Range) {
	t.Helper()
	rs, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(job.Target.(*faults.Disk).Bytes(), want) {
		t.Fatalf("wrong bytes on a disk of %d", len(want))
	}
	if !reflect.DeepEqual(rs[0].Changed, changed) {
		t.Errorf("changed are %v, want %v", rs[0].Changed, changed)
	}
	v, err := Verify(t.Context(), job, Options{}, nil)
	if err != nil || len(v.Differ) > 0 || !reflect.DeepEqual(v.Changed, changed) || v.Verified != rs[0].Verified {
		t.Errorf("verify of what was restored: differ %v, changed %v, %d verified, %v", v.Differ, v.Changed, v.Verified, err)
	}
}

// TestFitIsChecked: edits that overlap, or lie where the image's bytes are
// already proved, are refused, and the disk does not boot.
func TestFitIsChecked(t *testing.T) {
	f := mustBackup(t, conform.Disks(4 * mib)["noise"])
	for name, edits := range map[string][]parttab.Edit{
		"body":        {{Off: 2 * mib, Data: []byte{1}}},
		"over head":   {{Off: mib - 1, Data: []byte{1, 2}}},
		"overlap":     {{Off: 10, Data: []byte{1, 2}}, {Off: 11, Data: []byte{3}}},
		"beyond disk": {{Off: 5*mib - 1, Data: []byte{1, 2}}},
		"negative":    {{Off: -1, Data: []byte{1}}},
		"over end":    {{Off: 4*mib - 1, Data: []byte{1, 2}}},
		"empty":       {{Off: 3, Data: nil}},
	} {
		target := faults.NewDisk(old(5 * mib))
		job := f.job("sda", target)
		job.Fit = func(_, _ []byte, _, _ int64) ([]parttab.Edit, error) { return edits, nil }
		if _, err := Restore(t.Context(), []Job{job}, RestoreOptions{}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if !image.IsZero(target.Bytes()[:mib]) {
			t.Errorf("%s: the disk has its beginning", name)
		}
	}
}

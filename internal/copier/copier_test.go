package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/rawgz"
)

const mib = image.PieceSize

// file is a backup in memory.
type file struct {
	data []byte
	sums rawgz.Sums
}

func (f file) open() (image.Reader, error) {
	return rawgz.NewReader(bytes.NewReader(f.data), int64(len(f.data)))
}

func (f file) image() FileImage {
	return FileImage{DiskSize: f.sums.RawSize, BLAKE3: f.sums.BLAKE3, Reader: f.open}
}

// job restores the file to a target.
func (f file) job(name string, t Target) Job {
	return Job{Name: name, Image: f.image(), Target: t}
}

func backupOf(t testing.TB, src Source, opt SourceOptions) (file, image.Receipt, error) {
	t.Helper()
	var out bytes.Buffer
	w := rawgz.NewWriter(&out)
	receipt, err := Backup(t.Context(), src, w, opt)
	if err != nil {
		return file{}, receipt, err
	}
	sums, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return file{out.Bytes(), sums}, receipt, nil
}

func mustBackup(t testing.TB, disk []byte) file {
	t.Helper()
	f, _, err := backupOf(t, faults.NewDisk(disk), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// old is what stood on a target before: no byte of it is zero.
func old(size int) []byte { return bytes.Repeat([]byte{0xee}, size) }

// sizes are the disks that a restore must manage: without a body, without a
// tail, with a last piece that is short, and usual ones.
var sizes = []int{512, mib, mib + 512, 2*mib - 512, 2 * mib, 2*mib + 512, 3 * mib, 6*mib + 4096}

func TestRoundTrip(t *testing.T) {
	for _, size := range sizes {
		for name, disk := range conform.Disks(size) {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) { roundTrip(t, disk) })
		}
	}
}

// TestLongZeros has runs of zeros longer than one slot takes.
func TestLongZeros(t *testing.T) { roundTrip(t, conform.Disks(zeroRun + 5*mib + 512)["last byte"]) }

func roundTrip(t *testing.T, disk []byte) {
	src := faults.NewDisk(disk)
	f, got, err := backupOf(t, src, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(src.Log(), func(o faults.Op) bool { return o.Kind != "read" }) {
		t.Error("the backup wrote to its source")
	}
	size := int64(len(disk))
	if got.Read != size || f.sums.RawSize != size || len(got.Bad) > 0 {
		t.Errorf("receipt of the backup: %+v", got)
	}
	target := faults.NewDisk(old(len(disk)))
	receipts, err := Restore(t.Context(), []Job{f.job("sda", target)}, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(target.Bytes(), disk) {
		t.Fatal("the restored disk is not the same")
	}
	r := receipts[0]
	if r.Image != "sda" || r.Written != size || r.Verified != size || r.Zero != got.Zero || r.BLAKE3 != f.sums.BLAKE3 || len(r.Changed) > 0 {
		t.Errorf("receipt of the restore: %+v", r)
	}
	v, err := Verify(t.Context(), f.job("sda", target), Options{}, nil)
	if err != nil || v.Read != size || v.Verified != size || len(v.Differ) > 0 || v.Zero != got.Zero {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// TestOrder holds restores of two disks to the order of the design.
func TestOrder(t *testing.T) {
	for _, kind := range []string{"share", "store"} {
		t.Run(kind, func(t *testing.T) { order(t, kind) })
	}
}

func order(t *testing.T, kind string) {
	var mu sync.Mutex // guards log
	var log []string
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, s)
	}
	var jobs []Job
	for i, name := range []string{"sda", "sdb"} {
		disk := conform.Disks((6+i)*mib + 512)["noise"]
		target := recorded(name, faults.NewDisk(old(len(disk))), note)
		if kind == "share" {
			jobs = append(jobs, mustBackup(t, disk).job(name, target))
		} else {
			jobs = append(jobs, mustSave(t, disk).job(t, name, target))
		}
	}
	if _, err := Restore(t.Context(), jobs, RestoreOptions{Full: true}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"sda clear", "sdb clear", "sda sync", "sdb sync", "sda read edge", "sdb read edge",
		"sda write body", "sda sync", "sda read body", "sdb write body", "sdb sync", "sdb read body",
		"sda write tail", "sdb write tail", "sda sync", "sdb sync", "sda read edge", "sdb read edge",
		"sda write head", "sdb write head", "sda sync", "sdb sync", "sda read edge", "sdb read edge",
	}
	if got := slices.Compact(log); !slices.Equal(got, want) {
		t.Errorf("order\n%q\nwant\n%q", got, want)
	}
}

// recorded notes in a log shared by disks what is done to which part of one.
func recorded(name string, d *faults.Disk, log func(string)) Target {
	return &faults.Hooked{Target: d, Before: func(o faults.Op) error {
		what := o.Kind
		switch {
		case o.Kind == "sync":
		case o.Kind == "zero" && (o.Off == 0 || o.End() == d.Size()) && o.N == bootArea:
			what = "clear"
		case o.Off >= bootArea && o.End() <= d.Size()-bootArea:
			what += " body"
		case o.Kind == "read":
			what += " edge"
		case o.Off == 0 && o.N == bootArea:
			what += " head"
		case o.Off == d.Size()-bootArea && o.N == bootArea:
			what += " tail"
		default:
			what = o.String()
		}
		log(name + " " + what)
		return nil
	}}
}

// TestRefusedBeforeTheFirstWrite: what is known to fail writes nothing, to no
// disk.
func TestRefusedBeforeTheFirstWrite(t *testing.T) {
	f := mustBackup(t, conform.Disks(3 * mib)["text"])
	good, small := faults.NewDisk(old(3*mib)), faults.NewDisk(old(3*mib-512))
	empty := f.job("sdb", small)
	empty.Image = FileImage{Reader: f.open}
	sectors := mustSave(t, conform.Disks(2 * mib)["text"]).job(t, "sdb", small)
	sectors.SectorSize = 4096
	for _, j := range []Job{f.job("sdb", small), empty, sectors} {
		if _, err := Restore(t.Context(), []Job{f.job("sda", good), j}, RestoreOptions{}); !errors.Is(err, ErrUnfit) {
			t.Error(err)
		}
	}
	if len(good.Log()) > 0 || len(small.Log()) > 0 {
		t.Error("a disk was touched")
	}
}

// TestWrites: whoever must know of the first write is told before it, and only if
// there is one. The write does not come if that fails.
func TestWrites(t *testing.T) {
	disk := conform.Disks(3 * mib)["mixed"]
	s := mustSave(t, disk)
	refused := errors.New("refused")
	for what, c := range map[string]struct {
		before []byte
		err    error
		calls  int
	}{
		"the same": {disk, refused, 0}, "other": {old(len(disk)), nil, 1}, "other, refused": {old(len(disk)), refused, 1},
	} {
		targets := []*faults.Disk{faults.NewDisk(c.before), faults.NewDisk(c.before)}
		wrote := func() bool {
			return slices.ContainsFunc(slices.Concat(targets[0].Log(), targets[1].Log()), func(o faults.Op) bool {
				return o.Kind == "write" || o.Kind == "zero"
			})
		}
		calls := 0
		opt := RestoreOptions{Writes: func() error {
			if calls++; wrote() {
				t.Errorf("%s: it is told too late", what)
			}
			return c.err
		}}
		receipts, err := Restore(t.Context(), []Job{s.job(t, "sda", targets[0]), s.job(t, "sdb", targets[1])}, opt)
		refusal := c.calls > 0 && c.err != nil
		if calls != c.calls || errors.Is(err, refused) != refusal || refusal && (receipts != nil || wrote()) || !refusal && err != nil {
			t.Errorf("%s: told %d times, %v, receipts %v, written: %v", what, calls, err, receipts, wrote())
		}
	}
}

func TestSumsAreBounded(t *testing.T) {
	for size, group := range map[int64]int{1: 1, 1 << 40: 1, 1<<40 + mib: 2, 64 << 40: 64} {
		if s := newSums(size / mib); s.group != group {
			t.Errorf("%d bytes: group %d, want %d", size, s.group, group)
		}
	}
	want, got := &sums{group: 4}, &sums{group: 4}
	for i := range 6 {
		want.add(SumOf([]byte{byte(i + 1)}))
	}
	for i := range 6 {
		got.add(SumOf([]byte{max(byte(i+1), 2)})) // the first is wrong
		if same := got.same(want, i == 5); same != (i != 3) {
			t.Errorf("after %d: same is %v", i, same)
		}
	}
	got.add(SumOf(nil))
	if got.same(want, true) {
		t.Error("more than was written is the same")
	}
}

func TestProgress(t *testing.T) {
	disk := conform.Disks(5*mib + 512)["mixed"]
	last := map[string]int64{}
	opt := Options{Progress: func(stage string, done, total int64) {
		if done <= last[stage] || done > total {
			t.Errorf("%s: %d of %d after %d", stage, done, total, last[stage])
		}
		if last[stage] = done; done == total {
			last[stage] = 1 << 62
		}
	}}
	f, _, err := backupOf(t, faults.NewDisk(disk), SourceOptions{Options: opt})
	if err != nil {
		t.Fatal(err)
	}
	job := f.job("sda", faults.NewDisk(old(len(disk))))
	if _, err := Restore(context.Background(), []Job{job}, RestoreOptions{Options: opt}); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(context.Background(), job, opt, nil); err != nil {
		t.Fatal(err)
	}
	for _, stage := range []string{"read", "write sda", "verify sda", "compare"} {
		if last[stage] != 1<<62 {
			t.Errorf("%s did not come to its end", stage)
		}
	}
}

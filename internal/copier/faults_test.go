package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// bench is a restore of two disks that is broken in some way.
type bench struct {
	want   [][]byte // what each disk shall hold
	before [][]byte // what it held
	disks  []*faults.Disk
	jobs   []Job
}

// kinds are the ways to restore: from files, from a store to disks that hold
// other things, and to disks that hold most of the image.
var kinds = []string{"share", "store", "delta"}

// benchDisks are what is restored, benchFiles and benchStored are their images.
var (
	benchDisks  = [][]byte{conform.Disks(3*mib + 512)["mixed"], conform.Disks(2*mib + 300<<10)["noise"]}
	benchFiles  []file
	benchStored []stored
)

func newBench(t testing.TB, kind string, wrap func(i int, d *faults.Disk) Target) *bench {
	b := &bench{want: benchDisks}
	for i, disk := range benchDisks {
		if len(benchFiles) == i {
			benchFiles, benchStored = append(benchFiles, mustBackup(t, disk)), append(benchStored, mustSave(t, disk))
		}
		before := old(len(disk))
		if kind == "delta" {
			before = bytes.Clone(disk)
			copy(before[len(disk)/2:], "something else")
		}
		d := faults.NewDisk(before)
		b.disks, b.before = append(b.disks, d), append(b.before, before)
		job := benchFiles[i].job("sda", wrap(i, d))
		if kind != "share" {
			job = benchStored[i].job(t, "sda", job.Target)
		}
		job.Name = fmt.Sprintf("sd%c", 'a'+i)
		b.jobs = append(b.jobs, job)
	}
	return b
}

// arena gives out the same buffers again after each reset: most of the time of
// thousands of short restores would be spent on new ones.
type arena struct {
	bufs [][]byte
	used int
}

func (a *arena) reset() *arena {
	a.used = 0
	return a
}

func (a *arena) alloc(size int) []byte {
	if size > mib {
		return make([]byte, size)
	}
	if a.used == len(a.bufs) {
		a.bufs = append(a.bufs, make([]byte, mib))
	}
	a.used++
	b := a.bufs[a.used-1][:size]
	clear(b)
	return b
}

var benchArena arena

func (b *bench) restore(ctx context.Context) error {
	_, err := Restore(ctx, b.jobs, RestoreOptions{Options: Options{alloc: benchArena.reset().alloc}})
	return err
}

// eachKind runs a test for all kinds of restores.
func eachKind(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { test(t, kind) })
	}
}

// check holds the outcome to the two rules: a restore that says it was done
// was done, and one that failed left nothing that boots.
func (b *bench) check(t testing.TB, what any, err error) {
	t.Helper()
	for i, d := range b.disks {
		got := d.Bytes()
		if err == nil && !bytes.Equal(got, b.want[i]) {
			t.Fatalf("%v: success, but disk %d is not the image", what, i)
		}
		if err != nil {
			b.checkState(t, what, i, got)
		}
	}
}

// checkState asserts that a disk that was not restored is untouched, or
// without a beginning.
func (b *bench) checkState(t testing.TB, what any, i int, got []byte) {
	t.Helper()
	untouched := bytes.Equal(got[bootArea:len(got)-bootArea], b.before[i][bootArea:len(got)-bootArea])
	if !untouched && !image.IsZero(got[:bootArea]) {
		t.Fatalf("%v: disk %d has a mixed body and a beginning", what, i)
	}
}

// TestEveryOperationFails fails each operation on the disks, once or from then
// on for ever.
func TestEveryOperationFails(t *testing.T) { eachKind(t, everyOperationFails) }

func everyOperationFails(t *testing.T, kind string) {
	for _, dead := range []bool{false, true} {
		for victim := range 2 {
			for k := int64(0); ; k += testenv.Effort[int64](5, 1) {
				var f *faults.Failing
				b := newBench(t, kind, func(i int, d *faults.Disk) Target {
					if i != victim {
						return d
					}
					f = &faults.Failing{Target: d, K: k, Dead: dead}
					return f
				})
				err := b.restore(t.Context())
				if f.Ops() <= k {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				what := fmt.Sprintf("dead %v, disk %d, operation %d (%v)", dead, victim, k, err)
				if !errors.Is(err, faults.ErrInjected) {
					t.Fatal(what)
				}
				if dead { // its beginning can no longer be cleared, but the other's can
					b.disks[victim], b.before[victim] = faults.NewDisk(old(2*bootArea)), old(2*bootArea)
				}
				b.check(t, what, err)
			}
		}
	}
}

// TestPowerCut cuts the power after each operation; any part of what was not
// synced is lost. Never does a disk that has a beginning stand beside one that
// is a mixture.
func TestPowerCut(t *testing.T) { eachKind(t, powerCut) }

func powerCut(t *testing.T, kind string) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for k := int64(0); ; k += testenv.Effort[int64](5, 1) {
		var ops atomic.Int64
		b := newBench(t, kind, func(_ int, d *faults.Disk) Target {
			return &faults.Hooked{Target: d, Before: func(faults.Op) error {
				if ops.Add(1) > k {
					return faults.ErrInjected
				}
				return nil
			}}
		})
		err := b.restore(t.Context())
		if err == nil {
			b.check(t, "uncut", nil)
			return
		}
		for range 8 {
			var exact, begun int
			for i, d := range b.disks {
				got := d.Crash(func() bool { return rnd.IntN(2) == 0 })
				if bytes.Equal(got[bootArea:], b.want[i][bootArea:]) {
					exact++
					if !image.IsZero(got[:bootArea]) {
						begun++
					}
					continue
				}
				b.checkState(t, fmt.Sprintf("power cut after %d operations", k), i, got)
			}
			if begun > 0 && exact < len(b.disks) {
				t.Fatalf("power cut after %d operations: a disk boots and another is a mixture", k)
			}
		}
	}
}

// TestDroppedWrites: a disk that says yes and does nothing, once in n writes.
func TestDroppedWrites(t *testing.T) { eachKind(t, droppedWrites) }

func droppedWrites(t *testing.T, kind string) {
	for n := int64(1); n <= 12; n++ {
		var drops []*faults.Dropping
		b := newBench(t, kind, func(_ int, d *faults.Disk) Target {
			drops = append(drops, &faults.Dropping{Target: d, N: n})
			return drops[len(drops)-1]
		})
		err := b.restore(t.Context())
		if drops[0].Dropped()+drops[1].Dropped() > 0 && err == nil {
			t.Errorf("every %d. write is dropped, and it is a success", n)
		}
		if err == nil {
			b.check(t, n, nil)
		}
	}
}

// TestShortOperations: less than asked is an error, whatever is said with it.
func TestShortOperations(t *testing.T) { eachKind(t, shortOperations) }

func shortOperations(t *testing.T, kind string) {
	for _, say := range []error{nil, io.EOF, io.ErrUnexpectedEOF} {
		for n := int64(1); n <= 9; n += testenv.Effort[int64](4, 1) {
			reads := int64(len(benchDisks[0])/mib + 1)
			b := newBench(t, kind, func(_ int, d *faults.Disk) Target { return &faults.Short{Target: d, N: n, Err: say} })
			err := b.restore(t.Context())
			if n < 6 && err == nil { // a restore from a file has few operations
				t.Errorf("every %d. operation is short (%v), and it is a success", n, say)
			}
			if err == nil {
				b.check(t, n, nil)
			}
			src := &faults.Short{Target: faults.NewDisk(b.want[0]), N: n, Err: say}
			if _, _, err := backupOf(t, src, noTable); (err == nil) != (n > reads) {
				t.Errorf("backup, every %d. read is short (%v): %v", n, say, err)
			}
			src = &faults.Short{Target: faults.NewDisk(b.want[0]), N: n, Err: say}
			if _, err := Save(t.Context(), src, new(conform.MemStore), nil, noTable); (err == nil) != (n > reads) {
				t.Errorf("save, every %d. read is short (%v): %v", n, say, err)
			}
		}
	}
}

// TestDamagedImage restores images with a flipped bit that nobody checked
// before.
func TestDamagedImage(t *testing.T) {
	disk := conform.Disks(3*mib + 512)["text"]
	f := mustBackup(t, disk)
	for bit := int64(3); bit < int64(len(f.data))*8; bit += 1009 {
		bad := f
		bad.data = bytes.Clone(f.data)
		bad.data[bit/8] ^= 1 << (bit % 8)
		b := bench{want: [][]byte{disk}, before: [][]byte{old(len(disk))}, disks: []*faults.Disk{faults.NewDisk(old(len(disk)))}}
		_, err := Restore(t.Context(), []Job{bad.job("sda", b.disks[0])}, RestoreOptions{})
		b.check(t, bit, err)
	}
	other := f.job("sda", faults.NewDisk(old(len(disk))))
	otherImage := f.image()
	otherImage.BLAKE3 = mustBackup(t, disk[:mib]).sums.BLAKE3
	other.Image = otherImage
	if _, err := Restore(t.Context(), []Job{other}, RestoreOptions{}); err == nil {
		t.Error("an image of other bytes than the sidecar's was restored")
	}
	for _, size := range []int64{int64(len(disk)) - 512, int64(len(disk)) + 512, mib} {
		job := f.job("sda", faults.NewDisk(old(4*mib)))
		image := f.image()
		image.DiskSize = size
		job.Image = image
		if _, err := Restore(t.Context(), []Job{job}, RestoreOptions{}); err == nil {
			t.Errorf("an image of %d bytes was restored as one of %d", len(disk), size)
		}
	}
}

// TestCancel cancels at each operation on a disk.
func TestCancel(t *testing.T) { eachKind(t, cancelAnywhere) }

func cancelAnywhere(t *testing.T, kind string) {
	before := runtime.NumGoroutine()
	for k := int64(1); ; k += testenv.Effort[int64](5, 1) {
		ctx, cancel := context.WithCancel(t.Context())
		var ops atomic.Int64
		b := newBench(t, kind, func(_ int, d *faults.Disk) Target {
			return &faults.Hooked{Target: d, Before: func(faults.Op) error {
				if ops.Add(1) == k {
					cancel()
				}
				return nil
			}}
		})
		err := b.restore(ctx)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		b.check(t, fmt.Sprint("cancelled at ", k), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := newBench(t, kind, func(_ int, d *faults.Disk) Target { return d })
	if _, err := Verify(ctx, b.jobs[0], Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Backup(ctx, b.disks[0], nil, SourceOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	noneLeft(t, before)
}

// noneLeft asserts that there are no more goroutines than before.
func noneLeft(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

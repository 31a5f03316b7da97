package copier

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// TestSaveFails fails each call of the store and each read of the disk, or
// cancels there. A save that says it was done can be committed.
func TestSaveFails(t *testing.T) {
	before := runtime.NumGoroutine()
	disk := conform.Disks(3*mib + 512)["mixed"]
	for _, cancelled := range []bool{false, true} {
		for k := int64(1); ; k++ {
			ctx, cancel := context.WithCancel(t.Context())
			var ops atomic.Int64
			hit := func() error {
				switch {
				case ops.Add(1) != k:
					return nil
				case cancelled:
					cancel()
					return nil
				}
				return faults.ErrInjected
			}
			st := &conform.MemStore{Failing: func(string) error { return hit() }}
			src := &faults.Hooked{Target: faults.NewDisk(disk), Before: func(faults.Op) error { return hit() }}
			saved, err := Save(ctx, src, st, nil, noTable)
			cancel()
			st.Failing = nil
			switch hit := ops.Load() >= k; {
			case err == nil && hit && !cancelled: // to be cancelled at the last operation may be too late
				t.Fatalf("operation %d failed, and it is a success", k)
			case err == nil:
				commits(t, st, saved, disk)
			case !hit || !errors.Is(err, faults.ErrInjected) && !errors.Is(err, context.Canceled):
				t.Fatal(err)
			}
			if ops.Load() < k {
				break
			}
		}
	}
	noneLeft(t, before)
}

// commits asserts that a store takes what was saved, and gives the disk back.
func commits(t *testing.T, st *conform.MemStore, saved Saved, disk []byte) {
	t.Helper()
	d := saved.Disk
	d.Name, d.Disk = "sda", image.Identity{Size: int64(len(disk)), SectorSize: 512}
	r := &image.Record{Format: image.RecordFormat, Box: "10.0.0.1", Time: time.Unix(0, 0), Disks: []image.RecordedDisk{d}}
	must(t, st.Commit(t.Context(), r))
	im, err := chunk.OpenImage(t.Context(), st.Getter(saved.Root), saved.Root)
	must(t, err)
	if got := (stored{saved, st, im}); !bytes.Equal(readWhole(t, got, len(disk)), disk) {
		t.Fatal("what was committed is not the disk")
	}
}

func readWhole(t *testing.T, s stored, size int) []byte {
	t.Helper()
	d, _ := s.restoreTo(t, old(size), RestoreOptions{})
	return d.Bytes()
}

// TestPagesComeAfterTheirChunks: whoever asks for a page while a backup runs
// must be able to rely on the answer.
func TestPagesComeAfterTheirChunks(t *testing.T) {
	disk := conform.Disks(8 * mib)["mixed"]
	for range 20 {
		st := new(conform.MemStore)
		w := &watched{Session: st, t: t}
		_, err := Save(t.Context(), faults.NewDisk(append(disk, disk...)), w, nil, SourceOptions{Options: Options{Workers: 4}})
		must(t, err)
	}
}

// watched is a store that looks at each page that comes.
type watched struct {
	chunk.Session
	t *testing.T
}

func (w *watched) Put(ctx context.Context, o object.Object) error {
	if err := w.Session.Put(ctx, o); err != nil || o.Kind != object.Page {
		return err
	}
	missing, err := w.Missing(ctx, []object.Key{o.Key})
	if len(missing) > 0 {
		w.t.Error("a page comes before its chunks")
	}
	return err
}

// TestHealing: what the store has lost comes with the next backup, also if the
// page is still there.
func TestHealing(t *testing.T) {
	disk := conform.Disks(4 * mib)["mixed"]
	s := mustSave(t, disk)
	s.st.Lose(s.st.Keys(object.Chunk)[0])
	again, err := Save(t.Context(), faults.NewDisk(disk), s.st, mapOf(len(disk)), SourceOptions{})
	if err != nil || again.NewChunks != 1 {
		t.Fatalf("%+v, %v", again, err)
	}
	commits(t, s.st, again, disk)
}

// TestBadSectorsOfASave: unreadable sectors become zeros and are named, but for
// those that nothing uses.
func TestBadSectorsOfASave(t *testing.T) {
	disk := conform.Disks(4*mib + 512)["noise"]
	bad := []image.Range{{Off: 20 << 10, Len: 1024}, {Off: mib - 512, Len: 1024}, {Off: 4 * mib, Len: 512}}
	src := &faults.Bad{Target: faults.NewDisk(disk), Err: errMedium, Places: []faults.Op{{Off: 2*mib + 8192, N: 100}}}
	want := bytes.Clone(disk)
	for _, r := range bad {
		src.Places = append(src.Places, faults.Op{Off: r.Off, N: r.Len})
		clear(want[r.Off:][:r.Len])
	}
	unused := image.Range{Off: 2*mib + 4096, Len: 8192} // read along with what is around it
	s := saveOf(t, src, mapOf(len(disk), unused), SourceOptions{})
	if !reflect.DeepEqual(s.Disk.Bad, bad) || !reflect.DeepEqual(s.Receipt.Bad, bad) {
		t.Errorf("bad are %v, want %v", s.Disk.Bad, bad)
	}
	copy(want[unused.Off:unused.End()], old(int(unused.Len)))
	if got := readWhole(t, s, len(disk)); !bytes.Equal(got, want) {
		t.Error("not the disk with zeros where it is bad")
	}
	v, err := Verify(t.Context(), s.job(t, "sda", src), Options{}, nil)
	if err != nil || !reflect.DeepEqual(v.Bad, bad) || !reflect.DeepEqual(v.Differ, bad) {
		t.Errorf("verify: bad %v, differ %v, %v", v.Bad, v.Differ, err)
	}
	src.Err = errOther
	if _, err := Save(t.Context(), src, new(conform.MemStore), nil, SourceOptions{}); !errors.Is(err, errOther) {
		t.Errorf("an error that is no medium error: %v", err)
	}
}

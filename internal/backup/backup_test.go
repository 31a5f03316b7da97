package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/usedmap"
)

const mib = 1 << 20

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func twoDisks() []Disk {
	var disks []Disk
	for i, kind := range []string{"noise", "mixed"} {
		content := conform.Disks(3 * mib)[kind]
		disks = append(disks, Disk{
			Name: fmt.Sprintf("sd%c", 'a'+i), Kernel: fmt.Sprintf("vd%c", 'a'+i), Source: faults.NewDisk(content),
			Identity: image.Identity{Size: int64(len(content)), SectorSize: 512, Serial: kind},
		})
	}
	return disks
}

func record() *image.Record {
	return &image.Record{Format: image.RecordFormat, Box: "10.0.0.1", Time: time.Unix(1000, 0).UTC()}
}

// holds asserts that a store has a backup of the disks.
func holds(t *testing.T, st *conform.MemStore, r *image.Record, disks []Disk) {
	t.Helper()
	if len(r.Disks) != len(disks) {
		t.Fatalf("the record has %d disks, want %d", len(r.Disks), len(disks))
	}
	for i, d := range disks {
		if got := r.Disks[i]; got.Name != d.Name || got.Kernel != d.Kernel || got.Disk != d.Identity {
			t.Errorf("recorded %+v, want %+v", got, d)
		}
		im, err := st.OpenImage(t.Context(), r, d.Name)
		must(t, err)
		view := im.ReaderAt(t.Context(), 1)
		got := make([]byte, d.Identity.Size)
		if _, err := view.ReadAt(got, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(got, d.Source.(*faults.Disk).Bytes()) {
			t.Errorf("%s: other bytes", d.Name)
		}
		view.Close()
		must(t, im.Close())
	}
}

func TestMake(t *testing.T) {
	st, disks, r := new(conform.MemStore), twoDisks(), record()
	var read []string
	told := map[string]int64{}
	opt := Options{Reading: func(d *Disk) { read = append(read, d.Name) }}
	opt.Progress = func(stage string, done, _ int64) { told[read[len(read)-1]+" "+stage] = done }
	must(t, Probe(t.Context(), disks, opt))
	saved, err := Make(t.Context(), st, r, disks, opt)
	must(t, err)
	holds(t, st, r, disks)
	if len(saved) != 2 || saved[1].Disk.Root != r.Disks[1].Root || !slices.Equal(read, []string{"sda", "sdb"}) {
		t.Errorf("saved %+v, read %v", saved, read)
	}
	if told["sda read"] != 3*mib || told["sdb read"] != 3*mib {
		t.Errorf("told %v", told)
	}
}

// losing is a session of which the first commits find that something is lost.
type losing struct {
	chunk.Session
	times int
}

func (l *losing) Commit(ctx context.Context, r *image.Record) error {
	if l.times--; l.times >= 0 {
		return fmt.Errorf("a chunk: %w", chunk.ErrMissing)
	}
	return l.Session.Commit(ctx, r)
}

// TestMakeAgain: what is lost on the way is sent again, once.
func TestMakeAgain(t *testing.T) {
	for times, ok := range []bool{true, true, false} {
		st, disks, r := new(conform.MemStore), twoDisks(), record()
		again := 0
		saved, err := Make(t.Context(), &losing{st, times}, r, disks, Options{Again: func(why error) {
			if again++; !errors.Is(why, chunk.ErrMissing) {
				t.Errorf("again for %v", why)
			}
		}})
		if (err == nil) != ok || again != min(times, 1) {
			t.Errorf("%d commits fail: %v, sent again %d times", times, err, again)
		}
		if ok {
			holds(t, st, r, disks)
		} else if !errors.Is(err, chunk.ErrMissing) || saved != nil {
			t.Errorf("%d commits fail: %v, saved %v", times, err, saved)
		}
	}
}

// TestMakeFails: the error of a disk says which it is, and nothing is committed.
func TestMakeFails(t *testing.T) {
	disks := twoDisks()
	bad := &faults.Bad{
		Target: faults.NewDisk(make([]byte, 3*mib)), Err: fmt.Errorf("worn: %w", disk.ErrMedium), Places: []faults.Op{{Off: 0, N: 3 * mib}},
	}
	disks[1].Source = bad
	st := new(conform.MemStore)
	var committed atomic.Bool
	st.Failing = func(op string) error { // from many goroutines
		if op == "commit" {
			committed.Store(true)
		}
		return nil
	}
	_, err := Make(t.Context(), st, record(), disks, Options{})
	for what, err := range map[string]error{"probed": Probe(t.Context(), disks, Options{}), "made": err} {
		var of *DiskError
		if !errors.As(err, &of) || of.Index != 1 || of.Name != "sdb" || !errors.Is(err, copier.ErrFailing) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if committed.Load() {
		t.Error("a part of a backup is committed")
	}
	bad.Places = []faults.Op{{Off: mib, N: 512}}
	r := record()
	_, err = Make(t.Context(), st, r, disks, Options{})
	must(t, err)
	if want := []image.Range{{Off: mib, Len: 512}}; !slices.Equal(r.Disks[1].Bad, want) {
		t.Errorf("bad are %v", r.Disks[1].Bad)
	}
}

// TestUnless: a backup that is not wanted after all is not committed.
func TestUnless(t *testing.T) {
	st, disks := new(conform.MemStore), twoDisks()
	known := []image.Range{{Off: 0, Len: 512}}
	disks[0].Bad = known // the other program could not read it
	disks[1].Used = &usedmap.Map{
		Size: 3 * mib, SectorSize: 512, Parts: []usedmap.Part{{Ranges: []image.Range{{Len: 3 * mib}}}}, Free: []image.Range{{Off: mib, Len: mib}},
	}
	if disks[0].Bytes() != 3*mib || disks[1].Bytes() != 2*mib {
		t.Errorf("%d and %d bytes are read", disks[0].Bytes(), disks[1].Bytes())
	}
	_, err := Make(t.Context(), st, record(), disks, Options{Unless: func(r *image.Record) bool {
		return len(r.Disks) == 2 && slices.Equal(r.Disks[0].Bad, known) && r.Disks[1].Unused == mib
	}})
	if !errors.Is(err, ErrUnwanted) {
		t.Error(err)
	}
	if n := len(st.Keys(object.Root)); n != 2 {
		t.Errorf("%d roots", n)
	}
	if rs := st.Records(); len(rs) > 0 {
		t.Errorf("committed %v", rs)
	}
}

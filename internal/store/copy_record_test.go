package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/durable"
)

// onBlobs makes a store whose blobs the test changes.
func onBlobs(t testing.TB) (*mem.Store, *Store) {
	t.Helper()
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	return blobs, openStore(t, Config{Blobs: blobs})
}

// copyAny is copyAll of a store that may have damaged records.
func copyAny(t testing.TB, src, dst *Store) (last CopyProgress, err error) {
	t.Helper()
	all, damaged, err := src.Records(t.Context())
	must(t, err)
	err = src.Copy(t.Context(), dst, all, damaged, func(p CopyProgress) { last = p })
	return last, err
}

// spoilRecord are the ways in which a record becomes one that cannot be read.
var spoilRecord = map[string]func(t testing.TB, blobs blob.Store, name string){
	"bit": func(t testing.TB, blobs blob.Store, name string) { flip(t, blobs, name, 8*200) },
	"empty": func(t testing.TB, blobs blob.Store, name string) {
		must(t, blob.WriteAll(t.Context(), blobs, name, nil))
	},
	"cut": func(t testing.TB, blobs blob.Store, name string) {
		text, err := blob.ReadAll(t.Context(), blobs, name, 1<<20)
		must(t, err)
		must(t, blob.WriteAll(t.Context(), blobs, name, text[:len(text)/2]))
	},
	"other": func(t testing.TB, blobs blob.Store, name string) {
		must(t, blob.WriteAll(t.Context(), blobs, name, seal("record", []byte("{}\n"))))
	},
}

// TestCopyNamesDamagedRecords: a backup whose record cannot be read is not in
// the copy, and that is an error.
func TestCopyNamesDamagedRecords(t *testing.T) {
	for how, spoil := range spoilRecord {
		t.Run(how, func(t *testing.T) {
			blobs, src := onBlobs(t)
			dst := newStore(t, &mem.Store{})
			d := newDisk(seeds(1, 10))
			for i := range 5 {
				mustBackup(t, src, fmt.Sprintf("10.0.0.%d", i), day(1), d)
			}
			for _, i := range []int{1, 3} {
				spoil(t, blobs, recordName(fmt.Sprintf("10.0.0.%d", i), "20261101-100000"))
			}
			p, err := copyAny(t, src, dst)
			if err == nil || p.Total != 5 || p.Done != 3 {
				t.Fatalf("%+v, %v", p, err)
			}
			for _, box := range []string{"10.0.0.1", "10.0.0.3"} {
				if !strings.Contains(err.Error(), "backup 20261101-100000 of "+box+" is not copied: its record cannot be read") {
					t.Errorf("%s is not named: %v", box, err)
				}
			}
			if n := len(records(t, dst)); n != 3 {
				t.Errorf("the copy has %d backups", n)
			}
		})
	}
}

// TestCopyHealsRecords: a damaged record where it is copied to gives way to the
// good one and does not hold up others, and so a copy back repairs a store.
func TestCopyHealsRecords(t *testing.T) {
	for how, spoil := range spoilRecord {
		t.Run(how, func(t *testing.T) {
			blobs, src := onBlobs(t)
			second := newStore(t, &mem.Store{})
			d, e := newDisk(seeds(1, 10)), newDisk(seeds(50, 10))
			a := mustBackup(t, src, "10.0.0.1", day(1), d)
			b := mustBackup(t, src, "10.0.0.2", day(1), e)
			must(t, src.SetBaseline(t.Context(), a.Box, a.ID, true))
			_, err := copyAny(t, src, second)
			must(t, err)
			spoil(t, blobs, recordName(a.Box, a.ID))
			flip(t, blobs, packsOf(t, blobs, chunks)[0], 8*5000)
			if mustScrub(t, src).Err() == nil {
				t.Error("the damage is not seen")
			}
			if _, err := copyAny(t, src, second); err == nil || !strings.Contains(err.Error(), "the other store has a good one") {
				t.Errorf("%v", err)
			}
			p, err := copyAny(t, second, src)
			if err != nil || p.Done != 2 || p.Total != 2 {
				t.Fatalf("copied back: %+v, %v", p, err)
			}
			mustRestore(t, src, a, d)
			mustRestore(t, src, b, e)
			if !records(t, src)[0].Baseline {
				t.Error("the mark is lost")
			}
			must(t, src.Check(t.Context()))
			mustGC(t, src)
			if report := mustScrub(t, src); report.Err() != nil {
				t.Error(report)
			}
		})
	}
}

// TestHealedRecordIsNoBaseline: a record that comes back does not take the mark
// from a backup that was made the baseline since.
func TestHealedRecordIsNoBaseline(t *testing.T) {
	blobs, src := onBlobs(t)
	second := newStore(t, &mem.Store{})
	d := newDisk(seeds(1, 10))
	a, b := mustBackup(t, src, "a", day(1), d), mustBackup(t, src, "a", day(2), d)
	must(t, src.SetBaseline(t.Context(), "a", a.ID, true))
	_, err := copyAny(t, src, second)
	must(t, err)
	flip(t, blobs, recordName("a", a.ID), 8*200)
	must(t, src.SetBaseline(t.Context(), "a", b.ID, true))
	_, err = copyAny(t, second, src)
	must(t, err)
	if rs := records(t, src); len(rs) != 2 || rs[0].Baseline || !rs[1].Baseline {
		t.Errorf("the baselines are %v, %v of %d", rs[0].Baseline, rs[1].Baseline, len(rs))
	}
}

// TestCopyPastRecordThatCannotBe: something that is no file is in the place of
// a record where it is copied to.
func TestCopyPastRecordThatCannotBe(t *testing.T) {
	root := t.TempDir()
	folder, err := dir.New(durable.OS{}, root)
	must(t, err)
	src, dst := newStore(t, &mem.Store{}), newStore(t, folder)
	d := newDisk(seeds(1, 10))
	for i := range 3 {
		mustBackup(t, src, fmt.Sprintf("10.0.0.%d", i), day(1), d)
	}
	must(t, os.MkdirAll(filepath.Join(root, "records", "10.0.0.1", "20261101-100000"), 0o700))
	p, err := copyAny(t, src, dst)
	if err == nil || p.Done != 2 || p.Total != 3 || !strings.Contains(err.Error(), "of 10.0.0.1 is not copied") {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestCopyOntoItself: whatever name the store has.
func TestCopyOntoItself(t *testing.T) {
	blobs, src := onBlobs(t)
	mustBackup(t, src, "10.0.0.1", day(1), newDisk(seeds(1, 10)))
	dst := openStore(t, Config{Blobs: blobs})
	if _, err := copyAny(t, src, dst); !errors.Is(err, ErrSame) {
		t.Errorf("%v", err)
	}
	if all, err := blobs.List(t.Context(), "same-"); err != nil || len(all) > 0 {
		t.Errorf("left behind: %v, %v", all, err)
	}
	twin := openStore(t, Config{Blobs: blobs.Clone()})
	mustBackup(t, src, "10.0.0.2", day(1), newDisk(seeds(20, 10)))
	if p, err := copyAny(t, src, twin); err != nil || p.Done != 2 {
		t.Errorf("a copy made file by file: %+v, %v", p, err)
	}
}

// TestCopyToFullStore: what did not go is named, and goes when there is room.
func TestCopyToFullStore(t *testing.T) {
	src, room := newStore(t, &mem.Store{}), &filling{Store: &mem.Store{}}
	room.room.Store(1 << 40)
	must(t, Init(t.Context(), room))
	dst := openStore(t, Config{Blobs: room})
	for i := range 4 {
		mustBackup(t, src, fmt.Sprintf("10.0.0.%d", i), day(1), newDisk(seeds(uint64(100*i+1), 40)))
	}
	room.room.Store(150 << 10)
	p, err := copyAny(t, src, dst)
	if !errors.Is(err, syscall.ENOSPC) || p.Done == 0 || p.Done == 4 || !strings.Contains(err.Error(), "is not copied") {
		t.Fatalf("%+v, %v", p, err)
	}
	if n := len(records(t, dst)); n != p.Done {
		t.Errorf("%d backups are in the copy, %d are said to be", n, p.Done)
	}
	room.room.Store(1 << 40)
	if p, err = copyAny(t, src, dst); err != nil || p.Done != 4 {
		t.Errorf("with room: %+v, %v", p, err)
	}
	must(t, dst.Check(t.Context()))
}

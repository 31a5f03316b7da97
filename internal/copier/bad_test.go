package copier

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

var errMedium = errors.New("bad sector")

func isMedium(err error) bool { return errors.Is(err, errMedium) }

func TestBadSectors(t *testing.T) {
	disk := conform.Disks(4*mib + 512)["noise"]
	bad := []image.Range{{Off: 512, Len: 1024}, {Off: mib - 512, Len: 1024}, {Off: 3*mib + 65536, Len: 512}, {Off: 4 * mib, Len: 512}}
	src := &faults.Bad{Target: faults.NewDisk(disk), Err: errMedium}
	want := bytes.Clone(disk)
	for _, r := range bad {
		src.Places = append(src.Places, faults.Op{Off: r.Off + 100, N: r.Len - 200}) // a sector is bad if a byte of it is
		clear(want[r.Off:][:r.Len])
	}
	if _, _, err := backupOf(t, src, Options{}); !errors.Is(err, errMedium) {
		t.Errorf("an error that is no medium error: %v", err)
	}
	f, receipt, err := backupOf(t, src, Options{Medium: isMedium})
	if err != nil || !reflect.DeepEqual(receipt.Bad, bad) {
		t.Fatalf("bad are %v, want %v (%v)", receipt.Bad, bad, err)
	}
	target := faults.NewDisk(old(len(disk)))
	if _, err := Restore(t.Context(), []Job{f.job("sda", target)}, Options{}); err != nil || !bytes.Equal(target.Bytes(), want) {
		t.Errorf("restore of an image with bad sectors: %v", err)
	}
	// The image has zeros there; an unreadable sector is different all the same.
	v, err := Verify(t.Context(), f.job("sda", src), Options{Medium: isMedium})
	if err != nil || !reflect.DeepEqual(v.Bad, bad) || !reflect.DeepEqual(v.Differ, bad) {
		t.Errorf("verify: bad %v, differ %v, %v", v.Bad, v.Differ, err)
	}
}

func TestBadSectorsOfFourKilobytes(t *testing.T) {
	src := &faults.Bad{Target: faults.NewDisk(old(2 * mib)), Err: errMedium, Places: []faults.Op{{Off: mib + 5000, N: 1}}}
	_, receipt, err := backupOf(t, src, Options{Medium: isMedium, SectorSize: 4096})
	if want := []image.Range{{Off: mib + 4096, Len: 4096}}; err != nil || !reflect.DeepEqual(receipt.Bad, want) {
		t.Errorf("bad are %v, want %v (%v)", receipt.Bad, want, err)
	}
}

// TestDeadDisk: a disk of which much cannot be read has no backup.
func TestDeadDisk(t *testing.T) {
	size := badBytes/99*100 + 2*mib
	src := &faults.Bad{Target: faults.NewDisk(make([]byte, size)), Err: errMedium, Places: []faults.Op{{Off: 0, N: int64(size)}}}
	if _, _, err := backupOf(t, src, Options{Medium: isMedium, SectorSize: 65536}); err == nil || !strings.Contains(err.Error(), "failing") {
		t.Errorf("error: %v", err)
	}
	l := badList{diskSize: 1 << 50}
	for i := range int64(badRanges) {
		if err := l.add([]image.Range{{Off: i * 1024, Len: 512}}); err != nil {
			t.Fatal(err)
		}
	}
	if l.add([]image.Range{{Off: 1 << 40, Len: 512}}) == nil {
		t.Error("any number of bad ranges is taken")
	}
}

// TestSalvageShowsLife: a place with many bad sectors can take a worn disk
// minutes, and every read that fails must be a sign of life.
func TestSalvageShowsLife(t *testing.T) {
	src := &faults.Bad{Target: faults.NewDisk(old(2 * mib)), Err: errMedium, Places: []faults.Op{{Off: mib, N: 200 * 512}}}
	var alive atomic.Int64
	opt := Options{Medium: isMedium}
	opt.Alive = func() { alive.Add(1) }
	if _, _, err := backupOf(t, src, opt); err != nil || alive.Load() < 200 {
		t.Fatalf("%d signs of life for 200 bad sectors, %v", alive.Load(), err)
	}
}

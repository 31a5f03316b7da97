package copier

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// errMedium is of a sector that cannot be read, errOther of a read that fails
// otherwise.
var (
	errMedium = fmt.Errorf("bad sector: %w", disk.ErrMedium)
	errOther  = errors.New("the cable is loose")
)

// noTable are options with which the partition table is not read first, for
// tests that count reads.
var noTable = SourceOptions{TakeFailing: true}

func TestBadSectors(t *testing.T) {
	disk := conform.Disks(4*mib + 512)["noise"]
	bad := []image.Range{{Off: 20 << 10, Len: 1024}, {Off: mib - 512, Len: 1024}, {Off: 3*mib + 65536, Len: 512}, {Off: 4 * mib, Len: 512}}
	src := &faults.Bad{Target: faults.NewDisk(disk), Err: errMedium}
	want := bytes.Clone(disk)
	for _, r := range bad {
		src.Places = append(src.Places, faults.Op{Off: r.Off + 100, N: r.Len - 200}) // a sector is bad if a byte of it is
		clear(want[r.Off:][:r.Len])
	}
	src.Err = errOther
	if _, _, err := backupOf(t, src, SourceOptions{}); !errors.Is(err, errOther) {
		t.Errorf("an error that is no medium error: %v", err)
	}
	src.Err = errMedium
	f, receipt, err := backupOf(t, src, SourceOptions{})
	if err != nil || !reflect.DeepEqual(receipt.Bad, bad) {
		t.Fatalf("bad are %v, want %v (%v)", receipt.Bad, bad, err)
	}
	target := faults.NewDisk(old(len(disk)))
	if _, err := Restore(t.Context(), []Job{f.job("sda", target)}, RestoreOptions{}); err != nil || !bytes.Equal(target.Bytes(), want) {
		t.Errorf("restore of an image with bad sectors: %v", err)
	}
	// The image has zeros there; an unreadable sector is different all the same.
	v, err := Verify(t.Context(), f.job("sda", src), Options{}, nil)
	if err != nil || !reflect.DeepEqual(v.Bad, bad) || !reflect.DeepEqual(v.Differ, bad) {
		t.Errorf("verify: bad %v, differ %v, %v", v.Bad, v.Differ, err)
	}
}

func TestBadSectorsOfFourKilobytes(t *testing.T) {
	src := &faults.Bad{Target: faults.NewDisk(old(2 * mib)), Err: errMedium, Places: []faults.Op{{Off: mib + 5000, N: 1}}}
	_, receipt, err := backupOf(t, src, SourceOptions{SectorSize: 4096})
	if want := []image.Range{{Off: mib + 4096, Len: 4096}}; err != nil || !reflect.DeepEqual(receipt.Bad, want) {
		t.Errorf("bad are %v, want %v (%v)", receipt.Bad, want, err)
	}
}

// gptDisk is a disk with a GPT and little else.
func gptDisk(t *testing.T, size int) []byte {
	testenv.Tools(t, "sfdisk")
	path := t.TempDir() + "/disk"
	must(t, os.WriteFile(path, make([]byte, size), 0o600))
	cmd := exec.Command("sfdisk", "--quiet", "--wipe=never", path)
	cmd.Stdin = strings.NewReader("label: gpt\n2048,8192,L\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	disk, err := os.ReadFile(path)
	must(t, err)
	return disk
}

// TestFailingDisk: a disk of which much cannot be read, or the partition table,
// has no image, in a file and in a store, unless it is asked for; and no more of
// it is read than is needed to know. A few bad sectors do no harm.
func TestFailingDisk(t *testing.T) {
	gpt := gptDisk(t, 64*mib)
	sector := func(off int64) []faults.Op { return []faults.Op{{Off: off, N: 512}} }
	var thousandth []faults.Op
	for off := int64(1000 * 512); off < 64*mib; off += 1000 * 512 {
		thousandth = append(thousandth, faults.Op{Off: off, N: 512})
	}
	for name, c := range map[string]struct {
		bad   []faults.Op
		fails bool
		early bool // found by Probe, before the reading begins
	}{
		"all":                   {[]faults.Op{{Off: 0, N: 64 * mib}}, true, true},
		"second half":           {[]faults.Op{{Off: 32 * mib, N: 32 * mib}}, true, true},
		"last twentieth":        {[]faults.Op{{Off: 61 * mib, N: 3 * mib}}, true, true},
		"more than a hundredth": {[]faults.Op{{Off: 20 * mib, N: 64*mib/badShare + 512}}, true, false},
		"boot record":           {sector(0), true, true},
		"GPT header":            {sector(512), true, true},
		"GPT entries":           {sector(33 * 512), true, true},
		"backup GPT header":     {sector(64*mib - 512), true, true},
		"backup GPT entries":    {sector(64*mib - 512*33), true, true},
		"every 1000th sector":   {thousandth, true, false},
		"a hundredth":           {[]faults.Op{{Off: 20 * mib, N: 64 * mib / badShare / 512 * 512}}, false, false},
		"100 sectors":           {thousandth[:badPlaces], false, false},
	} {
		t.Run(name, func(t *testing.T) {
			src := &faults.Bad{Target: faults.NewDisk(bytes.Clone(gpt)), Err: errMedium, Places: c.bad}
			opt := SourceOptions{}
			if err := Probe(t.Context(), src, nil, opt); errors.Is(err, ErrFailing) != c.early || err != nil != c.early {
				t.Errorf("looked at before: %v", err)
			}
			_, receipt, err := backupOf(t, src, opt)
			if errors.Is(err, ErrFailing) != c.fails || err != nil != c.fails {
				t.Errorf("backup: %v", err)
			}
			if c.fails && receipt.Read > 52*mib {
				t.Errorf("%d bytes were read before it was given up", receipt.Read)
			}
			_, err = Save(t.Context(), src, new(conform.MemStore), nil, opt)
			if errors.Is(err, ErrFailing) != c.fails || err != nil != c.fails {
				t.Errorf("save: %v", err)
			}
			opt.TakeFailing = true
			if err := Probe(t.Context(), src, nil, opt); err != nil {
				t.Errorf("looked at before, though it is to be taken: %v", err)
			}
			if _, receipt, err := backupOf(t, src, opt); err != nil || len(receipt.Bad) == 0 {
				t.Errorf("it is not taken: %v, bad %v", err, receipt.Bad)
			}
		})
	}
}

// TestFailingPartOfUse: what may be unreadable counts from what is read. Of a
// large disk that is nearly empty, that is little.
func TestFailingPartOfUse(t *testing.T) {
	const size, used = 64 * mib, 2 * mib
	m := mapOf(size, image.Range{Off: used, Len: size - used})
	src := &faults.Bad{Target: faults.NewDisk(conform.Disks(size)["noise"]), Err: errMedium}
	for bad, want := range map[faults.Op]bool{{Off: mib, N: 64 << 10}: true, {Off: 3 * mib, N: 60 * mib}: false, {Off: mib, N: 4096}: false} {
		src.Places = []faults.Op{bad}
		opt := SourceOptions{}
		_, err := Save(t.Context(), src, new(conform.MemStore), m, opt)
		if errors.Is(err, ErrFailing) != want || (err == nil) == want {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestBadListIsBounded(t *testing.T) {
	l := badList{read: 1 << 50}
	for i := range int64(maxPlaces) {
		if err := l.add([]image.Range{{Off: i * 1024, Len: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	l.take = true
	if l.add([]image.Range{{Off: 1 << 40, Len: 1}}) == nil {
		t.Error("any number of bad ranges is taken")
	}
}

// TestSalvageShowsLife: a place with many bad sectors can take a worn disk
// minutes, and every read that fails must be a sign of life.
func TestSalvageShowsLife(t *testing.T) {
	src := &faults.Bad{Target: faults.NewDisk(make([]byte, 200*512*badShare)), Err: errMedium, Places: []faults.Op{{Off: mib, N: 200 * 512}}}
	var alive atomic.Int64
	opt := SourceOptions{}
	opt.Alive = func() { alive.Add(1) }
	if _, _, err := backupOf(t, src, opt); err != nil || alive.Load() < 200 {
		t.Fatalf("%d signs of life for 200 bad sectors, %v", alive.Load(), err)
	}
}

package copier

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/parttab"
)

// logOf is a RestoreOptions.Log and what it was told.
func logOf(opt *RestoreOptions) *[]string {
	var lines []string
	opt.Log = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	return &lines
}

// writtenBody is how many bytes of a disk's body were written.
func writtenBody(d *faults.Disk) (n int64) {
	for _, o := range d.Log() {
		if o.Kind == "write" || o.Kind == "zero" {
			n += image.Range{Off: o.Off, Len: o.N}.Clip(bootArea, d.Size()-bootArea).Len
		}
	}
	return n
}

// TestDelta: only what differs is fetched and written, wherever it is.
func TestDelta(t *testing.T) {
	disk := conform.Disks(20*mib + 512)["mixed"]
	s := mustSave(t, disk)
	size := int64(len(disk))
	for name, change := range map[string][]int{
		"body": {5 * mib, 13 * mib}, "zeros": {3 * 700_000 / 2}, "head": {7}, "tail": {len(disk) - 1},
		"all over": {0, 9 * mib, len(disk) - mib/2},
	} {
		before := bytes.Clone(disk)
		for _, at := range change {
			before[at] ^= 1
		}
		gets := s.st.Gets()
		target, r := s.restoreTo(t, before, RestoreOptions{})
		if !bytes.Equal(target.Bytes(), disk) {
			t.Fatalf("%s: not restored", name)
		}
		read := size
		if name != "head" && name != "tail" { // what the first and last MiB have is not read then
			read -= 3 * mib
		}
		if r.Written+r.Skipped != size || r.Verified != size || r.Written > 2*mib+int64(len(change))*mib || r.Read < read {
			t.Errorf("%s: receipt %+v", name, r)
		}
		if n := writtenBody(target); n > int64(len(change))*mib {
			t.Errorf("%s: %d bytes of the body were written", name, n)
		}
		if n := s.st.Gets() - gets; n > 40 {
			t.Errorf("%s: %d objects were fetched, of %d", name, n, s.Chunks)
		}
	}
}

// TestDeltaOfTwo: if one disk differs, the other must not boot beside it until
// it is right too.
func TestDeltaOfTwo(t *testing.T) {
	disk := conform.Disks(4 * mib)["noise"]
	s := mustSave(t, disk)
	same, other := faults.NewDisk(disk), faults.NewDisk(old(len(disk)))
	if _, err := Restore(t.Context(), []Job{s.job(t, "sda", same), s.job(t, "sdb", other)}, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(same.Bytes(), disk) || !bytes.Equal(other.Bytes(), disk) || writtenBody(same) > 0 {
		t.Error("not restored, or more than that")
	}
	if i := slices.IndexFunc(same.Log(), func(o faults.Op) bool { return o.Kind == "zero" && o.Off == 0 }); i < 0 {
		t.Error("the disk that is right stayed bootable")
	}
	same, other = faults.NewDisk(disk), faults.NewDisk(disk)
	if _, err := Restore(t.Context(), []Job{s.job(t, "sda", same), s.job(t, "sdb", other)}, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	onlyReads(t, same)
	onlyReads(t, other)
}

// TestEverythingIsWritten where a comparison does not pay, and the log says
// why.
func TestEverythingIsWritten(t *testing.T) {
	disk := conform.Disks(12 * mib)["noise"]
	s := mustSave(t, disk)
	mostly := bytes.Clone(disk)
	copy(mostly, old(6*mib))
	for _, tt := range []struct {
		name, why  string
		before     []byte
		opt        RestoreOptions
		rotational bool
		written    int64
	}{
		{"full", "as asked", disk, RestoreOptions{Full: true}, false, 12 * mib},
		{"rotational", "turns", disk, RestoreOptions{}, true, 12 * mib},
		{"mostly", "without a comparison", mostly, RestoreOptions{sample: 2 * mib}, false, 12 * mib},
		{"sample of all", "bytes differ on the disk", mostly, RestoreOptions{sample: 12 * mib}, false, 8 * mib},
	} {
		log := logOf(&tt.opt)
		d := faults.NewDisk(tt.before)
		job := s.job(t, "sda", d)
		job.Rotational = tt.rotational
		rs, err := Restore(t.Context(), []Job{job}, tt.opt)
		must(t, err)
		if r := rs[0]; !bytes.Equal(d.Bytes(), disk) || r.Written < tt.written-mib || r.Written > tt.written || r.Written+r.Skipped != 12*mib {
			t.Errorf("%s: receipt %+v", tt.name, r)
		}
		if !strings.Contains(strings.Join(*log, "\n"), tt.why) {
			t.Errorf("%s: the log is %q", tt.name, *log)
		}
	}
}

// TestBlankDisk: a new disk is not compared, and one that has something in the first places of the image's
// data is.
func TestBlankDisk(t *testing.T) {
	const size = blankSample + 8*mib
	disk := conform.Disks(size)["noise"]
	s := mustSave(t, disk)
	early := make([]byte, size)
	copy(early[2*mib:], disk[2*mib:6*mib])
	late := make([]byte, size) // what is there is written again
	copy(late[size-4*mib:], disk[size-4*mib:])
	some := old(size)
	clear(some[2*mib : 4*mib])
	copy(some[size-4*mib:], disk[size-4*mib:])
	for _, tt := range []struct {
		name         string
		before       []byte
		blank        bool
		least, below int64 // bytes that are written
	}{
		{"blank", make([]byte, size), true, size, size + 1},
		{"the same at the beginning", early, false, size - 5*mib, size - mib},
		{"the same at the end", late, true, size, size + 1},
		{"zeros in places", some, false, size - 5*mib, size - mib},
	} {
		var opt RestoreOptions
		log := logOf(&opt)
		d := faults.NewDisk(tt.before)
		rs, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, opt)
		must(t, err)
		if r := rs[0]; !bytes.Equal(d.Bytes(), disk) || r.Written < tt.least || r.Written >= tt.below {
			t.Errorf("%s: receipt %+v", tt.name, r)
		}
		if said := strings.Contains(strings.Join(*log, "\n"), "nothing but zeros"); said != tt.blank {
			t.Errorf("%s: the log is %q", tt.name, *log)
		}
	}
}

// TestUnreadableTarget: what cannot be read may be written all the same.
func TestUnreadableTarget(t *testing.T) {
	disk := conform.Disks(4 * mib)["noise"]
	s := mustSave(t, disk)
	d := &healing{Bad: faults.Bad{Target: faults.NewDisk(disk), Err: errMedium, Places: []faults.Op{{Off: 2 * mib, N: 1}}}}
	rs, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, RestoreOptions{})
	if err != nil || rs[0].Skipped == 0 || rs[0].Written <= 2*mib {
		t.Errorf("%+v, %v", rs, err)
	}
	d = &healing{Bad: faults.Bad{Target: faults.NewDisk(disk), Err: errOther, Places: []faults.Op{{Off: 2 * mib, N: 1}}}}
	if rs, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, RestoreOptions{}); err == nil || rs != nil {
		t.Errorf("a disk that fails before the first write: %v, %v", rs, err)
	}
}

// healing is a disk with one bad place, which can be read once it was written.
type healing struct {
	faults.Bad
	healed atomic.Bool
}

func (h *healing) ReadAt(b []byte, off int64) (int, error) {
	if h.healed.Load() {
		return h.Target.ReadAt(b, off)
	}
	return h.Bad.ReadAt(b, off)
}

func (h *healing) WriteAt(b []byte, off int64) (int, error) {
	if p := h.Places[0]; off <= p.Off && p.End() <= off+int64(len(b)) {
		h.healed.Store(true)
	}
	return h.Target.WriteAt(b, off)
}

func (h *healing) ZeroAt(off, n int64) error {
	if p := h.Places[0]; off <= p.Off && p.End() <= off+n {
		h.healed.Store(true)
	}
	return h.Target.ZeroAt(off, n)
}

// TestUnreadableGap: what cannot be read does no harm where the image has nothing,
// although the bytes on both sides of it are read at once.
func TestUnreadableGap(t *testing.T) {
	const size = 4 * mib
	disk := conform.Disks(size)["noise"]
	gap := image.Range{Off: 2 * mib, Len: 8192}
	s := mustSave(t, disk, gap)
	used := without([]image.Range{{Len: size}}, []image.Range{gap})
	for _, verify := range []ReadBack{VerifyAll, VerifyWritten, VerifyNone} {
		f := faults.NewDisk(old(size))
		bad := &faults.Bad{Target: f, Err: errMedium, Places: []faults.Op{{Off: gap.Off + 4096, N: 512}}}
		_, err := Restore(t.Context(), []Job{s.job(t, "sda", bad)}, RestoreOptions{Verify: verify})
		if err != nil || !bytes.Equal(f.Bytes(), expected(disk, old(size), used)) {
			t.Errorf("verify %d: %v", verify, err)
		}
		v, err := Verify(t.Context(), s.job(t, "sda", bad), Options{}, nil)
		if err != nil || len(v.Bad)+len(v.Differ) > 0 {
			t.Errorf("verify finds %+v, %v", v, err)
		}
	}
}

// TestDeltaOnALargerDisk: the moved backup GPT is right too, and what stood at
// the disk's end is not.
func TestDeltaOnALargerDisk(t *testing.T) {
	disk := conform.Disks(4*mib + 512)["noise"]
	s := mustSave(t, disk)
	for _, size := range []int{4*mib + 1024, 9 * mib} {
		target := faults.NewDisk(old(size))
		job := s.job(t, "sda", target)
		end := int64(size)
		job.Fit = func(_, _ []byte, _, _ int64) ([]parttab.Edit, error) {
			return []parttab.Edit{{Off: end - 512, Data: bytes.Repeat([]byte{3}, 512)}, {Off: 512, Data: bytes.Repeat([]byte{1}, 1024)}}, nil
		}
		first, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
		must(t, err)
		want := target.Bytes()
		job.Target = faults.NewDisk(want)
		again, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
		must(t, err)
		onlyReads(t, job.Target.(*faults.Disk))
		a, b := first[0], again[0]
		if a.Written != b.Skipped || a.Verified != b.Verified || !reflect.DeepEqual(a.Changed, b.Changed) || len(a.Changed) == 0 {
			t.Errorf("first %+v, again %+v", a, b)
		}
		stale := bytes.Clone(want)
		stale[end-mib/4] = 1
		job.Target = faults.NewDisk(stale)
		if size == 4*mib+1024 { // that is inside the image
			continue
		}
		_, err = Restore(t.Context(), []Job{job}, RestoreOptions{})
		must(t, err)
		if !bytes.Equal(job.Target.(*faults.Disk).Bytes(), want) {
			t.Errorf("something stale stayed at the end of a disk of %d bytes", size)
		}
	}
}

// TestVerifyModes: less is read back, and the receipt says so.
func TestVerifyModes(t *testing.T) {
	disk := conform.Disks(8 * mib)["noise"]
	s := mustSave(t, disk)
	before := bytes.Clone(disk)
	copy(before[4*mib:], "changed")
	f := mustBackup(t, disk)
	for mode, want := range map[ReadBack]func(r image.Receipt) int64{
		VerifyAll:     func(r image.Receipt) int64 { return 8 * mib },
		VerifyWritten: func(r image.Receipt) int64 { return r.Written },
		VerifyNone:    func(r image.Receipt) int64 { return 2 * mib },
	} {
		target, r := s.restoreTo(t, before, RestoreOptions{Verify: mode})
		if !bytes.Equal(target.Bytes(), disk) || r.Verified != want(r) {
			t.Errorf("mode %d: %+v", mode, r)
		}
		d := faults.NewDisk(before)
		rs, err := Restore(t.Context(), []Job{f.job("sda", d)}, RestoreOptions{Verify: mode})
		if err != nil || !bytes.Equal(d.Bytes(), disk) || rs[0].Verified != want(rs[0]) {
			t.Errorf("mode %d, from a file: %+v, %v", mode, rs, err)
		}
	}
}

// TestDamagedObjects: an image that is damaged in the store fails, or is exact.
func TestDamagedObjects(t *testing.T) {
	disk := conform.Disks(3*mib + 512)["text"]
	copy(disk[2*mib:], conform.Disks(mib)["noise"])
	for _, kind := range []object.Kind{object.Chunk, object.Page} {
		for i := range len(mustSave(t, disk).st.Keys(kind)) {
			for _, lost := range []bool{false, true} {
				s := mustSave(t, disk)
				key := s.st.Keys(kind)[i]
				if s.st.Flip(key, 99+i); lost {
					s.st.Lose(key)
				}
				b := bench{want: [][]byte{disk}, before: [][]byte{old(len(disk))}, disks: []*faults.Disk{faults.NewDisk(old(len(disk)))}}
				if _, err := Restore(t.Context(), []Job{s.job(t, "sda", b.disks[0])}, RestoreOptions{}); err == nil {
					t.Errorf("%v is damaged or lost, and it is a success", key)
				}
				if !bytes.Equal(b.disks[0].Bytes(), b.before[0]) {
					t.Errorf("%v is damaged or lost, and the disk is lost too", key)
				}
				_, err := Restore(t.Context(), []Job{s.job(t, "sda", b.disks[0])}, RestoreOptions{Verify: VerifyNone})
				if err == nil {
					t.Errorf("%v is damaged or lost, and it is a success without a proof", key)
				}
				b.check(t, key, err)
			}
		}
	}
}

// inSectors is a disk that refuses reads of parts of its sectors.
type inSectors struct {
	healing
	sector int
}

func (d *inSectors) ReadAt(b []byte, off int64) (int, error) {
	if len(b)%d.sector != 0 || off%int64(d.sector) != 0 {
		return 0, fmt.Errorf("%d bytes at %d are no whole sectors", len(b), off)
	}
	return d.healing.ReadAt(b, off)
}

// TestSectorsOfEachDisk: a bad sector of each disk is read by the sectors of
// that disk.
func TestSectorsOfEachDisk(t *testing.T) {
	const size = 4 * mib
	disk := conform.Disks(size)["noise"]
	var jobs []Job
	var targets []*faults.Disk
	for i, sector := range []int{512, 4096} {
		s := saveOf(t, faults.NewDisk(disk), nil, SourceOptions{SectorSize: sector})
		target := faults.NewDisk(bytes.Clone(disk))
		targets = append(targets, target)
		bad := faults.Bad{Target: target, Err: errMedium, Places: []faults.Op{{Off: size - mib/2, N: 1}}} // in the tail, which is read again
		job := s.job(t, fmt.Sprint("disk", i), &inSectors{healing: healing{Bad: bad}, sector: sector})
		job.SectorSize = sector
		v, err := Verify(t.Context(), job, Options{}, nil)
		want := []image.Range{{Off: size - mib/2, Len: int64(sector)}}
		if err != nil || !slices.Equal(v.Bad, want) || !slices.Equal(v.Differ, want) {
			t.Errorf("sectors of %d: bad %v, differ %v, %v", sector, v.Bad, v.Differ, err)
		}
		jobs = append(jobs, job)
	}
	rs, err := Restore(t.Context(), jobs, RestoreOptions{})
	must(t, err)
	for i, target := range targets {
		if !bytes.Equal(target.Bytes(), disk) || rs[i].Written == 0 {
			t.Errorf("disk %d: %+v", i, rs[i])
		}
	}
}

// TestEdgesOnce: of a disk that differs, each chunk is fetched at most once, and those of its first and last MiB not
// before it is written. Of one that does not differ, only these are fetched, to find that out.
func TestEdgesOnce(t *testing.T) {
	content := conform.Disks(20*mib + 512)["noise"]
	s := mustSave(t, content)
	pieces := inBody(t, s.im, 0)
	edges := s.Chunks - len(pieces)
	for name, c := range map[string]struct {
		change []int
		want   int // chunks
	}{
		"same": {nil, edges}, "body": {[]int{9 * mib}, edges + 1}, "all": {nil, s.Chunks},
	} {
		before := bytes.Clone(content)
		for _, at := range c.change {
			before[at] ^= 1
		}
		if name == "all" {
			clear(before)
		}
		f := &fetched{Getter: s.st.Getter(s.Root), places: map[chunk.Place]int{}}
		target := faults.NewDisk(before)
		opt := RestoreOptions{Writes: func() error {
			if len(f.places) > 0 {
				t.Errorf("%s: %d chunks are fetched before the disk is written", name, len(f.places))
			}
			return nil
		}}
		job := Job{Name: "sda", Image: StoredImage{Image: s.im.With(f)}, Target: target}
		if _, err := Restore(t.Context(), []Job{job}, opt); err != nil {
			t.Fatal(err)
		}
		n := 0
		for at, times := range f.places {
			if n++; times > 1 {
				t.Errorf("%s: %v is fetched %d times", name, at.Key(), times)
			}
		}
		if n != c.want || !bytes.Equal(target.Bytes(), content) {
			t.Errorf("%s: %d chunks are fetched and not %d, of %d", name, n, c.want, s.Chunks)
		}
	}
}

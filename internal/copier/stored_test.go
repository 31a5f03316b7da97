package copier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/usedmap"
)

// stored is a backup in a store.
type stored struct {
	Saved
	st *conform.MemStore
	im *chunk.Image
}

func (s stored) job(t testing.TB, name string, target Target) Job {
	return storedJob(name, s.im, target)
}

func storedJob(name string, im *chunk.Image, target Target) Job {
	return Job{Name: name, Image: StoredImage{Image: im}, Target: target}
}

func saveOf(t testing.TB, src Source, m *usedmap.Map, opt SourceOptions) stored {
	t.Helper()
	st := new(conform.MemStore)
	saved, err := Save(t.Context(), src, st, m, opt)
	must(t, err)
	im, err := chunk.OpenImage(t.Context(), st.Getter(saved.Root), saved.Root)
	must(t, err)
	return stored{saved, st, im}
}

func mustSave(t testing.TB, disk []byte, unused ...image.Range) stored {
	t.Helper()
	return saveOf(t, faults.NewDisk(disk), mapOf(len(disk), unused...), SourceOptions{})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mapOf is the map of a disk that is one part.
func mapOf(size int, unused ...image.Range) *usedmap.Map {
	part := usedmap.Part{Kind: usedmap.WholeDisk, Ranges: []image.Range{{Len: int64(size)}}}
	return &usedmap.Map{Size: int64(size), SectorSize: 512, Parts: []usedmap.Part{part}, Free: unused}
}

// restoreTo restores to a target that holds other, and gives what it then
// holds.
func (s stored) restoreTo(t testing.TB, other []byte, opt RestoreOptions) (*faults.Disk, image.Receipt) {
	t.Helper()
	d := faults.NewDisk(other)
	rs, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, opt)
	must(t, err)
	return d, rs[0]
}

func TestSaveAndRestore(t *testing.T) {
	for _, size := range sizes {
		for name, disk := range conform.Disks(size) {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) { saveAndRestore(t, disk) })
		}
	}
}

func saveAndRestore(t *testing.T, disk []byte) {
	size := int64(len(disk))
	s := mustSave(t, disk)
	if s.Disk.Data+s.Disk.Zero != size || s.Disk.Unused != 0 || s.Receipt.Read != size || s.New > s.Disk.Data ||
		s.Disk.Root != s.Root || s.Receipt.Root != s.Disk.Root.String() {
		t.Errorf("saved %+v", s.Saved)
	}
	target, r := s.restoreTo(t, old(len(disk)), RestoreOptions{})
	if !bytes.Equal(target.Bytes(), disk) {
		t.Fatal("the restored disk is not the same")
	}
	if r.Written != size || r.Verified != size || r.Skipped != 0 || r.Zero != s.Disk.Zero || r.Root != s.Disk.Root.String() || r.BLAKE3 != "" {
		t.Errorf("receipt of the restore: %+v", r)
	}
	v, err := Verify(t.Context(), s.job(t, "sda", target), Options{}, nil)
	if err != nil || v.Read != size || v.Verified != size || len(v.Differ) > 0 || v.Zero != s.Disk.Zero || v.Root != s.Disk.Root.String() {
		t.Errorf("verify: %+v, %v", v, err)
	}
	again, r := s.restoreTo(t, disk, RestoreOptions{})
	onlyReads(t, again)
	if r.Written != 0 || r.Skipped != size || r.Verified != size || r.Read != size || r.Zero != s.Disk.Zero || r.Root != s.Disk.Root.String() {
		t.Errorf("receipt of a restore of what is there: %+v", r)
	}
}

func onlyReads(t *testing.T, d *faults.Disk) {
	t.Helper()
	if slices.ContainsFunc(d.Log(), func(o faults.Op) bool { return o.Kind != "read" }) {
		t.Errorf("something was written: %v", d.Log())
	}
}

// TestSaveIsTheModel: whatever goes on beside what, the image is that which the
// plainest way makes.
func TestSaveIsTheModel(t *testing.T) {
	disk := conform.Disks(9*mib + 5*512)["mixed"]
	for _, unused := range [][]image.Range{
		nil,
		{{Off: 0, Len: 9*mib + 5*512}},
		{{Off: 4096, Len: 4096}, {Off: 3 * 4096, Len: 40960}, {Off: 2 * mib, Len: 3*mib + 4096}, {Off: 9 * mib, Len: 5 * 512}},
	} {
		model := new(conform.MemStore)
		root := conform.SaveImage(t, model, disk, unused...)
		want, err := chunk.OpenImage(t.Context(), model.Getter(root), root)
		must(t, err)
		got := mustSave(t, disk, unused...)
		if !slices.Equal(got.im.Root.Pages, want.Root.Pages) || len(got.st.Keys(object.Chunk)) != len(model.Keys(object.Chunk)) {
			t.Errorf("unused %v: not the model's pages", unused)
		}
	}
}

// TestSaveAgain: what the store has is not put there again.
func TestSaveAgain(t *testing.T) {
	disk := conform.Disks(6*mib + 512)["mixed"]
	s := mustSave(t, disk)
	if s.New == 0 || s.NewChunks == 0 || s.Disk.Stored == 0 {
		t.Errorf("first: %+v", s.Saved)
	}
	puts := 0
	s.st.Failing = func(op string) error {
		if op == "put" {
			puts++
		}
		return nil
	}
	again, err := Save(t.Context(), faults.NewDisk(disk), s.st, mapOf(len(disk)), SourceOptions{})
	if err != nil || again.New != 0 || again.NewChunks != 0 || again.Root != s.Root || again.Disk.Stored != 0 || puts != 0 {
		t.Errorf("again: %+v after %d puts, %v", again, puts, err)
	}
	disk[3*mib] ^= 1
	more, err := Save(t.Context(), faults.NewDisk(disk), s.st, mapOf(len(disk)), SourceOptions{})
	if err != nil || more.NewChunks < 1 || more.NewChunks > 2 || more.Root == s.Root {
		t.Errorf("one byte changed: %+v, %v", more, err)
	}
}

// TestSaveCountsOnce: equal chunks are compressed and counted once, also if
// they come at the same time.
func TestSaveCountsOnce(t *testing.T) {
	one := conform.Disks(mib)["noise"]
	s := mustSave(t, bytes.Repeat(one, 12))
	if n := len(s.st.Keys(object.Chunk)); s.NewChunks != n || s.Chunks < 8*n {
		t.Errorf("%d chunks, %d of them new, %d in the store", s.Chunks, s.NewChunks, n)
	}
}

// TestCommit: what Save gives makes a record that a store takes.
func TestCommit(t *testing.T) {
	disk := conform.Disks(3*mib + 512)["mixed"]
	s := mustSave(t, disk, image.Range{Off: mib, Len: mib})
	d := s.Disk
	d.Name, d.Disk = "sda", image.Identity{Size: int64(len(disk)), SectorSize: 512}
	rec := &image.Record{Format: image.RecordFormat, Box: "10.0.0.1", Time: time.Unix(0, 0), Disks: []image.RecordedDisk{d}}
	must(t, s.st.Commit(t.Context(), rec))
	if d.Unused != mib {
		t.Errorf("recorded %+v", d)
	}
}

func TestLayout(t *testing.T) {
	m := mapOf(mib)
	m.Table = "gpt"
	m.Parts[0].FS, m.Parts[0].Label = "ext4", "root"
	s := saveOf(t, faults.NewDisk(make([]byte, mib)), m, SourceOptions{})
	var l usedmap.Layout
	must(t, json.Unmarshal(s.im.Root.Layout, &l))
	if p := l.Parts[0]; l.Table != "gpt" || p.FS != "ext4" || p.Label != "root" || p.Len != mib {
		t.Errorf("layout %+v", l)
	}
}

// TestMapsRefused: a map that is not the disk's could lose something.
func TestMapsRefused(t *testing.T) {
	for name, m := range map[string]*usedmap.Map{
		"other size": mapOf(2 * mib), "no parts": {Size: mib},
		"hole": {Size: mib, Parts: []usedmap.Part{
			{Ranges: []image.Range{{Len: 512}}}, {Ranges: []image.Range{{Off: 1024, Len: mib - 1024}}},
		}},
		"free off the disk": mapOf(mib, image.Range{Off: mib - 512, Len: 1024}),
		"free twice":        mapOf(mib, image.Range{Off: 0, Len: 8192}, image.Range{Off: 4096, Len: 8192}),
		"short":             {Size: mib, Parts: []usedmap.Part{{Ranges: []image.Range{{Len: mib - 512}}}}},
	} {
		if _, err := Save(t.Context(), faults.NewDisk(make([]byte, mib)), new(conform.MemStore), m, SourceOptions{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	odd := faults.NewDisk(make([]byte, mib-512))
	if _, err := Save(t.Context(), odd, new(conform.MemStore), nil, SourceOptions{SectorSize: 4096}); err == nil {
		t.Error("half a sector is taken")
	}
}

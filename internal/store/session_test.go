package store

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// TestCommitIsDurable: a power cut right after a commit, that keeps nothing of
// what was not synced, loses nothing; one right before it leaves no record.
func TestCommitIsDurable(t *testing.T) {
	v := faults.NewVolatile()
	s, err := onVolatile(&faults.Kth{FS: v}, "/store")
	must(t, err)
	d := newDisk(mixed(seeds(1, 10), seeds(20, 10)), seeds(40, 3))
	session := s.Begin()
	must(t, d.save(t.Context(), session))
	before := v.Crash(func() bool { return false })
	r := recordOf("x", day(1), d)
	must(t, session.Commit(t.Context(), r))
	after := v.Crash(func() bool { return false })

	s, err = onVolatile(&faults.Kth{FS: after}, "/store")
	must(t, err)
	mustRestore(t, s, r, d)
	if got := records(t, s); len(got) != 1 || got[0].ID != r.ID {
		t.Errorf("there are %v", got)
	}
	s, err = onVolatile(&faults.Kth{FS: before}, "/store")
	must(t, err)
	if got := records(t, s); len(got) != 0 {
		t.Errorf("there are %v", got)
	}
	mustRestore(t, s, mustBackup(t, s, "x", day(1), d), d)
	must(t, s.Check(t.Context()))
}

// TestManyMissing: a commit of an image that names one page again and again, of which the
// chunks are missing, fails soon and takes little memory.
func TestManyMissing(t *testing.T) {
	s := open(t, &mem.Store{})
	session := s.Begin()
	defer session.Close()
	put := func(kind object.Kind, raw []byte) object.Name {
		key := object.Key{Kind: kind, Name: object.NameOf(raw)}
		must(t, session.Put(t.Context(), object.Encode(key, raw, nil)))
		return key.Name
	}
	var page chunk.Page
	for i := range 20_000 {
		page.Chunks = append(page.Chunks, chunk.Ref{Name: object.Name{byte(i), byte(i >> 8), 1}, Len: 4096})
	}
	page.Append(image.Data, 20_000*4096)
	page.Append(image.Zero, chunk.RegionSize-20_000*4096)
	root := &chunk.Root{Size: 2000 * chunk.RegionSize, SectorSize: 512}
	root.Pages = slices.Repeat([]object.Name{put(object.Page, page.Marshal())}, 2000)
	r := &image.Record{Format: image.RecordFormat, Box: "x", Disks: []image.RecordedDisk{{Name: "sda",
		Disk: image.Identity{Size: root.Size, SectorSize: 512}, Root: put(object.Root, root.Marshal())}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := session.Commit(t.Context(), r)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, chunk.ErrMissing) || !strings.Contains(err.Error(), "1000 or more objects of the backup") {
		t.Error(err)
	}
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 100 {
		t.Errorf("the commit took %d MiB of memory", took)
	}
}

// TestFullAtAnyMoment fills the disk after each number of bytes of a backup.
func TestFullAtAnyMoment(t *testing.T) {
	d := newDisk(mixed(seeds(1, 6), seeds(20, 6)))
	for room, full := int64(0), true; full; room += 1500 {
		blobs := &filling{Store: &mem.Store{}}
		blobs.room.Store(1 << 30)
		must(t, Init(t.Context(), blobs))
		s, err := Open(t.Context(), Config{Blobs: blobs, PackSize: tiny})
		must(t, err)
		old := mustBackup(t, s, "x", day(1), newDisk(seeds(1, 3)))
		blobs.room.Store(room)
		_, err = backup(t.Context(), s, "x", day(2), d)
		if full = err != nil; full && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("with room for %d bytes: %v", room, err)
		}
		want := 2
		if full {
			want = 1
		}
		if got := records(t, s); len(got) != want {
			t.Fatalf("with room for %d bytes there are %v", room, got)
		}
		blobs.room.Store(1 << 30)
		mustRestore(t, s, mustBackup(t, s, "x", day(3), d), d)
		mustRestore(t, s, old, newDisk(seeds(1, 3)))
		must(t, s.Check(t.Context()))
	}
}

// lossy is a blob.Store of which packs fail when they are to be made durable.
type lossy struct {
	blob.Store
	fail atomic.Bool
}

type lossyWriter struct {
	blob.Writer
	s *lossy
}

func (l *lossy) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	w, err := l.Store.Create(ctx, name, over)
	if strings.HasPrefix(name, packPrefix) {
		w = lossyWriter{w, l}
	}
	return w, err
}

func (w lossyWriter) Commit() error {
	if w.s.fail.Load() {
		return syscall.EDQUOT
	}
	return w.Writer.Commit()
}

// TestLostPacks: a pack that fails when it is sealed, long after its objects
// were put, fails the commit of who put them, and of who was told that they are
// there; both can send again. The reason is told to those two only.
func TestLostPacks(t *testing.T) {
	blobs := &lossy{Store: &mem.Store{}}
	s := newStore(t, blobs)
	d := newDisk(seeds(1, 10))
	first, second := s.Begin(), s.Begin()
	defer first.Close()
	defer second.Close()
	must(t, d.save(t.Context(), first))
	must(t, d.save(t.Context(), second))
	blobs.fail.Store(true)
	for _, session := range []*Session{first, second} {
		err := session.Commit(t.Context(), recordOf("x", day(1), d))
		if !errors.Is(err, chunk.ErrMissing) || !errors.Is(err, syscall.EDQUOT) {
			t.Errorf("commit: %v", err)
		}
	}
	blobs.fail.Store(false)
	third := s.Begin()
	defer third.Close()
	if err := third.Commit(t.Context(), recordOf("x", day(1), d)); !errors.Is(err, chunk.ErrMissing) || errors.Is(err, syscall.EDQUOT) {
		t.Errorf("commit of what was never put: %v", err)
	}
	for i, session := range []*Session{first, second} {
		must(t, d.save(t.Context(), session))
		r := recordOf("x", day(2+i), d)
		must(t, session.Commit(t.Context(), r))
		mustRestore(t, s, r, d)
	}
	if got := records(t, s); len(got) != 2 {
		t.Errorf("there are %v", got)
	}
}

// TestPageAnswersAtOnce: to say that a page is there whose pack is still open,
// no pack is ended: boxes that are alike, backed up side by side, would end one
// after each region.
func TestPageAnswersAtOnce(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		blobs := &mem.Store{}
		s := newStore(t, blobs)
		d := newDisk(seeds(1, 3), seeds(10, 3))
		first, second := s.Begin(), s.Begin()
		first.Trusted = trusted
		must(t, d.save(t.Context(), first))
		root, _, _ := d.root()
		var keys []object.Key
		for _, p := range root.Pages {
			keys = append(keys, object.Key{Kind: object.Page, Name: p})
		}
		missing, err := second.Missing(t.Context(), keys)
		if _, n := stored(t, blobs); err != nil || len(missing) > 0 || n > 0 {
			t.Errorf("missing are %v, %v; %d packs were ended for the answer", missing, err, n)
		}
		first.Close()
		r := recordOf("x", day(1), d)
		must(t, second.Commit(t.Context(), r))
		second.Close()
		mustRestore(t, s, r, d)
	}
}

// TestSpoiltOnTheWay: bytes that came wrong once are read again, and nothing is
// called damaged for them.
func TestSpoiltOnTheWay(t *testing.T) {
	blobs := &spoiling{Store: &mem.Store{}}
	s := newStore(t, blobs)
	d := newDisk(seeds(1, 10))
	r := mustBackup(t, s, "x", day(1), d)
	blobs.every = 3
	mustRestore(t, s, r, d)
	blobs.every = 0
	if blobs.reads < 6 || len(s.objects.bad) > 0 {
		t.Errorf("%d reads, damaged are %v", blobs.reads, s.objects.bad)
	}
}

// spoiling is a blob.Store that flips a bit of packs in every few reads.
type spoiling struct {
	blob.Store
	every, reads int
}

func (s *spoiling) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	n, err := s.Store.ReadAt(ctx, name, p, off)
	if s.reads++; s.every > 0 && s.reads%s.every == 0 && strings.HasPrefix(name, packPrefix) {
		p[min(n, 100)/2] ^= 4
	}
	return n, err
}

// TestDamageIsMissing: an object that is found damaged is missing from then on,
// also for a store that makes its index anew, until a backup heals it.
func TestDamageIsMissing(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d := newDisk(seeds(1, 1))
	r := mustBackup(t, s, "x", day(1), d)
	flip(t, blobs, packsOf(t, blobs, chunks)[0], 8*1000)
	root := r.Disks[0].Root
	if err := d.restored(t.Context(), s, root); !errors.Is(err, object.ErrDamaged) {
		t.Fatalf("restore: %v", err)
	}
	key := object.Key{Kind: object.Chunk, Name: object.NameOf(cell(1))}
	page := object.Key{Kind: object.Page, Name: mustPage(t, d)}
	for _, s := range []*Store{s, openStore(t, Config{Blobs: blobs}), openStore(t, Config{Blobs: blobs, ReadOnly: true})} {
		missing, err := s.Begin().Missing(t.Context(), []object.Key{key, page})
		if err != nil || len(missing) != 2 {
			t.Errorf("missing are %v, %v", missing, err)
		}
		if err := d.restored(t.Context(), s, root); !errors.Is(err, chunk.ErrMissing) {
			t.Errorf("restore: %v", err)
		}
	}
	mustBackup(t, s, "x", day(2), d)
	mustRestore(t, s, r, d)
	mustRestore(t, openStore(t, Config{Blobs: blobs}), r, d)
}

// mustPage is the name of a disk's first page.
func mustPage(t testing.TB, d fakeDisk) object.Name {
	t.Helper()
	root, _, _ := d.root()
	return root.Pages[0]
}

// TestDamagedPage: a page that cannot be read is missing, and Commit says so.
func TestDamagedPage(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 5))
	mustBackup(t, s, "x", day(1), d)
	flip(t, blobs, packsOf(t, blobs, trees)[0], 8*150)
	s = newStore(t, blobs)
	session := s.Begin()
	defer session.Close()
	if err := session.Commit(t.Context(), recordOf("x", day(2), d)); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("commit: %v", err)
	}
	must(t, d.save(t.Context(), session))
	r := recordOf("x", day(2), d)
	must(t, session.Commit(t.Context(), r))
	mustRestore(t, s, r, d)
}

// TestReadOnlyMarksNothing: a reader that finds damage writes nothing.
func TestReadOnlyMarksNothing(t *testing.T) {
	v := faults.NewVolatile()
	s, err := onVolatile(&faults.Kth{FS: v}, "/store")
	must(t, err)
	d := newDisk(seeds(1, 1))
	r := mustBackup(t, s, "x", day(1), d)
	must(t, s.Close())
	count := &faults.Kth{FS: v}
	blobs, err := dir.Open(count, "/store")
	must(t, err)
	spoilt := &spoiling{Store: blobs}
	s, err = Open(t.Context(), Config{Blobs: spoilt, State: count, Dir: "/store", ReadOnly: true})
	must(t, err)
	spoilt.every = 1
	root := r.Disks[0].Root
	if err := d.restored(t.Context(), s, root); !errors.Is(err, object.ErrDamaged) {
		t.Errorf("restore: %v", err)
	}
	must(t, s.Close())
	if _, err := blobs.Size(t.Context(), badName); err == nil {
		t.Error("the list of damaged objects was written")
	}
}

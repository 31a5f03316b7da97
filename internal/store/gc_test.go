package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// smallPacks makes stores of few bytes that have many packs: some ten cells
// fill one.
const smallPacks = 24 << 10

// day is when the backups of tests are made: a day apart.
func day(n int) time.Time { return time.Date(2026, 11, n, 10, 0, 0, 0, time.UTC) }

// seeds are n consecutive ones.
func seeds(from, n uint64) (out []uint64) {
	for i := range n {
		out = append(out, from+i)
	}
	return out
}

// mixed takes from both by turns: packs with it are half dead when one of the
// two is.
func mixed(a, b []uint64) (out []uint64) {
	for i := range a {
		out = append(out, a[i], b[i])
	}
	return out
}

// newStore makes a store in memory, which is checked when the test ends.
func newStore(t testing.TB, blobs blob.Store) *Store {
	t.Helper()
	if err := Init(t.Context(), blobs); err != nil && !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	s := openStore(t, Config{Blobs: blobs})
	t.Cleanup(func() {
		if err := s.Check(context.Background()); err != nil && !t.Failed() {
			t.Errorf("check of the store: %v", err)
		}
	})
	return s
}

func openStore(t testing.TB, c Config) *Store {
	t.Helper()
	c.PackSize = smallPacks
	if c.Log == nil {
		c.Log = t.Logf
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBackup(t testing.TB, s *Store, box string, at time.Time, disks ...fakeDisk) *image.Record {
	t.Helper()
	r, err := backup(t.Context(), s, box, at, disks...)
	must(t, err)
	return r
}

// mustRestore wants a backup to be there and exact.
func mustRestore(t testing.TB, s *Store, r *image.Record, disks ...fakeDisk) {
	t.Helper()
	for i, d := range disks {
		root := r.Disks[i].Root
		if err := d.restored(context.Background(), s, root); err != nil {
			t.Fatalf("%s: %v", imageName(r, r.Disks[i]), err)
		}
	}
}

func mustGC(t testing.TB, s *Store) *GCResult {
	t.Helper()
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	res, err := s.GC(t.Context(), plan)
	must(t, err)
	return res
}

// stored is how many bytes and packs a store has.
func stored(t testing.TB, blobs blob.Store) (bytes int64, packs int) {
	t.Helper()
	list, err := blobs.List(t.Context(), packPrefix)
	must(t, err)
	for _, b := range list {
		bytes += b.Size
	}
	return bytes, len(list)
}

// packsOf gives the names of the packs of a kind.
func packsOf(t testing.TB, blobs blob.Store, of packKind) (names []string) {
	t.Helper()
	list, err := blobs.List(t.Context(), packPrefix+string(of))
	must(t, err)
	for _, b := range list {
		names = append(names, b.Name)
	}
	return names
}

// savedAlone gives the blobs of a store with one backup.
func savedAlone(t testing.TB, d fakeDisk) blob.Store {
	t.Helper()
	blobs := &mem.Store{}
	mustBackup(t, newStore(t, blobs), "10.0.0.9", day(1), d)
	return blobs
}

func TestGCFreesWhatIsDeleted(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	shared, own, other := newDisk(seeds(1, 40)), newDisk(mixed(seeds(1, 40), seeds(100, 40))), newDisk(seeds(200, 30))
	alone, _ := stored(t, savedAlone(t, shared))
	b := mustBackup(t, s, "10.0.0.2", day(2), own, other)
	a := mustBackup(t, s, "10.0.0.1", day(1), shared)
	if res := mustGC(t, s); res.Removed != 0 || res.Written != 0 {
		t.Errorf("with nothing deleted: %v", res)
	}
	must(t, s.Delete(t.Context(), b))
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	res, err := s.GC(t.Context(), plan)
	must(t, err)
	t.Logf("%v%v", plan, res)
	after, _ := stored(t, blobs)
	if after > alone+alone/3 {
		t.Errorf("%d bytes are left, %d were there before the backup that was deleted", after, alone)
	}
	if res.Written == 0 || res.Freed > plan.Gain() || res.Freed < plan.Gain()*9/10 {
		t.Errorf("the plan was to free %d bytes, %d were freed", plan.Gain(), res.Freed)
	}
	mustRestore(t, s, a, shared)
	must(t, s.Delete(t.Context(), a))
	mustGC(t, s)
	if left, n := stored(t, blobs); left != 0 {
		t.Errorf("without a backup %d bytes are left in %d packs", left, n)
	}
}

// TestGCKeepsWhatSessionsCountOn: a backup was told that objects are there
// which no record reaches any more; they stay until it has ended.
func TestGCKeepsWhatSessionsCountOn(t *testing.T) {
	for _, when := range []string{"before the plan", "between plan and collection"} {
		t.Run(when, func(t *testing.T) {
			blobs := &mem.Store{}
			s := newStore(t, blobs)
			old, d := newDisk(seeds(1, 60), seeds(100, 60)), newDisk(seeds(1, 60), seeds(300, 5))
			must(t, s.Delete(t.Context(), mustBackup(t, s, "10.0.0.1", day(1), old)))
			plan, err := s.PlanGC(t.Context())
			must(t, err)
			session := s.Begin()
			must(t, d.save(t.Context(), session))
			if when == "before the plan" {
				plan, err = s.PlanGC(t.Context())
				must(t, err)
			}
			res, err := s.GC(t.Context(), plan)
			must(t, err)
			if res.Removed == 0 {
				t.Errorf("nothing was removed: %v", res)
			}
			r := recordOf("10.0.0.2", day(2), d)
			must(t, session.Commit(t.Context(), r))
			session.Close()
			mustRestore(t, s, r, d)
			mustGC(t, s)
			mustRestore(t, s, r, d)
		})
	}
}

// TestGCForgetsAbortedBackups: what a backup put that was given up goes, and a
// page of it that is left is not taken for its chunks.
func TestGCForgetsAbortedBackups(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	session := s.Begin()
	d := newDisk(seeds(1, 60))
	must(t, d.save(t.Context(), session))
	s.objects.sealAll()
	session.Close()
	mustGC(t, s)
	if _, n := stored(t, blobs); n != 0 {
		t.Errorf("%d packs are left", n)
	}
	mustRestore(t, s, mustBackup(t, s, "10.0.0.1", day(1), d), d)
}

// TestPageWithoutChunks is what a crash between the removal of chunks and that
// of a page leaves: the page must not answer for its region.
func TestPageWithoutChunks(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 60))
	must(t, s.Delete(t.Context(), mustBackup(t, s, "10.0.0.1", day(1), d)))
	must(t, blobs.Remove(t.Context(), packsOf(t, blobs, chunks)[1]))
	s = newStore(t, blobs)
	root, pages, _ := d.root()
	session := s.Begin()
	defer session.Close()
	key := object.Key{Kind: object.Page, Name: root.Pages[0]}
	missing, err := session.Missing(t.Context(), []object.Key{key})
	if err != nil || len(missing) != 1 {
		t.Errorf("a page of %d chunks, some of which are gone, is said to be there: %v, %v", len(pages[0].Chunks), missing, err)
	}
	if err := session.Commit(t.Context(), recordOf("10.0.0.1", day(2), d)); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("commit: %v", err)
	}
	mustRestore(t, s, mustBackup(t, s, "10.0.0.1", day(3), d), d)
}

// TestPackGoneWhileOpen: the trees' pack is deleted by hand. Whoever comes upon
// it finds them missing, and the next backup brings them again.
func TestPackGoneWhileOpen(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d := newDisk(seeds(1, 10))
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	text, err := blob.ReadAll(t.Context(), blobs, storeName, 1000)
	must(t, err)
	tree := packsOf(t, blobs, trees)[0]
	must(t, blobs.Remove(t.Context(), storeName))
	must(t, blobs.Remove(t.Context(), tree))
	root := r.Disks[0].Root
	if err := d.restored(t.Context(), s, root); err == nil || errors.Is(err, chunk.ErrMissing) {
		t.Errorf("with the whole store away: %v", err)
	}
	must(t, blob.WriteAll(t.Context(), blobs, storeName, text))
	if err := d.restored(t.Context(), s, root); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("with the pack away: %v", err)
	}
	mustRestore(t, s, mustBackup(t, s, "10.0.0.1", day(2), d), d)
	mustRestore(t, s, r, d)
}

func TestOneAtATime(t *testing.T) {
	s := newStore(t, &mem.Store{})
	mustBackup(t, s, "10.0.0.1", day(1), newDisk(seeds(1, 10)))
	tried := false
	_, err := s.Scrub(t.Context(), func(ScrubProgress) {
		_, err := s.PlanGC(t.Context())
		tried = tried || errors.Is(err, ErrBusy)
	})
	if err != nil || !tried {
		t.Errorf("a collection beside a scrub was not refused; %v", err)
	}
}

func TestGCMakesSmallPacksOne(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	var records []*image.Record
	var disks []fakeDisk
	for i := range manySmall {
		d := newDisk(seeds(uint64(100*i), 1))
		disks = append(disks, d)
		records = append(records, mustBackup(t, s, "10.0.0.1", day(1+i), d))
	}
	mustGC(t, s)
	if _, n := stored(t, blobs); n > 4 {
		t.Errorf("there are %d packs", n)
	}
	if res := mustGC(t, s); res.Written != 0 {
		t.Errorf("once more: %v", res)
	}
	for i, r := range records {
		mustRestore(t, s, r, disks[i])
	}
}

// TestGCRefuses: what cannot be read could need anything.
func TestGCRefuses(t *testing.T) {
	d, e := newDisk(seeds(1, 60)), newDisk(seeds(100, 60))
	for name, test := range map[string]struct {
		spoil func(t *testing.T, blobs *mem.Store, r *image.Record)
		want  string
	}{
		"record": {func(t *testing.T, blobs *mem.Store, r *image.Record) {
			flip(t, blobs, recordName(r.Box, r.ID), 800)
		}, "the record of backup 20261101-100000 of 10.0.0.1"},
		"tree": {func(t *testing.T, blobs *mem.Store, r *image.Record) {
			must(t, blobs.Remove(t.Context(), packsOf(t, blobs, trees)[0]))
		}, "10.0.0.1 20261101-100000 disk sda"},
	} {
		t.Run(name, func(t *testing.T) {
			blobs := &mem.Store{}
			must(t, Init(t.Context(), blobs))
			s := openStore(t, Config{Blobs: blobs})
			r := mustBackup(t, s, "10.0.0.1", day(1), d)
			must(t, s.Delete(t.Context(), mustBackup(t, s, "10.0.0.2", day(1), e)))
			test.spoil(t, blobs, r)
			before, _ := stored(t, blobs)
			_, err := s.PlanGC(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("plan: %v, want %q in it", err, test.want)
			}
			if after, _ := stored(t, blobs); after != before {
				t.Errorf("%d bytes became %d", before, after)
			}
		})
	}
}

// flip flips a bit of a blob.
func flip(t testing.TB, blobs blob.Store, name string, bit int64) {
	t.Helper()
	b, err := blob.ReadAll(context.Background(), blobs, name, 1<<30)
	must(t, err)
	b = append([]byte{}, b...)
	b[bit/8] ^= 1 << (bit % 8)
	must(t, blob.WriteAll(context.Background(), blobs, name, b))
}

func TestGCPlanIsGoodOnce(t *testing.T) {
	s := newStore(t, &mem.Store{})
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	newer, err := s.PlanGC(t.Context())
	must(t, err)
	for what, p := range map[string]*GCPlan{"an older plan": plan, "a plan of nothing": {}} {
		if _, err := s.GC(t.Context(), p); !errors.Is(err, ErrOldPlan) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = s.GC(t.Context(), newer)
	must(t, err)
	if _, err := s.GC(t.Context(), newer); !errors.Is(err, ErrOldPlan) {
		t.Errorf("a plan that was used: %v", err)
	}
}

// TestGCSeesNewRecords: a backup that was committed after the plan was made,
// by way of another opening of the store, which there should not be.
func TestGCSeesNewRecords(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d := newDisk(seeds(1, 60))
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	text, err := blob.ReadAll(t.Context(), blobs, recordName(r.Box, r.ID), 1<<20)
	must(t, err)
	must(t, s.Delete(t.Context(), r))
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	must(t, blob.WriteAll(t.Context(), blobs, recordName(r.Box, r.ID), text))
	res, err := s.GC(t.Context(), plan)
	must(t, err)
	if res.Removed > 0 || len(res.Kept) == 0 {
		t.Errorf("it did: %v", res)
	}
	mustRestore(t, s, r, d)
}

// TestGCCancelled ends a collection before each of its operations.
func TestGCCancelled(t *testing.T) {
	for n := 1; ; n++ {
		hook := &hooked{Store: &mem.Store{}}
		s := newStore(t, hook)
		d, e := newDisk(seeds(1, 40), seeds(100, 10)), newDisk(mixed(seeds(1, 40), seeds(500, 40)), seeds(100, 10), seeds(200, 40))
		gone := mustBackup(t, s, "10.0.0.2", day(1), e)
		r := mustBackup(t, s, "10.0.0.1", day(1), d)
		must(t, s.Delete(t.Context(), gone))
		plan, err := s.PlanGC(t.Context())
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ops := 0
		hook.before = func(string) {
			if ops++; ops == n {
				cancel()
			}
		}
		_, err = s.GC(ctx, plan)
		cancel()
		hook.before = nil
		mustRestore(t, s, r, d)
		if err == nil && ops < n {
			return
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before operation %d: %v", n, err)
		}
		mustGC(t, s)
		mustRestore(t, s, r, d)
		if plan, err := s.PlanGC(t.Context()); err != nil || plan.Gain() > 0 {
			t.Errorf("cancelled before operation %d, and done again: %v, %v", n, plan, err)
		}
	}
}

// hooked is a blob.Store that says what is done with it before it is done.
type hooked struct {
	blob.Store
	before func(op string)
}

func (h *hooked) do(op string) {
	if h.before != nil {
		h.before(op)
	}
}

func (h *hooked) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	h.do("create " + name)
	return h.Store.Create(ctx, name, over)
}

func (h *hooked) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	h.do("read " + name)
	return h.Store.ReadAt(ctx, name, p, off)
}

func (h *hooked) Remove(ctx context.Context, name string) error {
	h.do("remove " + name)
	return h.Store.Remove(ctx, name)
}

func (h *hooked) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	h.do("list " + prefix)
	return h.Store.List(ctx, prefix)
}

package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/object"
)

// TestScrubReadsNames: an object that was stored as it was given, and is not
// what its name says, is damaged.
func TestScrubReadsNames(t *testing.T) {
	blobs := &mem.Store{}
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 3))
	session := s.Begin()
	session.Trusted = true
	wrong := object.Key{Kind: object.Chunk, Name: object.NameOf(cell(2))}
	must(t, session.Put(t.Context(), object.Encode(wrong, cell(99), nil)))
	must(t, d.save(t.Context(), session))
	must(t, session.Commit(t.Context(), recordOf("x", day(1), d)))
	session.Close()
	report, err := s.Scrub(t.Context(), nil)
	must(t, err)
	if len(report.Faults) != 1 || len(report.Faults[0].Objects) != 1 || report.Faults[0].Objects[0] != wrong {
		t.Fatalf("the scrub finds %v", report)
	}
	r := mustBackup(t, s, "x", day(2), d)
	mustRestore(t, s, r, d)
}

// TestDamageOutlivesTheProcess: what was found damaged is missing for the next
// process too, whose index is from before that.
func TestDamageOutlivesTheProcess(t *testing.T) {
	l := newLives(t)
	s := l.open(t)
	flip(t, l.blobs, packsOf(t, l.blobs, chunks)[0], 8*1000)
	root := l.r.Disks[0].Root
	if err := l.disk.restored(t.Context(), s, root); !errors.Is(err, object.ErrDamaged) {
		t.Fatalf("restore: %v", err)
	}
	s = l.open(t) // the process before has ended without a word
	r := mustBackup(t, s, "x", day(2), l.disk)
	mustRestore(t, s, r, l.disk)
	mustRestore(t, s, l.r, l.disk)
}

// TestPackCutWhileClosed: the index is not believed of a pack that has another
// length, so that the next backup brings what is lost.
func TestPackCutWhileClosed(t *testing.T) {
	for _, of := range []packKind{chunks, trees} {
		l := newLives(t)
		name := packsOf(t, l.blobs, of)[0]
		size, err := l.blobs.Size(t.Context(), name)
		must(t, err)
		cut(t, l.blobs, name, size-100)
		s := l.open(t)
		if said := strings.Join(l.said, "\n"); !strings.Contains(said, "has another length") {
			t.Errorf("it says %q", said)
		}
		r := mustBackup(t, s, "x", day(2), l.disk)
		mustRestore(t, s, r, l.disk)
		mustRestore(t, s, l.r, l.disk)
	}
}

// TestCommitWhileAnotherPuts: a backup has lost a chunk, and while its commit
// looks at what is there, another backup puts the chunk again, into a pack that
// is not durable yet. There is no record before that pack is, and none if it
// is lost too.
func TestCommitWhileAnotherPuts(t *testing.T) {
	for _, lost := range []bool{false, true} {
		bucket := &mem.Store{}
		must(t, Init(t.Context(), bucket))
		f := &failingCommits{Store: bucket}
		h := &hooked{Store: f}
		s := openStore(t, Config{Blobs: h})
		d := newDisk(seeds(1, 2))
		one, two := s.Begin(), s.Begin()
		must(t, d.save(t.Context(), one))
		f.left.Store(1)
		h.before = func(op string) {
			if strings.HasPrefix(op, "read "+packPrefix+string(trees)) {
				h.before = nil
				if lost {
					f.left.Store(1)
				}
				for _, seed := range []uint64{1, 2} {
					must(t, putMissing(context.Background(), two, object.Chunk, cell(seed)))
				}
			}
		}
		r := recordOf("x", day(1), d)
		err := one.Commit(t.Context(), r)
		if h.before != nil {
			t.Fatal("no tree was read: this proves nothing")
		}
		if lost != errors.Is(err, chunk.ErrMissing) || !lost && err != nil {
			t.Errorf("lost %v: commit ends with %v", lost, err)
		}
		after := openStore(t, Config{Blobs: bucket, ReadOnly: true}) // as after a power cut
		if lost {
			if records, _, err := after.Records(t.Context()); err != nil || len(records) > 0 {
				t.Errorf("there are records of what was lost: %v, %v", records, err)
			}
			continue
		}
		mustRestore(t, after, r, d)
	}
}

// failingCommits fails to make data packs durable, as often as left says.
type failingCommits struct {
	blob.Store
	left atomic.Int64
}

func (f *failingCommits) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	w, err := f.Store.Create(ctx, name, over)
	if err != nil || !strings.HasPrefix(name, packPrefix+string(chunks)) {
		return w, err
	}
	return &failingCommit{w, f}, nil
}

type failingCommit struct {
	blob.Writer
	f *failingCommits
}

func (w *failingCommit) Commit() error {
	if w.f.left.Add(-1) >= 0 {
		w.Abort()
		return faults.ErrInjected
	}
	return w.Writer.Commit()
}

// TestRemovalsThatComeLate: a collection is cut off with its removals still on
// their way. The folder that takes the store over counts on nothing that they
// can remove.
func TestRemovalsThatComeLate(t *testing.T) {
	bucket, config := folders(t)
	d := newDisk(seeds(1, 30))
	h := &stuck{Store: bucket, is: true}
	one := openStore(t, config(h, "one"))
	must(t, one.Delete(t.Context(), mustBackup(t, one, "10.0.0.1", day(1), d)))
	if err := collectAll(one); !errors.Is(err, errNet) || len(h.held) == 0 {
		t.Fatalf("%d removals are on their way, and the collection ends with %v", len(h.held), err)
	}
	two := openStore(t, config(bucket, "two"))
	r := mustBackup(t, two, "10.0.0.2", day(2), d)
	for _, name := range h.held {
		must(t, bucket.Remove(t.Context(), name))
	}
	mustRestore(t, two, r, d)
	must(t, two.Check(t.Context()))
}

// TestRecordThatComesLate: the request to write a record is still on its way
// when its process ends. Whoever takes the store over bars its name, and the
// record does not come to be.
func TestRecordThatComesLate(t *testing.T) {
	bucket, config := folders(t)
	h := &heldRecords{Store: bucket}
	one := openStore(t, config(h, "one"))
	if _, err := backup(t.Context(), one, "10.0.0.1", day(1), newDisk(seeds(1, 3))); err == nil || h.held == nil {
		t.Fatalf("the record is on its way %v, and the backup ends with %v", h.held != nil, err)
	}
	two := openStore(t, config(bucket, "two"))
	if err := h.held.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the late record ends with %v", err)
	}
	if all, damaged, err := two.Records(t.Context()); err != nil || len(all) > 0 || len(damaged) > 0 {
		t.Errorf("there are %v, %v, %v", all, damaged, err)
	}
}

// heldRecords keeps the request to write a record from the bucket, and fails
// all that comes after it.
type heldRecords struct {
	blob.Store
	held blob.Writer
}

func (h *heldRecords) Version(ctx context.Context, name string) (blob.Version, error) {
	if h.held != nil {
		return blob.None, errNet
	}
	return h.Store.Version(ctx, name)
}

func (h *heldRecords) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	w, err := h.Store.Create(ctx, name, over)
	if err == nil && strings.HasPrefix(name, recordPrefix) {
		return &heldRecord{w, h}, nil
	}
	return w, err
}

type heldRecord struct {
	blob.Writer
	h *heldRecords
}

func (w *heldRecord) Commit() error {
	w.h.held = w.Writer
	return errNet
}

func (w *heldRecord) Abort() {}

// TestPutOfNoObject: lengths that cannot be are refused, also of objects that
// this process made.
func TestPutOfNoObject(t *testing.T) {
	s := newStore(t, &mem.Store{})
	for _, trusted := range []bool{false, true} {
		session := s.Begin()
		session.Trusted = trusted
		o := object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf(cell(1))}, cell(1), nil)
		o.RawLen = len(o.Data)
		if err := session.Put(t.Context(), o); err == nil {
			t.Errorf("trusted %v: %d bytes that are stored as %d are taken", trusted, o.RawLen, len(o.Data))
		}
		session.Close()
	}
}

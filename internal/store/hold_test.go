package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// restore is a restore at work: the image is open, and read piece by piece.
type restore struct {
	t    failer
	disk fakeDisk
	im   *chunk.Image
	r    image.Reader
	n    int // chunks read so far
}

// failer is a test that can fail: a testing.T, or a rapid.T.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func beginRestore(t failer, s *Store, r *image.Record, d fakeDisk) *restore {
	t.Helper()
	im, err := s.OpenImage(context.Background(), r, "sda")
	if err != nil {
		t.Fatal(err)
	}
	return &restore{t: t, disk: d, im: im, r: im.Reader(context.Background())}
}

// goOn reads up to so many chunks, and wants them to be right. It reports
// whether that was all.
func (r *restore) goOn(chunks int) (end bool) {
	r.t.Helper()
	for chunks > 0 {
		p, err := r.r.Next()
		if err == io.EOF {
			if r.n != len(r.disk.cells) {
				r.t.Fatalf("%d chunks were restored of %d", r.n, len(r.disk.cells))
			}
			return true
		}
		if err == nil && p.Content != image.Data {
			continue
		}
		b := make([]byte, p.Len+object.Slack)
		if err == nil {
			err = p.Decode(b)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if at := p.Ranges[0].Off; string(b[:p.Len]) != string(cell(r.disk.cells[at])) {
			r.t.Fatalf("the restore is wrong at %d", at)
		}
		r.n++
		chunks--
	}
	return false
}

// end reads the rest, and lets go of the image.
func (r *restore) end() {
	r.t.Helper()
	for !r.goOn(1000) {
	}
	if err := r.im.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// longDisk has more pages than a reader fetches ahead.
func longDisk(from uint64) fakeDisk {
	var regions [][]uint64
	for i := range uint64(12) {
		regions = append(regions, seeds(from+20*i, 20))
	}
	return newDisk(regions...)
}

// TestRestoreBesideDeleteAndGC: what is being restored is not deleted, and
// loses nothing to a collection. What else is to be deleted is.
func TestRestoreBesideDeleteAndGC(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d, other := longDisk(1), longDisk(5001)
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	gone := mustBackup(t, s, "10.0.0.2", day(1), other)
	_, before := stored(t, blobs)
	rest := beginRestore(t, s, r, d)
	rest.goOn(5)
	var held *HeldError
	if err := s.Delete(t.Context(), r, gone); !errors.As(err, &held) || len(held.Records) != 1 || held.Records[0] != r {
		t.Fatalf("deleted under a restore: %v", err)
	}
	if got := records(t, s); len(got) != 1 || got[0].ID != r.ID {
		t.Errorf("there are %v", got)
	}
	mustGC(t, s)
	if _, n := stored(t, blobs); n >= before {
		t.Errorf("of %d packs, %d are left, and half is not needed", before, n)
	}
	rest.end()
	must(t, s.Delete(t.Context(), r))
	mustGC(t, s)
	if bytes, _ := stored(t, blobs); bytes > 0 {
		t.Errorf("%d bytes are left when all is deleted", bytes)
	}
}

// TestRestoreOfLostRecord: an image that is read loses nothing to a collection
// though its record is gone, by whatever way. When nobody reads it, it goes.
func TestRestoreOfLostRecord(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d := longDisk(1)
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	rest, second := beginRestore(t, s, r, d), beginRestore(t, s, r, d)
	rest.goOn(5)
	must(t, blobs.Remove(t.Context(), recordName(r.Box, r.ID)))
	mustGC(t, s)
	if _, err := s.OpenImage(t.Context(), r, "sda"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image without a record was opened: %v", err)
	}
	rest.end()
	mustGC(t, s)
	second.end()
	mustGC(t, s)
	if bytes, _ := stored(t, blobs); bytes > 0 {
		t.Errorf("%d bytes are left when nobody reads the image", bytes)
	}
}

// TestRestoreBegunBetweenPlanAndGC: a plan was made before somebody began to
// read.
func TestRestoreBegunBetweenPlanAndGC(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	d := longDisk(1)
	r := mustBackup(t, s, "10.0.0.1", day(1), d)
	text, err := blob.ReadAll(t.Context(), blobs, recordName(r.Box, r.ID), 1<<20)
	must(t, err)
	must(t, s.Delete(t.Context(), r))
	plan, err := s.PlanGC(t.Context())
	must(t, err)
	must(t, blob.WriteAll(t.Context(), blobs, recordName(r.Box, r.ID), text)) // as a copy does that was made meanwhile
	rest := beginRestore(t, s, r, d)
	must(t, blobs.Remove(t.Context(), recordName(r.Box, r.ID)))
	res, err := s.GC(t.Context(), plan)
	must(t, err)
	if res.Removed > 0 {
		t.Errorf("%v", res)
	}
	rest.end()
}

// TestRestoreWhileGCRuns reads on between the steps of a collection that moves
// all packs.
func TestRestoreWhileGCRuns(t *testing.T) {
	hook := &hooked{Store: &mem.Store{}}
	s := newStore(t, hook)
	d := longDisk(1)
	var mixedDisk [][]uint64
	for i := range uint64(12) {
		mixedDisk = append(mixedDisk, mixed(seeds(1+20*i, 20), seeds(5001+20*i, 20)))
	}
	gone := mustBackup(t, s, "10.0.0.2", day(1), newDisk(mixedDisk...))
	r := mustBackup(t, s, "10.0.0.1", day(2), d)
	must(t, s.Delete(t.Context(), gone))
	rest := beginRestore(t, s, r, d)
	steps := 0
	hook.before = func(op string) {
		// The restore fetches ahead, at any time. If it waited here for itself, it would wait forever.
		if strings.HasPrefix(op, "read ") {
			return
		}
		rest.goOn(1)
		steps++
	}
	res := mustGC(t, s)
	if res.Written == 0 || res.Removed == 0 || steps < 20 {
		t.Errorf("nothing was moved under the restore: %v, %d steps", res, steps)
	}
	rest.end()
}

// TestRestoreBesideWriter: another process deletes the backup that is restored,
// and wants to collect it. Packs are not removed under a reader.
func TestRestoreBesideWriter(t *testing.T) {
	path := folder(t)
	w := openDir(t, path, false)
	defer w.Close()
	d := longDisk(1)
	r := mustBackup(t, w.Store, "10.0.0.1", day(1), d)
	reader := openDir(t, path, true)
	rest := beginRestore(t, reader.Store, r, d)
	rest.goOn(5)
	must(t, w.Delete(t.Context(), r))
	plan, err := w.PlanGC(t.Context())
	must(t, err)
	if _, err := w.GC(t.Context(), plan); !errors.Is(err, ErrLocked) {
		t.Errorf("packs are removed under a restore: %v", err)
	}
	mustBackup(t, w.Store, "10.0.0.1", day(2), longDisk(3001)) // others go on
	rest.end()
	must(t, reader.Close())
	mustGC(t, w.Store)
	if _, err := w.OpenImage(t.Context(), r, "sda"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the deleted backup can be opened: %v", err)
	}
}

// TestClosedWhileCommitting: a session is closed while its commit is about to write
// the record, as when a client goes away, and a collection runs before the record
// is there. A backup that is said to be committed is whole.
func TestClosedWhileCommitting(t *testing.T) {
	hook := &hooked{Store: &mem.Store{}}
	s := newStore(t, hook)
	d := longDisk(1)
	session := s.Begin()
	must(t, d.save(t.Context(), session))
	r := recordOf("10.0.0.1", day(1), d)
	closed := false
	hook.before = func(op string) {
		if closed || !strings.HasPrefix(op, "create "+recordPrefix) {
			return
		}
		closed = true
		must(t, session.Close())
		mustGC(t, s)
	}
	err := session.Commit(t.Context(), r)
	hook.before = nil
	if err != nil || !closed {
		t.Fatalf("the session was closed %v, and the commit gave %v", closed, err)
	}
	mustRestore(t, s, r, d)
	if err := session.Commit(t.Context(), r); !errors.Is(err, chunk.ErrClosed) {
		t.Errorf("a commit after that: %v", err)
	}
	// It holds nothing any more.
	must(t, s.Delete(t.Context(), r))
	mustGC(t, s)
	if bytes, _ := stored(t, hook.Store); bytes > 0 {
		t.Errorf("%d bytes are left", bytes)
	}
}

// Close ends a session once, even if its last commit ends at the same time.
func TestCloseAsCommitEnds(t *testing.T) {
	s := newStore(t, &mem.Store{})
	for range 20 {
		session := s.Begin()
		done, err := session.beginCommit(t.Context())
		must(t, err)
		var both sync.WaitGroup
		s.objects.mu.Lock() // both wait for it, the commit first
		both.Go(done)
		time.Sleep(time.Millisecond)
		both.Go(func() { session.Close() })
		time.Sleep(time.Millisecond)
		s.objects.mu.Unlock()
		both.Wait()
	}
	if n := s.objects.sessions; n != 0 {
		t.Errorf("%d sessions are left of none", n)
	}
}

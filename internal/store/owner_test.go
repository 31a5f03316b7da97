package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

// The bench of TestTwoWriters:
//
//	process 1 ── Store ── line ─┐
//	process 2 ── Store ── line ─┴─ network ── mem.Store
//
// Every request that writes, and every one that decides something, waits in
// the network until the test lets it go on: so the test has each interleaving
// in its hands. A request may be done and its answer lost; or be given up, and
// be done much later all the same.

// network holds the requests of all processes.
type network struct {
	bucket *mem.Store
	mu     sync.Mutex
	waits  []*request
	late   []*request // given up by who sent it, and still on its way
}

type request struct {
	line   *line
	what   string
	writes bool
	run    func() error
	answer chan error
}

// errNet is that of a process which does not know what became of a request.
var errNet = errors.New("no answer")

// line is a process's way to the bucket.
type line struct {
	*mem.Store
	net  *network
	name string // of the process
	dead bool   // the process was killed; guarded by net.mu
}

// wait sends a request, and waits for its answer.
func (l *line) wait(what string, writes bool, run func() error) error {
	r := &request{l, what, writes, run, make(chan error, 1)}
	l.net.mu.Lock()
	if l.dead {
		l.net.mu.Unlock()
		return errNet
	}
	l.net.waits = append(l.net.waits, r)
	l.net.mu.Unlock()
	return <-r.answer
}

func (l *line) Version(ctx context.Context, name string) (v blob.Version, err error) {
	if blob.IsProbe(name) {
		return l.Store.Version(ctx, name)
	}
	err = l.wait("version of "+name, false, func() (err error) {
		v, err = l.Store.Version(ctx, name)
		return err
	})
	return v, err
}

func (l *line) List(ctx context.Context, prefix string) (out []blob.Info, err error) {
	err = l.wait("list of "+prefix, false, func() (err error) {
		out, err = l.Store.List(ctx, prefix)
		return err
	})
	return out, err
}

func (l *line) Remove(ctx context.Context, name string) error {
	if blob.IsProbe(name) {
		return l.Store.Remove(ctx, name)
	}
	return l.wait("remove "+name, true, func() error { return l.Store.Remove(context.Background(), name) })
}

func (l *line) Create(_ context.Context, name string, over blob.Version) (blob.Writer, error) {
	w, err := l.Store.Create(context.Background(), name, over)
	if err != nil || blob.IsProbe(name) {
		return w, err
	}
	return &lineWriter{Writer: w, l: l, name: name}, nil
}

type lineWriter struct {
	blob.Writer
	l    *line
	name string
	sent bool
}

func (w *lineWriter) Commit() error {
	w.sent = true
	return w.l.wait("write "+w.name, true, w.Writer.Commit)
}

// Abort has no effect on a request that was sent.
func (w *lineWriter) Abort() {
	if !w.sent {
		w.Writer.Abort()
	}
}

// proc is a folder and the process that works in it, if there is one.
type proc struct {
	name  string
	reads bool // it is one that only reads, in the folder of another
	state *faults.Volatile
	line  *line
	store *Store
	busy  bool
}

// world is what TestTwoWriters plays with.
type twoWriters struct {
	net    *network
	procs  []*proc
	random *rand.Rand
	steps  int        // choices left
	faults int        // of 100 requests, those that have another fate than to be done and answered
	mu     sync.Mutex // guards those below
	ledger *ledger
	pinned map[string]bool
	doomed map[string]int // deletions at work
	gone   map[string]int // how often somebody began to delete a record
	second *Store         // a store of which backups are copied
	day    int
	wrong  []error // what was said of sound images
	story  []string
}

// choose gives one of n numbers.
func (w *twoWriters) choose(n int) int { return w.random.IntN(n) }

func (w *twoWriters) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

// start lets an idle process do something.
func (w *twoWriters) start(p *proc, what string, do func() error) {
	p.busy = true
	go func() {
		err := do()
		w.tell("%s: %s ends with %v", p.name, what, err)
		w.mu.Lock()
		p.busy = false
		w.mu.Unlock()
	}()
}

func (w *twoWriters) open(p *proc, takeOver bool) {
	p.line = &line{Store: w.net.bucket, net: w.net, name: p.name}
	l := p.line
	w.start(p, fmt.Sprint("open, take over ", takeOver), func() error {
		s, err := Open(context.Background(), Config{Blobs: l, State: p.state, Dir: "/", PackSize: tiny,
			Owner: &Owner{Host: "host", Path: p.name, TakeOver: takeOver}})
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil && p.line == l {
			p.store = s
		}
		return err
	})
}

// act lets a process with an open store do something.
func (w *twoWriters) act(p *proc) {
	s, box := p.store, fmt.Sprint("10.0.0.", 1+w.choose(2))
	switch w.choose(16) {
	case 0, 1, 2, 3:
		from := uint64(w.choose(6))
		d := w.ledger.know(newDisk(seeds(1+3*from, 4), seeds(2+from, 3)))
		w.day++
		r := recordOf(box, day(1).Add(time.Duration(w.day)*time.Hour), d)
		w.start(p, "back up "+box, func() error { return w.backUp(s, r, d) })
	case 4, 5:
		w.start(p, "collect", func() error { return errors.Join(collectAll(s)) })
	case 6, 7, 8:
		nth := w.choose(4)
		w.start(p, "delete", func() error { return w.delete(s, nth) })
	case 9, 10:
		nth := w.choose(4)
		w.start(p, "pin", func() error { return w.pin(s, nth) })
	case 11:
		w.start(p, "scrub", func() error { return w.scrub(s) })
	case 12, 13:
		nth := w.choose(4)
		w.day++
		at := day(1).Add(time.Duration(w.day) * time.Hour)
		w.start(p, "set a time", func() error { return w.setTime(s, nth, at) })
	case 14:
		w.start(p, "copy", func() error { return w.copyTo(s) })
	case 15:
		w.start(p, "close", func() error {
			err := s.Close()
			w.mu.Lock()
			defer w.mu.Unlock()
			p.store = nil
			return err
		})
	}
}

// scrub wants nothing to be found: nothing ever is damaged.
func (w *twoWriters) scrub(s *Store) error {
	report, err := s.Scrub(context.Background(), nil)
	if err == nil && report.Unnoted == nil && len(report.Faults) > 0 { // else it may have been overtaken, and could not ask
		w.found("a scrub says: %v", report)
	}
	return err
}

func (w *twoWriters) found(format string, args ...any) {
	w.tell(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Errorf(format, args...))
}

// read verifies all images that there are, in a process that only reads.
func (w *twoWriters) read(p *proc) {
	p.line = &line{Store: w.net.bucket, net: w.net, name: p.name}
	l := p.line
	w.start(p, "verify all", func() error {
		s, err := Open(context.Background(), Config{Blobs: l, State: p.state, Dir: "/", ReadOnly: true, PackSize: tiny,
			Owner: &Owner{Host: "host", Path: p.name}})
		if err != nil {
			return err
		}
		records, _, err := s.Records(context.Background())
		if err != nil {
			return err
		}
		for _, r := range records {
			err = errors.Join(err, w.verifyOne(s, r))
		}
		return err
	})
}

// verifyOne wants an image to be whole as long as its record is there.
func (w *twoWriters) verifyOne(s *Store, r *image.Record) error {
	found, err := s.Verify(context.Background(), r, "sda", 1, nil)
	if err != nil || found == nil {
		return err
	}
	if _, err := s.Record(context.Background(), r.Box, r.ID); err != nil {
		return err
	}
	w.found("a reader says that %s is damaged: %v", recordName(r.Box, r.ID), found)
	return nil
}

func (w *twoWriters) backUp(s *Store, r *image.Record, d fakeDisk) error {
	session := s.Begin()
	defer session.Close()
	err := d.save(context.Background(), session)
	if err == nil {
		err = session.Commit(context.Background(), r)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case r.ID == "": // it was not tried to be written
	case w.gone[recordName(r.Box, r.ID)] > 0: // as soon as it was written
		w.ledger.committed(r, errors.Join(err, errNet))
	default:
		w.ledger.committed(r, err)
	}
	return err
}

func collectAll(s *Store) error {
	plan, err := s.PlanGC(context.Background())
	if err == nil {
		_, err = s.GC(context.Background(), plan)
	}
	return err
}

// nth picks a backup.
func nth(s *Store, n int) (*image.Record, error) {
	all, _, err := s.Records(context.Background())
	if err != nil || len(all) == 0 {
		return nil, errors.Join(err, fs.ErrNotExist)
	}
	return all[n%len(all)], nil
}

func (w *twoWriters) delete(s *Store, n int) error {
	r, err := nth(s, n)
	if err != nil {
		return err
	}
	defer w.doom(r)()
	return s.Delete(context.Background(), r)
}

// doom notes that a record may go from now on, until it is told that who tries
// to remove it does no more.
func (w *twoWriters) doom(r *image.Record) (end func()) {
	name := recordName(r.Box, r.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doomed[name]++
	w.gone[name]++
	w.ledger.deleted(r, errNet)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.doomed[name]--
	}
}

// setTime renames a backup. Under one of both names it must be there.
func (w *twoWriters) setTime(s *Store, n int, at time.Time) error {
	r, err := nth(s, n)
	if err != nil {
		return err
	}
	defer w.doom(r)()
	w.mu.Lock()
	id := at.Format(idTime)
	for _, id := range []string{id, id + "-2", id + "-3"} {
		w.ledger.may[recordName(r.Box, id)] = true
	}
	w.mu.Unlock()
	now, err := s.SetTime(context.Background(), r.Box, r.ID, at)
	w.mu.Lock()
	defer w.mu.Unlock()
	if name := recordName(r.Box, id); err == nil && now.ID == id && w.gone[name] == 0 {
		w.ledger.must[name] = true
	}
	return err
}

// copyTo copies backups of another store, also ones that were deleted here.
func (w *twoWriters) copyTo(s *Store) error {
	records, _, err := w.second.Records(context.Background())
	if err != nil {
		return err
	}
	before := map[string]int{}
	w.mu.Lock()
	for _, r := range records {
		name := recordName(r.Box, r.ID)
		w.ledger.may[name] = true
		if before[name] = w.gone[name]; w.doomed[name] > 0 {
			before[name]--
		}
	}
	w.mu.Unlock()
	err = w.second.Copy(context.Background(), s, records, nil, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, n := range before {
		if err == nil && w.gone[name] == n {
			w.ledger.must[name] = true
		}
	}
	return err
}

func (w *twoWriters) pin(s *Store, n int) error {
	r, err := nth(s, n)
	if err != nil {
		return err
	}
	if err := s.SetPinned(context.Background(), r.Box, r.ID, true); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := recordName(r.Box, r.ID)
	w.pinned[name] = true
	if w.doomed[name] == 0 { // a deletion that failed before cannot come back
		w.ledger.must[name] = true
	}
	return nil
}

// step makes one choice, and reports whether there are more.
func (w *twoWriters) step() bool {
	synctest.Wait()
	w.net.mu.Lock()
	slices.SortFunc(w.net.waits, func(a, b *request) int {
		return cmp.Or(strings.Compare(a.line.name, b.line.name), strings.Compare(a.what, b.what))
	})
	waits := len(w.net.waits)
	late := len(w.net.late)
	w.net.mu.Unlock()
	var idle []*proc
	for _, p := range w.procs {
		if !p.busy {
			idle = append(idle, p)
		}
	}
	if w.steps--; w.steps < 0 {
		return false
	}
	switch c := w.choose(100); {
	case c < 5 && late > 0:
		w.arrive(w.choose(late))
	case c < 6:
		w.kill(w.procs[w.choose(len(w.procs))])
	case c < 30 && len(idle) > 0, waits == 0 && len(idle) > 0:
		p := idle[w.choose(len(idle))]
		if p.reads {
			w.read(p)
		} else if p.store == nil {
			w.open(p, w.choose(2) > 0)
		} else {
			w.act(p)
		}
	case waits > 0:
		w.release(w.choose(waits))
	}
	return true
}

// take takes a request out of the network.
func (n *network) take(list *[]*request, i int) *request {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return r
}

// release lets a request go on, to one of its fates.
func (w *twoWriters) release(i int) {
	r := w.net.take(&w.net.waits, i)
	fate := 0
	if w.choose(100) < w.faults {
		fate = 1 + w.choose(3)
	}
	switch {
	case fate == 1 && r.writes:
		w.tell("%s: %s is done, the answer is lost", r.line.name, r.what)
		r.run()
		r.answer <- errNet
	case fate == 2:
		w.tell("%s: %s is lost", r.line.name, r.what)
		r.answer <- errNet
	case fate == 3 && r.writes:
		w.tell("%s: %s is given up", r.line.name, r.what)
		w.net.late = append(w.net.late, r)
		r.answer <- errNet
	default:
		err := r.run()
		w.tell("%s: %s: %v", r.line.name, r.what, err)
		r.answer <- err
	}
}

// arrive lets a request come that its process gave up.
func (w *twoWriters) arrive(i int) {
	r := w.net.take(&w.net.late, i)
	w.tell("late: %s: %v", r.what, r.run())
}

// kill ends a process. Its requests may still be on their way.
func (w *twoWriters) kill(p *proc) {
	if p.line == nil {
		return
	}
	w.tell("%s is killed", p.name)
	w.net.mu.Lock()
	p.line.dead = true
	var gone []*request
	w.net.waits = slices.DeleteFunc(w.net.waits, func(r *request) bool {
		if r.line == p.line {
			gone = append(gone, r)
		}
		return r.line == p.line
	})
	w.net.mu.Unlock()
	for _, r := range gone {
		if r.writes && w.choose(2) == 1 {
			w.net.late = append(w.net.late, r)
		}
		r.answer <- errNet
	}
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	p.store, p.line, p.busy = nil, nil, false
}

// verify opens the store in a folder of its own, and holds it to the ledger.
func (w *twoWriters) verify(what string, collect bool) error {
	s, err := Open(context.Background(), Config{Blobs: w.net.bucket, State: faults.NewVolatile(), Dir: "/", PackSize: tiny,
		Owner: &Owner{Host: "host", Path: "fresh", TakeOver: true}})
	if err == nil && collect {
		err = collectAll(s)
	}
	if err == nil {
		err = errors.Join(w.ledger.verify(s), s.Check(context.Background()), w.pins(s), noDamage(s))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return s.Close()
}

// noDamage wants nothing to be noted as damaged.
func noDamage(s *Store) error {
	damages, err := s.Damages(context.Background())
	if err == nil && len(damages) > 0 {
		err = fmt.Errorf("it is noted that images are damaged: %v", damages)
	}
	return err
}

func (w *twoWriters) pins(s *Store) error {
	all, _, err := s.Records(context.Background())
	for _, r := range all {
		if name := recordName(r.Box, r.ID); w.pinned[name] && w.gone[name] == 0 && !r.Pinned { // a copy brings a deleted one back without its pin
			err = errors.Join(err, fmt.Errorf("%s lost its pin", recordName(r.Box, r.ID)))
		}
	}
	return err
}

// makeSecond makes a store with two backups.
func (w *twoWriters) makeSecond() (err error) {
	blobs := &mem.Store{}
	if err := Init(context.Background(), blobs); err != nil {
		return err
	}
	if w.second, err = Open(context.Background(), Config{Blobs: blobs, PackSize: tiny}); err != nil {
		return err
	}
	for i := range uint64(2) {
		d := w.ledger.know(newDisk(seeds(1+3*i, 4), seeds(2+i, 3)))
		if _, err := backup(context.Background(), w.second, "10.0.0.1", day(1).Add(time.Duration(i)*time.Minute), d); err != nil {
			return err
		}
	}
	return nil
}

// play plays the choices to their end.
func (w *twoWriters) play() error {
	if err := errors.Join(Init(context.Background(), w.net.bucket), w.makeSecond()); err != nil {
		return err
	}
	for w.step() {
	}
	for _, p := range w.procs {
		w.kill(p)
	}
	if err := w.verify("at the end", false); err != nil {
		return err
	}
	if err := w.verify("after a collection", true); err != nil {
		return err
	}
	for len(w.net.late) > 0 {
		w.arrive(0)
	}
	return errors.Join(append(w.wrong, w.verify("after late requests", true))...)
}

// TestTwoWriters: two processes with folders of their own write to one bucket,
// are killed, hang, take over from each other without the other knowing it, and
// their requests are lost, or come late; others read beside them. Whatever said
// that it was committed restores, byte by byte, and nobody calls it damaged.
func TestTwoWriters(t *testing.T) {
	if _, err := backup(t.Context(), newStore(t, &mem.Store{}), "warm", day(1), newDisk(seeds(1, 3))); err != nil {
		t.Fatal(err) // what is made but once (encoders) must not belong to one of the games
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := &twoWriters{net: &network{bucket: &mem.Store{}}, ledger: newLedger(),
			pinned: map[string]bool{}, doomed: map[string]int{}, gone: map[string]int{}}
		for _, name := range []string{"one", "two"} {
			p := &proc{name: name, state: faults.NewVolatile()}
			w.procs = append(w.procs, p, &proc{name: name + " reads", reads: true, state: p.state})
		}
		w.random = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		w.steps, w.faults = rapid.IntRange(10, 800).Draw(rt, "steps"), rapid.SampledFrom([]int{0, 2, 10}).Draw(rt, "faults")
		var err error
		synctest.Test(t, func(*testing.T) { err = w.play() })
		if err != nil {
			rt.Fatalf("%s\n%v", strings.Join(w.story, "\n"), err) // the error last: a log may show no more than the end
		}
	})
}

// TestIndexOlderThanAnotherOwner: a folder's index calls packs unneeded that
// another folder, which took the store over, has counted on since. The process
// that takes the store back ends before it has a new index. The next one in
// that folder must not collect by the old index.
func TestIndexOlderThanAnotherOwner(t *testing.T) {
	bucket, config := folders(t)
	d := newDisk(seeds(1, 30))
	h := &hooked{Store: bucket}
	one := openStore(t, config(h, "one"))
	must(t, one.Delete(t.Context(), mustBackup(t, one, "10.0.0.1", day(1), d)))
	plan, err := one.PlanGC(t.Context())
	must(t, err)
	var two *Store
	h.before = func(op string) {
		if strings.HasPrefix(op, "remove "+packPrefix) && two == nil {
			two = openStore(t, config(bucket, "two"))
		}
	}
	if _, err := one.GC(t.Context(), plan); !errors.Is(err, ErrNotOwner) {
		t.Fatalf("the collection of the folder that was overtaken ends with %v", err)
	}
	if packs := packsOf(t, bucket, chunks); len(packs) == 0 {
		t.Fatal("no pack is left that the other folder could count on")
	}
	r := mustBackup(t, two, "10.0.0.2", day(2), d)
	h.before = nil
	if s, err := Open(t.Context(), config(&failingList{bucket}, "one")); err == nil {
		t.Fatalf("%v was opened, though the packs cannot be listed", s)
	}
	one = openStore(t, config(bucket, "one"))
	mustGC(t, one)
	mustRestore(t, one, r, d)
	must(t, one.Check(t.Context()))
}

// failingList does not list packs.
type failingList struct{ blob.Store }

func (f *failingList) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	if prefix == packPrefix {
		return nil, errNet
	}
	return f.Store.List(ctx, prefix)
}

// folders gives a bucket with a store, and the configuration of two folders.
func folders(t *testing.T) (bucket *mem.Store, config func(blobs blob.Store, folder string) Config) {
	t.Helper()
	bucket = &mem.Store{}
	must(t, Init(t.Context(), bucket))
	states := map[string]*faults.Volatile{"one": faults.NewVolatile(), "two": faults.NewVolatile()}
	return bucket, func(blobs blob.Store, folder string) Config {
		return Config{Blobs: blobs, State: states[folder], Dir: "/", PackSize: smallPacks, Log: t.Logf,
			Owner: &Owner{Host: "host", Path: folder, TakeOver: true}}
	}
}

// stuck does not remove packs while it is. It keeps their names: these requests
// may still come.
type stuck struct {
	blob.Store
	is   bool
	held []string
}

func (s *stuck) Remove(ctx context.Context, name string) error {
	if s.is && strings.HasPrefix(name, packPrefix) {
		s.held = append(s.held, name)
		return errNet
	}
	return s.Store.Remove(ctx, name)
}

// TestScrubAfterFailedRemoval: packs that a collection could not remove are
// removed later. What a scrub finds in them must not count as there until then.
func TestScrubAfterFailedRemoval(t *testing.T) {
	bucket, config := folders(t)
	blobs, d := &stuck{Store: bucket, is: true}, newDisk(seeds(1, 30))
	s := openStore(t, config(blobs, "one"))
	must(t, s.Delete(t.Context(), mustBackup(t, s, "10.0.0.1", day(1), d)))
	if err := collectAll(s); !errors.Is(err, errNet) {
		t.Fatalf("the collection ends with %v", err)
	}
	if _, err := s.Scrub(t.Context(), nil); !errors.Is(err, errNet) {
		t.Errorf("a scrub that cannot remove them either ends with %v", err)
	}
	blobs.is = false
	if report := mustScrub(t, s); report.Err() != nil {
		t.Errorf("%v", report)
	}
	r := mustBackup(t, s, "10.0.0.2", day(2), d)
	must(t, s.Close())
	s = openStore(t, config(blobs, "one"))
	mustRestore(t, s, r, d)
	must(t, s.Check(t.Context()))
}

// TestRemovalThatWasNotAnnounced: a collection could not announce what it was
// to remove. When the same process removes it later, another folder may take
// the store over in between, and must know of it.
func TestRemovalThatWasNotAnnounced(t *testing.T) {
	bucket, config := folders(t)
	h := &hooked{Store: bucket}
	lossy := &losesOwner{Store: h}
	d := newDisk(seeds(1, 30))
	one := openStore(t, config(lossy, "one"))
	must(t, one.Delete(t.Context(), mustBackup(t, one, "10.0.0.1", day(1), d)))
	plan, err := one.PlanGC(t.Context())
	must(t, err)
	lossy.now = true
	if _, err := one.GC(t.Context(), plan); !errors.Is(err, errNet) {
		t.Fatalf("the collection ends with %v", err)
	}
	lossy.now = false
	var two *Store
	var r *image.Record
	h.before = func(op string) {
		if strings.HasPrefix(op, "remove "+packPrefix) && two == nil {
			two = openStore(t, config(bucket, "two"))
			r = mustBackup(t, two, "10.0.0.2", day(2), d)
		}
	}
	if err := collectAll(one); !errors.Is(err, ErrNotOwner) {
		t.Errorf("the second collection ends with %v", err)
	}
	must(t, two.Close())
	two = openStore(t, config(bucket, "two"))
	mustRestore(t, two, r, d)
	must(t, two.Check(t.Context()))
}

// losesOwner loses what is written to the owner's blob while it is to.
type losesOwner struct {
	blob.Store
	now bool
}

func (l *losesOwner) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	if name == ownerName && l.now {
		return nil, errNet
	}
	return l.Store.Create(ctx, name, over)
}

// unanswered does not say who the owner is.
type unanswered struct{ blob.Store }

func (u *unanswered) Version(ctx context.Context, name string) (blob.Version, error) {
	if name == ownerName {
		return blob.None, errNet
	}
	return u.Store.Version(ctx, name)
}

// TestOvertakenScrub: a scrub whose store is taken over misses packs that the
// new owner has collected. It must not call images damaged.
func TestOvertakenScrub(t *testing.T) {
	bucket, config := folders(t)
	h := &hooked{Store: bucket}
	one := openStore(t, config(h, "one"))
	d := newDisk(mixed(seeds(1, 20), seeds(100, 20)))
	gone := mustBackup(t, one, "10.0.0.1", day(1), newDisk(seeds(1, 40)))
	r := mustBackup(t, one, "10.0.0.1", day(2), d)
	var two *Store
	h.before = func(op string) {
		if op == "list " && two == nil {
			two = openStore(t, config(bucket, "two"))
			must(t, two.Delete(t.Context(), gone))
			mustGC(t, two)
		}
	}
	if _, err := one.Scrub(t.Context(), nil); !errors.Is(err, ErrNotOwner) {
		t.Errorf("the scrub ends with %v", err)
	}
	must(t, noDamage(two))
	mustRestore(t, two, r, d)

	// It may not even come to know it.
	h.before = nil
	one = openStore(t, config(h, "one"))
	one.cfg.Blobs = &unanswered{h}
	h.before = func(op string) {
		if op == "list "+recordPrefix {
			h.before = nil
			two = openStore(t, config(bucket, "two"))
			mustBackup(t, two, "10.0.0.3", day(3), newDisk(seeds(500, 20)))
		}
	}
	if report, err := one.Scrub(t.Context(), nil); err != nil || !errors.Is(report.Unnoted, errNet) {
		t.Errorf("the scrub that got no answer ends with %v, %v", report, err)
	}
	must(t, noDamage(two))
}

// TestReadBesideOwner: who reads in another folder finds what the owner has
// committed and moved since the reader began, and does not call it damaged.
func TestReadBesideOwner(t *testing.T) {
	bucket, config := folders(t)
	reader := func(blobs blob.Store, folder string) *Store {
		c := config(blobs, folder)
		c.ReadOnly = true
		return openStore(t, c)
	}
	whole := func(what string, s *Store, r *image.Record) {
		t.Helper()
		if found, err := s.Verify(t.Context(), r, "sda", 1, nil); err != nil || found != nil {
			t.Errorf("%s: %v, %v", what, found, err)
		}
	}
	one := openStore(t, config(bucket, "one"))
	d := newDisk(mixed(seeds(1, 20), seeds(100, 20)))
	gone := mustBackup(t, one, "10.0.0.1", day(1), newDisk(mixed(seeds(1, 20), seeds(200, 20))))

	r := reader(bucket, "two")
	last := mustBackup(t, one, "10.0.0.1", day(2), d)
	if all, _, err := r.Records(t.Context()); err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	whole("what was committed since", r, last)

	must(t, one.Delete(t.Context(), gone))
	mustGC(t, one)
	whole("what was moved since", r, last)

	h := &hooked{Store: bucket}
	again := mustBackup(t, one, "10.0.0.2", day(3), newDisk(mixed(seeds(1, 20), seeds(300, 20))))
	listed := false
	h.before = func(op string) {
		if strings.HasPrefix(op, "read "+packPrefix) && !listed { // the packs are listed
			listed = true
			must(t, one.Delete(t.Context(), again))
			mustGC(t, one)
		}
	}
	whole("what is moved while the reader begins", reader(h, "two"), last)
}

// TestReadWhatIsThereTwice: objects that are in two packs, since a pack of a
// process that was overtaken came late, are found when the one pack is
// collected to which a reader's index points.
func TestReadWhatIsThereTwice(t *testing.T) {
	bucket, config := folders(t)
	one := openStore(t, config(bucket, "one"))
	d := newDisk(seeds(1, 30))
	r := mustBackup(t, one, "10.0.0.1", day(1), d)
	packs := packsOf(t, bucket, chunks)
	late := &mem.Store{}
	for _, name := range packs {
		text, err := blob.ReadAll(t.Context(), bucket, name, 1<<20)
		must(t, errors.Join(err, blob.WriteAll(t.Context(), late, name, text), bucket.Remove(t.Context(), name)))
	}
	must(t, one.Close())
	two := openStore(t, config(bucket, "two")) // before they came
	again := mustBackup(t, two, "10.0.0.2", day(2), d)
	must(t, two.Close())
	for _, name := range packs {
		text, err := blob.ReadAll(t.Context(), late, name, 1<<20)
		must(t, errors.Join(err, blob.WriteAll(t.Context(), bucket, name, text)))
	}
	c := config(bucket, "one")
	c.ReadOnly = true
	reader := openStore(t, c)
	two = openStore(t, config(bucket, "two"))
	if res := mustGC(t, two); res.Removed == 0 {
		t.Fatalf("nothing is there twice: %v", res)
	}
	for _, r := range []*image.Record{r, again} {
		if found, err := reader.Verify(t.Context(), r, "sda", 1, nil); err != nil || found != nil {
			t.Errorf("%s: %v, %v", r.Box, found, err)
		}
	}
}

// TestReadByOldIndex: a folder that was the owner has an index that calls
// objects missing which another folder found again in the same packs.
func TestReadByOldIndex(t *testing.T) {
	bucket, config := folders(t)
	d := newDisk(seeds(1, 30))
	one := openStore(t, config(bucket, "one"))
	r := mustBackup(t, one, "10.0.0.1", day(1), d)
	pack := packsOf(t, bucket, chunks)[0]
	flip(t, bucket, pack, 8*1000)
	if mustScrub(t, one).Err() == nil {
		t.Fatal("the scrub found nothing")
	}
	must(t, one.Close())
	flip(t, bucket, pack, 8*1000)
	two := openStore(t, config(bucket, "two"))
	if report := mustScrub(t, two); report.Err() != nil {
		t.Fatalf("%v", report)
	}
	must(t, two.Close())
	c := config(bucket, "one")
	c.ReadOnly = true
	if found, err := openStore(t, c).Verify(t.Context(), r, "sda", 1, nil); err != nil || found != nil {
		t.Errorf("a reader in the folder that was the owner finds %v, %v", found, err)
	}
}

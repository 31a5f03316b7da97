package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
)

// scrubAtOnce is the number of packs that are read at a time.
const scrubAtOnce = 4

// ScrubProgress says how far a scrub is.
type ScrubProgress struct {
	Bytes, Total int64 // of packs
	Faults       int   // found so far
}

// Scrub reads every byte of the store. It reports what is not as it was
// written, and what images lose by that. Objects found damaged count as missing
// from then on, so that the next backup that has them stores them again.
// Objects that are readable again count as present again. Damage to auxiliary
// files (the index, the list of damaged objects, the file `store`) is repaired
// at once. progress may be nil. It is called by one goroutine at a time.
//
// The error says that the scrub could not be completed. The report has what is
// wrong with the store, and whether the result could not be written down.
func (u *Upkeep) Scrub(ctx context.Context, progress func(ScrubProgress)) (*ScrubReport, error) {
	done, err := u.alone()
	if err != nil {
		return nil, err
	}
	defer done()
	if progress == nil {
		progress = func(ScrubProgress) {}
	}
	sc := &scrubber{s: u.objects, upkeep: u, tell: progress, report: &ScrubReport{}, lost: map[object.Key]int{}, damages: Damages{}}
	if err = sc.run(ctx); err == nil {
		return sc.report, nil
	}
	// If another folder has taken the store over, what seems to be missing may
	// have been moved or collected by it.
	if lost := u.objects.lease.stillOwner(ctx); errors.Is(lost, ErrNotOwner) {
		return &ScrubReport{}, lost
	}
	return sc.report, err
}

// scrubber is a running scrub.
type scrubber struct {
	s       *objects
	upkeep  *Upkeep
	whole   *index.Marks // undamaged objects at the place that the index points to; used under the mutex of contents
	tell    func(ScrubProgress)
	packs   map[uint32]packInfo  // packs to read
	known   map[place]object.Key // objects that were found damaged before
	noted   damageFile           // the list of damaged images when the scrub began
	damages Damages              // what images lack by this scrub

	mu     sync.Mutex // guards the fields below
	report *ScrubReport
	now    ScrubProgress
	lost   map[object.Key]int // lost objects, by keys as keyOf gives them -> index of the fault
}

func (sc *scrubber) run(ctx context.Context) error {
	if err := sc.s.lease.settle(ctx); err != nil { // else objects in packs that are still to be removed would count again
		return err
	}
	if err := sc.storeFile(ctx); err != nil {
		return err
	}
	if err := sc.begin(ctx); err != nil {
		return err
	}
	defer sc.end()
	if err := sc.list(ctx); err != nil {
		return err
	}
	if err := sc.readPacks(ctx); err != nil {
		return err
	}
	sc.dangling()
	sc.badList(ctx)
	sc.indexFile()
	if err := sc.costs(ctx); err != nil {
		return err
	}
	sc.healed()
	if sc.s.cfg.ReadOnly {
		return nil
	}
	// A process that may have lost the store to another folder writes nothing.
	if err := sc.s.lease.stillOwner(ctx); errors.Is(err, ErrNotOwner) {
		return err
	} else if err != nil {
		sc.report.Unnoted = errors.Join(sc.report.Unnoted, err)
		return nil
	}
	sc.report.Unnoted = errors.Join(sc.report.Unnoted, sc.s.saveBad(ctx), sc.s.damage.noteScrubbed(ctx, sc.damages, sc.noted))
	_ = sc.s.saveIndex() // Close tries again, and reports the error
	return nil
}

// fault adds a fault to the report and returns its index.
func (sc *scrubber) fault(f Fault) int {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.report.Faults = append(sc.report.Faults, f)
	sc.now.Faults++
	return len(sc.report.Faults) - 1
}

// storeFile checks that this is still the store that was opened. Otherwise a
// disk may be away, and what is not found must not count as lost.
func (sc *scrubber) storeFile(ctx context.Context) error {
	over, err := sc.s.cfg.Blobs.Version(ctx, storeName)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoStore
	} else if err != nil {
		return err
	}
	err = sc.s.stillThere(ctx)
	if !errors.Is(err, errEnvelope) {
		return err
	}
	sc.fault(Fault{File: storeName, Err: err})
	if sc.s.cfg.ReadOnly {
		return nil
	}
	sc.report.Unnoted = writeStore(ctx, sc.s.cfg.Blobs, over, sc.s.uuid)
	return nil
}

// begin notes what exists now. What is added later is not checked.
func (sc *scrubber) begin(ctx context.Context) (err error) {
	if sc.noted, err = sc.s.damage.readDamage(ctx); err != nil {
		return err
	}
	sc.upkeep.voidPlan() // the scrub changes the index
	sc.s.mu.Lock()
	defer sc.s.mu.Unlock()
	sc.whole = sc.s.index.NewMarks()
	sc.packs, sc.known = maps.Clone(sc.s.packs), maps.Clone(sc.s.bad)
	return nil
}

func (sc *scrubber) end() {
	sc.s.mu.Lock()
	defer sc.s.mu.Unlock()
	sc.whole.Close()
}

// list compares the files that exist with those that should.
func (sc *scrubber) list(ctx context.Context) error {
	blobs, err := sc.s.cfg.Blobs.List(ctx, "")
	if err != nil {
		return err
	}
	there := map[uint32]bool{}
	for _, b := range blobs {
		_, n, isPack := parsePackName(b.Name)
		p, known := sc.packs[n]
		switch {
		case isPack && known:
			p.size = b.Size
			sc.packs[n], there[n] = p, true
			sc.now.Total += b.Size
		case isPack && sc.s.isNew(n), strings.HasPrefix(b.Name, recordPrefix), slices.Contains(ownFiles, b.Name), blob.IsProbe(b.Name):
		default:
			sc.report.Foreign = append(sc.report.Foreign, b.Name)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(sc.packs)) {
		if p := sc.packs[n]; !there[n] {
			sc.packGone(n, p)
		}
	}
	return nil
}

// ownFiles are the store's files apart from packs and records.
var ownFiles = []string{storeName, badName, ownerName, damageName, indexName, lockName, readersName, notesName}

// isNew reports whether a pack is being written, or was sealed after the scrub
// began.
func (s *contents) isNew(n uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, open := s.unsealed[n]
	_, sealed := s.packs[n]
	return open || sealed
}

func (sc *scrubber) readPacks(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(scrubAtOnce)
	for _, n := range slices.Sorted(maps.Keys(sc.packs)) {
		g.Go(func() error { return sc.pack(ctx, n, sc.packs[n]) })
	}
	return g.Wait()
}

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

// scrubAtOnce is how many packs are read at a time.
const scrubAtOnce = 4

// ScrubProgress is how far a scrub is.
type ScrubProgress struct {
	Bytes, Total int64 // of packs
	Faults       int   // found so far
}

// Scrub reads every byte of the store and says what is not as it was written,
// and what that costs. Objects found damaged count as missing from then on, so
// that the next backup that has them brings them again; those that can be read
// again count again. Damage to what is only a help (the index, the list of
// damaged objects, the store's own name) is put right at once. Progress, if it
// is not nil, is told by one goroutine at a time.
//
// The error says that the scrub could not be done to its end. What is wrong
// with the store is in the report, and so is that it could not be noted.
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
	// What a process finds missing that was overtaken, the new owner may have
	// moved or collected.
	if lost := u.objects.lease.stillOwner(ctx); errors.Is(lost, ErrNotOwner) {
		return &ScrubReport{}, lost
	}
	return sc.report, err
}

// scrubber is a scrub at work.
type scrubber struct {
	s       *objects
	upkeep  *Upkeep
	whole   *index.Marks // objects that are whole where the index says they are; used under the mutex of contents
	tell    func(ScrubProgress)
	packs   map[uint32]packInfo  // those to be read
	known   map[place]object.Key // what was found damaged before
	noted   damageFile           // what others had noted as damaged when the scrub began
	damages Damages              // what images lack

	mu     sync.Mutex // guards those below
	report *ScrubReport
	now    ScrubProgress
	lost   map[object.Key]int // objects that are gone, their names cut short -> fault
}

func (sc *scrubber) run(ctx context.Context) error {
	if err := sc.s.lease.settle(ctx); err != nil { // else packs come back that are to go
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
	// Who may have been overtaken writes nothing down.
	if err := sc.s.lease.stillOwner(ctx); errors.Is(err, ErrNotOwner) {
		return err
	} else if err != nil {
		sc.report.Unnoted = errors.Join(sc.report.Unnoted, err)
		return nil
	}
	sc.report.Unnoted = errors.Join(sc.report.Unnoted, sc.s.saveBad(ctx), sc.s.damage.noteScrubbed(ctx, sc.damages, sc.noted))
	_ = sc.s.saveIndex() // Close tries it again, and says why it cannot be
	return nil
}

// fault notes a fault and gives its number.
func (sc *scrubber) fault(f Fault) int {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.report.Faults = append(sc.report.Faults, f)
	sc.now.Faults++
	return len(sc.report.Faults) - 1
}

// storeFile looks whether this is still the store that was opened. Without
// that, nothing that is not found is taken for lost: a disk may be away.
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

// begin notes what there is. What comes later is not looked at.
func (sc *scrubber) begin(ctx context.Context) (err error) {
	if sc.noted, err = sc.s.damage.readDamage(ctx); err != nil {
		return err
	}
	sc.upkeep.voidPlan() // the index changes by what is found
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

// list compares what is there with what should be.
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

// ownFiles are those beside packs and records.
var ownFiles = []string{storeName, badName, ownerName, damageName, indexName, lockName, readersName, notesName}

// isNew reports whether a pack is being written, or was sealed meanwhile.
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

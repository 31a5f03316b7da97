package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/words"
)

// ErrOldPlan says that a plan of a collection can no longer be used.
var ErrOldPlan = errors.New("the plan is not the newest; make a new one")

// ErrBusy says that a collection, its planning, a scrub or a rebuild of the
// index is running. Only one of these may run at a time. A plan relies on what
// the index says, and a collection moves and removes packs. A scrub reads each
// pack that existed at its start, and changes the index by what it finds. A
// rebuild replaces the index.
var ErrBusy = errors.New("a scrub or a collection is running; try again later")

// Upkeep has the maintenance work of a store, such as figures, collection,
// scrub and a new index.
type Upkeep struct {
	objects   *objects
	catalogue *Catalogue

	upkeepMu sync.Mutex // held by a collection, a scrub or a rebuild; guards newest; locked before all others
	newest   *marker    // of the newest plan of a collection; nil if no plan can be used
}

// alone locks out all other upkeep until done is called, or returns ErrBusy.
func (u *Upkeep) alone() (done func(), err error) {
	if !u.upkeepMu.TryLock() {
		return nil, ErrBusy
	}
	return u.upkeepMu.Unlock, nil
}

// GCResult is what a collection did.
type GCResult struct {
	Removed int      // number of packs
	Written int      // number of packs
	Freed   int64    // bytes of the packs removed, minus those written
	Kept    []string // packs that were planned to go and stay, with the reason
}

func (r *GCResult) String() string {
	s := fmt.Sprintf("%s removed, %d written, %s freed\n", words.Count(r.Removed, "pack"), r.Written, image.SizeText(r.Freed))
	for _, k := range r.Kept {
		s += "kept " + k + "\n"
	}
	return s
}

// GC does what the newest plan says, except for what backups have come to rely
// on since. It can be stopped at any moment, by ctx or by killing the process.
// Objects that were copied by then are stored twice, and the next collection
// corrects that. The result is valid also if there is an error.
func (u *Upkeep) GC(ctx context.Context, plan *GCPlan) (*GCResult, error) {
	res := &GCResult{}
	if err := u.objects.writable(); err != nil {
		return res, err
	}
	done, err := u.alone()
	if err != nil {
		return res, err
	}
	defer done()
	if u.newest == nil || u.newest != plan.marks {
		return res, ErrOldPlan
	}
	release, err := u.objects.cfg.Exclusive()
	if err != nil {
		return res, err
	}
	defer release()
	defer u.voidPlan() // a plan can be used only once
	if err := u.objects.lease.settle(ctx); err != nil {
		return res, err
	}
	if _, err := plan.marks.records(ctx); err != nil {
		return res, err
	}
	c := &collector{s: u.objects, plan: plan, res: res}
	err = c.run(ctx)
	return res, errors.Join(err, u.objects.saveBad(ctx), u.objects.saveIndex())
}

// collector carries out a plan.
type collector struct {
	s    *objects
	plan *GCPlan
	res  *GCResult
	mover
}

// run handles trees before data, so that pages usually go before their chunks.
// Removals that need no space come first. A disk that is too full for one step
// does not prevent the next steps.
func (c *collector) run(ctx context.Context) (err error) {
	for _, of := range []packKind{trees, chunks} {
		if failed := c.remove(ctx, c.packs(of, GCRemove)); failed != nil {
			return errors.Join(err, failed)
		}
		failed := c.rewrite(ctx, c.packs(of, GCRewrite))
		err = errors.Join(err, failed)
		if failed != nil && !errors.Is(failed, syscall.ENOSPC) && !errors.Is(failed, syscall.EDQUOT) {
			return err
		}
	}
	return err
}

func (c *collector) packs(of packKind, a GCAction) (out []GCPack) {
	for _, p := range c.plan.Packs {
		if p.kind == of && p.Action == a {
			out = append(out, p)
		}
	}
	return out
}

// remove deletes packs in which nothing is needed. A pack stays if something in
// it has come to be needed.
func (c *collector) remove(ctx context.Context, packs []GCPack) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	gone := c.s.forget(packs, c.plan.marks)
	var names []string
	for _, p := range packs {
		if gone[p.number] {
			names = append(names, p.Name)
		} else {
			c.keep(p, "something in it came to be needed, or was found damaged, meanwhile")
		}
	}
	announced := c.s.lease.remove(ctx, names...)
	var errs []error
	var removed []string
	for _, p := range packs {
		if !gone[p.number] {
			continue
		}
		err := announced
		if err == nil {
			pace(ctx) // an error of it is one of Remove too
			err = c.s.cfg.Blobs.Remove(ctx, p.Name)
		}
		if err = c.removed(ctx, p, err); err != nil {
			errs = append(errs, err)
			c.s.lease.leave(p.Name)
			continue
		}
		removed = append(removed, p.Name)
	}
	c.s.lease.done(ctx, removed...)
	return errors.Join(errs...)
}

func (c *collector) keep(p GCPack, why string) {
	c.res.Kept = append(c.res.Kept, p.Name+": "+why)
}

// forget removes those of the packs from the index in which nothing is needed,
// and returns their numbers. From then on, no backup is told that their objects
// exist.
func (s *contents) forget(packs []GCPack, needed *marker) map[uint32]bool {
	if len(packs) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone, planned := map[uint32]bool{}, map[uint32]bool{}
	for _, p := range packs {
		gone[p.number], planned[p.number] = true, p.damaged
	}
	for it, marked := range needed.marks.All {
		if marked || it.Touched {
			delete(gone, it.Loc.Pack)
		}
	}
	for at, key := range s.bad { // found since the plan was made
		if _, healed := s.index.Get(key); !healed && !planned[at.pack] {
			delete(gone, at.pack)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	s.index.RemoveFunc(func(it index.Item) bool { return gone[it.Loc.Pack] })
	for n := range gone {
		delete(s.packs, n)
	}
	clear(s.complete)
	s.dirty = true
	return gone
}

// removed records the outcome of removing a pack that is no longer in the
// index.
func (c *collector) removed(ctx context.Context, p GCPack, err error) error {
	if err == nil {
		c.res.Removed++
		c.res.Freed += p.Size
		return nil
	}
	if _, sizeErr := c.s.cfg.Blobs.Size(ctx, p.Name); !errors.Is(sizeErr, fs.ErrNotExist) {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		c.s.packs[p.number] = packInfo{p.kind, p.Size, uint32(p.Objects)} // for the next collection to find
	}
	return fmt.Errorf("remove %s: %w", p.Name, err)
}

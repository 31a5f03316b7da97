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

// ErrOldPlan says that a plan of a collection is of no use any more.
var ErrOldPlan = errors.New("the plan is not the newest; make a new one")

// ErrBusy says that a collection, the plan of one, a scrub and the making of an
// index go on one after the other. A plan counts on what the index says, a
// collection moves and removes packs, a scrub reads each pack that was there at
// its start and changes the index by what it finds, and a new index replaces it.
var ErrBusy = errors.New("a scrub or a collection is running; try again later")

// Upkeep looks after a store: figures, collection, scrub, a new index.
type Upkeep struct {
	objects   *objects
	catalogue *Catalogue

	upkeepMu sync.Mutex // one collection, scrub or rebuild at a time; guards newest; taken before all others
	newest   *marker    // of the newest plan of a collection; nil: there is none that is good
}

// alone begins one of these.
func (u *Upkeep) alone() (done func(), err error) {
	if !u.upkeepMu.TryLock() {
		return nil, ErrBusy
	}
	return u.upkeepMu.Unlock, nil
}

// GCResult is what a collection did.
type GCResult struct {
	Removed int      // packs
	Written int      // packs
	Freed   int64    // bytes: of the packs removed, less those written
	Kept    []string // packs that were to go and did not, and why
}

func (r *GCResult) String() string {
	s := fmt.Sprintf("%s removed, %d written, %s freed\n", words.Count(r.Removed, "pack"), r.Written, image.SizeText(r.Freed))
	for _, k := range r.Kept {
		s += "kept " + k + "\n"
	}
	return s
}

// GC does what the newest plan says, less what backups have come to count on
// since it was made. It can be ended at any moment, by ctx or by force: what
// was copied by then is there twice, which the next collection puts right. The
// result counts what was done also if there is an error.
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
	defer u.voidPlan() // a plan is good for once
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

// collector does what a plan says.
type collector struct {
	s    *objects
	plan *GCPlan
	res  *GCResult
	mover
}

// run takes trees before data: so a page is gone before its chunks, as far as
// both go. What needs no space is done first, and a disk that is too full for
// one step does not hold up the next.
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

// remove deletes packs in which nothing is needed. One in which something is
// needed all the same stays.
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

// forget takes those of the packs out of the index of which nothing is needed.
// From then on nobody is told that their objects are there.
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

// removed notes how the removal of a pack went that the index does not know any
// more.
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

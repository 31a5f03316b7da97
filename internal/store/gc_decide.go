package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

const (
	// deadShare is the part of a pack, in percent, that may be unneeded before the
	// pack is rewritten. So at most three bytes are copied for each byte that is
	// freed.
	deadShare = 25
	// smallShare is the size, in percent of a full pack, below which a pack is
	// small. Each backup ends with packs that are not full.
	smallShare = 25
	// manySmall is the number of small packs of a kind from which on they are
	// merged.
	manySmall = 16
)

// PlanGC finds out what no record needs any more, and what a collection would
// do about it. It removes nothing.
func (u *Upkeep) PlanGC(ctx context.Context) (*GCPlan, error) {
	done, err := u.alone()
	if err != nil {
		return nil, err
	}
	defer done()
	return u.planGC(ctx)
}

func (u *Upkeep) planGC(ctx context.Context) (*GCPlan, error) {
	if err := u.objects.lease.settle(ctx); err != nil {
		return nil, err
	}
	m := u.newMarker()
	records, err := m.records(ctx)
	if err != nil {
		m.close()
		return nil, err
	}
	plan := &GCPlan{Records: len(records), Missing: slices.Sorted(maps.Keys(m.lacking)), marks: m}
	m.planPacks(plan)
	if err := m.planLive(ctx, plan); err != nil {
		m.close()
		return nil, err
	}
	decide(plan.Packs, u.objects.cfg.PackSize)
	plan.planDamaged()
	plan.planFresh(u.objects.cfg.Beside())
	u.newest = m
	return plan, nil
}

// planPacks lists the packs, each with the number of its objects that are
// needed.
func (m *marker) planPacks(plan *GCPlan) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	plan.Sessions = m.s.sessions
	live := map[uint32]int{}
	for it, marked := range m.marks.All {
		if marked || it.Touched {
			live[it.Loc.Pack]++
		}
	}
	damaged := map[uint32]bool{}
	for at := range m.s.bad {
		damaged[at.pack] = true
	}
	for n, p := range m.s.packs {
		plan.Packs = append(plan.Packs, GCPack{Name: packName(p.kind, n), Size: p.size, Objects: int(p.objects), LiveObjects: live[n],
			kind: p.kind, number: n, damaged: damaged[n]})
	}
	slices.SortFunc(plan.Packs, func(a, b GCPack) int {
		return cmp.Or(cmp.Compare(b.kind, a.kind), cmp.Compare(a.number, b.number))
	})
}

// planLive finds out how many bytes of each pack are needed. It also finds
// damaged packs, where that matters for the plan.
func (m *marker) planLive(ctx context.Context, plan *GCPlan) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i := range plan.Packs {
		p := &plan.Packs[i]
		switch {
		case p.LiveObjects > 0 && p.LiveObjects == p.Objects:
			p.Live = p.Size
		case p.LiveObjects > 0 || len(plan.Missing) > 0:
			g.Go(func() error { return m.planTable(ctx, p) })
		}
	}
	return g.Wait()
}

func (m *marker) planTable(ctx context.Context, p *GCPack) error {
	if err := pace(ctx); err != nil {
		return err
	}
	_, entries, err := pack.ReadTable(m.s.packReader(ctx, p.Name), p.Size)
	if errors.Is(err, object.ErrDamaged) {
		if p.damaged = true; p.LiveObjects > 0 {
			p.Live = p.Size
		}
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	for _, e := range m.live(p.number, entries) {
		p.Live += e.End() - int64(e.Off)
	}
	return nil
}

// live returns those entries of a pack that are needed, and to which the index
// points.
func (m *marker) live(n uint32, entries []pack.Entry) (out []pack.Entry) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	for _, e := range entries {
		if m.s.isAt(e.Key, place{n, e.Off}) && m.needs(e.Key) {
			out = append(out, e)
		}
	}
	return out
}

// isAt reports whether the index points to this place for an object. After a
// crash of a collection, the object can also be at another place. mu is held.
func (s *contents) isAt(k object.Key, at place) bool {
	l, ok := s.index.Get(k)
	return ok && l.Pack == at.pack && l.Off == at.off
}

// decide sets the action for each pack.
func decide(packs []GCPack, full int64) {
	small := map[packKind][]*GCPack{}
	for i := range packs {
		p := &packs[i]
		switch {
		case p.LiveObjects == 0:
			p.Action = GCRemove
		case (p.Size-p.Live)*100 > p.Size*deadShare:
			p.Action = GCRewrite
		case p.Size*100 < full*smallShare:
			small[p.kind] = append(small[p.kind], p)
		}
	}
	for _, of := range small {
		for _, p := range of {
			if len(of) >= manySmall {
				p.Action, p.Why = GCRewrite, "small"
			}
		}
	}
}

// planDamaged keeps damaged packs as long as images lack chunks, since
// undamaged copies of these may be in them. Otherwise damaged packs are
// rewritten.
func (p *GCPlan) planDamaged() {
	for i := range p.Packs {
		switch pk := &p.Packs[i]; {
		case !pk.damaged:
		case len(p.Missing) > 0:
			pk.Action, pk.Why = GCKeep, "it is damaged, and may have some of what images lack"
		case pk.Action == GCKeep:
			pk.Action, pk.Why = GCRewrite, "it is damaged, and all that is needed in it can be read"
		}
	}
}

// planFresh keeps the packs that another process has written since it began,
// because the record that needs them is written last. Such a plan is for
// display only, since the other process has the lock.
func (p *GCPlan) planFresh(who string, first uint32, writes bool) {
	if !writes {
		return
	}
	p.Beside = who
	if p.Beside == "" {
		p.Beside = "it does not say which"
	}
	for i := range p.Packs {
		if pk := &p.Packs[i]; first > 0 && pk.number >= first {
			p.Fresh, p.FreshLen = p.Fresh+1, p.FreshLen+pk.Size
			pk.Action = GCKeep
		}
	}
}

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
	// deadShare is the part of a pack that may be dead before it is rewritten,
	// in percent: to gain a byte then costs three to be copied, at the most.
	deadShare = 25
	// smallShare is the part of a full pack below which one is small, in
	// percent. Each backup ends with packs that are not full.
	smallShare = 25
	// manySmall is how many small packs of a sort are made one.
	manySmall = 16
)

// PlanGC finds out what no record needs any more, and what to do about it. It
// changes nothing.
func (s *Store) PlanGC(ctx context.Context) (*GCPlan, error) {
	done, err := s.alone()
	if err != nil {
		return nil, err
	}
	defer done()
	return s.planGC(ctx)
}

func (s *Store) planGC(ctx context.Context) (*GCPlan, error) {
	if err := s.lease.settle(ctx); err != nil {
		return nil, err
	}
	m := s.newMarker()
	records, err := m.records(ctx)
	if err != nil {
		m.close()
		return nil, err
	}
	plan := &GCPlan{Records: len(records), Missing: slices.Sorted(maps.Keys(m.lacking)), marks: m}
	s.planPacks(plan)
	if err := s.planLive(ctx, plan); err != nil {
		m.close()
		return nil, err
	}
	decide(plan.Packs, s.cfg.PackSize)
	s.planDamaged(plan)
	s.planFresh(plan)
	s.newest = m
	return plan, nil
}

// planPacks lists the packs with how many objects of each are needed.
func (s *Store) planPacks(plan *GCPlan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	plan.Sessions = s.sessions
	live := map[uint32]int{}
	for it, marked := range plan.marks.marks.All {
		if marked || it.Touched {
			live[it.Loc.Pack]++
		}
	}
	damaged := map[uint32]bool{}
	for at := range s.bad {
		damaged[at.pack] = true
	}
	for n, p := range s.packs {
		plan.Packs = append(plan.Packs, GCPack{Name: packName(p.sort, n), Size: p.size, Objects: int(p.objects), LiveObjects: live[n],
			sort: p.sort, number: n, damaged: damaged[n]})
	}
	slices.SortFunc(plan.Packs, func(a, b GCPack) int {
		return cmp.Or(cmp.Compare(b.sort, a.sort), cmp.Compare(a.number, b.number))
	})
}

// planLive finds out how many bytes of each pack are needed, and which packs
// are damaged where that counts.
func (s *Store) planLive(ctx context.Context, plan *GCPlan) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i := range plan.Packs {
		p := &plan.Packs[i]
		switch {
		case p.LiveObjects > 0 && p.LiveObjects == p.Objects:
			p.Live = p.Size
		case p.LiveObjects > 0 || len(plan.Missing) > 0:
			g.Go(func() error { return s.planTable(ctx, p, plan.marks) })
		}
	}
	return g.Wait()
}

func (s *Store) planTable(ctx context.Context, p *GCPack, needed *marker) error {
	_, entries, err := pack.ReadTable(s.packReader(ctx, p.Name), p.Size)
	if errors.Is(err, object.ErrDamaged) {
		if p.damaged = true; p.LiveObjects > 0 {
			p.Live = p.Size
		}
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	for _, e := range needed.live(p.number, entries) {
		p.Live += e.End() - int64(e.Off)
	}
	return nil
}

// live gives those entries of a pack that are needed and are nowhere else.
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

// isAt reports whether an object is where the index says it is: after a crash
// of a collection there can be two of it. mu is held.
func (s *Store) isAt(k object.Key, at place) bool {
	l, ok := s.index.Get(k)
	return ok && l.Pack == at.pack && l.Off == at.off
}

// decide says what to do with each pack.
func decide(packs []GCPack, full int64) {
	small := map[sort][]*GCPack{}
	for i := range packs {
		p := &packs[i]
		switch {
		case p.LiveObjects == 0:
			p.Action = GCRemove
		case (p.Size-p.Live)*100 > p.Size*deadShare:
			p.Action = GCRewrite
		case p.Size*100 < full*smallShare:
			small[p.sort] = append(small[p.sort], p)
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

// planDamaged keeps damaged packs as long as images lack something: it may be
// in one of them, and some of it may be right. Else they are rewritten.
func (s *Store) planDamaged(plan *GCPlan) {
	for i := range plan.Packs {
		switch p := &plan.Packs[i]; {
		case !p.damaged:
		case len(plan.Missing) > 0:
			p.Action, p.Why = GCKeep, "it is damaged, and may have some of what images lack"
		case p.Action == GCKeep:
			p.Action, p.Why = GCRewrite, "it is damaged, and all that is needed in it can be read"
		}
	}
}

// planFresh keeps the packs that another process has written since it began:
// the record that needs them comes last. Such a plan is only looked at, as
// another process has the store.
func (s *Store) planFresh(plan *GCPlan) {
	who, first, writes := s.cfg.Beside()
	if !writes {
		return
	}
	plan.Beside = who
	if plan.Beside == "" {
		plan.Beside = "it does not say which"
	}
	for i := range plan.Packs {
		if p := &plan.Packs[i]; first > 0 && p.number >= first {
			plan.Fresh, plan.FreshLen = plan.Fresh+1, plan.FreshLen+p.Size
			p.Action = GCKeep
		}
	}
}

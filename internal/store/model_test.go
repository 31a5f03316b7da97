package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

// model drives a store through a life: backups beside each other, deletions,
// collections, power cuts. The ledger is what must be true.
type model struct {
	fsys     *faults.Kth
	s        *Store
	ledger   *ledger
	records  []*image.Record // those that are there
	sessions []*modelSession
	restores []*restore
	plan     *GCPlan
	day      int
}

// modelSession is a backup in progress.
type modelSession struct {
	*Session
	record *image.Record
	todo   []func(context.Context, chunk.Session) error // objects in the order of a backup
}

// ids are those of chunks: few, so that disks share many.
var modelSeed = rapid.Uint64Range(1, 12)

func (m *model) open(t *rapid.T) {
	s, err := onVolatile(m.fsys, "/store")
	if err != nil {
		t.Fatal(err)
	}
	m.s, m.sessions, m.restores, m.plan = s, nil, nil, nil
}

// begin starts a backup of one or two disks.
func (m *model) begin(t *rapid.T) {
	if len(m.sessions) == 3 {
		t.Skip()
	}
	var disks []fakeDisk
	for range rapid.IntRange(1, 2).Draw(t, "disks") {
		regions := rapid.SliceOfN(rapid.SliceOfN(modelSeed, 0, 5), 1, 3).Draw(t, "regions")
		disks = append(disks, m.ledger.know(newDisk(regions...)))
	}
	m.day++
	box := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2"}).Draw(t, "box")
	ms := &modelSession{Session: m.s.Begin(), record: recordOf(box, day(m.day), disks...)}
	for _, d := range disks {
		ms.todo = append(ms.todo, d.steps()...)
	}
	m.sessions = append(m.sessions, ms)
}

// session picks a backup in progress.
func (m *model) session(t *rapid.T) *modelSession {
	if len(m.sessions) == 0 {
		t.Skip()
	}
	return rapid.SampledFrom(m.sessions).Draw(t, "session")
}

// advance does some of a backup, and commits it at its end.
func (m *model) advance(t *rapid.T) {
	ms := m.session(t)
	for range rapid.IntRange(1, 12).Draw(t, "objects") {
		if len(ms.todo) == 0 {
			m.commit(t, ms)
			return
		}
		if err := ms.todo[0](t.Context(), ms); err != nil {
			t.Fatal(err)
		}
		ms.todo = ms.todo[1:]
	}
}

func (m *model) commit(t *rapid.T, ms *modelSession) {
	err := ms.Commit(t.Context(), ms.record)
	if err != nil {
		t.Fatal(err)
	}
	m.ledger.committed(ms.record, nil)
	m.records = append(m.records, ms.record)
	m.end(ms)
}

func (m *model) end(ms *modelSession) {
	ms.Close()
	m.sessions = slices.DeleteFunc(m.sessions, func(o *modelSession) bool { return o == ms })
}

func (m *model) giveUp(t *rapid.T) { m.end(m.session(t)) }

func (m *model) delete(t *rapid.T) {
	if len(m.records) == 0 {
		t.Skip()
	}
	r := rapid.SampledFrom(m.records).Draw(t, "record")
	err := m.s.Delete(t.Context(), r)
	if m.isRead(r) {
		if !errors.Is(err, ErrHeld) {
			t.Fatalf("deleted under a restore: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.ledger.deleted(r, nil)
	m.records = slices.DeleteFunc(m.records, func(o *image.Record) bool { return o == r })
}

// isRead reports whether one of a backup's images is being restored, or an equal
// one.
func (m *model) isRead(r *image.Record) bool {
	return slices.ContainsFunc(m.restores, func(o *restore) bool {
		return slices.ContainsFunc(r.Disks, func(d image.RecordedDisk) bool { return d.Root == o.im.Name })
	})
}

func (m *model) beginRestore(t *rapid.T) {
	if len(m.records) == 0 || len(m.restores) == 2 {
		t.Skip()
	}
	r := rapid.SampledFrom(m.records).Draw(t, "record")
	root := r.Disks[0].Root
	m.restores = append(m.restores, beginRestore(t, m.s, r, m.ledger.disks[root]))
}

// restoreOn reads some chunks, and ends a restore at its end.
func (m *model) restoreOn(t *rapid.T) {
	if len(m.restores) == 0 {
		t.Skip()
	}
	o := rapid.SampledFrom(m.restores).Draw(t, "restore")
	o.t = t
	if o.goOn(rapid.IntRange(1, 6).Draw(t, "chunks")) {
		o.end()
		m.restores = slices.DeleteFunc(m.restores, func(x *restore) bool { return x == o })
	}
}

func (m *model) mark(t *rapid.T) {
	if len(m.records) == 0 {
		t.Skip()
	}
	r := rapid.SampledFrom(m.records).Draw(t, "record")
	if err := m.s.SetBaseline(t.Context(), r.Box, r.ID, rapid.Bool().Draw(t, "baseline")); err != nil {
		t.Fatal(err)
	}
}

func (m *model) makePlan(t *rapid.T) {
	plan, err := m.s.PlanGC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.plan = plan
}

// collect uses a plan that may have been made some steps before.
func (m *model) collect(t *rapid.T) {
	if m.plan == nil {
		m.makePlan(t)
	}
	_, err := m.s.GC(t.Context(), m.plan)
	if m.plan = nil; err != nil && !errors.Is(err, ErrOldPlan) {
		t.Fatal(err)
	}
}

func (m *model) rebuild(t *rapid.T) {
	if err := m.s.RebuildIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (m *model) scrub(t *rapid.T) {
	report, err := m.s.Scrub(t.Context(), nil)
	if err != nil || len(report.Faults) > 0 || len(report.Foreign) > 0 {
		t.Fatalf("%v, %v", report, err)
	}
}

func (m *model) reopen(t *rapid.T) {
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
}

// powerCut cuts the power between two steps, or within a collection.
func (m *model) powerCut(t *rapid.T) {
	if rapid.Bool().Draw(t, "in a collection") {
		m.fsys.Manner = faults.Dies
		m.fsys.K = m.fsys.Count() + rapid.IntRange(1, 60).Draw(t, "step")
		if plan, err := m.s.PlanGC(t.Context()); err == nil {
			m.s.GC(t.Context(), plan)
		}
	}
	keep := rapid.Bool()
	m.fsys = &faults.Kth{FS: m.fsys.FS.(*faults.Volatile).Crash(func() bool { return keep.Draw(t, "keep") })}
	m.open(t)
}

func (m *model) check(t *rapid.T) {
	if err := m.ledger.verify(m.s); err != nil {
		t.Fatal(err)
	}
	if err := m.s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestModel: whatever is done in whatever order, what was committed and not
// deleted restores byte by byte, and nothing else is there.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{fsys: &faults.Kth{FS: faults.NewVolatile()}, ledger: newLedger()}
		m.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"begin": m.begin, "advance": m.advance, "advance ": m.advance, "advance  ": m.advance, "give up": m.giveUp,
			"delete": m.delete, "mark": m.mark, "restore": m.beginRestore, "restore on": m.restoreOn,
			"plan": m.makePlan, "collect": m.collect, "rebuild": m.rebuild, "scrub": m.scrub,
			"reopen": m.reopen, "power cut": m.powerCut, "": m.check,
		})
	})
}

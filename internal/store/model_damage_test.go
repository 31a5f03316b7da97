package store

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

// damagedModel is a model whose packs are damaged now and then. A backup that
// was there when that happened may be lost, which is said. One that is
// committed after a scrub has found the damage restores, whatever becomes of
// the process in between. Never is a restore wrong without an error.
type damagedModel struct {
	model
	hurt    map[*image.Record]bool // those that may be lost
	damaged bool                   // there was damage at all
	unknown bool                   // there is damage that no scrub has seen
	epoch   int                    // counts damage and scrubs
	began   map[*modelSession]int  // -> epoch
}

const modelPacks = "/store/" + packPrefix

// damage spoils a byte of a pack, or cuts the pack, or removes it.
func (m *damagedModel) damage(t *rapid.T) {
	names, err := m.fsys.ReadDir(modelPacks)
	names = slices.DeleteFunc(names, durable.IsTemp)
	if err != nil || len(names) == 0 {
		t.Skip()
	}
	slices.Sort(names)
	path := modelPacks + rapid.SampledFrom(names).Draw(t, "pack")
	text, err := durable.ReadFile(m.fsys, path, 1<<20)
	if err != nil || len(text) == 0 {
		t.Skip()
	}
	at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
	switch rapid.IntRange(0, 4).Draw(t, "how") {
	case 0:
		err = durable.Remove(m.fsys, path)
	case 1:
		err = durable.WriteFile(m.fsys, path, text[:at], 0o600)
	default:
		text[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		err = durable.WriteFile(m.fsys, path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.records {
		m.hurt[r] = true
	}
	m.damaged, m.unknown = true, true
	m.epoch++
}

func (m *damagedModel) begin(t *rapid.T) {
	m.model.begin(t)
	m.began[m.sessions[len(m.sessions)-1]] = m.epoch
}

// advance does some of a backup. What it counted on may have been damaged since
// it began.
func (m *damagedModel) advance(t *rapid.T) {
	ms := m.session(t)
	for range rapid.IntRange(1, 12).Draw(t, "objects") {
		step := func() error { return m.commit(t, ms) }
		if len(ms.todo) > 0 {
			step = func() error { return ms.todo[0](t.Context(), ms) }
		}
		if err := step(); err != nil {
			if !m.unknown && m.began[ms] == m.epoch {
				t.Fatalf("a backup that was begun after the scrub: %v", err)
			}
			m.end(ms)
			return
		}
		if len(ms.todo) == 0 {
			return
		}
		ms.todo = ms.todo[1:]
	}
}

func (m *damagedModel) commit(t *rapid.T, ms *modelSession) error {
	if err := ms.Commit(t.Context(), ms.record); err != nil {
		return err
	}
	m.ledger.committed(ms.record, nil)
	m.records = append(m.records, ms.record)
	m.hurt[ms.record] = m.unknown
	m.end(ms)
	return nil
}

// kill ends the process, which writes nothing more, and starts another.
func (m *damagedModel) kill(t *rapid.T) {
	m.s.objects.packMu.Lock()
	for _, p := range m.s.objects.sealing { // else it would go on beside the new one
		<-p.sealed
	}
	m.s.objects.packMu.Unlock()
	m.open(t)
}

// collect may refuse to, once something was damaged.
func (m *damagedModel) collect(t *rapid.T) {
	plan, err := m.s.PlanGC(t.Context())
	if err == nil {
		_, err = m.s.GC(t.Context(), plan)
	}
	if err != nil && !m.damaged {
		t.Fatal(err)
	}
}

func (m *damagedModel) scrub(t *rapid.T) {
	report, err := m.s.Scrub(t.Context(), nil)
	if err != nil || len(report.Faults) > 0 && !m.damaged {
		t.Fatalf("%v, %v", report, err)
	}
	if m.unknown {
		m.epoch++
	}
	m.unknown = false
}

// check restores everything, in this process or in one that only looks: this
// one comes to know of damage by what it reads.
func (m *damagedModel) check(t *rapid.T) {
	s := m.s
	if rapid.Bool().Draw(t, "look from elsewhere") {
		blobs, err := dir.New(m.fsys, "/store")
		if err == nil {
			s, err = Open(t.Context(), Config{Blobs: blobs, State: m.fsys, Dir: "/store", PackSize: tiny, ReadOnly: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range m.records {
		if err := m.restored(t, s, r); err != nil && (errors.Is(err, errWrong) || !m.hurt[r]) {
			t.Fatalf("%s %s, hurt %v: %v", r.Box, r.ID, m.hurt[r], err)
		}
	}
}

func (m *damagedModel) restored(t *rapid.T, s *Store, r *image.Record) error {
	for _, d := range r.Disks {
		root := d.Root
		if err := m.ledger.disks[root].restored(t.Context(), s, root); err != nil {
			return err
		}
	}
	return nil
}

// TestModelOfDamage: a backup that is committed after a scrub has found all
// damage restores, after whatever else is done in whatever order.
func TestModelOfDamage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &damagedModel{model: model{fsys: &faults.Kth{FS: faults.NewVolatile()}, ledger: newLedger()},
			hurt: map[*image.Record]bool{}, began: map[*modelSession]int{}}
		m.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"begin": m.begin, "advance": m.advance, "advance ": m.advance, "advance  ": m.advance, "give up": m.giveUp,
			"delete": m.delete, "mark": m.mark, "collect": m.collect, "rebuild": m.rebuild, "scrub": m.scrub, "scrub ": m.scrub,
			"reopen": m.reopen, "kill": m.kill, "power cut": m.powerCut, "damage": m.damage, "": m.check,
		})
	})
}

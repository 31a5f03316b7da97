package lvm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"testbox-imaging/internal/image"
)

// A random group agrees with a model of one owner for each extent: who has
// which, at which address, what is free; and one extent with two owners, or
// one that is not there, is doubt.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(rapid.Uint64().Draw(t, "seed"))
		for len(m.lvs) < 5 {
			m.add()
		}
		wrong := m.rnd.IntN(3) == 0 && m.spoil()
		d := newDisk(64*mib, vgText(m.text()...)).build()
		pv, err := d.read()
		if wrong {
			if err == nil || pv.Free != nil {
				t.Fatalf("no doubt of\n%s", m.text())
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, pv)
	})
}

type model struct {
	rnd   *rand.Rand
	left  []int // extents without an owner, in any order
	lvs   []modelLV
	owner [50]string
}

type modelLV struct {
	plain bool
	segs  [][]int // the extents of each
}

func newModel(seed uint64) *model {
	m := &model{rnd: rand.New(rand.NewPCG(seed, 1))}
	m.left = m.rnd.Perm(50)
	return m
}

// add adds a volume of a few segments, each of one to three extents in a row
// where there are so many. Half of the volumes have stripes.
func (m *model) add() {
	lv := modelLV{plain: m.rnd.IntN(2) == 0}
	for range 1 + m.rnd.IntN(4) {
		first := m.left[0]
		var pes []int
		for pe := first; pe < first+1+m.rnd.IntN(3); pe++ {
			if i := slices.Index(m.left, pe); i >= 0 {
				m.left = slices.Delete(m.left, i, i+1)
				pes = append(pes, pe)
			} else {
				break
			}
		}
		for _, pe := range pes {
			m.owner[pe] = fmt.Sprint("lv", len(m.lvs))
		}
		lv.segs = append(lv.segs, pes)
	}
	m.lvs = append(m.lvs, lv)
}

// spoil moves a segment onto another one, or beyond the last extent.
func (m *model) spoil() bool {
	from := m.lvs[m.rnd.IntN(len(m.lvs))].segs
	to := m.lvs[m.rnd.IntN(len(m.lvs))].segs
	i, j := m.rnd.IntN(len(from)), m.rnd.IntN(len(to))
	first := 50 - m.rnd.IntN(len(from[i]))
	if m.rnd.IntN(2) == 0 && &from[i] != &to[j] {
		first = to[j][len(to[j])-1]
	}
	for k := range from[i] {
		from[i][k] = first + k
	}
	return true
}

func (m *model) text() (lvs []string) {
	for i, lv := range m.lvs {
		var segs []string
		at := 0
		for _, pes := range lv.segs {
			seg := lin(at, len(pes), pes[0])
			if !lv.plain { // as many stripes as extents
				var areas []string
				for _, pe := range pes {
					areas = append(areas, fmt.Sprintf("\"pv0\", %d", pe))
				}
				seg = fmt.Sprintf("start_extent = %d\nextent_count = %d\ntype = \"striped\"\nstripe_count = %d\nstripe_size = 128\nstripes = [%s]",
					at, len(pes), len(pes), strings.Join(areas, ", "))
			}
			segs = append(segs, seg)
			at += len(pes)
		}
		m.rnd.Shuffle(len(segs), func(i, j int) { segs[i], segs[j] = segs[j], segs[i] })
		lvs = append(lvs, lvText(fmt.Sprint("lv", i), visible, segs...))
	}
	return lvs
}

func (m *model) check(t *rapid.T, pv *PV) {
	var got [50]string
	claim := func(r image.Range, who string) {
		for pe := (r.Off - mib) / mib; pe < (r.End()-mib)/mib; pe++ {
			if got[pe] != "" {
				t.Fatalf("extent %d is of %s and %s", pe, got[pe], who)
			}
			got[pe] = who
		}
	}
	for i, lv := range pv.LVs {
		for _, r := range lv.Extents {
			claim(r, lv.Name)
		}
		single := true
		for _, pes := range m.lvs[i].segs {
			single = single && len(pes) == 1
		}
		if (lv.Why == "") != (m.lvs[i].plain || single) {
			t.Fatalf("%s: %q", lv.Name, lv.Why)
		}
		m.places(t, lv, slices.Concat(m.lvs[i].segs...))
	}
	if got != m.owner {
		t.Fatalf("owners are %q, not %q", got, m.owner)
	}
	for _, r := range pv.Free.Ranges() {
		claim(r, "nobody")
	}
	if slices.Contains(got[:], "") {
		t.Fatalf("owners are %q", got)
	}
}

// places checks where a random piece of a volume of these extents lies.
func (m *model) places(t *rapid.T, lv LV, pes []int) {
	size := int64(len(pes)) * mib
	if lv.Size != size {
		t.Fatalf("%s has %d bytes, not %d", lv.Name, lv.Size, size)
	}
	if lv.Why != "" {
		return
	}
	off := m.rnd.Int64N(size)
	n := min(1+m.rnd.Int64N(8*mib), size-off)
	for _, r := range lv.Place(off, n) {
		for r.Len > 0 {
			if want := int64(pes[off/mib]+1)*mib + off%mib; r.Off != want {
				t.Fatalf("byte %d of %s is at %d, not at %d", off, lv.Name, r.Off, want)
			}
			step := min(r.Len, mib-off%mib)
			r.Off, r.Len, off, n = r.Off+step, r.Len-step, off+step, n-step
		}
	}
	if n != 0 {
		t.Fatalf("%d bytes have no place", n)
	}
}

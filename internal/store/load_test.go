package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// lives is a store whose blobs and index can be changed between two lives.
type lives struct {
	blobs *mem.Store
	state *faults.Volatile
	said  []string
	disk  fakeDisk
	r     *image.Record
}

const indexPath = stateDir + indexName

// newLives makes a store with a backup, and closes it.
func newLives(t testing.TB) *lives {
	t.Helper()
	l := &lives{blobs: &mem.Store{}, state: faults.NewVolatile(), disk: newDisk(mixed(seeds(1, 40), seeds(60, 40)))}
	must(t, Init(t.Context(), l.blobs))
	s := l.open(t)
	l.r = mustBackup(t, s, "x", day(1), l.disk)
	must(t, s.Close())
	return l
}

func (l *lives) open(t testing.TB) *Store {
	t.Helper()
	l.said = nil
	return openStore(t, Config{Blobs: l.blobs, State: l.state, Dir: stateDir,
		Log: func(f string, a ...any) { l.said = append(l.said, fmt.Sprintf(f, a...)) }})
}

func (l *lives) index(t testing.TB) []byte {
	t.Helper()
	b, err := durable.ReadFile(l.state, indexPath, 1<<20)
	must(t, err)
	return b
}

func (l *lives) setIndex(t testing.TB, b []byte) {
	t.Helper()
	must(t, durable.WriteFile(l.state, indexPath, b, 0o600))
}

// TestIndexIsACache: whatever becomes of the index, the store is what it was,
// says what it found, and has a good index again after the next Close.
func TestIndexIsACache(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(testing.TB, *lives)
		says   string
	}{
		"as it was": {func(testing.TB, *lives) {}, ""},
		"gone":      {func(t testing.TB, l *lives) { must(t, l.state.Remove(indexPath)) }, ""},
		"empty":     {func(t testing.TB, l *lives) { l.setIndex(t, nil) }, "made anew"},
		"cut":       {func(t testing.TB, l *lives) { b := l.index(t); l.setIndex(t, b[:len(b)-1]) }, "made anew"},
		"longer":    {func(t testing.TB, l *lives) { l.setIndex(t, append(l.index(t), 0)) }, "made anew"},
		"flipped":   {func(t testing.TB, l *lives) { b := l.index(t); b[len(b)/2] ^= 1; l.setIndex(t, b) }, "made anew"},
		"another's": {func(t testing.TB, l *lives) { l.setIndex(t, newLives(t).index(t)) }, "another store"},
		"older": {func(t testing.TB, l *lives) {
			old := l.index(t)
			s := l.open(t)
			mustBackup(t, s, "y", day(2), newDisk(seeds(100, 20)))
			must(t, s.Close())
			l.setIndex(t, old)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLives(t)
			tt.change(t, l)
			s := l.open(t)
			if said := strings.Join(l.said, "\n"); !strings.Contains(said, tt.says) || tt.says == "" && said != "" {
				t.Errorf("it says %q, not %q", said, tt.says)
			}
			mustRestore(t, s, l.r, l.disk)
			must(t, s.Check(t.Context()))
			must(t, s.Close())
			s = l.open(t)
			if len(l.said) > 0 || s.objects.dirty {
				t.Errorf("then it says %q", l.said)
			}
			mustRestore(t, s, l.r, l.disk)
		})
	}
}

// TestDamagedPacks: packs that are gone, cut or spoilt are told of when the
// store is opened; what is whole in them is used, the rest is missing, and the
// next backup heals it.
func TestDamagedPacks(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(text []byte) []byte // nil: the pack goes
		missing func(objects int) (least, most int)
	}{
		"gone":             {nil, func(n int) (int, int) { return n, n }},
		"empty":            {func(b []byte) []byte { return nil }, func(n int) (int, int) { return n, n }},
		"without a table":  {func(b []byte) []byte { return b[:len(b)-100] }, func(int) (int, int) { return 0, 0 }},
		"cut in the midst": {func(b []byte) []byte { return b[:len(b)/2] }, func(n int) (int, int) { return n / 3, n - n/3 }},
		"spoilt head":      {func(b []byte) []byte { b[3] ^= 1; return b }, func(int) (int, int) { return 0, 0 }},
		"a hole": {func(b []byte) []byte { clear(b[len(b)/2-3000 : len(b)/2]); return b[:len(b)-100] },
			func(int) (int, int) { return 1, 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLives(t)
			pack := packsOf(t, l.blobs, chunks)[1]
			objects := l.spoil(t, pack, tt.change)
			s := l.open(t)
			if len(l.said) == 0 {
				t.Error("nothing is said of it")
			}
			missing := missingOf(t, s, l.disk)
			if least, most := tt.missing(objects); missing < least || missing > most {
				t.Errorf("%d of %d objects are missing", missing, objects)
			}
			root := l.r.Disks[0].Root
			if err := l.disk.restored(t.Context(), s, root); (missing > 0) != errors.Is(err, chunk.ErrMissing) {
				t.Errorf("%d objects are missing, and a restore says %v", missing, err)
			}
			r := mustBackup(t, s, "x", day(2), l.disk)
			for _, s := range []*Store{s, l.open(t)} {
				mustRestore(t, s, r, l.disk)
				mustRestore(t, s, l.r, l.disk)
			}
		})
	}
}

// spoil changes a pack, and says how many objects were in it.
func (l *lives) spoil(t testing.TB, name string, change func([]byte) []byte) (objects int) {
	t.Helper()
	_, n, _ := parsePackName(name)
	s := l.open(t)
	objects = int(s.objects.packs[n].objects)
	text, err := blob.ReadAll(t.Context(), l.blobs, name, 1<<30)
	must(t, err)
	if change == nil {
		must(t, l.blobs.Remove(t.Context(), name))
		return objects
	}
	must(t, blob.WriteAll(t.Context(), l.blobs, name, change(append([]byte(nil), text...))))
	must(t, l.state.Remove(indexPath)) // it would not look at one that has its length
	return objects
}

// missingOf is how many chunks of a disk are not there.
func missingOf(t testing.TB, s *Store, d fakeDisk) int {
	t.Helper()
	var keys []object.Key
	for _, seed := range d.cells {
		keys = append(keys, object.Key{Kind: object.Chunk, Name: object.NameOf(cell(seed))})
	}
	session := s.Begin()
	defer session.Close()
	missing, err := session.Missing(t.Context(), keys)
	must(t, err)
	return len(missing)
}

// TestPacksOfOthers: a pack that came from elsewhere is left alone, and never
// counted on.
func TestPacksOfOthers(t *testing.T) {
	l := newLives(t)
	other := newLives(t)
	mustBackup(t, other.open(t), "y", day(1), newDisk(seeds(200, 30)))
	list, err := other.blobs.List(t.Context(), packPrefix)
	must(t, err)
	text, err := blob.ReadAll(t.Context(), other.blobs, list[len(list)-1].Name, 1<<30)
	must(t, err)
	for _, name := range []string{packName(chunks, 0x500), packPrefix + "notes", packPrefix + "data-5", packPrefix + "tree-ffffffff"} {
		must(t, blob.WriteAll(t.Context(), l.blobs, name, text))
	}
	s := l.open(t)
	if len(l.said) != 4 {
		t.Errorf("it says %q", l.said)
	}
	if n := missingOf(t, s, newDisk(seeds(200, 30))); n != 30 {
		t.Errorf("%d objects are missing", n)
	}
	mustRestore(t, s, l.r, l.disk)
	must(t, s.Check(t.Context()))
	if s.objects.next != 0x501 {
		t.Errorf("the next pack is %x: it would take another's name", s.objects.next)
	}
	must(t, blob.WriteAll(t.Context(), l.blobs, packName(trees, 0x500), text))
	if _, err := Open(t.Context(), Config{Blobs: l.blobs}); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("two packs have one number: %v", err)
	}
}

// TestIndexIsSavedMeanwhile: a process that lives for long leaves an index that
// is not much older than it, though it is killed.
func TestIndexIsSavedMeanwhile(t *testing.T) {
	l := newLives(t)
	s, err := Open(t.Context(), Config{Blobs: l.blobs, State: l.state, Dir: stateDir, PackSize: 1})
	must(t, err)
	before := len(l.index(t))
	mustBackup(t, s, "y", day(2), newDisk(seeds(10_000, saveEvery/2), nil))
	if len(l.index(t)) != before {
		t.Errorf("the index was written after %d packs", s.objects.unsaved)
	}
	d := newDisk(seeds(20_000, saveEvery), nil)
	r := mustBackup(t, s, "y", day(3), d)
	if now := len(l.index(t)); now < before+24*saveEvery || s.objects.unsaved > saveEvery {
		t.Errorf("the index was not written: %d bytes, %d packs are not in it", now, s.objects.unsaved)
	}
	s = l.open(t) // the first was killed
	if len(l.said) > 0 {
		t.Errorf("it says %q", l.said)
	}
	mustRestore(t, s, r, d)
	must(t, s.Check(context.Background()))
}

// FuzzBad: whatever is in the list of damaged objects, the store opens, and
// only those objects are missing that it names.
func FuzzBad(f *testing.F) {
	f.Add([]byte(`[{"pack":1,"off":40,"kind":"chunk","name":"` + strings.Repeat("ab", 32) + `"},{"pack":2,"off":0,"kind":"pack"}]`))
	f.Add([]byte(`[{"pack":4294967295,"off":1,"kind":"page"}]`))
	f.Add([]byte(`{}`))
	l := newLives(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		blobs := l.blobs.Clone()
		must(t, blob.WriteAll(t.Context(), blobs, badName, seal("bad", text)))
		s, err := Open(t.Context(), Config{Blobs: blobs})
		must(t, err)
		if missing := missingOf(t, s, l.disk); missing > len(s.objects.bad) {
			t.Errorf("%d objects are missing, %d are called damaged", missing, len(s.objects.bad))
		}
	})
}

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
)

// selected is what Select says of the latest backups, from the records themselves.
func selected(t *testing.T, s *Store, boxes []string) map[string]Backup {
	t.Helper()
	out := map[string]Backup{}
	for _, box := range boxes {
		records, damaged, err := s.RecordsOf(t.Context(), box)
		must(t, err)
		r, err := Select(records, damaged, Selector{Box: box, When: "latest"}, time.Now())
		var hidden *UnreadableError
		if errors.As(err, &hidden) {
			r = hidden.Instead
		}
		if r != nil {
			out[box] = Backup{r.ID, r.Time}
		}
	}
	return out
}

// TestLatest makes changes at random, and compares after each of them what is
// remembered with what the records say.
func TestLatest(t *testing.T) {
	boxes := []string{"10.0.0.1", "10.0.0.2", "web"}
	for seed := range uint64(20) {
		d := rand.New(rand.NewPCG(seed, 0))
		blobs := &mem.Store{}
		s := open(t, blobs)
		for n := range 40 {
			box := boxes[d.IntN(len(boxes))]
			records, damaged, err := s.RecordsOf(t.Context(), box)
			must(t, err)
			var did string
			switch what := d.IntN(8); {
			case what < 2 || len(records) == 0:
				did = "commit"
				commit(t, s, box, byte(n%25))
			case what == 2:
				did = "import"
				r := *records[0]
				r.Time = time.Now().AddDate(0, 0, d.IntN(40)-30) // some are dated in the future
				must(t, s.addRecord(t.Context(), &r))
			case what == 3:
				did = "delete"
				must(t, s.Delete(t.Context(), records[d.IntN(len(records))]))
			case what == 4:
				did = "date"
				_, err := s.SetTime(t.Context(), box, records[d.IntN(len(records))].ID, time.Now().AddDate(0, 0, d.IntN(40)-30))
				must(t, err)
			case what == 5:
				did = "pin"
				must(t, s.SetPinned(t.Context(), box, records[d.IntN(len(records))].ID, true))
			case what == 6 && len(damaged) == 0:
				did = "spoil"
				// A damaged record is found when something else of the box changes.
				id := records[d.IntN(len(records))].ID
				must(t, s.SetNote(t.Context(), box, id, "spoilt soon"))
				must(t, blob.WriteAll(t.Context(), blobs, recordName(box, id), []byte("spoilt")))
			case len(damaged) > 0:
				did = "give up"
				must(t, s.DeleteDamaged(t.Context(), damaged...))
			}
			got, err := s.Latest(t.Context(), append(boxes, "nobody", "../x"))
			must(t, err)
			if want := selected(t, s, boxes); !maps.EqualFunc(got, want, func(a, b Backup) bool { return a.ID == b.ID && a.Time.Equal(b.Time) }) {
				t.Fatalf("seed %d, after %d (%s): got %v, want %v", seed, n, did, got, want)
			}
		}
	}
}

// readsOf is a store of blobs that counts reads of records, and can hold one up.
type readsOf struct {
	blob.Store
	mu    sync.Mutex
	reads map[string]int // by box
	held  func()         // called before the next read, once
	lists []string       // prefixes of which the names were listed
}

func (b *readsOf) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	b.mu.Lock()
	b.lists = append(b.lists, prefix)
	b.mu.Unlock()
	return b.Store.List(ctx, prefix)
}

func (b *readsOf) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if rest, is := strings.CutPrefix(name, recordPrefix); is {
		box, _, _ := strings.Cut(rest, "/")
		b.mu.Lock()
		b.reads[box]++
		held := b.held
		b.held = nil
		b.mu.Unlock()
		if held != nil {
			defer held() // what was read is old by then
		}
	}
	return b.Store.ReadAt(ctx, name, p, off)
}

func (b *readsOf) count() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, of := range b.reads {
		n += of
	}
	return n
}

// TestLatestReads holds what a list of many boxes costs: nothing is read twice, nor
// what this process has committed itself.
func TestLatestReads(t *testing.T) {
	blobs := &readsOf{Store: &mem.Store{}, reads: map[string]int{}}
	s := open(t, blobs)
	var boxes []string
	for i := range 5 {
		boxes = append(boxes, fmt.Sprintf("10.0.0.%d", i))
		_, err := s.SetTime(t.Context(), boxes[i], commit(t, s, boxes[i], byte(i)).ID, time.Now().AddDate(0, 0, -1))
		must(t, err)
	}
	look := func(what string, want int) {
		t.Helper()
		before := blobs.count()
		got, err := s.Latest(t.Context(), boxes)
		must(t, err)
		if n := blobs.count() - before; n != want || len(got) != len(boxes) {
			t.Errorf("%s: %d records were read, not %d, for %d boxes", what, n, want, len(got))
		}
	}
	s = open(t, blobs)
	look("after a start", 5)
	look("again", 0)
	r := commit(t, s, boxes[2], 7)
	look("after a backup", 0)
	must(t, s.SetPinned(t.Context(), r.Box, r.ID, true))
	look("after a change", 2)
}

// TestLatestBesideDelete deletes a backup while another goroutine has just read its
// record. What that one learned is old, and must not be remembered.
func TestLatestBesideDelete(t *testing.T) {
	blobs := &readsOf{Store: &mem.Store{}, reads: map[string]int{}}
	s := open(t, blobs)
	first, second := commit(t, s, "10.0.0.1", 1), commit(t, s, "10.0.0.1", 2)
	s = open(t, blobs)
	blobs.held = func() {
		if err := s.Delete(t.Context(), second); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Latest(t.Context(), []string{"10.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Latest(t.Context(), []string{"10.0.0.1"})
	if err != nil || got["10.0.0.1"].ID != first.ID {
		t.Errorf("the latest backup is %v, %v, and %s is there", got, err, first.ID)
	}
}

// TestDeleteReadsOneBox deletes a backup of one of many boxes. The records of the
// others are not read, of which there can be tens of thousands.
func TestDeleteReadsOneBox(t *testing.T) {
	blobs := &readsOf{Store: &mem.Store{}, reads: map[string]int{}}
	s := open(t, blobs)
	commit(t, s, "10.0.0.1", 1)
	r := commit(t, s, "10.0.0.2", 2)
	commit(t, s, "10.0.0.2", 3)
	clear(blobs.reads)
	must(t, s.Delete(t.Context(), r))
	if blobs.reads["10.0.0.1"] > 0 || blobs.reads["10.0.0.2"] == 0 {
		t.Errorf("records were read: %v", blobs.reads)
	}
}

package ledgerside

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/ledger"
)

// Sizes of the store are kept for two weeks, and then the last one of each day for years.
func testStoreSizes(t *testing.T, l *ledger.Ledger) {
	start := time.Date(2020, 1, 1, 0, 30, 0, 0, time.UTC)
	const days = 40
	hours := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	size := func(n int) ledger.StoreSize {
		return ledger.StoreSize{Time: hours(n), Stored: int64(n), Data: 2 * int64(n), Room: 1 << 50, Free: 3, Backups: 4}
	}
	update(t, l, func(tx *ledger.Tx) error {
		for n := range days * 24 {
			if err := tx.AddStoreSize(size(n)); err != nil {
				return err
			}
		}
		return tx.AddStoreSize(size(days*24 - 1)) // replaces
	})
	list := func(since time.Time) (all []ledger.StoreSize) {
		view(t, l, func(tx *ledger.Tx) (err error) {
			all, err = tx.StoreSizes(since)
			return err
		})
		return all
	}
	all := list(time.Time{})
	var want []ledger.StoreSize
	end := hours(days*24 - 1)
	for n := range days * 24 {
		if end.Sub(hours(n)) <= ledger.StoreSizesAll || n%24 == 23 {
			want = append(want, size(n))
		}
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("%d sizes, wanted %d: %+v", len(all), len(want), all[:3])
	}
	if some := list(hours(days*24 - 2)); len(some) != 2 || some[1].Stored != days*24-1 {
		t.Errorf("the last two are %+v", some)
	}
	// A clock that was years ahead leaves nothing but what it has dropped.
	later := ledger.StoreSize{Time: start.Add(ledger.StoreSizesDaily + 35*24*time.Hour)}
	update(t, l, func(tx *ledger.Tx) error { return tx.AddStoreSize(later) })
	if all := list(time.Time{}); len(all) != 5+1 {
		t.Errorf("after years: %d sizes", len(all))
	}
	update(t, l, func(tx *ledger.Tx) error { return tx.AddStoreSize(size(days * 24)) })
	if all := list(time.Time{}); len(all) != 5+1 || all[5] != size(days*24) {
		t.Errorf("after the clock was right again: %+v", all)
	}
	for _, s := range []ledger.StoreSize{{}, {Time: noon, Stored: -1}, {Time: noon, Data: -1}, {Time: noon, Room: -1}, {Time: noon, Free: -1},
		{Time: noon, Backups: -1}, {Time: time.Unix(0, 0)}} {
		refusedInput(t, l, fmt.Sprint(s), func(tx *ledger.Tx) error { return tx.AddStoreSize(s) })
	}
	update(t, l, func(tx *ledger.Tx) error { return tx.AddStoreSize(ledger.StoreSize{Time: time.Unix(0, 1<<63-1)}) })
}

// How work on the store has ended last is kept for each kind of it. What it found may be
// anything.
func testStoreWork(t *testing.T, l *ledger.Ledger) {
	scrub := ledger.StoreWork{Work: "scrub", Begun: noon, Ended: noon.Add(1), Outcome: "damaged", Found: "one line\nand another"}
	gc := ledger.StoreWork{Work: "gc", By: "eva", Begun: noon, Ended: noon.Add(2), Outcome: "done"}
	before := scrub
	before.Outcome = "done"
	update(t, l, func(tx *ledger.Tx) error {
		for _, w := range []ledger.StoreWork{before, gc, scrub} {
			if err := tx.PutStoreWork(w); err != nil {
				return err
			}
		}
		return nil
	})
	list := func() (all []ledger.StoreWork) {
		view(t, l, func(tx *ledger.Tx) (err error) {
			all, err = tx.StoreWorks()
			return err
		})
		return all
	}
	if all := list(); !reflect.DeepEqual(all, []ledger.StoreWork{gc, scrub}) {
		t.Errorf("%+v", all)
	}
	for _, found := range []string{"\x1b[2J\xff\u202e", strings.Repeat("ä", ledger.MaxFound)} {
		gc.Found = found
		update(t, l, func(tx *ledger.Tx) error { return tx.PutStoreWork(gc) })
		if got := list()[0].Found; got == "" || len(got) > ledger.MaxFound+3 || strings.ContainsAny(got, "\x1b\u202e") {
			t.Errorf("%.20q became %.20q of %d bytes", found, got, len(got))
		}
	}
	for _, w := range []ledger.StoreWork{{}, {Work: "x", By: "\x1b"}, {Work: "x", Outcome: "a\nb"}, {Work: "x", Begun: time.Unix(-5, 0)}} {
		refusedInput(t, l, fmt.Sprint(w), func(tx *ledger.Tx) error { return tx.PutStoreWork(w) })
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/testenv"
)

// TestPace holds that upkeep can be held up between its pieces of work: for each of
// them, backups, lists, restores and deletions go on meanwhile, and the store is whole
// if it is ended there.
func TestPace(t *testing.T) {
	broken := errors.New("it is ended here")
	for end := 1; ; end += testenv.Effort(7, 1) {
		s := newStore(t, &mem.Store{})
		for i := range manySmall + 2 {
			commit(t, s, fmt.Sprintf("10.0.1.%d", i), byte(i))
		}
		old := commit(t, s, "10.0.0.2", 20)
		pieces, n := 0, 0
		ctx := WithPace(t.Context(), func(ctx context.Context) error {
			if pieces++; pieces == end {
				return broken
			}
			if n++; n > 5 {
				return nil
			}
			r := commit(t, s, "10.0.0.3", byte(n))
			if _, _, err := s.Records(t.Context()); err != nil {
				return err
			}
			im, err := s.OpenImage(t.Context(), r, "sda")
			if err != nil {
				return err
			}
			return errors.Join(im.Check(t.Context(), 1, nil), im.Close(), s.Delete(ctx, r))
		})
		err := func() error {
			if _, _, err := s.Records(ctx); err != nil {
				return err
			}
			if _, err := s.Lacking(ctx); err != nil {
				return err
			}
			if err := s.Delete(ctx, old); err != nil {
				return err
			}
			plan, err := s.PlanGC(ctx)
			if err != nil {
				return err
			}
			if _, err := s.GC(ctx, plan); err != nil {
				return err
			}
			_, err = s.Scrub(ctx, nil)
			return err
		}()
		must(t, s.Check(t.Context()))
		if pieces < end {
			if err != nil || end < 100 {
				t.Errorf("upkeep had %d pieces of work, and ended with %v", pieces, err)
			}
			return
		}
		// Nothing ends before packs are removed that are gone from the index already.
		if err != nil && !errors.Is(err, broken) {
			t.Fatalf("ended at piece %d: %v", end, err)
		}
		mustGC(t, s)
	}
}

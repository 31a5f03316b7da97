package store

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/image"
)

// Backup names a backup of a box that is known. The zero Backup is none.
type Backup struct {
	ID   string
	Time time.Time
}

// latest remembers the latest backup of each box, for lists of many boxes. What
// this process changes is forgotten, and then read anew. No other process may
// change records while this one has the store open for writing.
type latest struct {
	mu      sync.Mutex // guards the fields below
	known   map[string]Backup
	changes map[string]uint64 // number of changes of a box's records

	filling chan struct{} // holds one value while records are read for known, so that no two do it at once
}

func newLatest() *latest {
	return &latest{known: map[string]Backup{}, changes: map[string]uint64{}, filling: make(chan struct{}, 1)}
}

// changed forgets the latest backup of the box to which a record belongs. It is
// called after each change of a record, also if the change has failed.
func (l *latest) changed(name string) {
	box, _, _ := strings.Cut(strings.TrimPrefix(name, recordPrefix), "/")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes[box]++
	delete(l.known, box)
}

// made notes a backup that was made just now. before is what was known of its box
// until then. recordMu is held, so that no other change came in between.
func (l *latest) made(r *image.Record, before Backup) {
	if misdated(r, time.Now()) != "" || !r.Time.After(before.Time) {
		return // a clock is wrong, or the two are of one second, and Select knows what to do
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes[r.Box]++
	l.known[r.Box] = Backup{r.ID, r.Time}
}

// look returns what is known of a box, and how often its records have changed.
func (l *latest) look(box string) (b Backup, known bool, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known = l.known[box]
	return b, known, l.changes[box]
}

// counts is how often the records of each box have changed.
func (l *latest) counts() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.changes)
}

// learned notes what was read of a box, unless its records have changed since.
func (l *latest) learned(box string, b Backup, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes[box] == changes {
		l.known[box] = b
	}
}

// Latest returns the latest backup of each of these boxes that has one, as
// Select chooses it. A backup whose record cannot be read is left out.
func (c *Catalogue) Latest(ctx context.Context, boxes []string) (map[string]Backup, error) {
	out := make(map[string]Backup, len(boxes))
	var unknown []string
	for _, box := range boxes {
		if b, known, _ := c.latest.look(box); !known {
			unknown = append(unknown, box)
		} else if b != (Backup{}) {
			out[box] = b
		}
	}
	if len(unknown) == 0 {
		return out, nil
	}
	select {
	case c.latest.filling <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.latest.filling }()
	read, err := c.readLatest(ctx, unknown)
	maps.Copy(out, read)
	return out, err
}

// readLatest reads the latest backups of boxes that were not known.
func (c *Catalogue) readLatest(ctx context.Context, boxes []string) (map[string]Backup, error) {
	out := map[string]Backup{}
	for _, box := range boxes {
		b, known, changes := c.latest.look(box) // somebody else may have read it meanwhile
		if !known {
			records, damaged, err := c.RecordsOf(ctx, box)
			if err != nil {
				return nil, err
			}
			now := time.Now()
			r, err := Select(records, damaged, Selector{Box: box, When: "latest"}, now)
			var hidden *UnreadableError
			switch {
			case errors.As(err, &hidden):
				r = hidden.Instead
			case err != nil && !errors.Is(err, ErrNoBackup):
				return nil, err
			}
			if r != nil {
				b = Backup{r.ID, r.Time}
			}
			// Damage can be repaired by hand, and what is dated in the future counts
			// when that time has come.
			if !c.cfg.ReadOnly && len(damaged) == 0 && len(Misdated(records, now)) == 0 {
				c.latest.learned(box, b, changes)
			}
		}
		if b != (Backup{}) {
			out[box] = b
		}
	}
	return out, nil
}

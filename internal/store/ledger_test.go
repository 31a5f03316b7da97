package store

import (
	"context"
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// ledger knows what backups there must and may be in a store.
type ledger struct {
	disks map[object.Name]fakeDisk // all that ever were, by their roots
	must  map[string]bool          // names of records that were committed and not deleted
	may   map[string]bool          // those that were being committed or deleted when something failed
}

func newLedger() *ledger {
	return &ledger{map[object.Name]fakeDisk{}, map[string]bool{}, map[string]bool{}}
}

func (l *ledger) clone() *ledger {
	c := newLedger()
	for k, v := range l.disks {
		c.disks[k] = v
	}
	for k := range l.must {
		c.must[k] = true
	}
	for k := range l.may {
		c.may[k] = true
	}
	return c
}

func (l *ledger) know(d fakeDisk) fakeDisk {
	root, _, _ := d.root()
	l.disks[object.NameOf(root.Marshal())] = d
	return d
}

// committed notes how a commit ended.
func (l *ledger) committed(r *image.Record, err error) {
	name := recordName(r.Box, r.ID)
	if err == nil {
		l.must[name] = true
	} else if r.ID != "" {
		l.may[name] = true
	}
}

// deleted notes how a deletion ended.
func (l *ledger) deleted(r *image.Record, err error) {
	name := recordName(r.Box, r.ID)
	delete(l.must, name)
	if err != nil {
		l.may[name] = true
	} else {
		delete(l.may, name)
	}
}

// verify wants all backups that must be there, no others than those that may,
// and each of them exact.
func (l *ledger) verify(s *Store) error {
	ctx := context.Background()
	all, damaged, err := s.Records(ctx)
	if err != nil {
		return err
	}
	if len(damaged) > 0 {
		return damaged[0]
	}
	seen := map[string]bool{}
	for _, r := range all {
		name := recordName(r.Box, r.ID)
		seen[name] = true
		if !l.must[name] && !l.may[name] {
			return fmt.Errorf("%s should not be there", name)
		}
		for _, d := range r.Disks {
			root := d.Root
			if err := l.disks[root].restored(ctx, s, root); err != nil {
				return fmt.Errorf("%s: %w", imageName(r, d), err)
			}
		}
	}
	for name := range l.must {
		if !seen[name] {
			return fmt.Errorf("%s is lost", name)
		}
	}
	return nil
}

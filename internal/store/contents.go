package store

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Contents is what the records of a store tell.
type Contents struct {
	Backups    int            // those whose records can be read
	Data       int64          // bytes that they stand for
	Lacking    []Lacking      // what they were found to lack, by box, time and disk
	Unreadable []*RecordError // records that cannot be read
}

// Lacking is a disk of a backup whose image is damaged.
type Lacking struct {
	Box, Backup string
	Time        time.Time // of the backup
	Disk        string
	Damage
}

// summaries remember what the records of each box tell, so that not all records are read
// again and again.
type summaries struct {
	turn chan struct{} // holds one value while records are read

	// Who has the turn uses these.
	names  map[string][]string // of the records of each box
	listed time.Time           // when all of them were
	trust  time.Duration       // for how long a list is taken for what is there, but for our own changes
	counts map[string]uint64   // the changes of each box, as they were before its names were listed

	mu    sync.Mutex // guards known
	known map[string]boxContents
}

func newSummaries() *summaries {
	return &summaries{turn: make(chan struct{}, 1), known: map[string]boxContents{}, trust: time.Minute}
}

// boxContents is what the records of a box tell.
type boxContents struct {
	changes uint64 // of the box's records, as the type latest counts them
	backups int
	data    int64
	images  []recordedImage
	damaged []*RecordError
}

type recordedImage struct {
	backup, disk string
	time         time.Time
	root         object.Name
}

// Contents tells what the records have. It reads those of boxes that have changed since
// it was asked last. What others than this process have changed, it may see a minute later.
func (c *Catalogue) Contents(ctx context.Context) (*Contents, error) {
	select {
	case c.told.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.told.turn }()
	damages, err := c.Damages(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.listBoxes(ctx); err != nil {
		return nil, err
	}
	out, known := &Contents{}, map[string]boxContents{}
	for _, box := range slices.Sorted(maps.Keys(c.told.names)) {
		b, err := c.contentsOf(ctx, box, c.told.names[box])
		if err != nil {
			return nil, err
		}
		known[box] = b
		out.Backups += b.backups
		out.Data += b.data
		out.Unreadable = append(out.Unreadable, b.damaged...)
		for _, i := range b.images {
			if d, damaged := damages[i.root]; damaged {
				out.Lacking = append(out.Lacking, Lacking{box, i.backup, i.time, i.disk, d})
			}
		}
	}
	c.told.mu.Lock()
	defer c.told.mu.Unlock()
	c.told.known = known
	return out, nil
}

// listBoxes brings the names of records up to date. To list all of them takes a third of a second for 50,000 records in a folder,
// and 50 requests in object storage. So only those of boxes that have changed are listed, and all of them now and then.
func (c *Catalogue) listBoxes(ctx context.Context) error {
	t := c.told
	counts := c.latest.counts() // before the names, so that no change is missed
	if t.names == nil || c.cfg.ReadOnly || time.Since(t.listed) >= t.trust {
		begun := time.Now()
		names, err := c.recordNames(ctx, recordPrefix)
		if err != nil {
			return err
		}
		t.names = map[string][]string{}
		for _, name := range names {
			box := boxOfRecord(name)
			t.names[box] = append(t.names[box], name)
		}
		t.listed, t.counts = begun, counts
		return nil
	}
	for box, n := range counts {
		if n == t.counts[box] {
			continue
		}
		names, err := c.recordNames(ctx, recordPrefix+box+"/")
		if err != nil {
			return err
		}
		if t.names[box] = names; len(names) == 0 {
			delete(t.names, box)
		}
		t.counts[box] = n
	}
	return nil
}

func boxOfRecord(name string) string {
	box, _, _ := strings.Cut(strings.TrimPrefix(name, recordPrefix), "/")
	return box
}

// contentsOf is what the records of a box with these names tell.
func (c *Catalogue) contentsOf(ctx context.Context, box string, names []string) (boxContents, error) {
	c.told.mu.Lock()
	b, known := c.told.known[box]
	c.told.mu.Unlock()
	_, _, changes := c.latest.look(box)
	// Who changes records by hand, or repairs one, is seen too.
	if known && !c.cfg.ReadOnly && b.changes == changes && b.backups == len(names) && len(b.damaged) == 0 {
		return b, nil
	}
	records, damaged, _, err := c.readRecords(ctx, names)
	if err != nil {
		return b, err
	}
	b = boxContents{changes: changes, backups: len(records), damaged: damaged}
	for _, r := range records {
		b.add(r)
	}
	return b, nil
}

func (b *boxContents) add(r *image.Record) {
	for _, d := range r.Disks {
		b.data += d.Data
		b.images = append(b.images, recordedImage{r.ID, d.Name, r.Time, d.Root})
	}
}

// Room is how many bytes the file system of the packs has for who owns the store, and how
// many of them are free. ok is false if the store is in object storage, where nobody says.
func (l *Locked) Room() (room, free int64, ok bool) {
	if l.remote {
		return 0, 0, false
	}
	packs := filepath.Join(l.path, strings.TrimSuffix(packPrefix, "/")) // may be a link to another disk
	if _, err := os.Stat(packs); err != nil {
		packs = l.path
	}
	var st unix.Statfs_t
	if err := unix.Statfs(packs, &st); err != nil || st.Blocks == 0 || st.Bsize <= 0 {
		return 0, 0, false
	}
	used := st.Blocks - min(st.Bfree, st.Blocks)
	return int64(used+st.Bavail) * st.Bsize, int64(st.Bavail) * st.Bsize, true
}

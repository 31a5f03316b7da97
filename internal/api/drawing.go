package api

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// What a request for the map of a disk may cost. A page takes less than a millisecond.
const (
	maxPages    = 8192            // pages that are read; two of them for each 256 MiB that have changed
	maxDrawing  = 5 * time.Second // in which they are read
	maxParts    = 256             // parts of a disk that an answer has
	maxDrawings = 64              // answers that are kept, since an image never changes
)

// DiskMap says what the disk of a backup holds, and what has changed since an earlier
// backup, in a form for drawing.
type DiskMap struct {
	Box     string    `json:"box"`
	Backup  string    `json:"backup" doc:"id of the backup"`
	Disk    string    `json:"disk" doc:"name of the disk in the backup"`
	Size    int64     `json:"size" doc:"bytes of the disk"`
	Table   string    `json:"table,omitempty" doc:"gpt or mbr; left out if there is no partition table, or if nothing is known"`
	Doubt   string    `json:"doubt,omitempty" doc:"why the whole disk counts as used"`
	Parts   []MapPart `json:"parts" doc:"partitions, and the logical volumes in them, in the order of the disk; empty if nothing is known"`
	Cut     bool      `json:"cut,omitempty" doc:"there are more parts"`
	With    string    `json:"with,omitempty" doc:"id of the earlier backup with which it is compared; left out if there is none that has the disk"`
	Data    int64     `json:"data" doc:"bytes that are used and not zero"`
	Zero    int64     `json:"zero" doc:"bytes that are used and zero"`
	Unused  int64     `json:"unused" doc:"bytes that nothing uses, and that are not in the store"`
	InDoubt int64     `json:"inDoubt" doc:"bytes that count as used only since something about them was not understood"`
	Changed int64     `json:"changed" doc:"bytes that are used and were not the same in the earlier backup, counted in whole chunks"`
	Unread  int64     `json:"unread,omitempty" doc:"bytes about which nothing was read, since the request would have taken too long; of these, only changed says something"`
	Cells   []MapCell `json:"cells" doc:"the disk in pieces of the same length, in its order; the last one can be shorter"`
	Cell    int64     `json:"cell" doc:"bytes of a piece"`
}

// MapPart is a part of a disk.
type MapPart struct {
	Title   string `json:"title" doc:"a name for people, as partition 1"`
	Number  int    `json:"number,omitempty"`
	Volume  bool   `json:"volume,omitempty" doc:"it is a logical volume in the partition before it"`
	Type    string `json:"type,omitempty" doc:"type code or GUID of the partition"`
	Name    string `json:"name,omitempty"`
	FS      string `json:"fs,omitempty" doc:"file system; left out if nothing known was found"`
	Label   string `json:"label,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	Doubt   string `json:"doubt,omitempty" doc:"why all of it counts as used"`
	Off     int64  `json:"off" doc:"bytes from the start of the disk; -1 if it has no place of its own, or lies in several pieces"`
	Len     int64  `json:"len" doc:"bytes"`
	Used    int64  `json:"used" doc:"bytes of it that are used, those in doubt included"`
	Changed int64  `json:"changed" doc:"bytes of it that were not the same in the earlier backup, counted in whole chunks"`
}

// MapCell is a piece of a disk. What is in no count is unused.
type MapCell struct {
	Data    int64 `json:"data,omitempty"`
	Zero    int64 `json:"zero,omitempty"`
	InDoubt int64 `json:"inDoubt,omitempty"`
	Changed int64 `json:"changed,omitempty"`
	Unread  int64 `json:"unread,omitempty"`
}

// drawings keeps answers. An image never changes, so that they stay right.
type drawings struct {
	mu     sync.Mutex
	list   []*DiskMap // the latest first
	wanted []drawingKey
}

type drawingKey struct {
	root, base object.Name
	cells      int
}

func (d *drawings) find(key drawingKey) *DiskMap {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.wanted, key); i >= 0 {
		return d.list[i]
	}
	return nil
}

func (d *drawings) keep(key drawingKey, m *DiskMap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.list) == maxDrawings {
		d.list, d.wanted = d.list[:maxDrawings-1], d.wanted[:maxDrawings-1]
	}
	d.list, d.wanted = slices.Insert(d.list, 0, m), slices.Insert(d.wanted, 0, key)
}

// getMap says what a disk of a backup holds.
func (s *Server) getMap(ctx context.Context, in *struct {
	BackupPath
	Disk  string `path:"disk" maxLength:"64" doc:"name of a disk of the backup"`
	With  string `query:"with" maxLength:"64" doc:"id of the backup of the same box with which it is compared; without it, the one before that has the disk"`
	Cells int    `query:"cells" minimum:"1" maximum:"1024" default:"256" doc:"into how many pieces the disk is divided"`
}) (*body[DiskMap], error) {
	backups, r, d, err := s.diskOf(ctx, in.BackupPath, in.Disk)
	if err != nil {
		return nil, err
	}
	base, err := baseOf(ctx, backups, r, d, in.With, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	key := drawingKey{root: d.Root, cells: in.Cells}
	if base != nil {
		key.base = base.Disk(d.Name).Root
	}
	m := s.drawings.find(key)
	if m == nil {
		select {
		case s.looks <- struct{}{}:
			defer func() { <-s.looks }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if m, err = drawDisk(ctx, backups, r, base, d, in.Cells); store.IsLost(err) {
			return nil, problem.Refusef("what %s of backup %s holds cannot be told, since the store lacks some of it, or of the backup before: %w",
				d.Name, r.ID, err)
		} else if err != nil {
			return nil, err
		}
		if m.Unread == 0 {
			s.drawings.keep(key, m)
		}
	}
	out := *m // the same image can be in several backups
	out.Box, out.Backup, out.Disk = r.Box, r.ID, d.Name
	if base != nil {
		out.With = base.ID
	}
	return answer(out, nil)
}

// baseOf finds the backup with which another one is compared, or nil if there is none.
func baseOf(ctx context.Context, backups Backups, r *image.Record, d *image.RecordedDisk, with string, now time.Time) (
	*image.Record, error) {
	if with != "" {
		base, err := backups.Record(ctx, r.Box, with)
		if err == nil && base.Disk(d.Name) == nil {
			err = notFound("backup %s of %s has no disk %s", base.ID, r.Box, d.Name)
		}
		return base, err
	}
	all, _, err := backups.RecordsOf(ctx, r.Box)
	if err != nil {
		return nil, err
	}
	var base *image.Record
	for _, other := range store.InOrder(all, now) {
		if other.ID == r.ID {
			return base, nil
		}
		if has := other.Disk(d.Name); has != nil && has.Disk.Size == d.Disk.Size {
			base = other
		}
	}
	return nil, nil // it has a date that cannot be right, so nobody knows which one was before it
}

// drawDisk reads what a disk holds. Of the layout nothing is believed: a box wrote it.
func drawDisk(ctx context.Context, backups Backups, r, base *image.Record, d *image.RecordedDisk, cells int) (*DiskMap, error) {
	im, err := backups.OpenImage(ctx, r, d.Name)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	var was *chunk.Image
	if base != nil {
		if was, err = backups.OpenImage(ctx, base, d.Name); err != nil {
			return nil, err
		}
		defer was.Close()
	}
	size := im.Root.Size
	m := &DiskMap{Size: size, Parts: []MapPart{}, Cell: max(512, (size+int64(cells)-1)/int64(cells))}
	m.Cells = make([]MapCell, (size+m.Cell-1)/m.Cell)
	layout := usedmap.ParseLayout(im.Root.Layout)
	used, changed, parts := m.addLayout(layout)
	pages, end := 0, time.Now().Add(maxDrawing)
	more := func() bool {
		pages++
		return pages <= maxPages && time.Now().Before(end)
	}
	err = chunk.Outline(ctx, im, was, more, func(s chunk.Stretch) {
		if !s.Unread && s.Content != image.Unused {
			used.Add(s.Range)
		}
		if s.Changed {
			changed.Add(s.Range)
		}
		m.add(s)
	})
	if err != nil {
		return nil, err
	}
	all, differ := used.Counts(), changed.Counts()
	for i, at := range parts {
		m.Parts[i].Used, m.Parts[i].Changed = all[at], differ[at]
	}
	return m, nil
}

// add counts a stretch in the cells that it lies in.
func (m *DiskMap) add(s chunk.Stretch) {
	m.each(s.Range, func(c *MapCell, n int64) {
		switch {
		case s.Unread:
			c.Unread += n
			m.Unread += n
		case s.Content == image.Data:
			c.Data += n
			m.Data += n
		case s.Content == image.Zero:
			c.Zero += n
			m.Zero += n
		default:
			m.Unused += n
		}
		if s.Changed {
			c.Changed += n
			m.Changed += n
		}
	})
}

func (m *DiskMap) each(r image.Range, do func(c *MapCell, n int64)) {
	for r = r.Clip(0, m.Size); r.Len > 0; {
		i := r.Off / m.Cell
		n := min(r.Len, (i+1)*m.Cell-r.Off)
		do(&m.Cells[i], n)
		r.Off, r.Len = r.Off+n, r.Len-n
	}
}

// addLayout adds the parts of a disk. It gives two tallies, for bytes that are used and for
// those that have changed, and where in their counts each of the parts is.
func (m *DiskMap) addLayout(l usedmap.Layout) (used, changed *usedmap.Tally, at []int) {
	m.Table, m.Doubt = clean(l.Table), clean(l.Doubt)
	m.Cut = l.Cut
	var doubt []image.Range
	if l.Doubt != "" {
		doubt = append(doubt, image.Range{Len: m.Size})
	}
	number := 0
	add := func(p *usedmap.LayoutPart, volume bool) {
		if p.Doubt != "" {
			doubt = append(doubt, p.Places()...)
		}
		if number++; len(m.Parts) >= maxParts {
			m.Cut = true
			return
		}
		at = append(at, number-1)
		off := p.Off
		if len(p.Ranges) > 0 {
			off = -1
		}
		m.Parts = append(m.Parts, MapPart{Title: clean(p.Title()), Number: p.Number, Volume: volume, Type: clean(p.Type), Name: clean(p.Name),
			FS: clean(p.FS), Label: clean(p.Label), UUID: clean(p.UUID), Doubt: clean(p.Doubt), Off: off, Len: p.Len})
	}
	m.sort(&l)
	for i := range l.Parts {
		p := &l.Parts[i]
		add(p, false)
		for j := range p.Volumes {
			add(&p.Volumes[j], true)
		}
	}
	for _, r := range joined(doubt) {
		m.each(r, func(c *MapCell, n int64) {
			c.InDoubt += n
			m.InDoubt += n
		})
	}
	return l.Tally(), l.Tally(), at
}

// sort leaves out of a layout what cannot be: parts that are not on the disk, and those that
// overlap others. Gaps are left out too.
func (m *DiskMap) sort(l *usedmap.Layout) {
	wrong := func(p usedmap.LayoutPart) bool { return !m.holds(&p) }
	count := len(l.Parts)
	l.Parts = slices.DeleteFunc(l.Parts, wrong)
	end := int64(0)
	l.Parts = slices.DeleteFunc(l.Parts, func(p usedmap.LayoutPart) bool {
		if p.Off < end {
			return true
		}
		end = p.Off + p.Len
		return false
	})
	m.Cut = m.Cut || len(l.Parts) < count
	l.Parts = slices.DeleteFunc(l.Parts, func(p usedmap.LayoutPart) bool { return p.Kind == usedmap.Gap })
	var all []image.Range
	sum := int64(0)
	for i := range l.Parts {
		p := &l.Parts[i]
		count := len(p.Volumes)
		p.Volumes = slices.DeleteFunc(p.Volumes, wrong)
		m.Cut = m.Cut || len(p.Volumes) < count
		for j := range p.Volumes {
			for _, r := range p.Volumes[j].Places() {
				all, sum = append(all, r), sum+min(r.Len, m.Size)
			}
		}
	}
	for _, r := range joined(all) {
		sum -= r.Len
	}
	if sum == 0 {
		return
	}
	m.Cut = true // two volumes have the same place
	for i := range l.Parts {
		l.Parts[i].Volumes = nil
	}
}

// holds reports whether a part lies on the disk.
func (m *DiskMap) holds(p *usedmap.LayoutPart) bool {
	on := func(off, n int64) bool { return off >= 0 && n >= 0 && off <= m.Size && n <= m.Size-off }
	for _, r := range p.Ranges {
		if !on(r.Off, r.Len) {
			return false
		}
	}
	return p.Off == -1 && p.Len >= 0 || on(p.Off, p.Len)
}

// joined sorts ranges and joins those that overlap or touch.
func joined(list []image.Range) (out []image.Range) {
	slices.SortFunc(list, func(a, b image.Range) int { return cmp.Compare(a.Off, b.Off) })
	for _, r := range list {
		if n := len(out); n > 0 && r.Off <= out[n-1].End() {
			out[n-1].Len = max(out[n-1].End(), r.End()) - out[n-1].Off
		} else {
			out = append(out, r)
		}
	}
	return out
}

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// costs reads the trees of all images and adds what each loses to the faults.
func (sc *scrubber) costs(ctx context.Context) error {
	records, damaged, err := sc.upkeep.catalogue.Records(ctx)
	if err != nil {
		return err
	}
	for _, d := range damaged {
		sc.fault(Fault{File: recordName(d.Box, d.ID), Err: fmt.Errorf("%w; %s", d.Err, d.Remedy()), Costs: []Cost{{Box: d.Box, ID: d.ID}}})
	}
	sc.report.Records = len(records)
	c := &costing{scrubber: sc, whole: map[object.Name]bool{}, nowhere: -1, wrong: -1}
	for _, r := range records {
		for _, d := range r.Disks {
			_, known := c.damages[d.Root]
			c.box, c.id, c.disk, c.first = r.Box, r.ID, d, !known
			if err := c.s.lacks(ctx, &d, c.whole, c.s.indexed, c.cost); err != nil {
				return fmt.Errorf("%s: %w", imageName(r, d), err)
			}
		}
	}
	return nil
}

// costing walks images to find out what they lose.
type costing struct {
	*scrubber
	box, id string
	disk    image.RecordedDisk
	first   bool                 // no earlier record has this image
	whole   map[object.Name]bool // pages that have all their chunks
	nowhere int                  // index of the fault for objects that are in no pack; -1 if there is none yet
	wrong   int                  // index of the fault for roots and pages that were made wrongly; -1 if there is none yet
}

// lacks reads an image's trees. It calls tell for each lost object, with the
// range of the disk that is lost. lacking returns what is wrong with each chunk of
// a page. Pages whose chunks are all good are added to whole, and are skipped the
// next time.
func (s *objects) lacks(ctx context.Context, d *image.RecordedDisk, whole map[object.Name]bool,
	lacking func(context.Context, *chunk.Page) ([]error, error), tell func(object.Key, image.Range, error)) error {
	if err := pace(ctx); err != nil {
		return err
	}
	key, root, err := s.readRoot(ctx, d.Root)
	if IsLost(err) {
		tell(key, image.Range{Len: d.Disk.Size}, err)
		return nil
	} else if err != nil {
		return err
	}
	for i := range root.Pages {
		if whole[root.Pages[i]] {
			continue
		}
		if err := s.lacksOf(ctx, root, i, whole, lacking, tell); err != nil {
			return err
		}
	}
	return nil
}

// lacksOf does the work of lacks for region i.
func (s *objects) lacksOf(ctx context.Context, root *chunk.Root, i int, whole map[object.Name]bool,
	lacking func(context.Context, *chunk.Page) ([]error, error), tell func(object.Key, image.Range, error)) error {
	if err := pace(ctx); err != nil {
		return err
	}
	key, page, err := s.readPage(ctx, root, i)
	if IsLost(err) {
		tell(key, root.Region(i), err)
		return nil
	} else if err != nil {
		return err
	}
	lost, err := lacking(ctx, page)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(lost, func(err error) bool { return err != nil }) {
		whole[key.Name] = true
		return nil
	}
	for sp := range page.Spans() {
		if sp.Content == image.Data && lost[sp.Chunk] != nil {
			key := object.Key{Kind: object.Chunk, Name: page.Chunks[sp.Chunk].Name}
			tell(key, image.Range{Off: root.Region(i).Off + sp.Off, Len: sp.Len}, lost[sp.Chunk])
		}
	}
	return nil
}

// indexed is lacking by the index, as lacks needs it.
func (s *contents) indexed(_ context.Context, page *chunk.Page) ([]error, error) {
	return s.lacking(page), nil
}

// lacking returns what is wrong with each chunk of a page, by the index. Nothing is
// wrong where the error is nil.
func (s *contents) lacking(page *chunk.Page) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]error, len(page.Chunks))
	for i, ref := range page.Chunks {
		l, there := s.index.Get(object.Key{Kind: object.Chunk, Name: ref.Name})
		if !there {
			out[i] = chunk.ErrMissing
		} else if err := fitsChunk(ref, l); err != nil {
			out[i] = fmt.Errorf("its page %w: %w", chunk.ErrWrong, err)
		}
	}
	return out
}

// cost adds what the current image loses with an object to the object's fault.
func (c *costing) cost(key object.Key, at image.Range, why error) {
	i, known := c.lost[short(key)]
	switch {
	case errors.Is(why, chunk.ErrWrong):
		if c.wrong < 0 {
			c.wrong = c.fault(Fault{Err: fmt.Errorf("backups were made wrongly, and nothing heals them; delete them; the first is at %v: %w",
				key, why)})
		}
		i = c.wrong
	case !known:
		if c.nowhere < 0 {
			c.nowhere = c.fault(Fault{Err: fmt.Errorf("objects that images need are in no pack, the first is %v: %w", key, why)})
		}
		i = c.nowhere
	}
	if c.first {
		found := c.damages[c.disk.Root]
		found.Root = c.disk.Root
		found.add(at)
		c.damages[c.disk.Root] = found
	}
	f := &c.report.Faults[i]
	if n := len(f.Costs); n == 0 || f.Costs[n-1].Box != c.box || f.Costs[n-1].ID != c.id || f.Costs[n-1].Disk != c.disk.Name {
		f.Costs = append(f.Costs, Cost{Box: c.box, ID: c.id, Disk: c.disk.Name})
	}
	f.Costs[len(f.Costs)-1].add(at)
}

func (c *Cost) add(at image.Range) {
	c.Bytes += at.Len
	if n := len(c.Places); n > 0 && c.Places[n-1].End() == at.Off {
		c.Places[n-1].Len += at.Len
	} else if n < maxPlaces {
		c.Places = append(c.Places, at)
	}
}

// healed keeps Known only for faults that an earlier scrub found and that cost
// no image anything now.
func (sc *scrubber) healed() {
	for i := range sc.report.Faults {
		f := &sc.report.Faults[i]
		f.Known = f.Known && len(f.Costs) == 0
	}
}

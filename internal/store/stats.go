package store

import (
	"context"

	"testbox-imaging/internal/image"
)

// Stats are the figures of a store; all sizes are bytes.
type Stats struct {
	Backups int        `json:"backups"`
	Damaged int        `json:"damaged"` // records that cannot be read
	Disks   int64      `json:"disks"`   // sizes of all disks of all backups
	Data    int64      `json:"data"`    // of them, used and not zero
	Objects int        `json:"objects"`
	Packs   int        `json:"packs"`
	Stored  int64      `json:"stored"`            // of all packs
	Dead    int64      `json:"dead"`              // of Stored, what no backup needs, about; -1: not known
	Unknown string     `json:"unknown,omitempty"` // why it is not known
	Bad     int        `json:"bad"`               // places found damaged, in packs that are still there
	Boxes   []BoxStats `json:"boxes"`
}

// BoxStats are the figures of a box's backups.
type BoxStats struct {
	Box     string        `json:"box"`
	Backups int           `json:"backups"`
	Oldest  *image.Record `json:"oldest"`
	Newest  *image.Record `json:"newest"`
	Data    int64         `json:"data"`  // bytes used and not zero, of all backups
	Added   int64         `json:"added"` // bytes that its backups added to the store
}

// Ratio is how many bytes of disks there are for each byte that is stored; 0
// if nothing is.
func (s *Stats) Ratio() float64 {
	if s.Stored <= 0 {
		return 0
	}
	return float64(s.Data) / float64(s.Stored)
}

// Stats counts. It reads all records and the trees of all images.
func (s *Store) Stats(ctx context.Context) (*Stats, error) {
	done, err := s.alone()
	if err != nil {
		return nil, err
	}
	defer done()
	records, damaged, err := s.Records(ctx)
	if err != nil {
		return nil, err
	}
	st := &Stats{Backups: len(records), Damaged: len(damaged), Boxes: boxStats(records)}
	for _, r := range records {
		for _, d := range r.Disks {
			st.Disks += d.Disk.Size
			st.Data += d.Data
		}
	}
	m := s.newMarker()
	_, err = m.records(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var plan GCPlan
	s.planPacks(&plan)
	for _, p := range plan.Packs {
		st.Stored += p.Size
		if p.Objects > 0 {
			st.Dead += p.Size * int64(p.Objects-p.LiveObjects) / int64(p.Objects)
		}
	}
	if err != nil {
		st.Dead, st.Unknown = -1, err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Objects, st.Packs, st.Bad = s.index.Len(), len(s.packs), len(s.bad)
	return st, nil
}

// boxStats gives the figures of each box, of records as Records gives them.
func boxStats(records []*image.Record) (out []BoxStats) {
	for _, r := range records {
		if len(out) == 0 || out[len(out)-1].Box != r.Box {
			out = append(out, BoxStats{Box: r.Box, Oldest: r})
		}
		b := &out[len(out)-1]
		b.Backups++
		b.Newest = r
		for _, d := range r.Disks {
			b.Data += d.Data
			b.Added += d.Stored
		}
	}
	return out
}

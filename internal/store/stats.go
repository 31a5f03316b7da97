package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/image"
)

// Stats has the figures of a store. All sizes are in bytes.
type Stats struct {
	Backups int        `json:"backups"`
	Damaged int        `json:"damaged"` // records that cannot be read
	Disks   int64      `json:"disks"`   // sizes of all disks of all backups
	Data    int64      `json:"data"`    // part of Disks that is used and not zero
	Objects int        `json:"objects"`
	Packs   int        `json:"packs"`
	Stored  int64      `json:"stored"`            // size of all packs, the sum of the next four
	Alone   int64      `json:"alone"`             // part of Stored that only the backups of one box need, estimated
	Shared  int64      `json:"shared"`            // part of Stored that backups of several boxes need, estimated
	Writing int64      `json:"writing"`           // part of Stored that another process has written, and that no backup needs yet
	Unused  int64      `json:"unused"`            // part of Stored that no readable backup needs, estimated
	Dead    int64      `json:"dead"`              // same as Unused, or -1 if a backup that cannot be read may need it
	Unknown string     `json:"unknown,omitempty"` // why Dead is not known
	Trees   int64      `json:"trees"`             // part of Stored in packs with the trees of images
	Records int64      `json:"records"`
	Index   int64      `json:"index"`
	Other   int64      `json:"other"`   // all other files of the store
	Files   int64      `json:"files"`   // all files, the sum of Stored, Records, Index and Other
	Bad     int        `json:"bad"`     // places found damaged, in packs that still exist
	Lacking int        `json:"lacking"` // backups that were found to lack something
	Boxes   []BoxStats `json:"boxes"`
}

// BoxStats has the figures of a box's backups.
type BoxStats struct {
	Box     string        `json:"box"`
	Backups int           `json:"backups"`
	Oldest  *image.Record `json:"oldest"`
	Newest  *image.Record `json:"newest"`
	Data    int64         `json:"data"`  // bytes used and not zero, of all backups
	Added   int64         `json:"added"` // bytes that its backups added to the store
	Alone   int64         `json:"alone"` // bytes of packs that no other box needs, estimated; deleting the box's backups frees them
}

// Ratio is the number of bytes of disks per stored byte, or 0 if nothing is
// stored.
func (s *Stats) Ratio() float64 {
	if s.Stored <= 0 {
		return 0
	}
	return float64(s.Data) / float64(s.Stored)
}

// PackBytes is how many bytes the packs have that are whole. It reads nothing.
func (s *Store) PackBytes() (n int64) {
	has := s.objects.contents
	has.mu.Lock()
	defer has.mu.Unlock()
	for _, p := range has.packs {
		n += p.size
	}
	return n
}

// Stats computes the figures. It reads all records and the trees of all images.
// Other work on the store may go on meanwhile.
func (u *Upkeep) Stats(ctx context.Context) (*Stats, error) {
	records, damaged, err := u.catalogue.Records(ctx)
	if err != nil {
		return nil, err
	}
	st := &Stats{Backups: len(records), Damaged: len(damaged), Boxes: boxStats(records)}
	damages, err := u.catalogue.Damages(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if len(damages.Of(r)) > 0 {
			st.Lacking++
		}
		for _, d := range r.Disks {
			st.Disks += d.Disk.Size
			st.Data += d.Data
		}
	}
	if err := u.statSpace(ctx, st, records, damaged); err != nil {
		return nil, err
	}
	if err := u.statFiles(ctx, st); err != nil {
		return nil, err
	}
	has := u.objects.contents
	has.mu.Lock()
	defer has.mu.Unlock()
	st.Objects, st.Packs, st.Bad = has.index.Len(), len(has.packs), len(has.bad)
	return st, nil
}

// statSpace computes what the bytes of the packs are used for.
func (u *Upkeep) statSpace(ctx context.Context, st *Stats, records []*image.Record, damaged []*RecordError) error {
	var groups [][]*image.Record
	for at := 0; at < len(records); {
		end := at + st.Boxes[len(groups)].Backups
		groups = append(groups, records[at:end])
		at = end
	}
	_, fresh, _ := u.objects.cfg.Beside()
	sp, err := u.space(ctx, groups, fresh)
	if err != nil {
		return err
	}
	st.Stored, st.Trees = sp.stored, sp.trees
	for i, n := range sp.alone {
		st.Boxes[i].Alone = n
		st.Alone += n
	}
	st.Shared, st.Writing, st.Unused, st.Dead = sp.shared, sp.fresh, sp.unused, sp.unused
	if len(damaged) > 0 {
		sp.reason = damaged[0]
	}
	if sp.reason != nil {
		st.Dead, st.Unknown = -1, sp.reason.Error()
	}
	return nil
}

// statFiles adds up the lengths of the files.
func (u *Upkeep) statFiles(ctx context.Context, st *Stats) error {
	blobs, err := u.objects.cfg.Blobs.List(ctx, "")
	if err != nil {
		return err
	}
	for _, b := range blobs {
		st.Files += b.Size
		switch {
		case strings.HasPrefix(b.Name, recordPrefix):
			st.Records += b.Size
		case b.Name == indexName:
			st.Index += b.Size
		}
	}
	st.setOther()
	return nil
}

// setOther computes Other from the remaining figures. The difference is
// negative if a collection has removed packs after they were counted, and then
// counts as 0.
func (st *Stats) setOther() {
	known := st.Stored + st.Records + st.Index
	st.Other = max(st.Files-known, 0)
	st.Files = known + st.Other
}

// boxStats returns the figures of each box. The records are sorted as by
// Records.
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

// Stats returns the store's figures, with all files in its folder. If the store
// is in object storage, these are the index and what a killed process left of
// files that it was writing.
func (l *Locked) Stats(ctx context.Context) (*Stats, error) {
	st, err := l.Store.Stats(ctx)
	if err != nil {
		return nil, err
	}
	size, err := sizeBelow(l.path, 2)
	if err != nil {
		return nil, err
	}
	if !l.remote {
		st.Files = 0
	} else if info, err := os.Stat(filepath.Join(l.path, indexName)); err == nil {
		st.Index = info.Size()
	}
	st.Files += size
	st.setOther()
	return st, nil
}

// sizeBelow returns the length of all files below a path. It follows symbolic
// links, since a folder or file of the store may be on another disk. links
// limits how many links within links it follows.
func sizeBelow(path string, links int) (size int64, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case d.Type().IsRegular():
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				size += info.Size()
			}
		case d.Type()&fs.ModeSymlink != 0 && links > 0:
			var more int64
			more, err = sizeBelow(path, links-1)
			size += more
		}
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		return err
	})
	return size, err
}

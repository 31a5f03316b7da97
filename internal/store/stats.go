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

// Stats are the figures of a store; all sizes are bytes.
type Stats struct {
	Backups int        `json:"backups"`
	Damaged int        `json:"damaged"` // records that cannot be read
	Disks   int64      `json:"disks"`   // sizes of all disks of all backups
	Data    int64      `json:"data"`    // of them, used and not zero
	Objects int        `json:"objects"`
	Packs   int        `json:"packs"`
	Stored  int64      `json:"stored"`            // of all packs: the sum of the next four
	Alone   int64      `json:"alone"`             // of Stored, what the backups of one box alone need, about
	Shared  int64      `json:"shared"`            // of Stored, what backups of several boxes need, about
	Writing int64      `json:"writing"`           // of Stored, what another process has written since it began, and no backup needs yet
	Unused  int64      `json:"unused"`            // of Stored, what no backup needs that can be read, about
	Dead    int64      `json:"dead"`              // Unused; -1: a backup that cannot be read may need it
	Unknown string     `json:"unknown,omitempty"` // why that is not known
	Trees   int64      `json:"trees"`             // of Stored, packs with the trees of images
	Records int64      `json:"records"`           // records
	Index   int64      `json:"index"`             // the index
	Other   int64      `json:"other"`             // all other files of the store
	Files   int64      `json:"files"`             // all files: Stored, Records, Index and Other
	Bad     int        `json:"bad"`               // places found damaged, in packs that are still there
	Lacking int        `json:"lacking"`           // backups that were found to lack something
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
	Alone   int64         `json:"alone"` // bytes of packs that no other box needs, about: what comes back when its backups go
}

// Ratio is how many bytes of disks there are for each byte that is stored; 0
// if nothing is.
func (s *Stats) Ratio() float64 {
	if s.Stored <= 0 {
		return 0
	}
	return float64(s.Data) / float64(s.Stored)
}

// Stats counts. It reads all records and the trees of all images. Whatever else
// is at work goes on meanwhile.
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

// statSpace says what the bytes of the packs are for.
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

// statFiles says how long the files are.
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

// setOther counts what is left of all files. Less than nothing is of packs that
// a collection removed since they were counted.
func (st *Stats) setOther() {
	known := st.Stored + st.Records + st.Index
	st.Other = max(st.Files-known, 0)
	st.Files = known + st.Other
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

// Stats is the store's, with all that lies in its folder: of a store in object
// storage the index, and what a process that was killed left of files that it
// was writing.
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

// sizeBelow is how long all files below a path are, also where a folder or a
// file of the store is a link to another disk; of links in links it follows so
// many.
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

package dispatch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/wear"
)

// historyJobs is how many of a box's latest jobs are looked at for the speeds of its
// disks.
const historyJobs = 100

// measured reports whether the speeds of an action with this outcome count.
func measured(o box.Outcome) bool { return o == box.Done || o == box.BadSectors || o == box.Differs }

// slowDisks says which disks read much slower in a job than they used to, by their keys
// and in words. A job in which that was said of a disk begins its history anew, so that
// it is not said again as long as the disk becomes no slower.
func (d *Dispatch) slowDisks(ctx context.Context, j job.Job, o box.Outcome, receipts []image.Receipt) (keys, texts []string, err error) {
	speeds := wear.Speeds(receipts)
	if !measured(o) || len(speeds) == 0 {
		return nil, nil, nil
	}
	var past []wear.Speed
	err = d.book.View(ctx, func(tx *ledger.Tx) error {
		rows, _, err := tx.Jobs(ledger.JobFilter{Box: j.Box}, ledger.Page{Limit: historyJobs})
		if err != nil {
			return err
		}
		anew := map[string]bool{} // disks whose history has begun
		for _, row := range rows {
			doc, err := parseDocument(row.Doc)
			if err != nil || row.ID == j.ID || !measured(doc.Job.Outcome) {
				continue
			}
			for _, key := range doc.Slow {
				anew[key] = true
			}
			for _, s := range wear.Speeds(doc.Receipts) {
				if !anew[s.Disk] {
					past = append(past, s)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, s := range speeds {
		if text := wear.Slow(s, past); text != "" && !slices.Contains(keys, s.Disk) {
			keys, texts = append(keys, s.Disk), append(texts, text)
		}
	}
	return keys, texts, nil
}

// compareDisks compares the disks of a new inventory with those of the one that the
// box's folder still has. The box becomes suspect if one of them has counted more
// errors. It is called before the new inventory is written, so that a request which is
// repeated after a failure finds the same.
func (d *Dispatch) compareDisks(j job.Job, folder *sharedir.Folder, data []byte) error {
	d.parsing.Lock()
	defer d.parsing.Unlock()
	skip := func(err error) {
		d.log(slog.LevelWarn, j.ID, "the health of disks is not compared", "job", j.ID, "error", err)
	}
	now, err := inventory.ParseDisks(data)
	if err != nil {
		skip(err)
		return nil
	}
	var past []inventory.Disk
	switch old, err := durable.ReadFile(durable.OS{}, folder.Path(box.InfoJSON), inventory.MaxJSON); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		skip(err)
	default:
		if past, err = inventory.ParseDisks(old); err != nil {
			skip(err)
		}
	}
	found := wear.Grown(past, now)
	if len(found) == 0 {
		return nil
	}
	text := strings.Join(found, "; ")
	d.log(slog.LevelWarn, j.ID, "a disk wears out", "box", j.Box, "job", j.ID, "text", text)
	return d.book.Update(d.ctx, func(tx *ledger.Tx) error { return d.suspect(tx, j, text) })
}

// keepBefore keeps the inventory that a box's folder has beside the new one, if the two
// tell of different machines. An inventory that tells of the same one only replaces it,
// so that a change can still be seen after many nights. An error is no reason to
// refuse the new one.
func (d *Dispatch) keepBefore(j job.Job, folder *sharedir.Folder, data []byte) {
	d.parsing.Lock()
	defer d.parsing.Unlock()
	old, err := durable.ReadFile(durable.OS{}, folder.Path(box.InfoJSON), inventory.MaxJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		var list []inventory.Change
		if list, _, err = inventory.Changes(old, data, wear.Counts); err == nil && len(list) > 0 {
			err = folder.WriteFile(box.InfoBefore, old)
		}
	}
	if err != nil {
		d.log(slog.LevelWarn, j.ID, "what changed since the inventory before is not known", "job", j.ID, "error", err)
	}
}

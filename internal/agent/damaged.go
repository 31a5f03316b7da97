package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/sharedir"
)

// probe looks at all disks before the first is read: of a disk that is failing
// no image is made, and the images that are there stay what they are.
func (s *session) probe(ctx context.Context, names map[string]string, disks []disk.Disk) error {
	for _, d := range disks {
		dev, err := disk.Open(s.cfg.Dev, d, false)
		if err != nil {
			return err
		}
		err = copier.Probe(ctx, dev, nil, s.copierOptions(nil, d))
		dev.Close()
		if err != nil {
			return failingDisk(names[d.Name], d, err)
		}
	}
	return nil
}

// failingDisk is the error of the backup of a disk: a refusal if it is failing.
func failingDisk(name string, d disk.Disk, err error) error {
	err = fmt.Errorf("%s (disk %s): %w", name, d.Name, err)
	if !errors.Is(err, copier.ErrFailing) {
		return err
	}
	return refuse("%w. If the box is armed with --accept-failing, what can be read of the disk is backed up; with --disks, its other disks alone", err)
}

// before says what becomes of the images that are there, and of the older .old
// ones. A disk that has a whole image has one afterwards: a damaged image makes
// the one before it .old, but does not make it push out a whole .old one.
func (s *session) before(made map[string]bool, entries, old []sharedir.Entry) (sharedir.Before, error) {
	if s.cmd.Action == box.Backup || len(entries) == 0 {
		return sharedir.None, nil
	}
	lostBy := func(kept, dropped []sharedir.Entry) string {
		for _, e := range dropped {
			if whole(e) && !made[e.Name] && !hasWhole(kept, e.Name) {
				return e.Path
			}
		}
		return ""
	}
	retiring := lostBy(entries, old)
	if retiring == "" {
		return sharedir.Retire, nil
	}
	replaced := lostBy(old, entries)
	for _, e := range entries {
		if _, successor := made[e.Name]; !successor {
			replaced = e.Path
		}
	}
	if replaced != "" {
		return 0, fmt.Errorf("%s is the last whole image of its disk, and would be removed since the new one is damaged; "+
			"move it out of the folder, then back up again (it cannot stay, because of %s)", retiring, replaced)
	}
	s.warn("the images before this backup are damaged as well, and are replaced; the .old images stay, since they are whole: %s", entryNames(old))
	return sharedir.Replace, nil
}

// whole reports whether an image has all that its disk had, as far as anybody
// knows.
func whole(e sharedir.Entry) bool { return e.Facts == nil || len(e.Facts.Bad) == 0 }

func hasWhole(entries []sharedir.Entry, name string) bool {
	return slices.ContainsFunc(entries, func(e sharedir.Entry) bool { return e.Name == name && whole(e) })
}

// maxAhead is how far two readings of the storage server's clock may be apart.
const maxAhead = 15 * time.Minute

// warnClock says of images that are dated later than now: a clock is wrong, or
// was. Nothing in share mode goes by these dates, but an import does.
func (s *session) warnClock(entries []sharedir.Entry) {
	for _, e := range entries {
		if e.Facts != nil && e.Facts.Time.After(s.now().Add(maxAhead)) {
			s.warn("image %s is dated %s, later than the storage server's clock, which says %s: that is wrong, or was",
				e.Path, e.Facts.Time.Format(time.RFC3339), s.now().Format(time.RFC3339))
		}
	}
}

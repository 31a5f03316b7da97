package agent

import (
	"context"
	"fmt"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/usedmap/probe"
	"testbox-imaging/internal/usedmap/volume"
	"testbox-imaging/internal/words"
)

// named refuses images that are called as partitions are. Images with a sidecar
// were made by an agent, which reads whole disks only.
func named(entries []sharedir.Entry) error {
	for _, e := range entries {
		if e.Facts == nil && image.NamesPartition(e.Name) {
			return fmt.Errorf("image %s has the name of a partition, and would be written over a whole disk; move it out of the folder. "+
				"If it holds a whole disk, give it the disk's name, such as sda.raw.gz", e.Path)
		}
	}
	return nil
}

// handmade looks at an image without a sidecar, which is all that says what it
// is. It refuses what is no image of a whole disk.
func (s *session) handmade(ctx context.Context, t *target) error {
	if n := t.sums.Padding; n > 0 {
		s.warn("image %s: the disk in it is whole; after it, from byte %d of the file on, %s %s, which %s passed over",
			t.entry.Name, t.sums.FileSize-n, words.Verb(n, "comes", "come"), words.Count(n, "zero"), words.Verb(n, "is", "are"))
	}
	if s.cmd.Raw {
		s.log.Info("%s: its content is taken as it is, as the arming asks", t.entry.Name)
	} else if err := looksWhole(ctx, t); err != nil {
		return fmt.Errorf("image %s %w. To write it as it is, arm with --raw", t.entry.Path, err)
	}
	if less := t.disk.Size - t.sums.RawSize; less > 0 {
		// A gzip file of several members that was cut between two looks whole.
		s.warn("image %s has no sidecar and holds %d bytes less than disk %s has; "+
			"if the disk was not replaced by a larger one, the file may be cut",
			t.entry.Name, less, t.disk.Name)
	}
	return nil
}

// looksWhole refuses content that is none of a whole disk: another tool's image
// or an archive, and a file system that is smaller than the disk. One that is as
// large is that of a disk without a partition table.
func looksWhole(ctx context.Context, t *target) error {
	ends := t.sums.Ends
	if f := ends.Form(); f != nil {
		return fmt.Errorf("does not hold the raw bytes of a disk: it unpacks to what is %s", f)
	}
	if ends.Size >= t.disk.Size {
		return nil
	}
	name, err := probe.Bare(volume.New(ctx, ends, ends.Size, t.disk.SectorSize, nil))
	if err != nil || name == "" {
		return err
	}
	return fmt.Errorf("has no partition table, but begins as a file system (%s), and is %d bytes smaller than disk %s: "+
		"it is the image of a partition",
		name, t.disk.Size-ends.Size, t.disk.Name)
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// restoring is one disk of a restore, or of a comparison.
type restoring struct {
	*image.RecordedDisk
	im     *chunk.Image
	place       // of the target
	made   bool // the target is a file that this command made
	target *localDisk
	shrunk *copier.Job // the job for a target that is smaller than the disk; nil for others
}

// pairTargets decides which disk goes to which target. Without :DISK every disk
// of the backup must have a target, because the user asked for all of them.
func pairTargets(r *image.Record, sel store.Selector, targets []string) ([]restoring, error) {
	disks := chosen(r, sel)
	var out []restoring
	left := map[string]bool{}
	for _, d := range disks {
		left[d.Name] = true
	}
	for _, t := range targets {
		name, path := splitNamed(t)
		if name == "" && len(disks) == 1 && len(targets) == 1 {
			name = disks[0].Name
		}
		i := slices.IndexFunc(disks, func(d *image.RecordedDisk) bool { return d.Name == name })
		switch {
		case name == "":
			return nil, wrong("backup %s of %s has the disks %s; say which goes where, as in %s=%s",
				r.ID, r.Box, diskNames(r), r.Disks[0].Name, path)
		case i < 0:
			return nil, wrong("backup %s of %s has no disk %s, but %s", r.ID, r.Box, name, diskNames(r))
		case !left[name]:
			return nil, wrong("disk %s of the backup is named twice", name)
		case path == "-":
			return nil, wrong("- cannot be a disk: what a restore writes it reads back; `testbox image export %s -` writes to standard output", sel)
		}
		p, err := lookPlace(path)
		if err != nil {
			return nil, err
		}
		for j := range out {
			if out[j].same(&p) {
				return nil, refused("%s and %s are the same disk", out[j].path, path)
			}
		}
		delete(left, name)
		out = append(out, restoring{RecordedDisk: disks[i], place: p})
	}
	if len(left) > 0 {
		names := strings.Join(slices.Sorted(maps.Keys(left)), ", ")
		return nil, refused("backup %s of %s has %s too, and nothing is said of it; give all disks, or take one alone as %s@%s:%s",
			r.ID, r.Box, names, r.Box, r.ID, out[0].Name)
	}
	return out, nil
}

// openTargets opens all images, and the targets that exist. It only checks a
// target that still has to be made.
func openTargets(ctx context.Context, s reader, r *image.Record, dir string, disks []restoring) error {
	for i := range disks {
		d := &disks[i]
		var err error
		if d.im, err = openImage(ctx, s, r, d.RecordedDisk); err != nil {
			return err
		}
		if err = d.notInStore(dir); err == nil {
			err = d.mayBeTarget(ctx)
		}
		if err == nil && !d.isNew() {
			d.target, err = openLocal(d.path, sectorOf(d), true, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mayBeTarget refuses a target that cannot receive an image, before it is
// opened.
func (d *restoring) mayBeTarget(ctx context.Context) error {
	if d.isNew() {
		return d.mayBeMade()
	}
	if err := d.mustBeDisk(); err != nil {
		return err
	}
	whole := disk.WholeOf(d.path)
	if !d.isBlock() || whole == "" {
		return nil
	}
	view := d.im.ReaderAt(ctx, viewCache)
	defer view.Close()
	_, err := parttab.Read(view, view.Size(), d.Disk.SectorSize)
	if errors.Is(err, parttab.ErrNone) {
		return nil
	}
	return refused("%s is a partition, and the image is of a whole disk with a partition table; its place is a disk, such as /dev/%s",
		d.path, whole)
}

// makeTargets makes the targets that do not exist, and opens them.
func makeTargets(disks []restoring) (err error) {
	for i := range disks {
		d := &disks[i]
		if !d.isNew() {
			continue
		}
		if err := makeFile(d.full, d.Disk.Size); err != nil {
			return err
		}
		d.made = true
		if d.info, err = os.Stat(d.full); err == nil {
			d.target, err = openLocal(d.full, d.Disk.SectorSize, true, false)
		}
		if err != nil {
			d.made = d.made && !errors.Is(err, disk.ErrInUse) // if another process uses the file, it must not lose its name
			return err
		}
	}
	return nil
}

// sectorOf returns the sector size for opening a target. A file gets that of
// the image. A device has its own, for which 0 is returned.
func sectorOf(d *restoring) int {
	if d.isFile() {
		return d.Disk.SectorSize
	}
	return 0
}

func makeFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return wrong("%w", err)
	}
	err = errors.Join(f.Truncate(size), f.Close(), durable.OS{}.SyncDir(filepath.Dir(path)))
	if err != nil {
		os.Remove(path)
	}
	return err
}

// closeTargets closes the targets. If no target was written to, it removes the
// files that were made. It does so while they are locked, so that nobody else
// can have begun to use them.
func closeTargets(disks []restoring, begun bool) (err error) {
	for i := range disks {
		d := &disks[i]
		if d.made && !begun {
			err = errors.Join(err, os.Remove(d.full))
		}
		if d.target != nil {
			err = errors.Join(err, d.target.close())
		}
		if d.im != nil {
			err = errors.Join(err, d.im.Close())
		}
	}
	return err
}

// refuseTargets refuses what could only fail, or do harm, after the first
// write. It accepts targets that are not made yet.
// With shrink a smaller target is taken if nothing gets lost there.
func refuseTargets(ctx context.Context, disks []restoring, unused copier.Unused, shrink bool) error {
	for i := range disks {
		d := &disks[i]
		if d.target == nil {
			continue
		}
		job := d.job()
		if shrink {
			var err error
			if job, err = shrinkJob(ctx, job, d.path); err != nil {
				return err
			}
			if job.Shrunk() != "" {
				d.shrunk = &job
			}
		}
		if err := job.Check(unused); err != nil {
			return refused("%s: %w", d.path, err)
		}
	}
	return nil
}

// job returns the job of package copier for the disk.
func (d *restoring) job() copier.Job {
	if d.shrunk != nil {
		return *d.shrunk
	}
	return copier.Job{
		Name: d.Name, Image: copier.StoredImage{Image: d.im}, Target: d.target.Target,
		SectorSize: d.target.identity.SectorSize, Rotational: d.target.rotating, Cached: d.target.cached,
	}
}

// shrinkJob lets a job take a target that is smaller than the image, or refuses that.
func shrinkJob(ctx context.Context, j copier.Job, path string) (copier.Job, error) {
	j, err := copier.Shrink(ctx, j, nil)
	switch {
	case errors.Is(err, copier.ErrUnfit):
		return j, refused("%s: --shrink-table: %w", path, err)
	case err != nil:
		return j, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}

// content says what a disk holds, for the question whether it may be
// overwritten. The error is that of the context.
func (d *localDisk) content(ctx context.Context) (string, error) {
	m, err := usedmap.Read(ctx, d, d.identity.Size, d.identity.SectorSize)
	if err != nil {
		return "", err
	}
	var parts []string
	for i := range m.Parts {
		if p := &m.Parts[i]; p.Kind == usedmap.Partition || p.FS != "" {
			parts = append(parts, fmt.Sprintf("%s (%s)", partName(p), printable(cmp.Or(strings.TrimSpace(p.FS+" "+p.Label), "nothing known"))))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing known"), nil
}

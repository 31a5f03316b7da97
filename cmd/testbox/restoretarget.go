package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// restoring is one disk of a restore.
type restoring struct {
	*image.RecordedDisk
	im     *chunk.Image
	path   string // of the target
	made   bool   // the target is a file that was made for it
	target *localDisk
}

// pairTargets says which disk goes where.
func pairTargets(r *image.Record, sel store.Selector, targets []string) ([]restoring, error) {
	disks := chosen(r, sel)
	var out []restoring
	used := map[string]bool{}
	for _, t := range targets {
		name, path := splitNamed(t)
		if name == "" && len(disks) == 1 && len(targets) == 1 {
			name = disks[0].Name
		}
		var of *image.RecordedDisk
		for _, d := range disks {
			if d.Name == name {
				of = d
			}
		}
		switch {
		case name == "":
			return nil, wrong("backup %s of %s has the disks %s; say which goes where, as in %s=%s", r.ID, r.Box, diskNames(r), r.Disks[0].Name, path)
		case of == nil:
			return nil, wrong("backup %s of %s has no disk %s, but %s", r.ID, r.Box, name, diskNames(r))
		case used[name] || used["="+path]:
			return nil, wrong("%s stands there twice", t)
		}
		used[name], used["="+path] = true, true
		out = append(out, restoring{RecordedDisk: of, path: path})
	}
	return out, nil
}

// openTargets opens all images and targets; files that are not there are made.
func openTargets(cmd *cobra.Command, s *store.Locked, disks []restoring) error {
	for i := range disks {
		d := &disks[i]
		var err error
		if d.im, err = openImage(cmd.Context(), s, d.RecordedDisk); err != nil {
			return err
		}
		if _, err := os.Stat(d.path); errors.Is(err, os.ErrNotExist) {
			if err := makeFile(d.path, d.Disk.Size); err != nil {
				return err
			}
			d.made = true
		}
		if d.target, err = openLocal(d.path, sectorOf(d), true, false); err != nil {
			return err
		}
	}
	return nil
}

// sectorOf is the sector size that a target is taken for: a file has the
// image's, a device its own.
func sectorOf(d *restoring) int {
	if st, err := os.Stat(d.path); err == nil && st.Mode().IsRegular() {
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

// closeTargets closes targets, and removes files that were made for nothing.
func closeTargets(disks []restoring, begun bool) (err error) {
	for i := range disks {
		d := &disks[i]
		if d.target != nil {
			err = errors.Join(err, d.target.close())
		}
		if d.made && !begun {
			err = errors.Join(err, os.Remove(d.path))
		}
	}
	return err
}

// refuseTargets refuses what could only fail, or do harm, after the first write.
func refuseTargets(disks []restoring, unused copier.Unused) error {
	for i := range disks {
		d := &disks[i]
		t := d.target
		can, ok := t.Target.(copier.Discarder)
		switch {
		case t.identity.SectorSize != d.Disk.SectorSize:
			return refused("%s has sectors of %d bytes, the image %d: its partition table would mean other places", d.path, t.identity.SectorSize, d.Disk.SectorSize)
		case t.identity.Size < d.Disk.Size:
			return refused("%s has %d bytes, the image %d; it needs a disk at least as large", d.path, t.identity.Size, d.Disk.Size)
		case unused == copier.UnusedDiscard && !(ok && can.CanDiscard()):
			return refused("%s cannot discard; say --unused=keep or --unused=zero", d.path)
		}
		for j := range disks[:i] {
			if sameFile(disks[j].path, d.path) {
				return refused("%s and %s are the same disk", disks[j].path, d.path)
			}
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// content says what a disk holds, for who is asked whether it may be lost.
func (d *localDisk) content(ctx context.Context) string {
	m, err := usedmap.Read(ctx, d, d.identity.Size, d.identity.SectorSize)
	if err != nil {
		return "what cannot be read"
	}
	var parts []string
	for i := range m.Parts {
		if p := &m.Parts[i]; p.Kind == usedmap.Partition || p.FS != "" {
			parts = append(parts, fmt.Sprintf("%s (%s)", partName(p), printable(or(strings.TrimSpace(p.FS+" "+p.Label), "nothing known"))))
		}
	}
	return or(strings.Join(parts, ", "), "nothing known")
}

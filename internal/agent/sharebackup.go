package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/usedmap"
)

// shareBackup is share mode's Backup. It makes image files with sidecars, which
// replace the present ones.
type shareBackup struct {
	home         *shareHome
	names        map[string]string // from a disk's kernel name to its image's name
	entries, old []sharedir.Entry  // the present images, and the .old ones
	host, uuid   string
	set          *sharedir.Set   // nil before Begin
	made         map[string]bool // from an image's name to whether it is undamaged
}

// Plan checks that the backup will not lose any of the present images.
func (h *shareHome) Plan(disks []disk.Disk, choice match.Choice) (Backup, error) {
	b, err := h.plan(disks, choice)
	if err != nil {
		return nil, err
	}
	h.warnClock(b.entries)
	if free, known := h.folder.Free(); known {
		h.Voice.Info("%d MB are free on the storage server", free/1e6)
	}
	return b, nil
}

func (h *shareHome) plan(disks []disk.Disk, choice match.Choice) (*shareBackup, error) {
	entries, old, err := h.earlier()
	if err != nil {
		return nil, err
	}
	b := &shareBackup{home: h, entries: entries, old: old, made: map[string]bool{}}
	b.names = imageNames(disks, append(entries[:len(entries):len(entries)], old...))
	return b, b.successors(choice)
}

// earlier lists the present images and the .old ones. The error says why there
// can be no backup beside them.
func (h *shareHome) earlier() (entries, old []sharedir.Entry, err error) {
	if entries, err = h.folder.Images(); err != nil {
		return nil, nil, err
	}
	if h.Cmd.Action == box.Backup && len(entries) > 0 {
		return nil, nil, fmt.Errorf("%w: %s; arm the box for backup-again to keep them as .old", sharedir.ErrImages, entryNames(entries))
	}
	old, oldErr := h.folder.OldImages()
	if oldErr != nil {
		h.Voice.Error("old images: %v", oldErr)
	}
	if oldErr != nil && len(entries) > 0 {
		return nil, nil, oldErr // one of the .old images may be the last image of a disk
	}
	return entries, old, nil
}

// imageNames gives each disk the name of its first backup. The .old images are
// among the entries, since they help to tell disks apart too.
func imageNames(disks []disk.Disk, entries []sharedir.Entry) map[string]string {
	var known []image.Label
	for _, e := range entries {
		if e.Facts != nil {
			known = append(known, e.Facts.Label())
		}
	}
	return match.Names(known, disks)
}

// successors reports images whose disk is not in this backup. They become .old.
// If that would remove the last image of a disk, it is an error.
func (b *shareBackup) successors(choice match.Choice) error {
	kept := map[string]bool{}
	for _, d := range choice.Disks {
		kept[b.names[d.Name]] = true
	}
	for _, e := range b.entries {
		switch {
		case kept[e.Name]:
		case choice.Named():
			b.home.Voice.Info("image %s becomes %s.old: its disk is not among the named ones", e.Name, e.Path)
		default:
			b.home.Voice.Warn("image %s has no successor in this backup, since its disk was not found; it becomes %s.old", e.Name, e.Path)
		}
		kept[e.Name] = true
	}
	if len(b.entries) == 0 {
		return nil // the .old images stay
	}
	for _, e := range b.old {
		if !kept[e.Name] {
			return fmt.Errorf("%s is the last image of a disk that is not in this backup, and would be removed; "+
				"move it out of the folder, or back up its disk too", e.Path)
		}
	}
	return nil
}

func entryNames(entries []sharedir.Entry) string {
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Path
	}
	return strings.Join(names, ", ")
}

// maxAhead is how far two readings of the storage server's clock may differ.
const maxAhead = 15 * time.Minute

// warnClock warns of images whose date is in the future, since a clock is or
// was wrong. Nothing in share mode uses these dates, but an import does.
func (h *shareHome) warnClock(entries []sharedir.Entry) {
	for _, e := range entries {
		if e.Facts != nil && e.Facts.Time.After(h.Now().Add(maxAhead)) {
			h.Voice.Warn("image %s is dated %s, later than the storage server's clock, which says %s: that is wrong, or was",
				e.Path, e.Facts.Time.Format(time.RFC3339), h.Now().Format(time.RFC3339))
		}
	}
}

// Name is the name of the disk's first image.
func (b *shareBackup) Name(d disk.Disk) string { return b.names[d.Name] }

// Used implements Backup. An image of share mode has all bytes of its disk.
func (b *shareBackup) Used(context.Context, disk.Disk, copier.Source) (*usedmap.Map, error) {
	return nil, nil
}

// Begin begins a set of images.
func (b *shareBackup) Begin(host, uuid string) (err error) {
	b.host, b.uuid = host, uuid
	b.set, err = b.home.folder.Begin(b.home.Cmd.Arming)
	return err
}

// Save writes one image of the set.
func (b *shareBackup) Save(ctx context.Context, d disk.Disk, from copier.Source, opt copier.SourceOptions) (image.Receipt, error) {
	name := b.Name(d)
	file, err := b.set.Create(name)
	if err != nil {
		return image.Receipt{}, err
	}
	b.home.Voice.Info("%s: backing up disk %s", name, d.Name)
	w := rawgz.NewWriter(file)
	r, err := copier.Backup(ctx, from, w, opt)
	if err != nil {
		return r, err
	}
	sums, err := w.Close()
	if err != nil {
		return r, err
	}
	if sums.RawSize != d.Size {
		return r, fmt.Errorf("the image has %d bytes, the disk %d", sums.RawSize, d.Size)
	}
	if err := b.set.Finish(name, b.facts(name, d, sums, r.Bad)); err != nil {
		return r, err
	}
	r.BLAKE3 = sums.BLAKE3
	b.made[name] = len(r.Bad) == 0
	b.home.Voice.Info("%s: image of %d bytes, sha256 %s", name, sums.FileSize, sums.SHA256)
	return r, nil
}

func (b *shareBackup) facts(name string, d disk.Disk, sums rawgz.Sums, bad []image.Range) *image.Facts {
	cmd := b.home.Cmd
	return &image.Facts{
		Format: image.FactsFormat, Name: name, Kernel: d.Name, Disk: d.Identity,
		Box: cmd.Address.String(), Host: b.host, UUID: b.uuid, Arming: cmd.Arming, Time: b.home.Now(),
		BLAKE3: sums.BLAKE3, SHA256: sums.SHA256, FileSize: sums.FileSize, Bad: bad,
		Firmware: b.home.state,
	}
}

// Commit puts the set in place.
func (b *shareBackup) Commit(context.Context) error {
	before, err := b.before()
	if err != nil {
		return refusal{err}
	}
	if err := b.set.Commit(before); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Abort removes the set's files.
func (b *shareBackup) Abort() {
	if b.set != nil {
		b.set.Abort()
	}
}

// before decides what becomes of the present images and of the older .old ones.
// A disk that has an undamaged image still has one afterwards. A damaged new
// image makes the present one .old, but not if that would remove the only
// undamaged .old one.
func (b *shareBackup) before() (sharedir.Before, error) {
	if b.home.Cmd.Action == box.Backup || len(b.entries) == 0 {
		return sharedir.None, nil
	}
	lostBy := func(kept, dropped []sharedir.Entry) string {
		for _, e := range dropped {
			if wholeEntry(e) && !b.made[e.Name] && !hasWhole(kept, e.Name) {
				return e.Path
			}
		}
		return ""
	}
	retiring := lostBy(b.entries, b.old)
	if retiring == "" {
		return sharedir.Retire, nil
	}
	replaced := lostBy(b.old, b.entries)
	for _, e := range b.entries {
		if _, successor := b.made[e.Name]; !successor {
			replaced = e.Path
		}
	}
	if replaced != "" {
		return 0, fmt.Errorf("%s is the last whole image of its disk, and would be removed since the new one is damaged; "+
			"move it out of the folder, then back up again (it cannot stay, because of %s)", retiring, replaced)
	}
	b.home.Voice.Warn("the images before this backup are damaged as well, and are replaced; "+
		"the .old images stay, since they are whole: %s", entryNames(b.old))
	return sharedir.Replace, nil
}

func hasWhole(entries []sharedir.Entry, name string) bool {
	return slices.ContainsFunc(entries, func(e sharedir.Entry) bool { return e.Name == name && wholeEntry(e) })
}

package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/usedmap/probe"
	"testbox-imaging/internal/usedmap/volume"
	"testbox-imaging/internal/words"
)

// List lists the images of the box's folder that the arming asks for.
func (h *shareHome) List() ([]Image, error) {
	entries, err := h.entries()
	images := make([]Image, len(entries))
	for i, e := range entries {
		images[i] = &shareImage{home: h, entry: e}
	}
	if err == nil && h.Cmd.From != "" {
		h.tellSource(entries)
	}
	return images, err
}

// tellSource says whose images are used, and what the box may be taken for then.
func (h *shareHome) tellSource(entries []sharedir.Entry) {
	whose := h.Cmd.From
	if f := entries[0].Facts; f != nil { // oneBackup has seen that all have them, or none
		whose += fmt.Sprintf(" (%s), backup of %s, arming %s", cmp.Or(f.Host, "unknown"), f.Time.UTC().Format(time.RFC3339), f.Arming)
	}
	h.Voice.Info("the images are those of box %s, in %s; nothing is written there", whose, h.source().Dir())
	if h.Cmd.Action == box.Restore && box.SharesMachineID(h.Cmd.From, h.Cmd.Hooks) {
		h.Voice.Warn("the system is that of %s, and has its machine-id too, if it has one: the hook %s was not asked for",
			h.Cmd.From, box.HookMachineID)
	}
}

// source is the folder whose images are restored or compared. It is only read, also if it
// is another box's.
func (h *shareHome) source() *sharedir.Folder {
	from, err := box.ParseAddr(h.Cmd.From)
	if err != nil { // it is ""
		return h.folder
	}
	return h.folder.Beside(from)
}

func (h *shareHome) entries() ([]sharedir.Entry, error) {
	from := h.source()
	list, none := from.Images, "there is no image in %s; arm the box for backup first"
	if h.Cmd.OldImages {
		list, none = from.OldImages, "there is no .old image in %s; arm the box without --image=old for those of the last backup"
	}
	if h.Cmd.From != "" {
		list, none = h.steady(list), strings.Replace(none, "arm the box for backup", "arm box "+h.Cmd.From+" for backup", 1)
	}
	entries, err := list()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf(none, from.Dir())
	}
	if err := wholeDisks(entries); err != nil {
		return nil, err
	}
	return entries, h.oneBackup(entries)
}

// steady makes a list of another box's images that is refused while that box is at work on
// them. A backup puts its files in place one after the other, so a single look could see
// some of the new ones and not the others. Nobody has to be kept out for that: the file
// that lists a backup which is not in place yet is there from before the first rename to
// after the last one. A look without that file before, and the same images without it
// after, are those of one backup.
func (h *shareHome) steady(list func() ([]sharedir.Entry, error)) func() ([]sharedir.Entry, error) {
	from := h.source()
	return func() ([]sharedir.Entry, error) {
		if err := from.Own(); err != nil {
			return nil, err
		}
		if _, err := h.FS.ReadDir(from.Dir()); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("box %s has no folder %s; arm that box for backup first", h.Cmd.From, from.Dir())
		}
		var looks [2][]sharedir.Entry
		for i := range looks {
			var err error
			switch looks[i], err = list(); {
			case errors.Is(err, sharedir.ErrUnfinished):
				return nil, fmt.Errorf("box %s is putting a backup in place, or was cut off from that (%w); this goes on when it is done. "+
					"Any action of box %s ends what was cut off, such as refresh-info", h.Cmd.From, err, h.Cmd.From)
			case err != nil:
				return nil, err
			}
		}
		same := func(a, b sharedir.Entry) bool {
			return a.Path == b.Path && a.Size == b.Size && (a.Facts == nil) == (b.Facts == nil) &&
				(a.Facts == nil || bytes.Equal(a.Facts.Marshal(), b.Facts.Marshal()))
		}
		if !slices.EqualFunc(looks[0], looks[1], same) {
			return nil, fmt.Errorf("the images of box %s in %s were changed while they were listed; this goes on when that is over",
				h.Cmd.From, from.Dir())
		}
		return looks[0], nil
	}
}

// wholeDisks refuses images that have the name of a partition. It accepts
// images with a sidecar, since an agent made them, and it only reads complete
// disks.
func wholeDisks(entries []sharedir.Entry) error {
	for _, e := range entries {
		if e.Facts == nil && image.NamesPartition(e.Name) {
			return fmt.Errorf("image %s has the name of a partition, and would be written over a whole disk; move it out of the folder. "+
				"If it holds a whole disk, give it the disk's name, such as sda.raw.gz", e.Path)
		}
	}
	return nil
}

// oneBackup refuses images that were not made together.
func (h *shareHome) oneBackup(entries []sharedir.Entry) error {
	armings := map[box.Arming]bool{}
	for _, e := range entries {
		arming := box.Arming("") // "" for an image without a sidecar
		if e.Facts != nil {
			arming = e.Facts.Arming
		}
		armings[arming] = true
	}
	if len(armings) > 1 {
		return fmt.Errorf("the images are not of one backup (%s); move those that do not belong together out of %s",
			entryNames(entries), h.source().Dir())
	}
	return nil
}

// shareImage is share mode's Image. It is a file, with a sidecar if an agent
// made it.
type shareImage struct {
	home  *shareHome
	entry sharedir.Entry
	sums  rawgz.Sums       // as checked
	file  durable.Readable // as checked; nil before Check
}

// Info returns what the sidecar says. Without a sidecar only the name is known.
func (im *shareImage) Info() ImageInfo {
	e := im.entry
	if e.Facts == nil {
		return ImageInfo{Label: image.Label{Name: e.Name}, Place: e.Path}
	}
	return ImageInfo{Label: e.Facts.Label(), Place: e.Path, Box: e.Facts.Box, Host: e.Facts.Host, UUID: e.Facts.UUID, Bad: e.Facts.Bad}
}

// CheckBytes returns the length of the file. Without a sidecar it returns 0,
// because the time for the check then depends on the unpacked length.
func (im *shareImage) CheckBytes() (n int64, reads bool) {
	if im.entry.Facts == nil {
		return 0, true
	}
	return im.entry.Facts.FileSize, !im.home.Cmd.PrecheckSize
}

// Check opens the file, and reads all of it. What is restored is this file, also if
// another one has its name meanwhile: the images of another box can become .old. With --precheck=size it only relies on the
// length, which List compared with the sidecar. An image without a sidecar has
// no known length, so it is always read.
func (im *shareImage) Check(ctx context.Context, d disk.Disk, tell func(done, total int64)) error {
	h, e := im.home, im.entry
	file, err := h.FS.Open(e.Path)
	if err != nil {
		return fmt.Errorf("image %s: %w", e.Path, err)
	}
	im.file = file
	if f := e.Facts; f != nil && h.Cmd.PrecheckSize {
		im.sums = rawgz.Sums{RawSize: f.Disk.Size, FileSize: f.FileSize, BLAKE3: f.BLAKE3, SHA256: f.SHA256}
		h.Voice.Info("%s: only the size of the image is checked, as the arming asks", e.Name)
		return nil
	}
	if err := im.checkFile(ctx, tell); err != nil {
		return fmt.Errorf("image %s: %w", e.Path, err)
	}
	if e.Facts == nil {
		if err := im.checkHandmade(ctx, d); err != nil {
			return err
		}
	}
	switch size := im.sums.RawSize; {
	case size > d.Size && !h.Cmd.ShrinkTable:
		return fmt.Errorf("image %s holds a disk of %d bytes, disk %s has %d", e.Path, size, d.Name, d.Size)
	case size == 0 || size%int64(d.SectorSize) != 0:
		return fmt.Errorf("image %s holds %d bytes, which is no disk of %d-byte sectors; it was cut before it was compressed",
			e.Path, size, d.SectorSize)
	}
	return nil
}

func (im *shareImage) checkFile(ctx context.Context, tell func(done, total int64)) error {
	var err error
	if im.sums, err = rawgz.Check(ctx, im.file, im.file.Size(), im.entry.Facts, tell); err != nil {
		return err
	}
	im.home.Voice.Info("%s: image checked, whole and undamaged", im.entry.Name)
	return nil
}

// checkHandmade checks an image without a sidecar, about which only its content
// says what it is. It refuses content that is not that of a complete disk.
func (im *shareImage) checkHandmade(ctx context.Context, d disk.Disk) error {
	h, e := im.home, im.entry
	if n := im.sums.Padding; n > 0 {
		h.Voice.Warn("image %s: the disk in it is whole; after it, from byte %d of the file on, %s %s, which %s passed over",
			e.Name, im.sums.FileSize-n, words.Verb(n, "comes", "come"), words.Count(n, "zero"), words.Verb(n, "is", "are"))
	}
	if h.Cmd.Raw {
		h.Voice.Info("%s: its content is taken as it is, as the arming asks", e.Name)
	} else if err := im.looksWhole(ctx, d); err != nil {
		return fmt.Errorf("image %s %w. To write it as it is, arm with --raw", e.Path, err)
	}
	if less := d.Size - im.sums.RawSize; less > 0 {
		// A gzip file that was cut between two members looks complete.
		h.Voice.Warn("image %s has no sidecar and holds %d bytes less than disk %s has; "+
			"if the disk was not replaced by a larger one, the file may be cut",
			e.Name, less, d.Name)
	}
	return nil
}

// looksWhole refuses content that is not that of a complete disk, such as
// another tool's image, an archive, or a file system that is smaller than the
// disk. A file system as large as the disk is accepted, since a disk can have
// no partition table.
func (im *shareImage) looksWhole(ctx context.Context, d disk.Disk) error {
	ends := im.sums.Ends
	if f := ends.Form(); f != nil {
		return fmt.Errorf("does not hold the raw bytes of a disk: it unpacks to what is %s", f)
	}
	if other := parttab.OtherSector(ends, ends.Size, d.SectorSize); other != 0 {
		return fmt.Errorf("is of a disk with sectors of %d bytes, disk %s has %d, where its partition table would mean other places; "+
			"use a disk with %d-byte sectors", other, d.Name, d.SectorSize, other)
	}
	if ends.Size >= d.Size {
		return nil
	}
	name, err := probe.Bare(volume.New(ctx, ends, ends.Size, d.SectorSize, nil))
	if err != nil || name == "" {
		return err
	}
	return fmt.Errorf("has no partition table, but begins as a file system (%s), and is %d bytes smaller than disk %s: "+
		"it is the image of a partition",
		name, d.Size-ends.Size, d.Name)
}

// Layout implements Image. A file does not list the partitions.
func (im *shareImage) Layout() usedmap.Layout { return usedmap.Layout{} }

// Job returns the image as Check found it.
func (im *shareImage) Job() copier.Job {
	file := copier.FileImage{DiskSize: im.sums.RawSize, BLAKE3: im.sums.BLAKE3, Reader: im.open}
	return copier.Job{Name: im.entry.Name, Image: file}
}

// open begins to read the image.
func (im *shareImage) open() (image.Reader, error) {
	r, err := rawgz.NewReader(im.file, im.file.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", im.entry.Path, err)
	}
	return r, nil
}

// Close closes the file.
func (im *shareImage) Close() {
	if im.file != nil {
		im.file.Close()
		im.file = nil
	}
}

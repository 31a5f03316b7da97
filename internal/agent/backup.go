package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/words"
)

// backup makes an image of each chosen disk and commits them together.
func (s *session) backup(ctx context.Context, disks []disk.Disk, choice match.Choice) error {
	entries, old, err := s.earlier()
	if err != nil {
		return refusal{err}
	}
	names := imageNames(disks, append(entries[:len(entries):len(entries)], old...))
	if err := s.successors(names, choice, entries, old); err != nil {
		return refusal{err}
	}
	s.warnClock(entries)
	if free, known := s.folder.Free(); known {
		s.log.Info("%d MB are free on the storage server", free/1e6)
	}
	if err := s.probe(ctx, names, choice.Disks); err != nil {
		return err
	}
	set, err := s.folder.Begin(s.cmd.Arming)
	if err != nil {
		return err
	}
	defer set.Abort()
	var plan []progress.Work
	for _, d := range choice.Disks {
		plan = append(plan, progress.Work{Disk: d.Name, Pass: "read", Bytes: d.Size})
	}
	s.planned(plan)
	made := map[string]bool{} // image -> it is whole
	for _, d := range choice.Disks {
		r, err := s.backupDisk(ctx, set, names[d.Name], d)
		if err != nil {
			return failingDisk(names[d.Name], d, err)
		}
		made[names[d.Name]] = len(r.Bad) == 0
	}
	before, err := s.before(made, entries, old)
	if err != nil {
		return refusal{err}
	}
	if err := set.Commit(before); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.log.Info("committed, %s", words.Count(len(choice.Disks), "image"))
	for _, whole := range made {
		if !whole {
			return errBadSectors
		}
	}
	return nil
}

// earlier lists the images that are there and the .old ones. The error is why
// there can be no backup beside them.
func (s *session) earlier() (entries, old []sharedir.Entry, err error) {
	if entries, err = s.folder.Images(); err != nil {
		return nil, nil, err
	}
	if s.cmd.Action == box.Backup && len(entries) > 0 {
		return nil, nil, fmt.Errorf("%w: %s; arm the box for backup-again to keep them as .old", sharedir.ErrImages, entryNames(entries))
	}
	old, oldErr := s.folder.OldImages()
	if oldErr != nil {
		s.log.Error("old images: %v", oldErr)
	}
	if oldErr != nil && len(entries) > 0 {
		return nil, nil, oldErr // one of them may be the last image of a disk
	}
	return entries, old, nil
}

// imageNames gives each disk the name of its first backup. The images of the
// backup before last still tell disks apart.
func imageNames(disks []disk.Disk, entries []sharedir.Entry) map[string]string {
	var known []image.Label
	for _, e := range entries {
		if e.Facts != nil {
			known = append(known, e.Facts.Label())
		}
	}
	return match.Names(known, disks)
}

// successors looks for images whose disk is not among those of this backup.
// They become .old; the last image of a disk is never let go of for a backup
// without that disk.
func (s *session) successors(names map[string]string, choice match.Choice, entries, old []sharedir.Entry) error {
	kept := map[string]bool{}
	for _, d := range choice.Disks {
		kept[names[d.Name]] = true
	}
	for _, e := range entries {
		switch {
		case kept[e.Name]:
		case choice.Named():
			s.log.Info("image %s becomes %s.old: its disk is not among the named ones", e.Name, e.Path)
		default:
			s.warn("image %s has no successor in this backup, since its disk was not found; it becomes %s.old", e.Name, e.Path)
		}
		kept[e.Name] = true
	}
	if len(entries) == 0 {
		return nil // what is .old stays
	}
	for _, e := range old {
		if !kept[e.Name] {
			return fmt.Errorf("%s is the last image of a disk that is not in this backup, and would be removed; move it out of the folder, or back up its disk too", e.Path)
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

// backupDisk writes one image of the set.
func (s *session) backupDisk(ctx context.Context, set *sharedir.Set, name string, d disk.Disk) (image.Receipt, error) {
	dev, err := disk.Open(s.cfg.Dev, d, false)
	if err != nil {
		return image.Receipt{}, err
	}
	defer dev.Close()
	file, err := set.Create(name)
	if err != nil {
		return image.Receipt{}, err
	}
	s.log.Info("%s: backing up disk %s", name, d.Name)
	p := s.progress(d.Name)
	w := rawgz.NewWriter(file)
	r, err := copier.Backup(ctx, dev, w, s.copierOptions(p, d))
	p.end()
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
	facts := s.facts(name, d, sums, r.Bad)
	if err := set.Finish(name, facts); err != nil {
		return r, err
	}
	r.BLAKE3 = sums.BLAKE3
	s.take(r, name, d)
	s.log.Info("%s: image of %d bytes, sha256 %s", name, sums.FileSize, sums.SHA256)
	return r, nil
}

func (s *session) facts(name string, d disk.Disk, sums rawgz.Sums, bad []image.Range) *image.Facts {
	return &image.Facts{
		Format: image.FactsFormat, Name: name, Kernel: d.Name, Disk: d.Identity,
		Box: s.cmd.Address.String(), Host: s.host, UUID: s.uuid, Arming: string(s.cmd.Arming), Time: s.now(),
		BLAKE3: sums.BLAKE3, SHA256: sums.SHA256, FileSize: sums.FileSize, Bad: bad,
	}
}

func (s *session) copierOptions(p *teller, d disk.Disk) copier.Options {
	opt := copier.Options{
		Alive: s.cfg.Alive, SectorSize: d.SectorSize, Alloc: disk.AlignedBuffer,
		Medium: func(err error) bool { return errors.Is(err, disk.ErrMedium) }, TakeFailing: s.cmd.AcceptFailing,
	}
	if p != nil {
		opt.Progress = p.tell
	}
	return opt
}

// maxBadLines is how many bad ranges the log names; the sidecar has all.
const maxBadLines = 20

func (s *session) logBad(name string, bad []image.Range, what string) {
	for _, b := range bad[:min(len(bad), maxBadLines)] {
		s.log.Error("%s: bytes %d to %d %s", name, b.Off, b.End()-1, what)
	}
	if more := len(bad) - maxBadLines; more > 0 {
		s.log.Error("%s: and %s", name, words.Count(more, "more such place"))
	}
}

// take keeps a receipt and logs what it proves.
func (s *session) take(r image.Receipt, name string, d disk.Disk) {
	r.Image, r.Disk, r.Identity = name, d.Name, d.Identity
	s.receipts = append(s.receipts, r)
	for _, st := range r.Stages {
		s.log.Info("%s: %s %d bytes in %s, %.0f MB/s", name, st.Name, st.Bytes, st.Elapsed.Round(1e6), st.Rate()/1e6)
	}
	s.log.Info("%s: receipt: read %d, zero %d, written %d, verified %d bytes, blake3 %s", name, r.Read, r.Zero, r.Written, r.Verified, r.BLAKE3)
	for _, c := range r.Changed {
		s.log.Info("%s: bytes %d to %d were fitted to the larger disk", name, c.Off, c.End()-1)
	}
	s.logBad(name, r.Bad, "of the disk cannot be read")
}

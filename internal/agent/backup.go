package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/words"
)

// backup makes an image of each chosen disk and commits them together.
func (s *session) backup(ctx context.Context, disks []disk.Disk, choice match.Choice) error {
	b, err := s.home.Plan(disks, choice)
	if err != nil {
		return refusalOf(err)
	}
	defer b.Abort()
	plan, err := s.probe(ctx, b, choice.Disks)
	if err != nil {
		return err
	}
	if err := b.Begin(s.host, s.uuid); err != nil {
		return err
	}
	s.planned(plan)
	for try := 1; ; try++ {
		result, err := s.save(ctx, b, choice.Disks)
		if err == nil || !errors.Is(err, ErrAgain) || try == maxTries {
			return cmp.Or(err, result)
		}
		s.warn("%v; the disks are read again, and what is missing is saved", err)
	}
}

// maxTries is how often the disks are read for one backup, if what was saved gets
// lost before the commit. Each loss needs an event of its own: a pack that could not
// be written, damage that was found, or a server that was started again with packs
// that were not complete. A collection is none, since it keeps what a session counts
// on. So three losses in one backup mean that something is broken, such as a full
// disk of the store, and reading more often would not help. The backup fails then. What
// was stored stays, so that the next attempt of the job sends only the rest.
const maxTries = 3

// save makes the images and commits them. result is nil or errBadSectors.
func (s *session) save(ctx context.Context, b Backup, disks []disk.Disk) (result, err error) {
	s.receipts = nil
	for _, d := range disks {
		r, err := s.backupDisk(ctx, b, d)
		if err != nil {
			return nil, failingDisk(b.Name(d), d, err)
		}
		if len(r.Bad) > 0 {
			result = errBadSectors
		}
	}
	s.home.Progress("commit", "committing the backup", 0, 0, 0)
	if err := b.Commit(ctx); err != nil {
		return nil, err
	}
	s.log.Info("committed, %s", words.Count(len(disks), "image"))
	return result, nil
}

// backupDisk makes one image of the backup.
func (s *session) backupDisk(ctx context.Context, b Backup, d disk.Disk) (image.Receipt, error) {
	dev, err := disk.Open(s.cfg.Dev, d, false)
	if err != nil {
		return image.Receipt{}, err
	}
	defer dev.Close()
	p := s.progress(d.Name)
	r, err := b.Save(ctx, d, dev, s.sourceOptions(p, d))
	p.end()
	if err != nil {
		return r, err
	}
	s.addReceipt(r, b.Name(d), d)
	return r, nil
}

// probe checks all disks before the first is read. If a disk is failing, no
// image is made, and the present images do not change. It returns what has to be
// read.
func (s *session) probe(ctx context.Context, b Backup, disks []disk.Disk) (plan []progress.Work, err error) {
	for _, d := range disks {
		bytes, err := s.probeDisk(ctx, b, d)
		if err != nil {
			return nil, failingDisk(b.Name(d), d, err)
		}
		plan = append(plan, progress.Work{Disk: d.Name, Pass: "read", Bytes: bytes})
	}
	return plan, nil
}

// probeDisk checks one disk, and returns how many bytes of it have to be read.
func (s *session) probeDisk(ctx context.Context, b Backup, d disk.Disk) (bytes int64, err error) {
	dev, err := disk.Open(s.cfg.Dev, d, false)
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	used, err := b.Used(ctx, d, dev)
	if err != nil {
		return 0, err
	}
	bytes = d.Size
	if used != nil {
		bytes -= used.FreeBytes()
	}
	return bytes, copier.Probe(ctx, dev, used, s.sourceOptions(nil, d))
}

// failingDisk adds names to the error of a disk's backup. It is a refusal if
// the disk is failing.
func failingDisk(name string, d disk.Disk, err error) error {
	err = fmt.Errorf("%s (disk %s): %w", name, d.Name, err)
	if !errors.Is(err, copier.ErrFailing) {
		return err
	}
	return refuse("%w. If the box is armed with --accept-failing, what can be read of the disk is backed up; "+
		"with --disks, its other disks alone", err)
}

// copierOptions are the options for all work on disks. Without p there is no
// progress.
func (s *session) copierOptions(p *teller) copier.Options {
	opt := copier.Options{Alive: s.cfg.Alive}
	if p != nil {
		opt.Progress = p.tell
	}
	return opt
}

// sourceOptions are the options for a disk that is backed up.
func (s *session) sourceOptions(p *teller, d disk.Disk) copier.SourceOptions {
	return copier.SourceOptions{Options: s.copierOptions(p), SectorSize: d.SectorSize, TakeFailing: s.cmd.AcceptFailing}
}

// maxBadLines is how many bad ranges the log has. The sidecar has all of them.
const maxBadLines = 20

func (s *session) logBad(name string, bad []image.Range, what string) {
	for _, b := range bad[:min(len(bad), maxBadLines)] {
		s.log.Error("%s: bytes %d to %d %s", name, b.Off, b.End()-1, what)
	}
	if more := len(bad) - maxBadLines; more > 0 {
		s.log.Error("%s: and %s", name, words.Count(more, "more such place"))
	}
}

// addReceipt adds a receipt to those of the record, and logs what it proves.
func (s *session) addReceipt(r image.Receipt, name string, d disk.Disk) {
	r.Image, r.Disk, r.Identity = name, d.Name, d.Identity
	s.receipts = append(s.receipts, r)
	for _, st := range r.Stages {
		s.log.Info("%s: %s %d bytes in %s, %.0f MB/s", name, st.Name, st.Bytes, st.Elapsed.Round(1e6), st.Rate()/1e6)
	}
	known := "blake3 " + r.BLAKE3
	if r.BLAKE3 == "" {
		known = "image " + r.Root
	}
	s.log.Info("%s: receipt: read %d, zero %d, written %d, verified %d bytes, %s", name, r.Read, r.Zero, r.Written, r.Verified, known)
	for _, c := range r.Changed {
		if c.Off >= d.Size {
			s.log.Info("%s: bytes %d to %d have no place on the smaller disk, and are left out", name, c.Off, c.End()-1)
			continue
		}
		s.log.Info("%s: bytes %d to %d were fitted to the disk", name, c.Off, c.End()-1)
	}
	s.logBad(name, r.Bad, "of the disk cannot be read")
}

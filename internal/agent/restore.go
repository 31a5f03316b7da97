package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/usedmap"
)

// target is one image and the disk it belongs on.
type target struct {
	entry sharedir.Entry
	disk  disk.Disk
	sums  rawgz.Sums // of the image, as checked
}

// restore writes the images back.
func (s *session) restore(ctx context.Context, disks []disk.Disk, choice match.Choice) error {
	targets, jobs, closeAll, err := s.prepare(ctx, disks, choice, true)
	if err != nil {
		return refusal{err}
	}
	defer closeAll()
	p := s.progress(diskNames(targets))
	receipts, err := copier.Restore(ctx, jobs, s.copierOptions(p, targets[0].disk))
	p.end()
	if err != nil {
		return err
	}
	for i, r := range receipts {
		s.take(r, targets[i].entry.Name, targets[i].disk)
	}
	for _, j := range jobs {
		if err := j.Target.(*disk.Device).RereadPartitions(); err != nil {
			s.log.Info("%s: the kernel does not read the new partition table: %v", j.Name, err)
		}
	}
	return damagedOf(targets)
}

// damagedOf is the result of an action that did what it should with images: not
// plain success if one of them is damaged.
func damagedOf(targets []target) error {
	for _, t := range targets {
		if !whole(t.entry) {
			return errBadSectors
		}
	}
	return nil
}

// verify says what differs between disks and images, and writes nothing.
func (s *session) verify(ctx context.Context, disks []disk.Disk, choice match.Choice) error {
	targets, jobs, closeAll, err := s.prepare(ctx, disks, choice, false)
	if err != nil {
		return refusal{err}
	}
	defer closeAll()
	result := damagedOf(targets)
	for i, j := range jobs {
		differs, err := s.verifyDisk(ctx, j, targets[i].disk)
		if err != nil {
			return err
		}
		if differs {
			result = errDiffers
		}
	}
	return result
}

// verifyDisk compares one disk, and says by partitions and logical volumes what
// differs. These are the disk's, since an image of share mode tells of none.
func (s *session) verifyDisk(ctx context.Context, j copier.Job, d disk.Disk) (differs bool, err error) {
	m, err := usedmap.Read(ctx, aliveReader{j.Target, s.cfg.Alive}, j.Target.Size(), d.SectorSize)
	if err != nil {
		return false, err
	}
	layout := m.Layout()
	tally := layout.Tally()
	p := s.progress(j.Name)
	opt := s.copierOptions(p, d)
	opt.Differs = tally.Add
	r, err := copier.Verify(ctx, j, opt)
	p.end()
	if err != nil {
		return false, err
	}
	s.take(r, j.Name, d)
	what := j.Name
	if d.Name != j.Name {
		what += " on disk " + d.Name
	}
	for _, line := range copier.DifferText(&r, tally) {
		s.log.Info("%s: %s", what, line)
	}
	return len(r.Differ) > 0, nil
}

// aliveReader shows a sign of life at each read.
type aliveReader struct {
	io.ReaderAt
	alive func()
}

func (r aliveReader) ReadAt(b []byte, off int64) (int, error) {
	r.alive()
	return r.ReaderAt.ReadAt(b, off)
}

// plan says what is done with images: all are checked, then each is written and
// read back, or compared.
func (s *session) plan(targets []target, write bool) (plan []progress.Work) {
	for _, t := range targets {
		if f := t.entry.Facts; f != nil && !s.cmd.PrecheckSize {
			plan = append(plan, progress.Work{Disk: t.entry.Name, Pass: "check", Bytes: f.FileSize})
		} else if f == nil {
			plan = append(plan, progress.Work{Disk: t.entry.Name, Pass: "check"})
		}
	}
	for _, t := range targets {
		size := t.disk.Size
		if f := t.entry.Facts; f != nil {
			size = f.Disk.Size
		}
		if !write {
			plan = append(plan, progress.Work{Disk: t.entry.Name, Pass: "compare", Bytes: size})
			continue
		}
		plan = append(plan, progress.Work{Disk: t.entry.Name, Pass: "write", Bytes: size}, progress.Work{Disk: t.entry.Name, Pass: "verify", Bytes: size})
	}
	return plan
}

// prepare pairs images with disks, checks the images whole and opens the disks.
// Everything that can be refused is refused here, for all disks, before the
// first one is opened for writing.
func (s *session) prepare(ctx context.Context, disks []disk.Disk, choice match.Choice, write bool) ([]target, []copier.Job, func(), error) {
	targets, err := s.targets(disks, choice)
	if err != nil {
		return nil, nil, nil, err
	}
	s.planned(s.plan(targets, write))
	if err := s.check(ctx, targets); err != nil {
		return nil, nil, nil, err
	}
	jobs, closeAll, err := s.open(targets, write)
	return targets, jobs, closeAll, err
}

// targets pairs the images with the box's disks.
func (s *session) targets(disks []disk.Disk, choice match.Choice) ([]target, error) {
	if len(choice.Missing) > 0 {
		return nil, fmt.Errorf("not all disks that were named are there: %s", strings.Join(choice.Missing, ", "))
	}
	entries, err := s.images()
	if err != nil {
		return nil, err
	}
	labels := make([]image.Label, len(entries))
	byName := map[string]sharedir.Entry{}
	for i, e := range entries {
		labels[i] = image.Label{Name: e.Name} // made by hand: nothing is known of its disk
		if e.Facts != nil {
			labels[i] = e.Facts.Label()
		}
		byName[e.Name] = e // two images of one name are no pairs
	}
	pairs, notes, err := match.Pairs(labels, disks, choice)
	for _, n := range notes {
		s.log.Info("%s", n)
	}
	if err != nil {
		return nil, err
	}
	var out []target
	for _, p := range pairs {
		s.log.Info("image %s belongs on disk %s: %s", p.Image.Name, p.Disk.Name, p.Accepted)
		out = append(out, target{entry: byName[p.Image.Name], disk: p.Disk})
	}
	if len(out) == 0 {
		return nil, errors.New("no image belongs on any of the chosen disks")
	}
	return out, nil
}

// images lists the images that the action takes.
func (s *session) images() ([]sharedir.Entry, error) {
	list, none := s.folder.Images, "there is no image in %s; arm the box for backup first"
	if s.cmd.OldImages {
		list, none = s.folder.OldImages, "there is no .old image in %s; arm the box without --image=old for those of the last backup"
	}
	entries, err := list()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf(none, s.folder.Dir())
	}
	if err := named(entries); err != nil {
		return nil, err
	}
	return entries, s.ofThisBox(entries)
}

// ofThisBox refuses images that are not one backup of this machine.
func (s *session) ofThisBox(entries []sharedir.Entry) error {
	armings := map[string]bool{}
	for _, e := range entries {
		if e.Facts == nil {
			armings[""] = true
			continue
		}
		armings[e.Facts.Arming] = true
		if e.Facts.Box != s.cmd.Address.String() {
			s.warn("image %s is in the folder of this box, but was made of box %s (%s)", e.Name, e.Facts.Box, e.Facts.Host)
		}
		if e.Facts.UUID != "" && s.uuid != "" && e.Facts.UUID != s.uuid && !s.cmd.AcceptMachine {
			return fmt.Errorf("image %s is of another machine (UUID %s, this one has %s); if the machine was replaced on purpose, arm with --accept-machine",
				e.Name, e.Facts.UUID, s.uuid)
		}
	}
	if len(armings) > 1 {
		return fmt.Errorf("the images are not of one backup (%s); move those that do not belong together out of %s", entryNames(entries), s.folder.Dir())
	}
	return nil
}

// check looks at every image whole, before the first write to any disk. With
// --precheck=size the length, which Images compared with the sidecar, is all;
// an image without a sidecar has no known length and is read in any case.
func (s *session) check(ctx context.Context, targets []target) error {
	for i := range targets {
		t := &targets[i]
		if t.entry.Facts != nil {
			s.logBad(t.entry.Name, t.entry.Facts.Bad, "could not be read when the image was made; it has zeros there")
		}
		if f := t.entry.Facts; f != nil && s.cmd.PrecheckSize {
			t.sums = rawgz.Sums{RawSize: f.Disk.Size, FileSize: f.FileSize, BLAKE3: f.BLAKE3, SHA256: f.SHA256}
			s.log.Info("%s: only the size of the image is checked, as the arming asks", t.entry.Name)
			continue
		}
		sums, err := s.checkImage(ctx, t.entry)
		if err != nil {
			return fmt.Errorf("image %s: %w", t.entry.Path, err)
		}
		t.sums = sums
		if t.entry.Facts == nil {
			if err := s.handmade(ctx, t); err != nil {
				return err
			}
		}
		switch {
		case sums.RawSize > t.disk.Size:
			return fmt.Errorf("image %s holds a disk of %d bytes, disk %s has %d", t.entry.Path, sums.RawSize, t.disk.Name, t.disk.Size)
		case sums.RawSize == 0 || sums.RawSize%int64(t.disk.SectorSize) != 0:
			return fmt.Errorf("image %s holds %d bytes, which is no disk of %d-byte sectors; it was cut before it was compressed", t.entry.Path, sums.RawSize, t.disk.SectorSize)
		}
	}
	return nil
}

func (s *session) checkImage(ctx context.Context, e sharedir.Entry) (rawgz.Sums, error) {
	f, err := s.fsys.Open(e.Path)
	if err != nil {
		return rawgz.Sums{}, err
	}
	defer f.Close()
	p := s.progress(e.Name)
	defer p.end()
	sums, err := rawgz.Check(ctx, f, f.Size(), e.Facts, func(done, total int64) { p.tell("check", done, total) })
	if err == nil {
		s.log.Info("%s: image checked, whole and undamaged", e.Name)
	}
	return sums, err
}

// open opens all disks, for writing if they are restore's, and makes the jobs.
func (s *session) open(targets []target, write bool) (jobs []copier.Job, closeAll func(), err error) {
	var devs []*disk.Device
	closeAll = func() {
		for i, d := range devs {
			d.Close()
			if write {
				disk.Protect(s.cfg.Dev, targets[i].disk, true)
			}
		}
	}
	for _, t := range targets {
		dev, err := s.openTarget(t.disk, write)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		devs = append(devs, dev)
		jobs = append(jobs, copier.Job{
			Name: t.entry.Name, Open: s.opener(t.entry.Path), RawSize: t.sums.RawSize, BLAKE3: t.sums.BLAKE3,
			Target: dev, Fit: s.fit(t),
		})
	}
	return jobs, closeAll, nil
}

func (s *session) openTarget(d disk.Disk, write bool) (*disk.Device, error) {
	if !write {
		return disk.Open(s.cfg.Dev, d, false)
	}
	if err := disk.Protect(s.cfg.Dev, d, false); err != nil {
		return nil, fmt.Errorf("disk %s cannot be made writable: %w", d.Name, err)
	}
	dev, err := disk.Open(s.cfg.Dev, d, true)
	if err != nil {
		disk.Protect(s.cfg.Dev, d, true)
	}
	return dev, err
}

// fit makes the partition table fit a larger disk.
func (s *session) fit(t target) copier.FitFunc {
	return copier.FitGPT(t.disk.SectorSize,
		func(note string) { s.log.Info("%s: %s", t.entry.Name, note) },
		func(warning string) { s.warn("%s: %s", t.entry.Name, warning) })
}

// openImage is an image file being read; closing it closes the file.
type openImage struct {
	*rawgz.Reader
	io.Closer
}

func (s *session) opener(path string) func() (image.Reader, error) {
	return func() (image.Reader, error) {
		f, err := s.fsys.Open(path)
		if err != nil {
			return nil, err
		}
		r, err := rawgz.NewReader(f, f.Size())
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return openImage{r, f}, nil
	}
}

func diskNames(targets []target) string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.disk.Name
	}
	return strings.Join(names, ", ")
}

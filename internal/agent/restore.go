package agent

import (
	"cmp"
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
	"testbox-imaging/internal/usedmap"
)

// target is one image and the disk that it belongs on.
type target struct {
	image Image
	info  ImageInfo
	disk  disk.Disk
}

// restore writes the images to their disks.
func (s *session) restore(ctx context.Context, disks []disk.Disk, choice match.Choice) error {
	targets, jobs, closeAll, err := s.prepare(ctx, disks, choice, true)
	if err != nil {
		return refusalOf(err)
	}
	defer closeAll()
	if err := s.foreseeHooks(targets); err != nil {
		return refuse("%w", err)
	}
	s.tellOtherFirmware()
	p := s.progress(diskNames(targets))
	opt := copier.RestoreOptions{Options: s.copierOptions(p), Writes: func() error { return s.writes(ctx) }}
	opt.Log = func(format string, args ...any) {
		p.end()
		s.log.Info(format, args...)
	}
	receipts, err := copier.Restore(ctx, jobs, opt)
	p.end()
	if err != nil {
		return err
	}
	for i, r := range receipts {
		s.addReceipt(r, targets[i].info.Name, targets[i].disk)
	}
	for _, j := range jobs {
		if err := j.Target.(*disk.Device).RereadPartitions(); err != nil {
			s.log.Info("%s: the kernel does not read the new partition table: %v", j.Name, err)
		}
	}
	if err := s.hooks(ctx, targets, jobs); err != nil {
		return err
	}
	s.putBackEntries(targets, jobs)
	return damagedOf(targets)
}

// writes asks the other side before the first write.
func (s *session) writes(ctx context.Context) error {
	if s.mayWrite {
		return nil
	}
	err := s.home.Writes(ctx)
	s.mayWrite = err == nil
	return err
}

// damagedOf is the result of an action that succeeded. It returns errBadSectors
// if one of the images is damaged.
func damagedOf(targets []target) error {
	for _, t := range targets {
		if !t.info.whole() {
			return errBadSectors
		}
	}
	return nil
}

// verify reports the differences between disks and images. It writes nothing.
func (s *session) verify(ctx context.Context, disks []disk.Disk, choice match.Choice) error {
	targets, jobs, closeAll, err := s.prepare(ctx, disks, choice, false)
	if err != nil {
		return refusalOf(err)
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

// verifyDisk compares one disk, and logs the differences by partitions and
// logical volumes. It reads these from the disk, since an image of share mode
// does not list them.
func (s *session) verifyDisk(ctx context.Context, j copier.Job, d disk.Disk) (differs bool, err error) {
	m, err := usedmap.Read(ctx, aliveReader{j.Target, s.cfg.Alive}, j.Target.Size(), d.SectorSize)
	if err != nil {
		return false, err
	}
	layout := m.Layout()
	tally := layout.Tally()
	p := s.progress(j.Name)
	r, err := copier.Verify(ctx, j, s.copierOptions(p), tally.Add)
	p.end()
	if err != nil {
		return false, err
	}
	s.addReceipt(r, j.Name, d)
	what := j.Name
	if d.Name != j.Name {
		what += " on disk " + d.Name
	}
	for _, line := range copier.DifferText(&r, tally) {
		s.log.Info("%s: %s", what, line)
	}
	return len(r.Differ) > 0, nil
}

// aliveReader shows a sign of life with each read.
type aliveReader struct {
	io.ReaderAt
	alive func()
}

func (r aliveReader) ReadAt(b []byte, off int64) (int, error) {
	r.alive()
	return r.ReaderAt.ReadAt(b, off)
}

// plan lists the work on the images. All of them are checked first. Then each
// is either written and read back, or compared.
func (s *session) plan(targets []target, write bool) (plan []progress.Work) {
	for _, t := range targets {
		if n, reads := t.image.CheckBytes(); reads {
			plan = append(plan, progress.Work{Disk: t.info.Name, Pass: "check", Bytes: n})
		}
	}
	for _, t := range targets {
		size := t.info.Disk.Size
		if size == 0 {
			size = t.disk.Size
		}
		if !write {
			plan = append(plan, progress.Work{Disk: t.info.Name, Pass: "compare", Bytes: size})
			continue
		}
		for _, pass := range []string{"write", "verify"} {
			plan = append(plan, progress.Work{Disk: t.info.Name, Pass: pass, Bytes: size})
		}
	}
	return plan
}

// prepare pairs images with disks, checks the complete images, and opens the
// disks. Whatever can be refused is refused here for all disks, before the
// first one is opened for writing.
func (s *session) prepare(ctx context.Context, disks []disk.Disk, choice match.Choice, write bool) ([]target, []copier.Job, func(), error) {
	targets, err := s.targets(disks, choice)
	if err != nil {
		return nil, nil, nil, err
	}
	s.planned(s.plan(targets, write))
	closeImages := func() {
		for _, t := range targets {
			t.image.Close()
		}
	}
	if err := s.check(ctx, targets); err != nil {
		closeImages()
		return nil, nil, nil, err
	}
	jobs, closeDisks, err := s.open(ctx, targets, write)
	if err != nil {
		closeImages()
		return nil, nil, nil, err
	}
	return targets, jobs, func() {
		closeImages() // before the disks, from which other boxes may be served
		closeDisks()
	}, nil
}

// targets pairs the images with the box's disks.
func (s *session) targets(disks []disk.Disk, choice match.Choice) ([]target, error) {
	if len(choice.Missing) > 0 {
		return nil, fmt.Errorf("not all disks that were named are there: %s", strings.Join(choice.Missing, ", "))
	}
	images, err := s.images()
	if err != nil {
		return nil, err
	}
	labels := make([]image.Label, len(images))
	byName := map[string]Image{}
	for i, im := range images {
		info := im.Info()
		labels[i] = info.Label
		choice.Foreign = choice.Foreign || s.foreign(info)
		byName[labels[i].Name] = im // match.Pairs refuses two images of one name
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
		im := byName[p.Image.Name]
		out = append(out, target{image: im, info: im.Info(), disk: p.Disk})
	}
	if len(out) == 0 {
		return nil, errors.New("no image belongs on any of the chosen disks")
	}
	return out, nil
}

// foreign reports whether an image is of another machine. A machine that got another
// address is the same one.
func (s *session) foreign(i ImageInfo) bool {
	if i.Box == "" && i.UUID == "" { // an image that was made by hand
		return s.cmd.From != ""
	}
	return i.Box != "" && i.Box != s.cmd.Address.String() && (i.UUID == "" || i.UUID != s.uuid)
}

// images lists the images that the action uses. It refuses images of another
// machine. Images that it returns with an error are only for messages.
func (s *session) images() ([]Image, error) {
	images, err := s.home.List()
	if err != nil {
		return images, err
	}
	for _, im := range images {
		i := im.Info()
		from := cmp.Or(s.cmd.From, s.cmd.Address.String())
		if i.Box != "" && i.Box != from && s.cmd.From != "" {
			return images, fmt.Errorf("the box was armed for the backup of %s, and image %s there was made of %s; "+
				"put the images into the folder of their own box, and name that", from, i.Name, i.Box)
		}
		if i.Box != "" && i.Box != from {
			s.warn("image %s is in the folder of this box, but was made of box %s (%s)", i.Name, i.Box, i.Host)
		}
		if i.UUID != "" && s.uuid != "" && i.UUID != s.uuid && !s.cmd.AcceptMachine && s.cmd.From == "" {
			return images, fmt.Errorf("image %s is of another machine (UUID %s, this one has %s); "+
				"if the machine was replaced on purpose, arm with --accept-machine",
				i.Name, i.UUID, s.uuid)
		}
	}
	return images, nil
}

// check checks every complete image, before the first write to any disk.
func (s *session) check(ctx context.Context, targets []target) error {
	for _, t := range targets {
		s.logBad(t.info.Name, t.info.Bad, "could not be read when the image was made; it has zeros there")
		p := s.progress(t.info.Name)
		err := t.image.Check(ctx, t.disk, func(done, total int64) { p.tell("check", done, total) })
		p.end()
		if err != nil {
			return err
		}
	}
	return nil
}

// open opens all disks and makes the jobs. With write it opens them for
// writing.
func (s *session) open(ctx context.Context, targets []target, write bool) (jobs []copier.Job, closeAll func(), err error) {
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
		job := t.image.Job()
		job.Target, job.SectorSize, job.Fit = dev, t.disk.SectorSize, s.fit(t)
		job.Rotational, job.Cached = dev.Rotational(), dev.Cached()
		if job, err = s.shrink(ctx, job); err != nil {
			closeAll()
			return nil, nil, err
		}
		jobs = append(jobs, job)
	}
	return jobs, closeAll, nil
}

// shrink lets a job write to a disk that is smaller than its image, if the arming
// asks for that and nothing gets lost.
func (s *session) shrink(ctx context.Context, j copier.Job) (copier.Job, error) {
	if !s.cmd.ShrinkTable {
		return j, nil
	}
	j, err := copier.Shrink(ctx, j, s.cfg.Alive)
	switch {
	case errors.Is(err, copier.ErrUnfit):
		return j, fmt.Errorf("image %s cannot go to a smaller disk: %w", j.Name, err)
	case err != nil:
		return j, trouble{fmt.Errorf("image %s: %w", j.Name, err)}
	}
	if text := j.Shrunk(); text != "" {
		s.log.Info("%s: %s", j.Name, text)
	}
	return j, nil
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

// fit returns the function that makes a partition table fit a larger disk.
func (s *session) fit(t target) copier.FitFunc {
	return copier.FitGPT(t.disk.SectorSize,
		func(note string) { s.log.Info("%s: %s", t.info.Name, note) },
		func(warning string) { s.warn("%s: %s", t.info.Name, warning) })
}

func diskNames(targets []target) string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.disk.Name
	}
	return strings.Join(names, ", ")
}

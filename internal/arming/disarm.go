package arming

import (
	"context"
	"errors"
	"io/fs"

	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/follow"
	"testbox-imaging/internal/problem"
)

// ReadArmed reads the boot files of boxes that are to be disarmed, in their
// order. It gives nil for a box that is not armed, and refuses a boot file that
// is not ours.
func (p *Place) ReadArmed(ctx context.Context, boxes []string) ([]Target, []*bootfiles.File, error) {
	targets, err := p.Names.Resolve(ctx, boxes)
	if err != nil {
		return nil, nil, err
	}
	files, errs := make([]*bootfiles.File, len(targets)), make([]error, len(targets))
	for i, t := range targets {
		file, err := p.Boot.Read(t.Addr)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs[i] = err
		case file.Cmdline == nil:
			errs[i] = problem.Refusef("%s has a boot file that is not ours, %s (%w); remove it by hand if it has to go",
				t, p.Boot.BootFile(t.Addr), file.Err)
		default:
			files[i] = file
		}
	}
	return targets, files, errors.Join(errs...)
}

// Disarm disarms a box whose boot file ReadArmed returned. If somebody armed
// the box anew since, or replaced the file by one that is not ours, that file
// stays. The errors are those of bootfiles. None of them is a refusal, because
// other boxes may be disarmed by then.
func (p *Place) Disarm(read *bootfiles.File) error {
	_, err := p.Boot.Disarm(read.Addr, read.Cmdline.Arming)
	return err
}

// HalfRestored says why the disks of a box that is armed for restore may be
// incomplete. It returns "" if there is no reason to think so. Until a restore
// has ended well, only the arming brings the box back. read is nil for a box
// that is not armed.
func (p *Place) HalfRestored(read *bootfiles.File) string {
	area, err := p.Backup()
	if err != nil || read == nil {
		return ""
	}
	st := follow.Read(area.Look(read.Addr))
	if half := st.HalfRestored(); half != "" && st.Log.Arming == read.Cmdline.Arming {
		return half + "; its disks may not boot until it is restored"
	}
	return ""
}

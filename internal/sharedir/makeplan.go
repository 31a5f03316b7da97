package sharedir

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"testbox-imaging/internal/durable"
)

// plan makes the plan of the commit, and checks everything that it relies on.
func (s *Set) plan(before Before) (*commitPlan, error) {
	if s.done || len(s.images) == 0 {
		return nil, errors.New("commit of a backup that has no image or has ended")
	}
	p := &commitPlan{Format: planFormat, Arming: s.arming, Retire: []string{}, Drop: []string{}}
	for _, w := range s.images {
		if w.sidecar == 0 {
			return nil, fmt.Errorf("commit of a backup in which image %s is not finished", w.name)
		}
		p.New = append(p.New, planFile{w.name + rawgzExt, w.size}, planFile{w.name + sidecarExt, w.sidecar})
	}
	files, err := s.folder.fsys.ReadDir(s.folder.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the images in %s: %w", s.folder.dir, err)
	}
	p.Retire = append(p.Retire, s.folder.currentFiles(files, p)...)
	if len(p.Retire) > 0 && before == None {
		return nil, fmt.Errorf("%w (%s): use backup-again to keep them as .old, or move them away", ErrImages, strings.Join(p.Retire, ", "))
	}
	if before == Replace {
		if err := p.replace(); err != nil {
			return nil, err
		}
	}
	if len(p.Retire) > 0 {
		p.Drop = append(p.Drop, droppedFiles(files, p.Retire)...)
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("commit plan: %w", err)
	}
	return p, s.allWritten(p)
}

// replace changes the plan so that it retires nothing. Each current file must
// have a new one, which is renamed over it.
func (p *commitPlan) replace() error {
	for _, file := range p.Retire {
		if !p.isNew(file) {
			return fmt.Errorf("%s has no successor in this backup, so it cannot be replaced; move it away", file)
		}
	}
	p.Retire = []string{}
	return nil
}

// allWritten checks that the new files are there and have their full size.
func (s *Set) allWritten(p *commitPlan) error {
	for _, n := range p.New {
		path := s.path(n.Name)
		size, err := durable.Size(s.folder.fsys, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w %s: %s was removed while it was being written", ErrSecondAgent, s.folder.addr, path)
		case err != nil:
			return fmt.Errorf("cannot commit the backup of box %s: %w", s.folder.addr, err)
		case size != n.Size:
			return fmt.Errorf("cannot commit the backup of box %s: %s has %d bytes instead of the %d written", s.folder.addr, path, size, n.Size)
		}
	}
	return nil
}

// currentFiles returns the files of the box's images, and files that have the
// name of one of the plan's new ones. A JSON file that belongs to no image is
// the admin's and is not returned.
func (f *Folder) currentFiles(files []string, p *commitPlan) (current []string) {
	for _, file := range files {
		name, ext, ok := splitFile(file)
		switch {
		case !ok:
		case ext != sidecarExt, p.isNew(file), slices.Contains(files, name+rawgzExt), f.isFacts(name, file, true):
			current = append(current, file)
		}
	}
	return current
}

// droppedFiles returns the older .old files that no retired file replaces,
// without oldExt.
func droppedFiles(files, retired []string) (dropped []string) {
	for _, file := range files {
		base, found := strings.CutSuffix(file, oldExt)
		if _, _, ok := splitFile(base); found && ok && !slices.Contains(retired, base) {
			dropped = append(dropped, base)
		}
	}
	return dropped
}

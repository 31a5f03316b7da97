package sharedir

import (
	"errors"
	"fmt"
	"io/fs"

	"testbox-imaging/internal/durable"
)

// Recover brings the folder into order after a crash. An agent calls it at
// every start, before anything else in the folder. It puts a committed backup
// in place, and removes files of one that was not committed.
func (f *Folder) Recover() error {
	// What the folder shows now may not be durable yet, if the agent before died
	// between a rename and its sync. It must be durable before the next steps.
	if err := f.fsys.SyncDir(f.dir); err != nil {
		return fmt.Errorf("cannot sync the folder of box %s: %w", f.addr, err)
	}
	data, err := durable.ReadFile(f.fsys, f.Path(planName), maxPlan)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.clean()
	case err != nil:
		return fmt.Errorf("cannot read the plan of a committed backup: %w", err)
	}
	plan, err := parsePlan(data)
	if err != nil {
		return fmt.Errorf("%s cannot be carried out: %w; look at the images in %s, then remove it", f.Path(planName), err, f.dir)
	}
	if err := f.carryOut(plan); err != nil {
		return err
	}
	return f.clean()
}

// carryOut puts a committed backup in place in three stages, each with
// a sync at its end.
//
//	retire  previous files get .old, older .old files that remain are removed
//	place   new files get their names
//	end     commit.json is removed
//
// A file of the previous backup and a new file can have the same name. As long
// as the new file's temporary name exists, the name belongs to the previous
// backup. The temporary name stays until the stage "retire" is durable as a
// whole. So every step first looks at which files there are, and it does no
// harm to do all steps again.
func (f *Folder) carryOut(p *commitPlan) error {
	placed, err := f.placed(p)
	if err != nil {
		return err
	}
	if err := f.retire(p, placed); err != nil {
		return fmt.Errorf("cannot keep the previous images of box %s as .old: %w", f.addr, err)
	}
	if err := f.place(p, placed); err != nil {
		return fmt.Errorf("cannot put the new images of box %s in place: %w", f.addr, err)
	}
	if err := durable.Remove(f.fsys, f.Path(planName)); err != nil {
		return fmt.Errorf("cannot end the commit of box %s: %w", f.addr, err)
	}
	return nil
}

// placed says which new files have their final names already. It is an error if
// one of them is missing, and then nothing was changed.
func (f *Folder) placed(p *commitPlan) (map[string]bool, error) {
	placed := map[string]bool{}
	for _, n := range p.New {
		tmp := newFile(n.Name, p.Arming)
		size, err := durable.Size(f.fsys, f.Path(tmp))
		if errors.Is(err, fs.ErrNotExist) {
			size, err = durable.Size(f.fsys, f.Path(n.Name))
			placed[n.Name] = true
		}
		if err == nil && size != n.Size {
			err = fmt.Errorf("it has %d bytes", size)
		}
		if err != nil {
			return nil, fmt.Errorf("the committed backup in %s names %s of %d bytes (or %s, before it has its name): %w; look at what is "+
				"there, then remove %s",
				f.dir, n.Name, n.Size, tmp, err, planName)
		}
	}
	return placed, nil
}

func (f *Folder) retire(p *commitPlan, placed map[string]bool) error {
	for _, file := range p.Drop {
		if err := f.fsys.Remove(f.Path(file + oldExt)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, file := range p.Retire {
		if placed[file] {
			continue
		}
		if err := f.fsys.Rename(f.Path(file), f.Path(file+oldExt)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return f.fsys.SyncDir(f.dir)
}

func (f *Folder) place(p *commitPlan, placed map[string]bool) error {
	for _, n := range p.New {
		if placed[n.Name] {
			continue
		}
		if err := f.fsys.Rename(f.Path(newFile(n.Name, p.Arming)), f.Path(n.Name)); err != nil {
			return err
		}
	}
	return f.fsys.SyncDir(f.dir)
}

// clean removes the files that unfinished writes left. The caller must make
// sure that no plan needs them.
func (f *Folder) clean() error {
	files, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("cannot list the folder of box %s: %w", f.addr, err)
	}
	for _, file := range files {
		if !isNewFile(file) && !durable.IsTemp(file) {
			continue
		}
		if err := f.fsys.Remove(f.Path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove what an unfinished backup left: %w", err)
		}
	}
	return f.fsys.SyncDir(f.dir)
}

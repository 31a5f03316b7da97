package sharedir

import (
	"errors"
	"fmt"
	"io/fs"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// CheckReaddress returns an error of package problem if the folder of a box cannot become
// that of another address, because there is one.
func (a *Area) CheckReaddress(to box.Addr) error {
	there, err := a.has(to)
	if err == nil && there {
		err = problem.Refusef("the folder %s has the logs of another machine; move it away first", a.Look(to).Dir())
	}
	return err
}

// Readdress makes the folder of a box that of another address, durably. If it was done
// before, or the box has no folder, nothing changes.
func (a *Area) Readdress(from, to box.Addr) error {
	there, err := a.has(from)
	if err != nil {
		return err
	}
	if there {
		if err := a.fsys.RenameNew(a.Look(from).dir, a.Look(to).dir); err != nil {
			return fmt.Errorf("the folder of the box %s cannot become that of %s: %w", from, to, err)
		}
	}
	return a.fsys.SyncDir(a.root)
}

// has reports whether a box has a folder.
func (a *Area) has(addr box.Addr) (bool, error) {
	_, err := a.fsys.ReadDir(a.Look(addr).dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

package arming

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
)

// boxUser is the user whom the NFS server puts in place of a box's root. It is
// known only as the owner of the areas, which `testbox share init` gives them.
type boxUser struct{ uid, gid uint32 }

// boxUser returns the owner of the backup area. The user is unknown if the area
// is not at hand, or if it belongs to root.
func (p *Place) boxUser() (u boxUser, known bool) {
	st, err := os.Stat(p.backupArea())
	if err != nil {
		return u, false
	}
	u = ownerOf(st)
	return u, u.uid != 0
}

const shareInitMends = "run `testbox share init` on the storage server, which mends that"

func ownerOf(st fs.FileInfo) boxUser {
	s := st.Sys().(*syscall.Stat_t)
	return boxUser{s.Uid, s.Gid}
}

// may reports whether the mode gives the user these rights. They are written as
// in the last digit of a mode, so 0o2 is the right to write.
func (u boxUser) may(st fs.FileInfo, rights fs.FileMode) bool {
	owner, mode := ownerOf(st), st.Mode().Perm()
	switch {
	case owner.uid == u.uid:
		mode >>= 6
	case owner.gid == u.gid:
		mode >>= 3
	}
	return mode&rights == rights
}

// checkDisarm refuses a folder of boot files in which a box cannot remove its
// own boot file. Such a box would do its action, and then boot into maintenance
// again and again, even after its arming has expired.
func (p *Place) checkDisarm() error {
	st, err := os.Stat(p.Boot.Dir())
	if err != nil {
		return err
	}
	if n, err := unix.Getxattr(p.Boot.Dir(), "system.posix_acl_access", nil); err == nil && n > 0 {
		return nil // an access control list may give the right
	}
	owner := ownerOf(st)
	u, known := p.boxUser()
	if !known && owner.uid != 0 {
		u = owner
	} else if !known {
		u = boxUser{^uint32(0), ^uint32(0)} // any user but root
	}
	// In a sticky folder only the folder's owner can remove files of other users.
	if u.may(st, 0o3) && (st.Mode()&fs.ModeSticky == 0 || owner.uid == u.uid) {
		return nil
	}
	as := "some user, not as root"
	if u.uid != ^uint32(0) {
		as = fmt.Sprintf("user %d", u.uid)
	}
	return problem.Refusef("%s belongs to user %d and has the mode %s, but boxes come as %s: "+
		"they could not remove their boot files after their actions, and would boot into maintenance again and again; %s",
		p.Boot.Dir(), owner.uid, st.Mode(), as, shareInitMends)
}

// closedToBoxes says which parts of its folder a box needs but has no right to.
func (p *Place) closedToBoxes(folder *sharedir.Folder) error { return p.closed(folder, 0o7) }

// closedToReaders is closedToBoxes for a folder of another box, whose images a box
// restores. Nothing is written to it.
func (p *Place) closedToReaders(folder *sharedir.Folder) error { return p.closed(folder, 0o5) }

// closed says which parts of a folder boxes have no right to. They need these rights to
// the folder itself.
func (p *Place) closed(folder *sharedir.Folder, need fs.FileMode) error {
	u, known := p.boxUser()
	if !known {
		return nil
	}
	writes := need&0o2 != 0
	st, err := os.Stat(folder.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		if !writes {
			return nil // agent.Foresee says that nothing is there
		}
		if st, err = os.Stat(p.backupArea()); err == nil && !u.may(st, 0o3) {
			return fmt.Errorf("%s has the mode %s, so that boxes cannot write to it; %s", p.backupArea(), st.Mode(), shareInitMends)
		}
		return err
	}
	if err != nil {
		return err
	}
	if !u.may(st, need) {
		return fmt.Errorf("%s belongs to user %d and has the mode %s, but boxes come as user %d and must %s it; %s",
			folder.Dir(), ownerOf(st).uid, st.Mode(), u.uid, map[bool]string{true: "write to", false: "read"}[writes], shareInitMends)
	}
	var closed []string
	names, err := neededBy(folder)
	for _, name := range names {
		rights := fs.FileMode(0o4)
		if filepath.Ext(name) == ".log" {
			rights = need & 0o2
		}
		if st, err := os.Stat(folder.Path(name)); err == nil && !u.may(st, rights) {
			closed = append(closed, name)
		}
	}
	if len(closed) > 0 {
		return fmt.Errorf("boxes come as user %d, who has not the right to %s in %s; %s",
			u.uid, strings.Join(closed, ", "), folder.Dir(), shareInitMends)
	}
	return err
}

// neededBy lists the files of a box's folder that the box reads or appends to.
// These are images, sidecars, records, the list of disks, and logs.
func neededBy(folder *sharedir.Folder) (names []string, err error) {
	entries, err := os.ReadDir(folder.Dir())
	for _, e := range entries {
		name, ext, _ := strings.Cut(strings.TrimSuffix(e.Name(), ".old"), ".")
		if image.ValidName(name) && slices.Contains([]string{"raw.gz", "gz", "json", "log"}, ext) || e.Name() == box.DisksFile {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// linkedOut says which links in a box's folder, or in its place, the box cannot
// follow. The box mounts the area at another path, and sees nothing outside of
// it.
func (p *Place) linkedOut(folder *sharedir.Folder) error {
	area, err := filepath.EvalSymlinks(p.backupArea())
	if err != nil {
		return err
	}
	paths := []string{folder.Dir()}
	names, _ := neededBy(folder)
	for _, name := range names {
		paths = append(paths, folder.Path(name))
	}
	for _, path := range paths {
		to, err := os.Readlink(path)
		if err != nil {
			continue // not a link
		}
		real, err := filepath.EvalSymlinks(path)
		if filepath.IsAbs(to) || err == nil && !strings.HasPrefix(real, area+"/") {
			return fmt.Errorf("%s is a link to %s, which the box does not find; put the file or folder itself there, "+
				"or a link that begins with no / and stays in %s", path, to, p.backupArea())
		}
	}
	return nil
}

package sharesetup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/site"
)

// Change is one thing that is not as it should be, and what Make does about it.
type Change struct {
	Path string
	What string // "made", or what was repaired
	Many bool   // one of many similar ones, such as the loader's files
}

func (c Change) String() string { return c.Path + ": " + c.What }

const didMake = "made"

// Result counts the files and folders that Make checked.
type Result struct{ Made, Repaired, Right int }

// maker makes everything that a share has.
type maker struct {
	*Plan
	fsys durable.FS
	dry  bool         // change nothing
	say  func(Change) // called for each change

	mu     sync.Mutex // guards the fields below, and calls of say
	result Result
}

// Changes is the dry run. It returns what Make would change now.
func (p *Plan) Changes() (changes []Change, err error) {
	m := &maker{Plan: p, fsys: durable.OS{}, dry: true, say: func(c Change) { changes = append(changes, c) }}
	return changes, m.make()
}

// Make makes and repairs the areas. It calls say after each change. After an
// error it can be called again.
func (p *Plan) Make(say func(Change)) (Result, error) {
	m := &maker{Plan: p, fsys: durable.OS{}, say: say}
	err := m.make()
	return m.result, err
}

// note counts what was done to a path, and calls say. An empty did means that
// nothing was done.
func (m *maker) note(path, did string, many bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch did {
	case "":
		m.result.Right++
		return
	case didMake:
		m.result.Made++
	default:
		m.result.Repaired++
	}
	m.say(Change{path, did, many && did == didMake})
}

// Names in the folder of boot files, besides boot files.
const (
	wrapperName = "testbox-pxe-conf.sh"
	programName = "testbox"
)

// wrapper runs the program beside it for the folder that both are in, wherever
// that folder is mounted.
const wrapper = `#!/bin/sh
# Arms boxes from any machine that mounts this folder:
#   testbox-pxe-conf.sh BOX [BOX...] ACTION
dir=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
exec "$dir/` + programName + `" pxe-conf -c "$dir" "$@"
`

const marker = "This file tells the backup area from an empty mount point. Leave it here: without it nothing is written.\n"

// make begins with the outer folders, so that a folder has its owner before
// boxes can find anything in it.
func (m *maker) make() error {
	const rootOnly = -1
	type owned struct {
		path string
		uid  int
	}
	folders := []owned{{m.Dir, rootOnly}, {m.TFTP, rootOnly}, {m.Backup, m.UID},
		{m.Boot.Dir(), m.UID}, {filepath.Join(m.TFTP, bootcfg.MaintDir), rootOnly},
		{filepath.Dir(m.Boot.GRUBConfig()), rootOnly}, {filepath.Join(m.TFTP, bootcfg.LoadersDir), m.UID}}
	if !m.Served {
		folders = append(folders, owned{m.NFSRoot, rootOnly})
	}
	for _, d := range folders {
		if err := m.folder(d.path, d.uid); err != nil {
			return err
		}
	}
	if err := m.copyLoaders(); err != nil {
		return err
	}
	if err := m.configFiles(); err != nil {
		return err
	}
	if err := m.grubConfig(); err != nil {
		return err
	}
	if err := m.bootFiles(); err != nil {
		return err
	}
	return m.boxFolders()
}

// copyLoaders copies Debian's files that are missing or differ. It copies many
// at a time, since each waits for the disk.
func (m *maker) copyLoaders() error {
	var g errgroup.Group
	g.SetLimit(16)
	for _, dir := range m.loaderDirs() {
		if err := m.folder(dir, -1); err != nil {
			return err
		}
	}
	for _, l := range m.loaders {
		g.Go(func() error {
			data, err := os.ReadFile(l.from)
			if err != nil {
				return err
			}
			return m.file(filepath.Join(m.TFTP, l.to), data, 0o644, true, true)
		})
	}
	return g.Wait()
}

// loaderDirs are the folders that the loader's files go to.
func (m *maker) loaderDirs() []string {
	var dirs []string
	for _, l := range m.loaders {
		for dir := filepath.Dir(l.to); dir != "."; dir = filepath.Dir(dir) {
			dirs = append(dirs, filepath.Join(m.TFTP, dir))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// configFiles makes the files that people and the agent read.
func (m *maker) configFiles() error {
	in := m.Boot.Path
	type content struct {
		path   string
		data   []byte
		mode   fs.FileMode
		repair bool
	}
	files := []content{
		{in(bootcfg.DefaultName), bootcfg.DefaultConfig(), 0o644, false},
		{in(site.FileName), m.Site.Template(), 0o644, false},
		{in(programName), m.program, 0o755, true},
		{in(wrapperName), []byte(wrapper), 0o755, true},
		{filepath.Join(m.Backup, sharedir.Marker), []byte(marker), 0o644, false},
	}
	if !m.Served {
		files = append(files, content{m.ExportsFile(), m.exports(), 0o644, false})
	}
	for _, f := range files {
		if err := m.file(f.path, f.data, f.mode, f.repair, false); err != nil {
			return err
		}
	}
	return nil
}

// grubConfig makes what UEFI machines read. What another version of this program
// wrote, or what was damaged, is written anew. What somebody else wrote stays.
func (m *maker) grubConfig() error {
	path, repair := m.Boot.GRUBConfig(), false
	switch old, err := readHere(path, bootcfg.MaxGRUB); {
	case err == nil:
		repair = bootcfg.OriginOfGRUB(old) != bootcfg.GRUBForeign
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ELOOP):
		return err
	}
	return m.file(path, bootcfg.GRUBConfig(), 0o644, repair, false)
}

// bootFiles lets everybody read the boot files of armed boxes, and the files of
// maintenance systems. The TFTP server is some user of its own.
func (m *maker) bootFiles() error {
	for _, glob := range []struct {
		pattern string
		mode    fs.FileMode
	}{
		{filepath.Join(m.Boot.Dir(), strings.Repeat("[0-9A-F]", 8)), 0o644},
		{filepath.Join(m.TFTP, bootcfg.LoadersDir, "*.cfg"), 0o644},
		{filepath.Join(m.TFTP, bootcfg.MaintDir, "*"), 0o755 | fs.ModeDir},
		{filepath.Join(m.TFTP, bootcfg.MaintDir, "*", "*"), 0o644},
	} {
		paths, err := filepath.Glob(glob.pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			st, err := os.Lstat(path)
			if err != nil || st.IsDir() != glob.mode.IsDir() || !st.IsDir() && !st.Mode().IsRegular() {
				continue // not a file of ours, or removed in the meantime
			}
			did, err := m.rights(sharedir.OpenHere, path, -1, -1, glob.mode)
			if err != nil {
				return err
			}
			m.note(path, did, false)
		}
	}
	return nil
}

// folder makes a folder that everybody can read. If uid is not negative, that
// user can write to it. The sticky bit is removed, because it would keep the
// agent, which comes as uid, from removing the boot file that an admin wrote.
// An admin's link to a folder is followed. That is safe, because boxes cannot
// write to the parent folders.
func (m *maker) folder(path string, uid int) error {
	did, gid := "", -1
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		did, gid = didMake, m.GID
		if m.dry {
			m.note(path, did, false)
			return nil
		}
		if err := m.fsys.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := m.fsys.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	repaired, err := m.rights(os.Open, path, uid, gid, 0o755|fs.ModeDir)
	if err != nil {
		return err
	}
	if did == "" {
		did = repaired
	}
	m.note(path, did, false)
	return nil
}

// file makes a file. With repair it also rewrites a file with another content.
// It is one of many if many is set.
func (m *maker) file(path string, data []byte, mode fs.FileMode, repair, many bool) error {
	old, err := readHere(path, int64(len(data)))
	did := didMake
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, syscall.ELOOP) && !repair: // a link that the admin made
		m.note(path, "", many)
		return nil
	case err == nil && (!repair || bytes.Equal(old, data)):
		did, err := m.rights(sharedir.OpenHere, path, -1, -1, mode)
		if err == nil {
			m.note(path, did, many)
		}
		return err
	case err == nil || errors.Is(err, syscall.ELOOP):
		did = "written anew, it was another"
	default:
		return err
	}
	if !m.dry {
		if err := durable.WriteFile(m.fsys, path, data, mode); err != nil {
			return err
		}
	}
	m.note(path, did, many)
	return nil
}

// readHere reads one byte more than most at the most, so that a longer file
// shows.
func readHere(path string, most int64) ([]byte, error) {
	f, err := sharedir.OpenHere(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is there and is not a file; move it away", path))
	}
	return io.ReadAll(io.LimitReader(f, most+1))
}

// rights gives a path to its owner and group, if these are not negative, and
// adds missing bits of mode. Bits that an admin added stay, except for the
// sticky bit. rights returns what it changed.
func (m *maker) rights(open func(string) (*os.File, error), path string, uid, gid int, mode fs.FileMode) (did string, err error) {
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode.IsDir() && !st.IsDir() {
		return "", fmt.Errorf("%s is there and is not a folder; move it away", path)
	}
	if owner := int(st.Sys().(*syscall.Stat_t).Uid); uid >= 0 && (owner != uid || gid >= 0) {
		if err := m.unlessDry(func() error { return f.Chown(uid, gid) }); err != nil {
			return "", err
		}
		did = fmt.Sprintf("given to user %d, it was of %d", uid, owner)
	}
	const bits = fs.ModePerm | fs.ModeSetgid | fs.ModeSticky
	if have, want := st.Mode()&bits, st.Mode()&bits&^fs.ModeSticky|mode.Perm(); have != want {
		if err := m.unlessDry(func() error { return f.Chmod(want) }); err != nil {
			return "", err
		}
		did = fmt.Sprintf("mode %s made %s", have, want)
	}
	return did, nil
}

func (m *maker) unlessDry(change func() error) error {
	if m.dry {
		return nil
	}
	return change()
}

// boxFolders gives to the agent what others brought into the backup area, such
// as images that root copied there. The agent must rename them and append to
// logs. All files are opened below the area's root, so a box's links cannot
// lead out of it.
func (m *maker) boxFolders() error {
	area, err := os.OpenRoot(m.Backup)
	if m.dry && errors.Is(err, fs.ErrNotExist) {
		return nil // the area would be made, and be empty
	}
	if err != nil {
		return err
	}
	defer area.Close()
	names, err := namesBelow(area, ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		_, notBox := box.ParseAddr(name)
		switch {
		case notBox == nil:
			err = m.boxFolder(area, name)
		case name == box.LogFile:
			err = m.own(area, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) boxFolder(area *os.Root, dir string) error {
	if st, err := area.Lstat(dir); err != nil || !st.IsDir() {
		return err
	}
	if err := m.own(area, dir); err != nil {
		return err
	}
	names, err := namesBelow(area, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.own(area, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func namesBelow(area *os.Root, dir string) ([]string, error) {
	f, err := area.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// own gives a file or folder of the backup area to the agent. It leaves
// anything else alone.
func (m *maker) own(area *os.Root, name string) error {
	st, err := area.Lstat(name)
	if err != nil || !st.Mode().IsRegular() && !st.IsDir() {
		return err
	}
	mode := fs.FileMode(0o644)
	if st.IsDir() {
		mode = 0o755
	}
	open := func(string) (*os.File, error) {
		return area.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	}
	did, err := m.rights(open, name, m.UID, -1, mode)
	if err == nil {
		m.note(filepath.Join(m.Backup, name), did, false)
	}
	return err
}

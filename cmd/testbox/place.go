package main

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/problem"
)

// place is the target of a path on a command line.
type place struct {
	path string      // as it was given
	full string      // absolute, without symbolic links
	info os.FileInfo // of the file or device; nil if there is nothing
}

// lookPlace follows a path. It opens nothing, because opening a device can have
// an effect. It rewinds a tape, for example, or starts a watchdog.
func lookPlace(path string) (place, error) {
	p := place{path: path}
	switch path {
	case "":
		return p, wrong("a path is empty")
	case "-":
		return p, wrong("- stands for a stream, and a disk is neither read nor written in order; a file of that name is ./-")
	}
	info, err := os.Stat(path)
	switch {
	case err == nil:
		p.info = info
		p.full, err = resolve(path)
	case errors.Is(err, fs.ErrNotExist):
		err = p.lookNew()
	}
	if err != nil && !errors.As(err, new(*problem.Error)) {
		err = wrong("%w", err)
	}
	return p, err
}

// lookNew finds out where a new file would be made.
func (p *place) lookNew() error {
	if to, err := os.Readlink(p.path); err == nil {
		return wrong("%s is a symbolic link that leads nowhere: %s is not there", p.path, to)
	}
	folder, name := filepath.Split(p.path)
	folder = cmp.Or(folder, ".")
	st, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(filepath.Clean(p.path), "/dev/"):
		return wrong("there is no device %s", p.path)
	case errors.Is(err, fs.ErrNotExist):
		return wrong("%s is not there, and the folder %s is not there either", p.path, filepath.Clean(folder))
	case err != nil:
		return err
	case !st.IsDir() || name == "" || name == "." || name == "..":
		return wrong("%s is not there, and is no name of a file", p.path)
	}
	if folder, err = resolve(folder); err != nil {
		return err
	}
	p.full = filepath.Join(folder, name)
	return nil
}

// resolve returns the path that the kernel uses. filepath.Abs alone would read
// ".." behind a symbolic link in another way.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err == nil {
		real, err = filepath.EvalSymlinks(real) // the path of the working folder can have links too
	}
	return real, err
}

// isNew reports whether there is nothing at the path.
func (p *place) isNew() bool { return p.info == nil }

func (p *place) isFile() bool { return p.info != nil && p.info.Mode().IsRegular() }

func (p *place) isBlock() bool {
	return p.info != nil && p.info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice
}

// kind says what is at the path, if it can hold no disk.
func (p *place) kind() string {
	switch mode := p.info.Mode(); {
	case mode.IsDir():
		return "a folder"
	case mode&os.ModeNamedPipe != 0:
		return "a pipe"
	case mode&os.ModeSocket != 0:
		return "a socket"
	case mode&os.ModeCharDevice != 0:
		return "a character device"
	}
	return "something else"
}

// mustBeDisk refuses what cannot hold a disk.
func (p *place) mustBeDisk() error {
	switch {
	case p.isNew():
		return p.notThere()
	case !p.isFile() && !p.isBlock():
		return wrong("%s is neither a disk nor a file with the bytes of one: it is %s", p.path, p.kind())
	case p.isFile() && p.below("/dev") && !p.below("/dev/shm"):
		return wrong("%s is no device, but a file that somebody made among the devices; remove it, and give the device's name", p.path)
	}
	return nil
}

func (p *place) notThere() error {
	if p.below("/dev") {
		return wrong("there is no device %s", p.path)
	}
	return wrong("%s: no such file or disk", p.path)
}

func (p *place) below(folder string) bool { return strings.HasPrefix(p.full, folder+"/") }

// mayBeMade refuses a new file or folder where it would not last. So a mistyped
// device does not become a file in memory.
func (p *place) mayBeMade() error {
	folder := filepath.Dir(p.full)
	switch {
	case p.below("/dev") || sameDevice(folder, "/dev"):
		return wrong("there is no device %s, and nothing is made below /dev", p.path)
	case isPseudo(folder):
		return wrong("%s cannot be made: %s belongs to the kernel and keeps no files", p.path, folder)
	}
	return nil
}

// sameDevice reports whether a folder is on the file system that is mounted at
// the other one.
func sameDevice(folder, mounted string) bool {
	var f, m, root unix.Stat_t
	if unix.Stat(folder, &f) != nil || unix.Stat(mounted, &m) != nil || unix.Stat("/", &root) != nil {
		return false
	}
	return f.Dev == m.Dev && m.Dev != root.Dev
}

// pseudo are file systems that only show data of the kernel.
var pseudo = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.DEVPTS_SUPER_MAGIC: true, unix.DEBUGFS_MAGIC: true,
	unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.EFIVARFS_MAGIC: true, unix.PSTOREFS_MAGIC: true, unix.BPF_FS_MAGIC: true, unix.BINFMTFS_MAGIC: true,
}

func isPseudo(folder string) bool {
	var st unix.Statfs_t
	return unix.Statfs(folder, &st) == nil && pseudo[int64(st.Type)]
}

// warnRoom warns, before hours of writing, if a file system has less room than
// new files of these lengths need. On a file system that compresses they may
// need less.
func warnRoom(p printer, need map[string]int64) {
	type room struct {
		folder     string
		need, free int64
	}
	var all []uint64 // devices, in order
	of := map[uint64]*room{}
	for _, path := range slices.Sorted(maps.Keys(need)) {
		folder := filepath.Dir(path)
		var st unix.Stat_t
		var is unix.Statfs_t
		if unix.Stat(folder, &st) != nil || unix.Statfs(folder, &is) != nil {
			continue
		}
		if of[st.Dev] == nil {
			free := is.Bavail
			if os.Geteuid() == 0 {
				free = is.Bfree
			}
			of[st.Dev] = &room{folder: folder, free: int64(free) * is.Bsize}
			all = append(all, st.Dev)
		}
		of[st.Dev].need += need[path]
	}
	for _, dev := range all {
		if r := of[dev]; r.need > r.free {
			p.warnf("%s has %s free, and what is written there needs about %s",
				r.folder, bytesText(r.free), bytesText(r.need))
		}
	}
}

// notInStore refuses a path in the folder of a store, be it the one in use or
// another. An image that is restored over a pack would destroy backups.
func (p *place) notInStore(store string) error {
	own, _ := os.Stat(store)
	for dir := p.full; ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err == nil && (own != nil && os.SameFile(st, own) || isStore(dir)) {
			return refused("%s is in the folder of a store (%s), which is no place for anything else", p.path, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// isStore reports whether a folder looks like a store.
func isStore(dir string) bool {
	for _, name := range []string{"store", "packs", "records"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.IsDir() != (name != "store") {
			return false
		}
	}
	return true
}

// same reports whether two paths lead to one disk.
func (p *place) same(o *place) bool {
	switch {
	case p.isNew() || o.isNew():
		return p.full == o.full
	case p.isBlock() && o.isBlock():
		return rdev(p.info) == rdev(o.info)
	}
	return os.SameFile(p.info, o.info)
}

func rdev(info os.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Rdev)
}

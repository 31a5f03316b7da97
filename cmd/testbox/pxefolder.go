package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/site"
)

// pxeFolder is a folder of boot files, pxelinux.cfg below the TFTP area.
type pxeFolder struct {
	dir  string
	fsys durable.FS
}

// openFolder finds the folder of boot files: dir, or if that is "" the folder
// of this program or a usual place. A folder without `default` is none: a box
// that is not armed must find its way to its own disk.
func openFolder(w world, dir string) (*pxeFolder, error) {
	tried := []string{dir}
	if dir == "" {
		tried = slices.Clone(w.configDirs)
		if prog, err := w.executable(); err == nil {
			tried = append([]string{filepath.Dir(prog)}, tried...)
		}
	}
	for _, d := range tried {
		if st, err := os.Stat(filepath.Join(d, bootcfg.DefaultName)); err == nil && st.Mode().IsRegular() {
			abs, err := filepath.Abs(d)
			return &pxeFolder{abs, durable.OS{}}, err
		}
	}
	if dir == "" {
		return nil, wrong("no folder of boot files was found (with a file `default` in it): none of %s; name it with -c, or make it with `testbox share init`", strings.Join(tried, ", "))
	}
	if _, err := os.Stat(filepath.Join(dir, bootcfg.ConfigDir, bootcfg.DefaultName)); err == nil {
		return nil, wrong("%s has no file `default`; %s is meant", dir, filepath.Join(dir, bootcfg.ConfigDir))
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, wrong("the folder of boot files is not there: %w; is the area mounted?", err)
	}
	return nil, wrong("%s has no file `default`; it is not a folder of boot files, or `testbox share init` has to repair it", dir)
}

func (f *pxeFolder) boot() *bootfiles.Folder { return bootfiles.New(f.fsys, f.dir) }

func (f *pxeFolder) path(name string) string { return filepath.Join(f.dir, name) }

// tftp is the TFTP area, to which a maintenance system's paths are relative.
func (f *pxeFolder) tftp() string { return filepath.Dir(f.dir) }

// checkDefault refuses a folder in which a box that is not armed, or no more,
// does not start its own disk.
func (f *pxeFolder) checkDefault() error {
	data, err := durable.ReadFile(f.fsys, f.path(bootcfg.DefaultName), bootcfg.MaxConfig)
	if err != nil {
		return err
	}
	cfg, err := bootcfg.Parse(data)
	if err == nil {
		err = cfg.IsLocalBoot()
	}
	if err != nil {
		return refused("%s is not surely local boot: %w; a box would never come back to its own disk. Its content should be:\n%s",
			f.path(bootcfg.DefaultName), err, strings.TrimSpace(string(bootcfg.DefaultConfig())))
	}
	return nil
}

// site reads the site file.
func (f *pxeFolder) site() (*site.Site, error) {
	data, err := durable.ReadFile(f.fsys, f.path(site.FileName), site.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, wrong("%s is missing; `testbox share init` makes it", f.path(site.FileName))
	}
	if err != nil {
		return nil, err
	}
	s, err := site.Parse(data)
	if err != nil {
		return nil, wrong("%s: %w", f.dir, err)
	}
	return s, nil
}

// arming is a boot file that is there.
type arming struct {
	addr  box.Addr
	armed time.Time        // when the file was written
	cmd   *bootcfg.Cmdline // nil: not a file of ours
	err   error            // why it is none
	// Paths below the TFTP area.
	kernel, initrd string
}

func (a arming) expired(now time.Time) bool {
	return a.cmd != nil && !a.cmd.Expires.IsZero() && !now.Before(a.cmd.Expires)
}

// arming reads the box's boot file; nil if it is not armed.
func (f *pxeFolder) arming(addr box.Addr) (*arming, error) {
	path := f.path(addr.Hex())
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := &arming{addr: addr, armed: st.ModTime()}
	data, err := durable.ReadFile(f.fsys, path, bootcfg.MaxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // disarmed just now
	}
	if err == nil {
		a.cmd, a.kernel, a.initrd, err = bootcfg.ParseBootFile(data)
	}
	if err == nil && a.cmd.Address != addr {
		a.cmd, err = nil, fmt.Errorf("boot file was written for %s", a.cmd.Address)
	}
	a.err = err
	return a, nil
}

// armings are all boot files in the folder, in the order of the addresses.
func (f *pxeFolder) armings() ([]arming, error) {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var all []arming
	for _, name := range names {
		addr, err := box.ParseHex(name)
		if err != nil {
			continue
		}
		a, err := f.arming(addr)
		if err != nil {
			return nil, err
		}
		if a != nil {
			all = append(all, *a)
		}
	}
	return all, nil
}

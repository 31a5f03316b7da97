package bootfiles

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// Version finds the maintenance system that can do the action. It is the one
// with the wanted name, or with Latest the newest complete one. Latest prefers
// the ram form, which boots faster and needs no root.
func (f *Folder) Version(want string, action box.Action, mode bootcfg.Mode) (*bootcfg.Version, error) {
	if want != bootcfg.Latest {
		v, err := f.readVersion(want)
		if err != nil {
			return nil, problem.Wrongf("maintenance system %s cannot be booted: %w; "+
				"change maintenance in site.conf, or run %s", want, err, f.BuildCommand(""))
		}
		return v, f.canDo(v, action, mode)
	}
	whole, broken, err := f.Versions()
	if err != nil {
		return nil, err
	}
	var passed strings.Builder
	for _, b := range broken {
		fmt.Fprintf(&passed, "; %s was passed over: %v", b.Name, b.Err)
	}
	if len(whole) == 0 {
		return nil, problem.Wrongf("no maintenance system in %s; run %s%s", f.maintDir(), f.BuildCommand(""), &passed)
	}
	able := slices.DeleteFunc(slices.Clone(whole), func(v *bootcfg.Version) bool { return f.canDo(v, action, mode) != nil })
	for _, form := range []bootcfg.Form{bootcfg.FormRAM, bootcfg.FormDebian} {
		if i := slices.IndexFunc(able, func(v *bootcfg.Version) bool { return v.Form == form }); i >= 0 {
			return able[i], nil
		}
	}
	return nil, fmt.Errorf("%w%s", f.canDo(whole[0], action, mode), &passed)
}

// Broken is a folder of a maintenance system that cannot be booted.
type Broken struct {
	Name string
	Err  error
}

// Versions lists the maintenance systems that can be booted, the newest first,
// and the names of those that cannot. It does not check whether a TFTP server
// can give their files, as CheckFiles does.
func (f *Folder) Versions() (whole []*bootcfg.Version, broken []Broken, err error) {
	names, err := f.fsys.ReadDir(f.maintDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, name := range names {
		v, err := f.readVersion(name)
		if err != nil {
			broken = append(broken, Broken{name, err})
			continue
		}
		whole = append(whole, v)
	}
	slices.SortFunc(whole, newestFirst)
	return whole, broken, nil
}

// newestFirst sorts the version first that was built later. If two were built
// at the same time, the later name is first, so that the choice is always the
// same.
func newestFirst(a, b *bootcfg.Version) int {
	return cmp.Or(b.Built.Compare(a.Built), strings.Compare(b.Version, a.Version))
}

// BuildCommand is the command that builds a maintenance system into this TFTP
// area, with the folder of the areas if that is not the default. It stands in
// backquotes. Where the area is mounted, the folder is known only on the server.
func (f *Folder) BuildCommand(flags string) string {
	command := "testbox maintenance build"
	if flags != "" {
		command += " " + flags
	}
	switch dir := filepath.Dir(f.TFTP()); {
	case f.TFTP() == bootcfg.TFTPMount:
		return "`" + command + "` on the storage server, there with the folder of the areas if that is not " + bootcfg.Export
	case dir != bootcfg.Export:
		command += " " + dir
	}
	return "`" + command + "`"
}

func (f *Folder) maintDir() string { return filepath.Join(f.TFTP(), bootcfg.MaintDir) }

// canDo refuses an action that the form of the maintenance system cannot do, and a
// system whose root a box could not get.
func (f *Folder) canDo(v *bootcfg.Version, action box.Action, mode bootcfg.Mode) error {
	switch {
	case v.Form != bootcfg.FormDebian && action == box.Rescue:
		return problem.Refusef("maintenance system %s has the form %s, in which there is nobody to log in to; "+
			"rescue needs one of the form %s, which is built by %s", v.Version, v.Form, bootcfg.FormDebian, f.BuildCommand("--form debian"))
	case v.Form != bootcfg.FormDebian:
	case mode == bootcfg.ShareMode && v.NoNFS:
		return problem.Refusef("maintenance system %s has no root for NFS, since there was no area %s when it was built; "+
			"make the area by `testbox share init`, and build the system anew by %s", v.Version, bootcfg.RootArea, f.BuildCommand("--form debian"))
	case mode == bootcfg.ShareMode:
		if err := f.CheckRoot(v.Version); err != nil {
			return problem.Refusef("maintenance system %s cannot be booted: %w; build it anew by %s", v.Version, err,
				f.BuildCommand("--form debian"))
		}
	case v.Root.IsZero():
		return problem.Refusef("maintenance system %s has no file %s, by which boxes of a server get its root; build one that has it by %s",
			v.Version, bootcfg.RootName, f.BuildCommand("--form debian"))
	}
	return nil
}

// CheckRoot makes sure that the root of a version of the debian form is there.
// That can be checked on the storage server, where it is beside the TFTP area.
// Without its root a box would try to mount it forever, and never notice that
// its arming expires.
func (f *Folder) CheckRoot(version string) error {
	roots := filepath.Join(filepath.Dir(f.TFTP()), bootcfg.RootArea)
	if _, err := f.fsys.ReadDir(roots); err != nil {
		return nil // this machine does not have the area
	}
	if _, err := f.fsys.ReadDir(filepath.Join(roots, version)); err != nil {
		return fmt.Errorf("its root is missing: %w", err)
	}
	return nil
}

// readVersion reads the version file in a maintenance system's folder, and
// makes sure that the loader will find the kernel and the initrd.
func (f *Folder) readVersion(name string) (*bootcfg.Version, error) {
	if !bootcfg.ValidVersion(name) {
		return nil, fmt.Errorf("%q is not the name of a version", name)
	}
	data, err := durable.ReadFile(f.fsys, filepath.Join(f.maintDir(), name, bootcfg.VersionFile), bootcfg.MaxVersion)
	if err != nil {
		return nil, err
	}
	v, err := bootcfg.ParseVersion(data)
	if err != nil {
		return nil, err
	}
	if v.Version != name {
		return nil, fmt.Errorf("its version file says that it is %s", v.Version)
	}
	if !v.Root.IsZero() {
		size, err := durable.Size(f.fsys, filepath.Join(f.TFTP(), v.RootFile()))
		if err != nil {
			return nil, err
		}
		if size != v.Root.Size {
			return nil, fmt.Errorf("%s has %d bytes, and must have %d", v.RootFile(), size, v.Root.Size)
		}
	} else if v.Form == bootcfg.FormDebian {
		if err := f.CheckRoot(v.Version); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{v.KernelPath(), v.InitrdPath()} {
		size, err := durable.Size(f.fsys, filepath.Join(f.TFTP(), file))
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return nil, fmt.Errorf("%s is empty", file)
		}
	}
	return v, nil
}

// OpenVersion lets a TFTP server, which is some user of its own, read a
// maintenance system.
func (f *Folder) OpenVersion(v *bootcfg.Version) error {
	type wanted struct {
		path string
		mode fs.FileMode
	}
	all := []wanted{{bootcfg.MaintDir, 0o755}, {filepath.Dir(v.KernelPath()), 0o755}, {v.KernelPath(), 0o644}, {v.InitrdPath(), 0o644}}
	if !v.Root.IsZero() {
		all = append(all, wanted{v.RootFile(), 0o644})
	}
	for _, p := range all {
		path := filepath.Join(f.TFTP(), p.path)
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if want := st.Mode().Perm() | p.mode; want != st.Mode().Perm() {
			if err := os.Chmod(path, want); err != nil {
				return fmt.Errorf("the TFTP server cannot read the version: %w", err)
			}
		}
	}
	return nil
}

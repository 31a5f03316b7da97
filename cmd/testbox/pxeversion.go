package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// version finds the maintenance system that can do the action: the one that is
// asked for, or the newest that is complete, of the form ram if there is one:
// it boots faster and needs no root by NFS.
func (f *pxeFolder) version(want string, action box.Action) (*bootcfg.Version, error) {
	if want != bootcfg.Latest {
		v, err := f.readVersion(want)
		if err != nil {
			return nil, wrong("maintenance system %s cannot be booted: %w; change maintenance in site.conf, or run `testbox maintenance build`", want, err)
		}
		return v, canDo(v, action)
	}
	dir := filepath.Join(f.tftp(), bootcfg.MaintDir)
	names, err := f.fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ram, debian, unable *bootcfg.Version
	var passed []string
	for _, name := range names {
		v, err := f.readVersion(name)
		switch {
		case err != nil:
			passed = append(passed, fmt.Sprintf("; %s was passed over: %v", name, err))
		case canDo(v, action) != nil:
			unable = newer(unable, v)
		case v.Form == bootcfg.FormDebian:
			debian = newer(debian, v)
		default:
			ram = newer(ram, v)
		}
	}
	switch {
	case ram != nil:
		return ram, nil
	case debian != nil:
		return debian, nil
	case unable != nil:
		return nil, fmt.Errorf("%w%s", canDo(unable, action), strings.Join(passed, ""))
	}
	return nil, wrong("no maintenance system in %s; run `testbox maintenance build`%s", dir, strings.Join(passed, ""))
}

// newer is the one built later; of two built at once, the one whose name is
// later, so that the choice is always the same.
func newer(a, b *bootcfg.Version) *bootcfg.Version {
	if a == nil || b.Built.After(a.Built) || b.Built.Equal(a.Built) && b.Version > a.Version {
		return b
	}
	return a
}

// canDo refuses an action that the form of the maintenance system cannot do.
func canDo(v *bootcfg.Version, action box.Action) error {
	if action == box.Rescue && v.Form != bootcfg.FormDebian {
		return refused("maintenance system %s has the form %s, in which there is nobody to log in to; rescue needs one of the form %s, which `testbox maintenance build --form debian` builds", v.Version, v.Form, bootcfg.FormDebian)
	}
	return nil
}

// checkRoot makes sure that the root of a version of the form debian is there,
// where that can be seen: beside the TFTP area on the storage server. A box that
// is armed without would try to mount it for ever, and never see that its
// arming expires.
func (f *pxeFolder) checkRoot(version string) error {
	roots := filepath.Join(filepath.Dir(f.tftp()), "testbox-nfsroot")
	if _, err := f.fsys.ReadDir(roots); err != nil {
		return nil // this machine does not have the area
	}
	if _, err := f.fsys.ReadDir(filepath.Join(roots, version)); err != nil {
		return fmt.Errorf("its root is missing: %w", err)
	}
	return nil
}

// readVersion reads what a maintenance system's folder says of it, and makes
// sure that the loader will find its files.
func (f *pxeFolder) readVersion(name string) (*bootcfg.Version, error) {
	if !bootcfg.ValidVersion(name) {
		return nil, fmt.Errorf("%q is not the name of a version", name)
	}
	data, err := durable.ReadFile(f.fsys, filepath.Join(f.tftp(), bootcfg.MaintDir, name, bootcfg.VersionFile), bootcfg.MaxVersion)
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
	if v.Form == bootcfg.FormDebian {
		if err := f.checkRoot(v.Version); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{v.KernelPath(), v.InitrdPath()} {
		size, err := durable.Size(f.fsys, filepath.Join(f.tftp(), file))
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return nil, fmt.Errorf("%s is empty", file)
		}
	}
	return v, nil
}

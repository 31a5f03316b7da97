package arming

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
)

// List has the boxes that are armed, and the named boxes that are not.
type List struct {
	Files    []*bootfiles.File // in the order of the addresses, also those that are not ours
	NotArmed []Target
	// Problems are files that should not be there or cannot be used. They are boot
	// files that are not ours, files that the loader takes in place of others, and
	// files that a TFTP server cannot give. None of them is a refusal.
	Problems []error
}

// List lists the boxes that are armed. If boxes are given, it lists only those.
func (p *Place) List(ctx context.Context, boxes []string) (*List, error) {
	targets, err := p.Names.Resolve(ctx, boxes)
	if err != nil {
		return nil, err
	}
	l := &List{}
	if l.Files, err = p.Boot.List(); err != nil {
		return nil, err
	}
	everybody := len(boxes) == 0
	if !everybody {
		l.Files = slices.DeleteFunc(l.Files, func(f *bootfiles.File) bool {
			return !slices.ContainsFunc(targets, func(t Target) bool { return t.Addr == f.Addr })
		})
	}
	var addrs []box.Addr // boxes to check
	if everybody {
		for _, f := range l.Files {
			addrs = append(addrs, f.Addr)
		}
	}
	for _, t := range targets {
		addrs = append(addrs, t.Addr)
		if !slices.ContainsFunc(l.Files, func(f *bootfiles.File) bool { return t.Addr == f.Addr }) {
			l.NotArmed = append(l.NotArmed, t)
		}
	}
	l.Problems = p.problems(l.Files, addrs, everybody)
	return l, nil
}

// problems checks the boot files and everything else that decides what the
// boxes start. With everybody it also checks files that many addresses share.
func (p *Place) problems(files []*bootfiles.File, boxes []box.Addr, everybody bool) (all []error) {
	add := func(err error) {
		if err != nil {
			all = append(all, err)
		}
	}
	var asked []string // files that armed boxes ask the TFTP server for
	for _, f := range files {
		asked = append(asked, filepath.Join(bootcfg.ConfigDir, f.Addr.Hex()))
		if f.Cmdline == nil {
			add(fmt.Errorf("%s: %w", p.Boot.BootFile(f.Addr), f.Err))
			continue
		}
		asked = append(asked, f.Kernel, f.Initrd)
		if f.Cmdline.Root.IsZero() {
			continue
		}
		if err := p.Boot.CheckRoot(path.Base(f.Cmdline.Root.Path)); err != nil {
			add(fmt.Errorf("%s: armed for a maintenance system that the box would wait for without end: %w; disarm it", f.Addr, err))
		}
	}
	add(p.Boot.CheckDefault())
	add(p.Boot.CheckGRUB())
	add(p.checkLoaders())
	for _, addr := range boxes {
		add(p.boxStrays(addr, !everybody))
	}
	if everybody {
		add(p.Boot.CheckPrefixes())
	}
	slices.Sort(asked)
	add(p.Boot.CheckServed(slices.Compact(asked)...))
	// A box of a server does not remove its boot file itself.
	if slices.ContainsFunc(files, func(f *bootfiles.File) bool { return f.Cmdline == nil || f.Cmdline.Mode == bootcfg.ShareMode }) {
		add(p.checkDisarm())
	}
	return all
}

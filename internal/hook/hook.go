// Package hook changes a restored system, so that it is that of its box and not a second
// one of the box whose backup it is. An admin names what is changed.
//
// The file system is mounted without a place: the kernel gives a mount that no folder has
// and that ends with its descriptor (fsmount(2)). Files are opened below it as chroot(2)
// would, so no link of the system leads out of it. What the hooks have written is read
// again from the disk, through a second mount that is read-only.
//
// All that is on the disk is hostile: it is what somebody's box had.
package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// Disk is a restored disk.
type Disk struct {
	Image      string // name of its image
	Path       string // device node
	Size       int64
	SectorSize int
	Layout     usedmap.Layout // as it is on the disk now
}

// Config says what is done, and with what.
type Config struct {
	Hooks []box.Hook
	Host  string // the box's name
	// Log gets a line for the box's log.
	Log func(format string, args ...any)
	// Warn is told what must not be overlooked although all is done.
	Warn func(format string, args ...any)
	// Alive is called between the steps.
	Alive func()
	// Load makes the kernel know a file system or a kind of device. Where the kernel does so
	// by itself, it does nothing.
	Load func(module string)
}

// NoSystemError says that there is no system that hooks could change, or more than one.
type NoSystemError struct{ Text string }

func (e *NoSystemError) Error() string { return e.Text }

// Apply does the hooks on the system that the disks hold. It returns the image of the disk
// that has it, and what was done, also beside an error. Only without an error all is done,
// durable, and read back.
func Apply(ctx context.Context, disks []Disk, cfg Config) (of string, done []image.HookDone, err error) {
	a := &applying{ctx: ctx, Config: cfg}
	a.load("loop")
	at, err := a.find(disks)
	if err != nil {
		return "", nil, err
	}
	cfg.Log("the hooks change the system on %s", at)
	wants, done, err := a.change(at)
	if err == nil {
		err = a.prove(at, wants)
	}
	return at.disk.Image, done, err
}

// Foresee refuses hooks that cannot be done, by what is known of disks before they are
// written. A layout without parts says nothing.
func Foresee(layouts []usedmap.Layout, hooks []box.Hook, host string) error {
	if slices.Contains(hooks, box.HookHostname) && !box.ValidHost(host) {
		return fmt.Errorf("the hook %s has no name for this box; at a server `testbox box set BOX --name NAME` gives it one, "+
			"and in share mode the name server, or who arms it by its name", box.HookHostname)
	}
	var found []place
	var lacking []string
	for _, l := range layouts {
		if len(l.Parts) == 0 || l.Cut {
			return nil
		}
		f, n := places(Disk{Layout: l}, l.Parts)
		found, lacking = append(found, f...), append(lacking, n...)
	}
	if len(layouts) > 0 && len(found) == 0 {
		return noSystem("no partition of the backup can be changed by hooks", lacking)
	}
	return nil
}

// applying is one call of Apply.
type applying struct {
	Config
	ctx context.Context
}

func (a *applying) load(module string) {
	a.Alive()
	if a.Load != nil {
		a.Load(module)
	}
}

// kinds are the file systems that a root can have, by the names of package usedmap, and the
// driver of each. quiet are the options with which it is read without a change, not even by
// its journal.
var kinds = map[string]struct {
	driver string
	quiet  []string
}{
	"ext2": {"ext4", nil}, "ext3": {"ext4", []string{"noload"}}, "ext4": {"ext4", []string{"noload"}},
	"xfs": {"xfs", []string{"norecovery"}}, "btrfs": {"btrfs", []string{"rescue=nologreplay"}},
}

// place is a file system in one piece.
type place struct {
	disk  Disk
	title string
	fs    string
	at    image.Range
	root  string // folder of the system in the file system; "." or a subvolume of Btrfs
}

func (p place) String() string {
	s := fmt.Sprintf("%s of %s (%s)", p.title, p.disk.Image, p.fs)
	if p.root != "." {
		s += ", subvolume " + p.root
	}
	return s
}

// maxPlaces is how many file systems are looked at.
const maxPlaces = 64

// places lists the file systems that hooks can change, and says which parts they cannot
// look into.
func places(d Disk, parts []usedmap.LayoutPart) (found []place, lacking []string) {
	for i := range parts {
		p := &parts[i]
		at := p.Places()
		_, known := kinds[p.FS]
		switch {
		case len(p.Volumes) > 0:
			f, l := places(d, p.Volumes)
			found, lacking = append(found, f...), append(lacking, l...)
		case known && len(at) == 1 && at[0].Len > 0:
			found = append(found, place{disk: d, title: p.Title(), fs: p.FS, at: at[0], root: "."})
		case known:
			lacking = append(lacking, fmt.Sprintf("%s is not in one piece, and device-mapper is not had", p.Title()))
		case slices.Contains([]string{"crypto_LUKS", "linux_raid_member", "LVM2_member", "zfs_member", "bcache"}, p.FS):
			lacking = append(lacking, fmt.Sprintf("%s is %s", p.Title(), p.FS))
		}
	}
	return found, lacking
}

func noSystem(text string, lacking []string) error {
	if len(lacking) > 0 {
		text += "; hooks cannot look into these: " + strings.Join(lacking[:min(len(lacking), 5)], ", ")
	}
	return &NoSystemError{text}
}

// signs are files of which a root has one.
var signs = []string{"etc/os-release", "etc/hostname"}

// subvolumes are where distributions put the root on Btrfs.
var subvolumes = []string{"@", "@rootfs", "root"}

// find finds the one root file system.
func (a *applying) find(disks []Disk) (at place, err error) {
	var all, found []place
	var lacking, unread []string
	for _, d := range disks {
		f, n := places(d, d.Layout.Parts)
		all, lacking = append(all, f...), append(lacking, n...)
	}
	if len(all) > maxPlaces {
		return at, noSystem(fmt.Sprintf("there are more than %d file systems", maxPlaces), nil)
	}
	for _, p := range all {
		roots, err := a.roots(p)
		if a.ctx.Err() != nil {
			return at, context.Cause(a.ctx)
		}
		if err != nil {
			unread = append(unread, fmt.Sprintf("%s cannot be looked at: %v", p, err))
		}
		for _, r := range roots {
			p.root = r
			found = append(found, p)
		}
	}
	if len(unread) > 0 && len(found) == 1 { // the other one can be the system that starts
		return at, noSystem(fmt.Sprintf("%s has a system, and whether another file system has one is not known", found[0]), unread)
	}
	lacking = append(lacking, unread...)
	switch len(found) {
	case 0:
		return at, noSystem(fmt.Sprintf("no file system has %s", strings.Join(signs, " or ")), lacking)
	case 1:
		for _, l := range lacking {
			a.Log("the hooks do not look into this: %s", l)
		}
		return found[0], nil
	}
	var names []string
	for _, p := range found[:min(len(found), 5)] {
		names = append(names, p.String())
	}
	return at, noSystem("there are several systems, and hooks do not choose: "+strings.Join(names, ", "), nil)
}

// roots returns the folders of a file system that look like a root.
func (a *applying) roots(p place) (roots []string, err error) {
	err = a.with(p, false, true, func(t tree) error {
		folders := []string{"."}
		if p.fs == "btrfs" {
			folders = append(folders, subvolumes...)
		}
		for _, f := range folders {
			sub, err := t.folder(f)
			if errors.Is(err, errAbsent) {
				continue
			}
			if err != nil {
				return err
			}
			if slices.ContainsFunc(signs, sub.has) {
				roots = append(roots, f)
			}
			if f != "." {
				sub.close()
			}
		}
		return nil
	})
	return roots, err
}

// want is what a file must have when all is done.
type want struct {
	path   string
	absent bool
	data   []byte
}

// change does the hooks.
func (a *applying) change(at place) (wants []want, done []image.HookDone, err error) {
	err = a.with(at, true, false, func(t tree) error {
		for _, h := range a.Hooks {
			if err := context.Cause(a.ctx); err != nil {
				return err
			}
			a.Alive()
			c := &changes{tree: t, host: a.Host, alive: a.Alive, warn: a.Warn}
			if err := c.do(h); err != nil {
				return fmt.Errorf("the hook %s: %w", h, err)
			}
			d := image.HookDone{Hook: string(h), Text: c.text(), Place: at.String()}
			for _, w := range c.wants {
				d.Files = append(d.Files, "/"+w.path)
			}
			a.Log("hook %s: %s", h, d.Text)
			wants, done = append(wants, c.wants...), append(done, d)
		}
		return nil
	})
	return wants, done, err
}

// prove compares what is on the disk with what the hooks have written.
func (a *applying) prove(at place, wants []want) error {
	err := a.with(at, false, false, func(t tree) error {
		for _, w := range wants {
			a.Alive()
			data, err := t.read(w.path)
			switch {
			case w.absent && errors.Is(err, errAbsent):
			case w.absent && err == nil:
				return fmt.Errorf("/%s is still there", w.path)
			case err != nil:
				return err
			case string(data) != string(w.data):
				return fmt.Errorf("/%s has not what was written", w.path)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("what the hooks wrote is read again: %w", err)
	}
	return nil
}

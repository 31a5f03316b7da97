// Package arming decides about armings in share mode. It decides which boxes
// are meant, what they are armed for, with which maintenance system, what
// speaks against it, and what the boxes will refuse. A Plan is made and checked
// for all boxes, and has the texts of their boot files. The caller then writes
// these by package bootfiles.
package arming

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/site"
)

// Place is where boxes are armed. It has the folder of boot files, the areas
// beside it as this machine reaches them, and what this machine knows of boxes.
type Place struct {
	Boot       *bootfiles.Folder
	FS         durable.FS
	Names      Resolver
	Neighbours string // path of the kernel's table of IPv4 neighbours, /proc/net/arp
	Now        func() time.Time
}

// backupArea is the path of the backup area on this machine. The area is beside
// the TFTP area, both on the storage server and where they are mounted in /mnt.
func (p *Place) backupArea() string {
	return filepath.Join(filepath.Dir(p.Boot.TFTP()), bootcfg.BackupArea)
}

// Boxes lists the boxes that have a folder in the backup area.
func (p *Place) Boxes() (boxes []box.Addr, err error) {
	names, err := p.FS.ReadDir(p.backupArea())
	for _, name := range names {
		if addr, err := box.ParseAddr(name); err == nil {
			boxes = append(boxes, addr)
		}
	}
	return boxes, err
}

// Backup opens the backup area, which has the boxes' logs.
func (p *Place) Backup() (*sharedir.Area, error) {
	area, err := sharedir.Open(p.FS, p.backupArea())
	if err != nil {
		return nil, problem.Wrongf("the boxes' logs are not at hand: %w; they are in the backup area, "+
			"which has to be beside the TFTP area: mount it on %s", err, p.backupArea())
	}
	return area, nil
}

// ReadSite reads the site file, which is in the folder of boot files.
func ReadSite(fsys durable.FS, boot *bootfiles.Folder) (*site.Site, error) {
	s, err := site.Read(fsys, boot.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.Wrongf("%s is missing; `testbox share init` makes it", boot.Path(site.FileName))
	}
	return s, err
}

// inventory returns the inventory of the box's last action. It returns nil if
// it cannot be read, or if its folder was copied from another box's.
func (p *Place) inventory(addr box.Addr) *inventory.Inventory {
	data, err := durable.ReadFile(p.FS, filepath.Join(p.backupArea(), addr.String(), box.InfoJSON), inventory.MaxJSON)
	if err != nil {
		return nil
	}
	inv, err := inventory.ParseJSON(data)
	if err != nil || inv.Address != addr.String() {
		return nil
	}
	return inv
}

// Skew is how far the storage server's clock is ahead of this machine's. It is
// measured by the boot file that was just written for the box, and is 0 if that
// cannot be read.
func (p *Place) Skew(addr box.Addr) time.Duration {
	written, err := p.Boot.Written(addr)
	if err != nil {
		return 0
	}
	return written.Sub(p.Now())
}

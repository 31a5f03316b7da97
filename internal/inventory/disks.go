package inventory

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/disk"
)

// realDisks leaves out virtual disks of size 0. They are loop devices and the
// like with nothing behind them, and a kernel always has some.
func realDisks(all []disk.Disk) []disk.Disk {
	var real []disk.Disk
	for _, d := range all {
		if d.Size > 0 || d.Transport != "virtual" {
			real = append(real, d)
		}
	}
	return real
}

func (c *collector) collectDisks() {
	if n := len(c.Disks); n > maxDevices {
		c.problem("disks: %d are more than %d, the rest is left out", n, maxDevices)
		c.Disks = c.Disks[:maxDevices]
	}
	for _, d := range c.Disks {
		c.inv.Disks = append(c.inv.Disks, c.readDisk(d))
	}
}

func (c *collector) readDisk(d disk.Disk) Disk {
	dir := path.Join("block", d.Name)
	out := Disk{
		Name: clean(d.Name), Identity: d.Identity, Transport: clean(d.Transport), Removable: d.Removable,
		Firmware: c.sys.attr(path.Join(dir, "device/firmware_rev")),
	}
	if out.Firmware == "" { // SCSI and ATA have this name for it
		out.Firmware = c.sys.attr(path.Join(dir, "device/rev"))
	}
	if r := c.sys.attr(path.Join(dir, "queue/rotational")); r == "0" || r == "1" {
		rotates := r == "1"
		out.Rotational = &rotates
	}
	for _, l := range d.Links {
		out.Links = append(out.Links, clean(l))
	}
	for _, name := range d.Parts {
		p, err := c.readPartition(path.Join(dir, name))
		if err != nil {
			c.problem("partition %s: %v", name, err)
			continue
		}
		p.Name = clean(name)
		out.Partitions = append(out.Partitions, p)
	}
	return out
}

// readPartition reads start and size. /sys gives them in units of 512 bytes,
// whatever the size of the disk's sectors is.
func (c *collector) readPartition(dir string) (Partition, error) {
	start, err := strconv.ParseInt(c.sys.attr(path.Join(dir, "start")), 10, 64)
	if err != nil {
		return Partition{}, errors.New("its start is not readable")
	}
	size, err := strconv.ParseInt(c.sys.attr(path.Join(dir, "size")), 10, 64)
	if err != nil {
		return Partition{}, errors.New("its size is not readable")
	}
	const unit, most = 512, 1 << 54
	if start < 0 || size < 0 || start > most || size > most {
		return Partition{}, fmt.Errorf("its start %d or its size %d is out of range", start, size)
	}
	return Partition{Start: start * unit, Size: size * unit}, nil
}

// healthKind is the way to ask a disk for its health.
type healthKind int

const (
	healthNone healthKind = iota
	healthATA
	healthNVMe
)

// healthOf says how to ask a disk, or why it is not asked. A SATA disk at a SAS
// controller is recognized by its vendor, "ATA". The SCSI-ATA translation (SAT)
// prescribes that.
func (c *collector) healthOf(d disk.Disk) (healthKind, string) {
	switch {
	case c.Dev == "":
		return healthNone, "not asked"
	case d.Transport == "ata":
		return healthATA, ""
	case d.Transport == "nvme":
		return healthNVMe, ""
	case d.Transport == "usb":
		return healthNone, "not asked: some USB bridges hang when they are"
	case c.sys.attr(path.Join("block", d.Name, "device/vendor")) == "ATA":
		return healthATA, ""
	}
	return healthNone, "disks of this kind are not asked"
}

// startHealth asks all disks at once, each in its own goroutine, so that a dead
// disk does not delay the others. Each channel has room for the answer, so that
// an answer that comes too late blocks nobody.
func (c *collector) startHealth(ctx context.Context) []chan Health {
	out := make([]chan Health, len(c.Disks))
	for i, d := range c.Disks {
		out[i] = make(chan Health, 1)
		kind, why := c.healthOf(d)
		if kind == healthNone {
			out[i] <- Health{Status: healthUnknown, Note: why}
			continue
		}
		go func() { out[i] <- c.limitedHealth(ctx, d.Name, kind) }()
	}
	return out
}

func (c *collector) limitedHealth(ctx context.Context, name string, kind healthKind) Health {
	g := &guard{ctx: ctx, limit: c.limits.disk}
	node := filepath.Join(c.Dev, strings.ReplaceAll(name, "!", "/")) // "cciss!c0d0" is /dev/cciss/c0d0
	h, err := timed(g, func() (Health, error) { return c.health(node, kind) })
	if errors.Is(err, errHung) {
		err = fmt.Errorf("skipped, because the disk gave no answer within %v", c.limits.disk.Round(time.Second))
	}
	if err != nil {
		return Health{Status: healthUnknown, Note: clean(err.Error())}
	}
	return h
}

// joinHealth waits for all answers, which come within limits.disk. A failing
// disk is a problem, and so is one that should have answered but did not.
func (c *collector) joinHealth(answers []chan Health) {
	for i, ch := range answers {
		d := &c.inv.Disks[i]
		d.Health = <-ch
		asked := d.Transport == "ata" || d.Transport == "nvme"
		if d.Health.Status == healthFailing || asked && c.Dev != "" && d.Health.Status == healthUnknown {
			c.problem("disk %s: health is %s: %s", d.Name, d.Health.Status, strings.TrimSpace(d.Health.Note))
		}
	}
}

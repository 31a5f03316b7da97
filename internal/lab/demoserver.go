package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"testbox-imaging/internal/box"
)

func (d *Demo) serverSteps() []demoStep {
	job := func(action box.Action) func(context.Context) error {
		return func(ctx context.Context) error { return d.job(ctx, d.box, action) }
	}
	return []demoStep{
		{"Debian's kernel, for the boxes' own systems: downloaded once, then kept", d.getKernel},
		{"Site: a network, and the storage server, which gives the addresses too", d.makeSite},
		{"Maintenance system, form ram: Debian's kernel and the agent", d.buildMaintenance},
		{"A testbox with a small Linux on its disk", d.makeBox},
		{"Power on: the network says `default`, the box starts its own system", d.firstBoot},
		{"`testbox backup`: the box boots into maintenance and is backed up", job(box.Backup)},
		{"It is disarmed and starts its own system again", d.ownAgain},
		{"Its disk changes by a new file of 4 MiB; it is backed up again", d.changeAndBackup},
		{"It is disarmed and starts its own system again", d.ownAgain},
		{"Wreck boot loader, partition table and file system; nothing boots", d.wreckStart},
		{"`testbox restore`: only what differs is fetched, written and read back", job(box.Restore)},
		{"It is disarmed and starts its own system again", d.ownAgain},
		{"The disk is what it was, byte for byte", d.checkDisk},
		{"A second box with another system is backed up: what both have is there", d.second},
		{"The logs tell it", d.checkLogs},
	}
}

// job asks for an action, restarts the box when it is armed, and waits for the
// job's end.
func (d *Demo) job(ctx context.Context, m *Machine, action box.Action) error {
	j, err := d.lab.Job(ctx, m, action)
	if err != nil {
		return err
	}
	switch {
	case action == box.Restore && len(j.Receipts) == 1:
		r := j.Receipts[0]
		d.checked("restore: %s MiB were right already, %s MiB were written, %s MiB were read back",
			mib(r.Skipped), mib(r.Written), mib(r.Verified))
	case action == box.Restore:
		return fmt.Errorf("the restore of one disk has %d receipts", len(j.Receipts))
	default:
		d.checked("%s of box %s: %s MiB crossed the network", action, m.Addr, mib(j.Sent))
	}
	return nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }

// changeAndBackup changes the disk of the box while it is off, as a test run
// would, and backs it up.
func (d *Demo) changeAndBackup(ctx context.Context) error {
	d.box.PowerOff()
	extra := filepath.Join(d.lab.Dir, "new-file")
	noise := make([]byte, 4<<20)
	rand.Read(noise)
	if err := os.WriteFile(extra, noise, 0o644); err != nil {
		return err
	}
	on := fmt.Sprintf("%s?offset=%d", d.disk.Path, partStart)
	if err := run(ctx, "", program("debugfs"), "-w", "-R", "write "+extra+" new-file", on); err != nil {
		return err
	}
	sum, err := HashDisk(d.disk.Path)
	if err != nil {
		return err
	}
	if sum == d.before {
		return errors.New("the disk has not changed")
	}
	d.before = sum
	j, err := d.lab.Job(ctx, d.box, box.BackupAgain)
	if err != nil {
		return err
	}
	if j.Sent < 4<<20 || j.Sent > 16<<20 {
		return fmt.Errorf("a new file of 4 MiB made %d bytes cross the network", j.Sent)
	}
	d.checked("backup after a change of 4 MiB: %s MiB crossed the network", mib(j.Sent))
	return nil
}

// wreckStart overwrites the boot loader, the partition table and the beginning of
// the file system with noise. Everything there is in use, so a restore brings all
// of it back.
func (d *Demo) wreckStart(ctx context.Context) error {
	d.box.PowerOff()
	f, err := os.OpenFile(d.disk.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, 2*partStart); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d.box.Firmware.SkipAll()
	if err := d.box.PowerOn(); err != nil {
		return err
	}
	if err := d.box.BootsNothing(ctx, bootTime); err != nil {
		return err
	}
	d.checked("wrecked, the box found nothing to boot")
	return nil
}

// second backs up a box whose system has the kernel and the program of the first
// one, and other data.
func (d *Demo) second(ctx context.Context) error {
	own := OwnSystem{Name: "second", Kernel: d.kernel, Size: 256 << 20, Data: 8 << 20}
	disk := Disk{Path: filepath.Join(d.lab.Dir, "disk2"), Bus: Virtio, Serial: "DEMO-0002"}
	if err := own.MakeDisk(ctx, disk.Path); err != nil {
		return err
	}
	m, err := d.lab.Machine(Spec{Number: 1, Disks: []Disk{disk}})
	if err != nil {
		return err
	}
	j, err := d.lab.Job(ctx, m, box.Backup)
	if err != nil {
		return err
	}
	if len(j.Receipts) != 1 {
		return fmt.Errorf("the backup of one disk has %d receipts", len(j.Receipts))
	}
	d.checked("the second box has %s MiB of data; %s MiB crossed the network", mib(j.Receipts[0].Read), mib(j.Sent))
	line, err := m.Console.Wait(ctx, own.Up(), bootTime)
	if err == nil {
		d.checked("sign of life on the second box's console: %q", line)
	}
	return err
}

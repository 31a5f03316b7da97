package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"testbox-imaging/internal/box"
)

// Demo does the project's main job on a virtual testbox, from an empty folder
// to a restored box. It checks the result of each step.
type Demo struct {
	Testbox string                                    // path of the testbox program
	Kernel  func(ctx context.Context) (Kernel, error) // for the box's own system
	Share   bool                                      // in share mode, without a storage server
	Out     io.Writer                                 // gets a line for each step, with its time

	lab    *Lab
	own    OwnSystem
	disk   Disk
	box    *Machine
	log    *Watch
	kernel Kernel
	before string // hash of the whole disk as it must be
	checks []string
}

// The time limits of a step. They are three times what a step needs with
// emulation on a machine with two busy cores.
const (
	bootTime   = 2 * time.Minute
	actionTime = 5 * time.Minute
)

// demoStep is one line of the demo.
type demoStep struct {
	title string
	do    func(context.Context) error
}

func (d *Demo) steps() []demoStep {
	if !d.Share {
		return d.serverSteps()
	}
	return []demoStep{
		{"Debian's kernel, for the box's own system: downloaded once, then kept", d.getKernel},
		{"Site: the areas, a network with DHCP and TFTP, NFS with root squash", d.makeSite},
		{"Maintenance system, form ram: Debian's kernel and the agent", d.buildMaintenance},
		{"A testbox with a small Linux on its disk", d.makeBox},
		{"Power on: the network says `default`, the box starts its own system", d.firstBoot},
		{"Arm the box for a backup", func(ctx context.Context) error { return d.arm(ctx, box.Backup) }},
		{"Reset: the box boots into maintenance and is backed up", func(ctx context.Context) error { return d.act(ctx, box.Backup) }},
		{"It disarmed itself and starts its own system again", d.ownAgain},
		{"The image holds the disk, byte for byte", d.checkImage},
		{"Wreck the disk: noise from its first to its last byte; nothing boots", d.wreck},
		{"Arm the box for a restore", func(ctx context.Context) error { return d.arm(ctx, box.Restore) }},
		{"Reset: the box boots into maintenance and is restored", func(ctx context.Context) error { return d.act(ctx, box.Restore) }},
		{"It disarmed itself and starts its own system again", d.ownAgain},
		{"The disk is what it was, byte for byte", d.checkDisk},
		{"The logs tell it", d.checkLogs},
	}
}

// Run does all steps until one fails. After a failure the lab's folder stays,
// so that somebody can look at it. After an interruption and after the last
// step it is removed.
func (d *Demo) Run(ctx context.Context) error {
	begun := time.Now()
	for i, s := range d.steps() {
		fmt.Fprintf(d.Out, "%2d. %-72s", i+1, s.title)
		from := time.Now()
		err := s.do(ctx)
		took := time.Since(from).Seconds()
		switch {
		case ctx.Err() != nil:
			fmt.Fprintln(d.Out, " interrupted")
			return errors.Join(ctx.Err(), d.close())
		case err != nil:
			fmt.Fprintf(d.Out, " FAILED after %.1f s\n", took)
			return d.fail(err)
		}
		fmt.Fprintf(d.Out, " %6.1f s\n", took)
	}
	err := d.close()
	d.summary(time.Since(begun))
	return err
}

func (d *Demo) close() error {
	if d.lab == nil {
		return nil
	}
	return d.lab.Close(false)
}

func (d *Demo) fail(err error) error {
	if d.lab == nil {
		return err
	}
	d.lab.Close(true)
	return fmt.Errorf("%w\nThe lab's areas, logs and disk are still in %s; remove them with `testbox lab clean`", err, d.lab.Dir)
}

// checked notes a check that passed, for the summary.
func (d *Demo) checked(format string, args ...any) {
	d.checks = append(d.checks, fmt.Sprintf(format, args...))
}

func (d *Demo) summary(all time.Duration) {
	how := "emulated: KVM does not work here"
	if d.lab.KVM {
		how = "with KVM"
	}
	fmt.Fprintf(d.Out, "\nDone in %.0f s, %s. What was checked:\n", all.Seconds(), how)
	for _, c := range d.checks {
		fmt.Fprintf(d.Out, "  ok  %s\n", c)
	}
	next := nextSteps
	if d.Share {
		next = nextStepsShare
	}
	fmt.Fprint(d.Out, next)
}

// nextSteps says how to go on with real machines, with a storage server and in
// share mode. docs/guide.md says more.
const (
	nextSteps = `
The same on real machines, on the storage server (docs/guide.md says more):
  1. testbox server init --address ADDRESS   makes /var/lib/testbox and /etc/testbox/server.toml
  2. testbox maintenance build               the system that boxes boot for an action
  3. testbox server                          gives out jobs, takes backups, restores boxes
  4. your DHCP server                        next-server ADDRESS; filename "pxelinux.0", for UEFI "shimx64.efi"; or [dhcp] in server.toml
  5. each box's firmware                     network first, disk second; BIOS or UEFI
  6. testbox backup BOX --wait               and restart the box
  7. testbox restore BOX --wait              and restart the box: its disk is what it was
`
	nextStepsShare = `
The same on real machines, on the storage server (docs/guide.md says more):
  1. testbox share init --server ADDRESS     makes /export; export it as /export/testbox.exports says
  2. testbox maintenance build               the system that boxes boot for an action
  3. your DHCP server                        next-server ADDRESS; filename "pxelinux.0", for UEFI "shimx64.efi"
  4. each box's firmware                     network first, disk second; BIOS or UEFI
  5. testbox pxe-conf BOX backup             and restart the box
  6. testbox pxe-conf BOX restore            and restart the box: its disk is what it was
A virtual box to try commands on: testbox lab up
`
)

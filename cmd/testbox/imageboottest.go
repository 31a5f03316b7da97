package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

// signText says for people what a sign of life is.
var signText = map[image.Sign]string{
	image.SignNothing:  "none",
	image.SignRead:     "its disks were read",
	image.SignSerial:   "text on the serial line",
	image.SignScreen:   "its screen left firmware and loader",
	image.SignWritten:  "it wrote to its disks",
	image.SignLogin:    "it asked for a login",
	image.SignExpected: "the expected line",
}

type bootTestOptions struct {
	storeFlag
	timeout  time.Duration
	expect   string
	firmware string
	picture  string
	last     bool
}

func newImageBootTestCmd(w world) *cobra.Command {
	var o bootTestOptions
	cmd := &cobra.Command{
		Use:   "boot-test BACKUP",
		Short: "Start a backup in a virtual machine, and say which sign of life was seen",
		Long: `Starts the disks of a backup in a virtual machine (QEMU) without a network, with BIOS or UEFI as the
disks tell. What it writes is thrown away. The strongest sign of life is said, and kept with the
backup, together with a picture of the last screen; image list and image show tell of them.

passed:   it asked for a login on its serial line or on a text screen, or gave the line that --expect
          describes.
failed:   firmware, loader or kernel said that they do not go on, or its boot sector read nothing for a
          minute, or it restarted itself again and again, or switched itself off. The exit code is 1.
unproven: neither was seen in time, or this machine is too busy. The exit code is 12. A desktop, or
          a console in graphics mode, gives no proof that a program could be sure of: look at the
          picture. console=ttyS0 on the box's kernel command line gives one.

The machine has disks of the kind that the box had: NVMe, virtio, or else SATA. With UEFI, the
firmware tries \EFI\BOOT\BOOTX64.EFI, and then the usual loaders of Linux and Windows, since what
the box's own firmware starts is in the box's memory. A disk without any of them is unproven.`,
		Example: `  testbox image boot-test web-1
  testbox image boot-test 10.40.41.42@latest --expect '^ready for tests' --timeout 20m
  testbox image boot-test web-1 --last --picture screen.png`,
		Args: oneImage, ValidArgsFunction: completeImages(&o.storeFlag),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), printerOf(cmd), w, args[0]) },
	}
	o.add(cmd)
	f := cmd.Flags()
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long the machine may run, at most 1h")
	f.StringVar(&o.expect, "expect", "", "pass by a line that matches this `REGEXP`, and not by a login")
	f.StringVar(&o.firmware, "firmware", "", "`bios` or uefi, instead of what the disks tell")
	f.StringVar(&o.picture, "picture", "", "write the picture of the last screen to `FILE`, a PNG")
	f.BoolVar(&o.last, "last", false, "make no test, but show the latest one")
	return cmd
}

func (o *bootTestOptions) run(ctx context.Context, p printer, w world, arg string) error {
	options := boottest.Options{Timeout: o.timeout, Log: p.tellf}
	if o.timeout < 10*time.Second || o.timeout > time.Hour {
		return wrong("--timeout is not between 10s and 1h")
	}
	if o.expect != "" {
		expect, err := regexp.Compile("(?m)" + o.expect)
		if err != nil {
			return wrong("--expect is no regular expression: %w", err)
		}
		options.Expect = expect
	}
	switch uefi := o.firmware == "uefi"; o.firmware {
	case "":
	case "bios", "uefi":
		options.UEFI = &uefi
	default:
		return wrong("--firmware is bios or uefi, and not %q", o.firmware)
	}
	var r *image.Record
	var result *image.BootTest
	// The store is not kept locked for writing while the machine runs.
	err := o.with(ctx, p, true, func(s backups) (err error) {
		if r, result, err = o.test(ctx, p, s, arg, options); err != nil || o.last {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if o.picture != "" {
		if len(result.Picture) == 0 {
			return fmt.Errorf("there is no picture of the boot test of backup %s of %s", r.ID, r.Box)
		}
		if err := durable.WriteFile(durable.OS{}, o.picture, result.Picture, 0o644); err != nil {
			return err
		}
	}
	p.printf("boot test of backup %s of %s: %s; sign of life: %s\n  %s\n", r.ID, r.Box, result.Verdict, signText[result.Sign],
		printable(result.Text))
	if !o.last {
		err := o.withEditor(ctx, p, w, func(s backups) error { return s.SetBoot(ctx, r.Box, r.ID, result) })
		if err != nil {
			return fmt.Errorf("the result is not kept with the backup: %w", err)
		}
	}
	switch result.Verdict {
	case image.BootFailed:
		return &exitError{exitFailed, errSaid}
	case image.BootUnproven:
		return &exitError{exitUnproven, errSaid}
	}
	return nil
}

// test makes the test, or finds the result of the latest one.
func (o *bootTestOptions) test(ctx context.Context, p printer, s backups, arg string, options boottest.Options) (
	*image.Record, *image.BootTest, error) {
	r, sel, err := pick(ctx, p, s, arg)
	if err != nil {
		return nil, nil, err
	}
	if sel.Disk != "" {
		return nil, nil, wrong("a backup is started with all its disks; leave :%s out", sel.Disk)
	}
	if o.last {
		if r.Boot == nil {
			return nil, nil, wrong("there was no boot test of backup %s of %s", r.ID, r.Box)
		}
		return r, r.Boot, nil
	}
	if err := warnDamaged(ctx, p, s, r, chosen(r, sel)); err != nil {
		return nil, nil, err
	}
	disks, shut, err := boottest.Open(ctx, s, r)
	if err != nil {
		return nil, nil, err
	}
	defer shut()
	if _, err := os.Stat("/dev/kvm"); err != nil {
		p.tellf("this machine has no /dev/kvm, so the processor is emulated, which is slow")
	}
	result, err := boottest.Run(ctx, disks, options)
	return r, result, err
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/lab"
)

func newLabUpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Keep a lab with one virtual testbox running, to try commands on",
		Long: `Makes a lab with one virtual testbox that runs its own small Linux, says how to arm the
box and where its serial console is, and keeps it running until interrupted (Ctrl-C).
Then everything of it is removed. The first time it downloads about 90 MB of Debian's
packages, which are kept for the next time.`,
		Example: `  testbox lab up`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLabUp(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// runLabUp runs a lab until ctx ends.
func runLabUp(ctx context.Context, in io.Reader, out io.Writer) error {
	if err := lab.Check(); err != nil {
		return wrong("%w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	say := func(line string) { fmt.Fprintln(out, line) }
	say("getting Debian's kernel for the box's own system")
	kernel, err := labKernel(ctx, func(format string, args ...any) { say("  " + fmt.Sprintf(format, args...)) })
	if err != nil {
		return err
	}
	say("trying KVM")
	kvm := lab.ProbeKVM(ctx, kernel)
	if err := ctx.Err(); err != nil {
		return err
	}
	if !kvm {
		say("  KVM does not work here, so the box is emulated: slower, otherwise the same")
	}
	l, err := lab.New(ctx, lab.Options{Testbox: program, KVM: kvm, Say: func(line string) { say("  " + line) }})
	if err != nil {
		return err
	}
	defer l.Close(false)
	m, disk, err := labBox(ctx, l, kernel, say)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `The virtual testbox %[1]s is switched on.
  its serial console   tail -f %[2]s
  its disk             %[3]s
  its logs and images  %[4]s
  arm it               %[5]s pxe-conf -c %[6]s %[1]s backup
  reset it             %[5]s lab reset %[1]s, or press Enter here
  end the lab          press Ctrl-C here
`, m.Addr, m.Console.Path, disk, l.BoxDir(m.Addr), program, filepath.Dir(l.BootFile(m.Addr)))
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { sayUp(ctx, m, say) })
	defer watching.Wait()
	defer stop()
	return resetOnEnter(ctx, m, in, out)
}

// labOwn is the name of the system on the disk of the lab's box.
const labOwn = "lab"

// labBox makes the maintenance system and a box, and switches the box on.
func labBox(ctx context.Context, l *lab.Lab, kernel lab.Kernel, say func(string)) (*lab.Machine, string, error) {
	say("building the maintenance system")
	if _, err := l.BuildMaintenance(ctx, "ram"); err != nil {
		return nil, "", err
	}
	say("making the box's disk")
	disk := filepath.Join(l.Dir, "disk")
	own := lab.OwnSystem{Name: labOwn, Kernel: kernel, Size: 256 << 20, Data: 48 << 20}
	if err := own.MakeDisk(ctx, disk); err != nil {
		return nil, "", err
	}
	m, err := l.Machine(lab.Spec{Disks: []lab.Disk{{Path: disk, Bus: lab.AHCI, Serial: "LAB-0001"}}})
	if err != nil {
		return nil, "", err
	}
	if err := m.PowerOn(); err != nil {
		return nil, "", err
	}
	if err := l.Listen(func(box.Addr) { say("reset") }); err != nil {
		say(fmt.Sprintf("`testbox lab reset` will not work, only Enter: %v", err))
	}
	return m, disk, nil
}

// sayUp prints a line each time the box's own system is up.
func sayUp(ctx context.Context, m *lab.Machine, say func(string)) {
	up := lab.OwnSystem{Name: labOwn}.Up()
	for {
		if _, err := m.Console.Wait(ctx, up, 365*24*time.Hour); err != nil {
			return
		}
		say("the box runs its own system")
	}
}

// resetOnEnter resets the machine at each line of input, until ctx ends.
func resetOnEnter(ctx context.Context, m *lab.Machine, in io.Reader, out io.Writer) error {
	lines := make(chan struct{})
	go func() {
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- struct{}{}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.Ended():
			return errors.New("the virtual testbox ended by itself; its QEMU did not say more than that")
		case <-lines:
			if err := m.Reset(); err != nil {
				return err
			}
			fmt.Fprintln(out, "reset")
		}
	}
}

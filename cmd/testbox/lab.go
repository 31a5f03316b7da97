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
	"testbox-imaging/internal/maintos"
)

func newLabCmd() *cobra.Command {
	return newGroupCmd("lab", "Try it all with virtual testboxes",
		`Makes virtual testboxes (QEMU) with a network, DHCP, TFTP and NFS of their own, which
nothing else on this machine sees. Needs root and the packages that scripts/deps
installs. Where KVM does not work the boxes run by emulation: slower, otherwise the same.`,
		newLabDemoCmd(), newLabUpCmd(), newLabResetCmd(), newLabCleanCmd())
}

func newLabDemoCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Back up, wreck and restore a virtual testbox, and check each step",
		Long: `Makes a site and a virtual testbox with a small Linux on its disk, backs the box up over
the network, overwrites its disk with noise, restores it, and lets it boot its own system
again. Each step is a line with its time; at the end it says what was checked. The first
step that is not as it should be ends the demo with exit code 1.`,
		Example: `  testbox lab demo`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Check(); err != nil {
				return wrong("%w", err)
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			kernel := func(ctx context.Context) (lab.Kernel, error) { return labKernel(ctx, nil) }
			d := lab.Demo{Testbox: program, Kernel: kernel, Out: cmd.OutOrStdout()}
			return d.Run(cmd.Context())
		},
	}
}

func newLabUpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Keep a lab with one virtual testbox running, to try commands on",
		Long: `Makes a lab with one virtual testbox that runs its own small Linux, says how to arm the
box and where its serial console is, and keeps it running until interrupted (Ctrl-C).
Then everything of it is removed. The first time it downloads about 90 MB of Debian's
packages, which are kept for the next time.`,
		Example: `  testbox lab up`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return labUp(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func newLabCleanCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove the folders of labs that have ended",
		Long: `A lab's processes and networks end with the program that made them, whatever happens to
it; a demo that failed, or a lab that was killed, leaves its folder. This removes the
folders in the folder for temporary files that no running lab uses.`,
		Example: `  testbox lab clean`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			gone, err := lab.Clean("")
			for _, dir := range gone {
				fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", dir)
			}
			return err
		},
	}
}

func newLabResetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reset BOX",
		Short: "Press the reset button of a box of a running lab",
		Long: `Resets a virtual testbox of a lab that 'testbox lab up' keeps running, as the reset button of a
real machine does: at once, whatever it is doing. Armed, it then boots into maintenance.`,
		Example: `  testbox lab reset 10.40.41.42`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("give the box's address, which `testbox lab up` says")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := box.ParseAddr(args[0])
			if err != nil {
				return wrong("%w", err)
			}
			err = lab.Reset("", addr)
			if errors.Is(err, lab.ErrNoLab) {
				return wrong("%w ($TMPDIR names that folder); `testbox lab up` starts one", err)
			} else if errors.Is(err, lab.ErrWhich) {
				return wrong("%w", err)
			} else if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "box %s is reset\n", addr)
			return nil
		},
	}
}

// labUp runs a lab until ctx ends.
func labUp(ctx context.Context, in io.Reader, out io.Writer) error {
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

// labOwn is the system on the disk of the lab's box.
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

// sayUp says each time that the box's own system is up.
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

// labKernel is the kernel for the boxes' own system.
func labKernel(ctx context.Context, say func(string, ...any)) (lab.Kernel, error) {
	k, err := maintos.FetchBare(ctx, maintos.Options{Say: say}, lab.KernelModules...)
	if err != nil {
		return lab.Kernel{}, err
	}
	return lab.Kernel(*k), nil
}

package main

import (
	"context"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/maintenance"
)

func newLabCmd() *cobra.Command {
	return newGroupCmd("lab", "Try it all with virtual testboxes",
		`Makes virtual testboxes (QEMU) with a network, DHCP, TFTP and NFS of their own, which
nothing else on this machine sees. Needs root and the packages that scripts/deps
installs. Where KVM does not work the boxes run by emulation: slower, otherwise the same.`,
		newLabDemoCmd(), newLabUpCmd(), newLabResetCmd(), newLabPowerCmd(), newLabCleanCmd())
}

// labKernel fetches the kernel for the boxes' own system.
func labKernel(ctx context.Context, say func(string, ...any)) (lab.Kernel, error) {
	k, err := maintenance.FetchBare(ctx, maintenance.Options{Say: say}, lab.KernelModules...)
	if err != nil {
		return lab.Kernel{}, err
	}
	return lab.Kernel(*k), nil
}

package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/lab"
)

func newLabDemoCmd() *cobra.Command {
	var share bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Back up, wreck and restore a virtual testbox, and check each step",
		Long: `Makes a site with a storage server and a virtual testbox with a small Linux on its disk, backs
the box up over the network, wrecks its disk, restores it, and lets it boot its own system
again. Each step is a line with its time; at the end it says what was checked. The first
step that is not as it should be ends the demo with exit code 1.

With --share it does so in share mode, where an NFS server takes the place of the storage server.`,
		Example: `  testbox lab demo
  testbox lab demo --share`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLabDemo(cmd.Context(), cmd.OutOrStdout(), share) },
	}
	cmd.Flags().BoolVar(&share, "share", false, "show share mode")
	return cmd
}

func runLabDemo(ctx context.Context, out io.Writer, share bool) error {
	if err := lab.Check(); err != nil {
		return wrong("%w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	kernel := func(ctx context.Context) (lab.Kernel, error) { return labKernel(ctx, nil) }
	return (&lab.Demo{Testbox: program, Kernel: kernel, Share: share, Out: out}).Run(ctx)
}

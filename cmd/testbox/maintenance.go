package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/maintos"
)

// newMaintenanceCmd groups what is done with maintenance systems.
func newMaintenanceCmd() *cobra.Command {
	return newGroupCmd("maintenance", "Build and list the systems that boxes boot for an action",
		`A maintenance system is a kernel and an initrd in the TFTP area's folder
`+bootcfg.MaintDir+`. Each build has a folder and a name of its own and is never changed, so
that a box that boots in this moment gets files that belong together.
'testbox pxe-conf' takes the newest, unless the site file names one.`,
		newMaintenanceBuildCmd(), newMaintenanceListCmd())
}

// tftpArea is the TFTP area's folder below the one that 'testbox share init' was given.
func tftpArea(dir string) string { return filepath.Join(dir, "testbox-tftp") }

func atMostOneFolder(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return errors.New("give one folder at most, that with the areas")
	}
	return nil
}

func completeFolder(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// exportDir is the folder with the areas: the argument if there is one.
func exportDir(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "/export"
}

func newMaintenanceBuildCmd() *cobra.Command {
	var form, agent string
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a maintenance system from Debian's kernel and the agent",
		Long: `Builds, into the areas in DIR (default /export), the ram form: Debian's newest kernel of this machine's release and an initrd
with the agent and the drivers of common network cards and disk controllers. A box
loads both into memory; it does every action but rescue.

Kernel, firmware and the names of PCI devices are downloaded from this machine's
own apt sources, to which the component non-free-firmware is added for the build
alone. Nothing is installed and apt's state is not touched; root is not needed where you may write to the areas and the cache.
Downloads are kept in $XDG_CACHE_HOME/testbox (for root /var/cache/testbox).

The same input gives the same version: what is there already is checked and kept.
A build that fails leaves the earlier ones as they were.`,
		Example: `  testbox maintenance build
  testbox maintenance build --agent bin/testbox-maintenance /srv/export`,
		Args:              atMostOneFolder,
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			if bootcfg.Form(form) != bootcfg.FormRAM {
				return wrong("the form %q is not known; the form is %s", form, bootcfg.FormRAM)
			}
			if agent == "" {
				var err error
				if agent, err = agentBeside(); err != nil {
					return err
				}
			}
			return maintenanceBuild(cmd, maintos.Options{TFTP: tftpArea(exportDir(args)), Agent: agent})
		},
	}
	cmd.Flags().StringVar(&form, "form", string(bootcfg.FormRAM), "how it runs: ram (in the box's memory)")
	cmd.Flags().StringVar(&agent, "agent", "", "the agent's program (default: testbox-maintenance beside this program)")
	mustComplete(cmd.RegisterFlagCompletionFunc("form", cobra.FixedCompletions([]string{string(bootcfg.FormRAM)}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// agentBeside is the agent that was built together with this program.
func agentBeside() (string, error) {
	self, err := os.Executable()
	return filepath.Join(filepath.Dir(self), "testbox-maintenance"), err
}

func maintenanceBuild(cmd *cobra.Command, opt maintos.Options) error {
	opt.Say = func(format string, args ...any) { cmd.PrintErrf(format+"\n", args...) }
	r, err := maintos.Build(cmd.Context(), opt)
	var input *maintos.InputError
	if errors.As(err, &input) {
		return wrong("%w", err)
	}
	if err != nil {
		return err
	}
	for _, n := range r.Notes {
		cmd.PrintErrf("WARNING: %s\n", n)
	}
	what := "built"
	if r.Existed {
		what = "was built before and is whole:"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s (kernel %s, %.1f MB)\n", what, r.Version.Version, r.Version.Kernel, float64(r.Size)/1e6)
	return nil
}

func newMaintenanceListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list [DIR]",
		Short: "List the maintenance systems, the newest first",
		Long: `Lists the maintenance systems in the areas in DIR (default /export), the newest first; that is what
'testbox pxe-conf' takes. One that no box is armed for can be removed by removing
its folder in ` + bootcfg.MaintDir + `.`,
		Example:           `  testbox maintenance list /srv/export`,
		Args:              atMostOneFolder,
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return maintenanceList(cmd, tftpArea(exportDir(args))) },
	}
}

func maintenanceList(cmd *cobra.Command, tftp string) error {
	f := &pxeFolder{filepath.Join(tftp, bootcfg.ConfigDir), durable.OS{}}
	names, err := f.fsys.ReadDir(filepath.Join(tftp, bootcfg.MaintDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var whole []*bootcfg.Version
	for _, name := range names {
		v, err := f.readVersion(name)
		if err != nil {
			cmd.PrintErrf("%s cannot be booted: %v\n", name, err)
			continue
		}
		whole = append(whole, v)
	}
	slices.SortFunc(whole, func(a, b *bootcfg.Version) int {
		if newer(a, b) == a {
			return -1
		}
		return 1
	})
	if len(whole) == 0 {
		return wrong("no maintenance system in %s; `testbox maintenance build` makes one", tftp)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	for _, v := range whole {
		fmt.Fprintf(w, "%s\t%s\t%s\tkernel %s\n", v.Version, v.Form, v.Built.UTC().Format("2006-01-02 15:04:05Z"), v.Kernel)
	}
	return w.Flush()
}

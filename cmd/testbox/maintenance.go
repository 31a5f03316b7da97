package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/maintos"
)

// newMaintenanceCmd groups what is done with maintenance systems.
func newMaintenanceCmd() *cobra.Command {
	return newGroupCmd("maintenance", "Build and list the systems that boxes boot for an action",
		`A maintenance system is a kernel and an initrd in the TFTP area's folder
`+bootcfg.MaintDir+`. Each build has a folder and a name of its own and is never changed, so
that a box that boots in this moment gets files that belong together.
'testbox pxe-conf' takes the newest of the form ram, for rescue the newest of the form
debian, unless the site file names one.`,
		newMaintenanceBuildCmd(), newMaintenanceListCmd())
}

// tftpArea is the TFTP area's folder below the one that 'testbox share init' was given.
func tftpArea(dir string) string { return filepath.Join(dir, bootcfg.TFTPArea) }

// bootOf is the folder of boot files in a TFTP area.
func bootOf(tftp string) *bootfiles.Folder {
	return bootfiles.New(durable.OS{}, filepath.Join(tftp, bootcfg.ConfigDir))
}

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
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a maintenance system from Debian's kernel and the agent",
		Long: `Builds a maintenance system into the areas in DIR (default /export), in one of two forms:
  ram     Debian's newest kernel of this machine's release and an initrd with the agent and the
          drivers of common network cards and disk controllers. A box loads both into memory. It
          does every action but rescue, and is taken for those.
  debian  a Debian with ssh and tools, whose root the boxes mount by NFS from the area
          testbox-nfsroot, read-only with a layer in memory over it. It does every action; rescue
          needs it. Building it needs root and mmdebstrap, and takes some minutes the first time.

Everything of Debian is downloaded from this machine's own apt sources, to which the component
non-free-firmware is added for the build alone. Nothing is installed and apt's state is not
touched; for the form ram root is not needed where you may write to the areas and the cache.
Downloads and the Debian tree are kept in $XDG_CACHE_HOME/testbox (for root /var/cache/testbox).

The same input gives the same version: what is there already is checked and kept. A build that
fails leaves the earlier ones as they were, and boxes that run one keep it.`,
		Example: `  testbox maintenance build
  testbox maintenance build --agent bin/testbox-maintenance /srv/export
  testbox maintenance build --form debian --ssh-key ~/.ssh/id_ed25519.pub --packages vim,fio`,
		Args:              atMostOneFolder,
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.agent == "" {
				var err error
				if o.agent, err = agentBeside(); err != nil {
					return err
				}
			}
			// What is made is read by the TFTP server and by every box, whatever
			// the umask of the shell is.
			syscall.Umask(0o022)
			for _, name := range []string{"ssh-key", "password-file", "packages"} {
				if cmd.Flags().Changed(name) {
					o.logins = append(o.logins, name)
				}
			}
			build, err := o.build(printerOf(cmd), exportDir(args))
			if err != nil {
				return err
			}
			return maintenanceBuild(cmd.Context(), printerOf(cmd), tftpArea(exportDir(args)), build)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.form, "form", string(bootcfg.FormRAM), "how it runs: ram (in the box's memory) or debian (a root by NFS)")
	f.StringVar(&o.agent, "agent", "", "the agent's program (default: testbox-maintenance beside this program)")
	f.StringArrayVar(&o.keys, "ssh-key", nil, "form debian: `FILE` with public SSH keys that may log in as root and as the user testbox; can be given more than once")
	f.StringVar(&o.password, "password-file", "", "form debian: `FILE` whose first line is the password of root and testbox (default: none; every box can read its hash)")
	f.StringSliceVar(&o.packages, "packages", nil, "form debian: more Debian packages, comma-separated `LIST`")
	mustComplete(cmd.RegisterFlagCompletionFunc("form", cobra.FixedCompletions([]string{string(bootcfg.FormRAM), string(bootcfg.FormDebian)}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("packages", cobra.NoFileCompletions))
	return cmd
}

// buildOptions are the flags of maintenance build.
type buildOptions struct {
	form, agent, password string
	keys, packages        []string
	logins                []string // flags that were given and are for the form debian alone
}

// buildFunc builds a maintenance system.
type buildFunc func(context.Context) (*maintos.Result, error)

// build checks the flags and makes what builds the form into the areas in dir.
func (o buildOptions) build(p printer, dir string) (buildFunc, error) {
	common := maintos.Options{TFTP: tftpArea(dir), Agent: o.agent, Say: func(format string, args ...any) { p.tellf(format, args...) }}
	switch bootcfg.Form(o.form) {
	case bootcfg.FormRAM:
		if len(o.logins) > 0 {
			return nil, wrong("--%s is for --form debian; in the form ram there is nobody to log in to", o.logins[0])
		}
		return func(ctx context.Context) (*maintos.Result, error) { return maintos.Build(ctx, common) }, nil
	case bootcfg.FormDebian:
		opt, err := o.debian(dir, common)
		if err != nil {
			return nil, err
		}
		if len(opt.SSHKeys) == 0 && opt.Password == "" {
			p.warnf("nobody will be able to log in to a box in rescue; give --ssh-key FILE, or --password-file FILE")
		}
		if opt.Password != "" {
			p.warnf("every box can read the password's hash, and guess; do not use the password elsewhere")
		}
		return func(ctx context.Context) (*maintos.Result, error) { return maintos.BuildDebian(ctx, opt) }, nil
	}
	return nil, wrong("the form %q is not known; the forms are %s and %s", o.form, bootcfg.FormRAM, bootcfg.FormDebian)
}

// maxLogin is the size in bytes over which a file of keys or of a password is refused.
const maxLogin = 1 << 20

func (o buildOptions) debian(dir string, common maintos.Options) (opt maintos.DebianOptions, err error) {
	s, err := arming.ReadSite(durable.OS{}, bootOf(common.TFTP))
	if err != nil {
		return opt, err
	}
	opt = maintos.DebianOptions{
		Options: common, NFSRoot: filepath.Join(dir, bootcfg.RootArea), Packages: o.packages,
		TFTPFrom:   bootcfg.NFSPath{Server: s.Server, Path: s.TFTPPath},
		BackupFrom: bootcfg.NFSPath{Server: s.Server, Path: s.BackupPath},
	}
	for _, name := range o.keys {
		data, err := durable.ReadFile(durable.OS{}, name, maxLogin)
		if err != nil {
			return opt, wrong("--ssh-key: %w", err)
		}
		opt.SSHKeys = append(append(opt.SSHKeys, bytes.TrimSpace(data)...), '\n')
	}
	if o.password == "" {
		return opt, nil
	}
	data, err := durable.ReadFile(durable.OS{}, o.password, maxLogin)
	if err != nil {
		return opt, wrong("--password-file: %w", err)
	}
	opt.Password, _, _ = strings.Cut(string(data), "\n")
	if opt.Password = strings.TrimSuffix(opt.Password, "\r"); opt.Password == "" {
		return opt, wrong("--password-file: the first line of %s is empty", o.password)
	}
	return opt, nil
}

// agentBeside is the agent that was built together with this program.
func agentBeside() (string, error) {
	self, err := os.Executable()
	return filepath.Join(filepath.Dir(self), "testbox-maintenance"), err
}

func maintenanceBuild(ctx context.Context, p printer, tftp string, build buildFunc) error {
	r, err := build(ctx)
	var input *maintos.InputError
	if errors.As(err, &input) {
		return wrong("%w", err)
	}
	if err != nil {
		return err
	}
	if err := openVersion(tftp, r.Version); err != nil {
		return err
	}
	for _, n := range r.Notes {
		p.warnf("%s", n)
	}
	what := "built"
	if r.Existed {
		what = "was built before and is whole:"
	}
	fmt.Fprintf(p.out, "%s %s (kernel %s, %.1f MB)\n", what, r.Version.Version, r.Version.Kernel, float64(r.Size)/1e6)
	return nil
}

// openVersion lets the TFTP server, which is some user of its own, read a
// version that was there already.
func openVersion(tftp string, v bootcfg.Version) error {
	for _, p := range []struct {
		path string
		mode fs.FileMode
	}{{bootcfg.MaintDir, 0o755}, {filepath.Dir(v.KernelPath()), 0o755}, {v.KernelPath(), 0o644}, {v.InitrdPath(), 0o644}} {
		path := filepath.Join(tftp, p.path)
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if want := st.Mode().Perm() | p.mode; want != st.Mode().Perm() {
			if err := os.Chmod(path, want); err != nil {
				return fmt.Errorf("the TFTP server cannot read the version: %w", err)
			}
		}
	}
	return nil
}

func newMaintenanceListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list [DIR]",
		Short: "List the maintenance systems, the newest first",
		Long: `Lists the maintenance systems in the areas in DIR (default /export), the newest first. 'testbox
pxe-conf' takes the newest of the form ram, for rescue the newest of the form debian, unless the site
file names one. One that no box is armed for or runs can be removed by removing its folder in
` + bootcfg.MaintDir + `, then that in testbox-nfsroot.`,
		Example:           `  testbox maintenance list /srv/export`,
		Args:              atMostOneFolder,
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return maintenanceList(printerOf(cmd), tftpArea(exportDir(args)))
		},
	}
}

func maintenanceList(p printer, tftp string) error {
	boot := bootOf(tftp)
	versions, broken, err := boot.Versions()
	if err != nil {
		return err
	}
	for _, b := range broken {
		p.notef("%s cannot be booted: %v", b.Name, b.Err)
	}
	var whole []*bootcfg.Version
	for _, v := range versions {
		if err := boot.CheckFiles(v.KernelPath(), v.InitrdPath()); err != nil {
			p.notef("%s cannot be booted: %v", v.Version, err)
			continue
		}
		whole = append(whole, v)
	}
	if len(whole) == 0 {
		return wrong("no maintenance system in %s; `testbox maintenance build` makes one", tftp)
	}
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	for _, v := range whole {
		fmt.Fprintf(w, "%s\t%s\t%s\tkernel %s\n", v.Version, v.Form, v.Built.UTC().Format("2006-01-02 15:04:05Z"), v.Kernel)
	}
	return w.Flush()
}

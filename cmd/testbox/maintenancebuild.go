package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/maintenance"
)

func newMaintenanceBuildCmd() *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a maintenance system from Debian's kernel and the agent",
		Long: `Builds a maintenance system into the areas in DIR (default /export), in one of two forms:
  ram     Debian's newest kernel of this machine's release and an initrd with the agent and the
          drivers of common network cards and disk controllers. A box loads both into memory. It
          does every action but rescue, and is taken for those.
  debian  a Debian with ssh and tools. It does every action; rescue needs it. Boxes of a server get
          its root as one file over HTTP into memory. In share mode they mount it by NFS from the
          area testbox-nfsroot, read-only with a layer in memory over it. Building it needs root,
          mmdebstrap and squashfs-tools, and takes some minutes the first time.

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
			// The TFTP server and every box must be able to read the files, whatever umask
			// the shell has.
			syscall.Umask(0o022)
			for _, name := range []string{"ssh-key", "password-file", "packages"} {
				if cmd.Flags().Changed(name) && o.debianFlag == "" {
					o.debianFlag = name
				}
			}
			return runMaintenanceBuild(cmd.Context(), printerOf(cmd), o, exportDir(args))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.form, "form", string(bootcfg.FormRAM), "how it runs: ram (in the box's memory) or debian (a whole Debian)")
	f.StringVar(&o.agent, "agent", "", "the agent's program (default: testbox-maintenance beside this program)")
	f.StringArrayVar(&o.keys, "ssh-key", nil,
		"form debian: `FILE` with public SSH keys that may log in as root and as the user testbox; can be given more than once")
	f.StringVar(&o.password, "password-file", "",
		"form debian: `FILE` whose first line is the password of root and testbox (default: none; every box can read its hash)")
	f.StringSliceVar(&o.packages, "packages", nil, "form debian: more Debian packages, comma-separated `LIST`")
	forms := []string{string(bootcfg.FormRAM), string(bootcfg.FormDebian)}
	mustComplete(cmd.RegisterFlagCompletionFunc("form", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("packages", cobra.NoFileCompletions))
	return cmd
}

// buildOptions are the flags of maintenance build.
type buildOptions struct {
	form, agent, password string
	keys, packages        []string
	debianFlag            string // a given flag that is only for the debian form; "" if there is none
}

// buildFunc builds a maintenance system.
type buildFunc func(context.Context) (*maintenance.Result, error)

// build checks the flags, and returns the function that builds the form into
// the areas in dir.
func (o buildOptions) build(p printer, dir string) (buildFunc, error) {
	common := maintenance.Options{TFTP: tftpArea(dir), Agent: o.agent, Say: p.tellf}
	switch bootcfg.Form(o.form) {
	case bootcfg.FormRAM:
		if o.debianFlag != "" {
			return nil, wrong("--%s is for --form debian; in the form ram there is nobody to log in to", o.debianFlag)
		}
		return func(ctx context.Context) (*maintenance.Result, error) { return maintenance.Build(ctx, common) }, nil
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
		return func(ctx context.Context) (*maintenance.Result, error) { return maintenance.BuildDebian(ctx, opt) }, nil
	}
	return nil, wrong("the form %q is not known; the forms are %s and %s", o.form, bootcfg.FormRAM, bootcfg.FormDebian)
}

// maxLogin is the size in bytes above which a file of keys or of a password is
// refused.
const maxLogin = 1 << 20

func (o buildOptions) debian(dir string, common maintenance.Options) (opt maintenance.DebianOptions, err error) {
	s, err := arming.ReadSite(durable.OS{}, bootOf(common.TFTP))
	if err != nil {
		return opt, err
	}
	opt = maintenance.DebianOptions{
		Options: common, Packages: o.packages,
		TFTPFrom:   bootcfg.NFSPath{Server: s.Server, Path: s.TFTPPath},
		BackupFrom: bootcfg.NFSPath{Server: s.Server, Path: s.BackupPath},
	}
	// A server of ours has no such area, and share mode has one.
	if roots := filepath.Join(dir, bootcfg.RootArea); isFolder(roots) {
		opt.NFSRoot = roots
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

func isFolder(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// agentBeside is the agent that was built together with this program.
func agentBeside() (string, error) {
	self, err := os.Executable()
	return filepath.Join(filepath.Dir(self), "testbox-maintenance"), err
}

func runMaintenanceBuild(ctx context.Context, p printer, o buildOptions, dir string) error {
	build, err := o.build(p, dir)
	if err != nil {
		return err
	}
	r, err := build(ctx)
	if err != nil {
		return err
	}
	if err := bootOf(tftpArea(dir)).OpenVersion(&r.Version); err != nil {
		return err
	}
	for _, n := range r.Notes {
		p.warnf("%s", n)
	}
	what := "built"
	if r.Existed {
		what = "was built before and is whole:"
	}
	root := ""
	if size := r.Version.Root.Size; size > 0 {
		root = fmt.Sprintf(", root %.1f MB", float64(size)/1e6)
	}
	p.printf("%s %s (kernel %s, %.1f MB%s)\n", what, r.Version.Version, r.Version.Kernel, float64(r.Size)/1e6, root)
	for _, l := range r.Loaders {
		p.printf("%s\n", l)
	}
	return nil
}

package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// agentFlags are the flags of the verbs that work on a box.
type agentFlags struct {
	*flag.FlagSet
	stdout, stderr              io.Writer
	cfg                         agent.Config
	sys, proc, cmdline, address string
}

func newAgentFlags(verb, usage string, stdout, stderr io.Writer) *agentFlags {
	f := &agentFlags{FlagSet: flag.NewFlagSet("testbox-maintenance "+verb, flag.ContinueOnError), stdout: stdout, stderr: stderr}
	f.SetOutput(stderr)
	f.StringVar(&f.cmdline, "cmdline", "/proc/cmdline", "file with the kernel command line")
	f.StringVar(&f.sys, "sys", "/sys", "folder of sysfs")
	f.StringVar(&f.proc, "proc", "/proc", "folder of procfs")
	f.StringVar(&f.cfg.Dev, "dev", "/dev", "folder of device nodes")
	f.StringVar(&f.cfg.TFTP, "tftp", bootcfg.TFTPMount, "the mounted TFTP area, in share mode")
	f.StringVar(&f.cfg.Backup, "backup", bootcfg.BackupMount, "the mounted backup area, in share mode")
	f.StringVar(&f.cfg.Run, "run", bootcfg.RunDir, "folder in memory, in which programs of one start find the session with the server")
	f.StringVar(&f.address, "address", "", "this box's IPv4 address (default: the armed one, if a network card has it)")
	f.StringVar(&f.cfg.Host, "host", "", "this box's host name (default: the armed one, else by reverse look-up)")
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	return f
}

// config parses args and reads the files that the flags name. If ok is false,
// it has printed the error, and the exit code is 2.
func (f *agentFlags) config(args []string) (cfg agent.Config, ok bool) {
	err := f.Parse(args)
	if err != nil {
		return cfg, false // Parse has printed the error
	}
	if f.address != "" {
		if f.cfg.Address, err = box.ParseAddr(f.address); err != nil {
			fmt.Fprintf(f.stderr, "testbox-maintenance: --address: %v\n", err)
			return cfg, false
		}
	}
	text, err := os.ReadFile(f.cmdline)
	if err != nil {
		fmt.Fprintf(f.stderr, "testbox-maintenance: %v\n", err)
		return cfg, false
	}
	f.cfg.Cmdline = string(text)
	f.cfg.Sys, f.cfg.Proc, f.cfg.Console = os.DirFS(f.sys), os.DirFS(f.proc), f.stdout
	f.cfg.EFIVars = filepath.Join(f.sys, "firmware/efi/efivars")
	return f.cfg, true
}

// noArgs refuses arguments after the flags.
func (f *agentFlags) noArgs() bool {
	if f.NArg() > 0 {
		fmt.Fprintf(f.stderr, "testbox-maintenance: unexpected argument %q\n", f.Arg(0))
	}
	return f.NArg() == 0
}

// isRoot reports whether the user is root. If not, it prints how to become
// root.
func (f *agentFlags) isRoot() bool {
	if os.Geteuid() == 0 {
		return true
	}
	fmt.Fprintf(f.stderr, "testbox-maintenance: only root may do this; run `sudo %s`\n", f.Name())
	return false
}

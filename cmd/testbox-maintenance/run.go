package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/pid1"
)

const runUsage = `usage: testbox-maintenance run [flags]

Does once what the kernel command line asks for, and logs it in the backup area.

Exit codes: 0 done; 1 failed; 2 wrong use; 3 refused, no disk or image was
changed; 4 done, but the disk has unreadable sectors; 5 the arming had expired:
disarmed, nothing done; 6 done, and verify found that disk and image differ.

Flags:
`

func run(args []string, stdout, stderr io.Writer) int {
	fl := flag.NewFlagSet("testbox-maintenance run", flag.ContinueOnError)
	fl.SetOutput(stderr)
	var cfg agent.Config
	var sys, proc, cmdline, address string
	fl.StringVar(&cmdline, "cmdline", "/proc/cmdline", "file with the kernel command line")
	fl.StringVar(&sys, "sys", "/sys", "folder of sysfs")
	fl.StringVar(&proc, "proc", "/proc", "folder of procfs")
	fl.StringVar(&cfg.Dev, "dev", "/dev", "folder of device nodes")
	fl.StringVar(&cfg.TFTP, "tftp", "/mnt/testbox-tftp", "the mounted TFTP area")
	fl.StringVar(&cfg.Backup, "backup", "/mnt/testbox-backup", "the mounted backup area")
	fl.StringVar(&address, "address", "", "this box's IPv4 address (default: the armed one, if a network card has it)")
	fl.StringVar(&cfg.Host, "host", "", "this box's host name (default: the armed one, else by reverse look-up)")
	fl.StringVar(&cfg.PCIIDs, "pci-ids", "/usr/share/misc/pci.ids", "names of PCI devices, for the inventory")
	fl.BoolVar(&cfg.Reboot, "reboot", false, "reboot when done; after a failure or refusal wait first, so that an admin can see it")
	fl.Usage = func() { fmt.Fprint(stderr, runUsage); fl.PrintDefaults() }
	if err := fl.Parse(args); err != nil {
		return 2
	}
	if fl.NArg() > 0 {
		fmt.Fprintf(stderr, "testbox-maintenance: unexpected argument %q\n", fl.Arg(0))
		return 2
	}
	if address != "" {
		a, err := box.ParseAddr(address)
		if err != nil {
			fmt.Fprintf(stderr, "testbox-maintenance: --address: %v\n", err)
			return 2
		}
		cfg.Address = a
	}
	text, err := os.ReadFile(cmdline)
	if err != nil {
		fmt.Fprintf(stderr, "testbox-maintenance: %v\n", err)
		return 2
	}
	cfg.Cmdline = string(text)
	cfg.Sys, cfg.Proc, cfg.Console = os.DirFS(sys), os.DirFS(proc), stdout
	cfg.Terminal = isTerminal(os.Stdout)
	cfg.Alive = pid1.Heartbeat()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return agent.Run(ctx, cfg).ExitCode()
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

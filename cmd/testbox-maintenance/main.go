// Testbox-maintenance is the agent. A testbox boots it to be backed up,
// restored, verified, described or rescued. As process 1 of the ram form it is
// the init. `testbox-maintenance run` does the action that the kernel command
// line asks for.
package main

import (
	"fmt"
	"io"
	"os"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/pid1"
	"testbox-imaging/internal/version"
)

const usage = `testbox-maintenance is the agent of Testbox Imaging. It runs on a testbox that
was armed by 'testbox pxe-conf' or by a server.

usage: testbox-maintenance VERB [flags]
       testbox-maintenance --version

`

// verb is one thing that the program does. It returns the exit code.
type verb struct {
	name, help string
	do         func(args []string, stdout, stderr io.Writer) int
}

var verbs = []verb{
	{"run", "do once what the kernel command line asks for", run},
	{"writable", "in rescue: list the disks, let them be written", writable},
	{"finish", "in rescue: end it, disarm and restart the box", finish},
	{"attend", "in rescue: restart the box when the server ends it (the service runs this)", attend},
	{"root", "mount the root of the debian form (its initramfs runs this)", root},
	{"service", "look after the agent in the debian form (systemd runs this)", service},
}

// logOpener opens the box's log for process 1 and the service.
func logOpener() pid1.OpenLog {
	return agent.LogOpener(agent.Config{Sys: os.DirFS("/sys"), TFTP: bootcfg.TFTPMount, Backup: bootcfg.BackupMount, Run: bootcfg.RunDir})
}

func main() {
	cpu.LetDisksBlock()
	if os.Getpid() == 1 {
		pid1.Main(logOpener())
		return
	}
	os.Exit(dispatch(os.Args[1:], os.Stdout, os.Stderr))
}

func dispatch(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if args[0] == "--version" {
			fmt.Fprintln(stdout, "testbox-maintenance version "+version.String())
			return 0
		}
		for _, v := range verbs {
			if v.name == args[0] {
				return v.do(args[1:], stdout, stderr)
			}
		}
	}
	fmt.Fprint(stderr, usage)
	for _, v := range verbs {
		fmt.Fprintf(stderr, "  %-10s %s\n", v.name, v.help)
	}
	return 2
}

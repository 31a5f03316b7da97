// Package rig runs a real storage server as a process, with boxes that are simulated,
// for benchmarks. Test only.
//
//	benchmark ── admin API, Unix socket ──┐
//	  │                                   v
//	  │               10.88.0.1  testbox server ── state folder
//	  │                                ^ HTTPS
//	  └── simulated boxes ─────────────┘
//	       10.88.1.1, 10.88.1.2, ... of the loopback interface
package rig

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"testbox-imaging/internal/bench/measure"
)

// ServerIP is the server's address. All of its network belongs to this machine.
const (
	ServerIP = "10.88.0.1"
	RealIP   = "10.88.0.11" // of the only box with a real agent, which does not choose its address
	network  = "10.88.0.0/16"
)

const insideEnv = "TESTBOX_BENCH_NETWORK"

// Network runs the rest of this program in a network of its own, in which all
// addresses of boxes are those of this machine. The program must call it first. In the
// process that goes on, inside is true. The other one has waited for that, and has code
// to end with.
func Network() (inside bool, code int, err error) {
	if os.Getenv(insideEnv) != "" {
		if os.Getenv(insideEnv) == "made" {
			return true, 0, nil
		}
		os.Setenv(insideEnv, "made")
		return true, 0, errors.Join(
			measure.Command("ip", "link", "set", "lo", "up"),
			measure.Command("ip", "addr", "add", RealIP+"/32", "dev", "lo"),
			measure.Command("ip", "route", "add", "local", network, "dev", "lo", "src", RealIP))
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=new")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return false, max(exit.ExitCode(), 1), nil
	}
	return false, 0, err
}

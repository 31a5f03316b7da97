// Package proc runs the real agent as a process, against areas behind a
// squashing FUSE mount and disks that are loop devices. Test only.
//
//	test ── testbox pxe-conf ──┐
//	  │                        v
//	  │     areas/ <── FUSE server (becomes nobody) <── mnt/testbox-tftp
//	  │                        ^                        mnt/testbox-backup
//	  └── testbox-maintenance ─┘
//	           │
//	           ├── fake /sys: what the disks are
//	           └── dev/sda ──> /dev/loopN ──> a sparse file (or a FUSE file with faults)
//
// Everything that root does in an area is done as uid 65534, as by a
// root-squashing NFS server; the FUSE server can also freeze, fill up, fail or
// stop at a chosen request.
package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"testbox-imaging/internal/testenv"
)

// roleEnv tells a copy of the test binary what it is: "" is what `go test`
// started, the others are started by ourselves.
const roleEnv = "TESTBOX_E2E_ROLE"

const (
	roleTests = "tests"       // runs the tests, in a mount namespace of its own
	roleFuse  = "fuse-server" // serves one mount
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); {
	case role == roleFuse:
		os.Exit(fuseMain())
	case role == "" && testenv.All() && os.Getuid() == 0:
		os.Exit(inNamespace())
	default:
		os.Exit(runTests(m))
	}
}

// inNamespace runs this program again in a mount namespace of its own, so that
// no mount outlives the tests, however they end.
func inNamespace() int {
	runtime.LockOSThread() // the death signal is bound to this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+roleTests)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "e2e/proc: run the tests in a namespace:", err)
		return 1
	}
}

// programs are the paths of the two programs, built once for all tests.
type programs struct{ testbox, agent string }

var (
	buildDir string // removed when the tests have ended
	built    = sync.OnceValues(build)
)

func build() (p programs, err error) {
	if buildDir, err = os.MkdirTemp("", "testbox-e2e-"); err != nil {
		return p, err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", buildDir+"/", "./cmd/testbox", "./cmd/testbox-maintenance")
	cmd.Dir = testenv.Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return programs{filepath.Join(buildDir, "testbox"), filepath.Join(buildDir, "testbox-maintenance")}, nil
}

func runTests(m *testing.M) int {
	defer func() { os.RemoveAll(buildDir) }()
	return m.Run()
}

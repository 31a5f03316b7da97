// Package measure runs programs for benchmarks and says what they took. Test
// only.
package measure

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what one run took.
type Usage struct {
	Wall, CPU time.Duration
	RSS       int64 // bytes, the largest process
}

// Run runs a command with its inputs, files or folders, not in the page cache.
// All that was written before is on its disk first.
func Run(cmd *exec.Cmd, inputs ...string) (Usage, error) {
	unix.Sync()
	for _, in := range inputs {
		if err := Uncache(in); err != nil {
			return Usage{}, err
		}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return Usage{}, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out.String())
	}
	ru := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return Usage{
		Wall: time.Since(start),
		CPU:  cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		RSS:  ru.Maxrss << 10,
	}, nil
}

// Used is what a process has used so far.
type Used struct {
	User, System time.Duration // of processors
	RSS          int64         // the most memory that it had, in bytes
}

// CPU is all of the processor time.
func (u Used) CPU() time.Duration { return u.User + u.System }

// Process asks the kernel what a process has used.
func Process(pid int) (u Used, err error) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return u, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	for i, d := range map[int]*time.Duration{11: &u.User, 12: &u.System} { // of the fields behind the name, in hundredths of a second
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, err
		}
		*d = time.Duration(n) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return u, err
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscanf(line, "%d kB", &u.RSS); err != nil {
		return u, fmt.Errorf("VmHWM of process %d: %w", pid, err)
	}
	u.RSS <<= 10
	return u, nil
}

// Uncache drops the pages of a file, or of all files in a folder.
func Uncache(path string) error {
	return filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// Size is how many bytes the files of a folder, or a file, have.
func Size(path string) (n int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			n += st.Size()
		}
		return err
	})
	return n, err
}

// Median is the middle one.
func Median[T int64 | time.Duration](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// Pick is the median of one figure.
func Pick[T int64 | time.Duration](us []Usage, of func(Usage) T) T {
	var v []T
	for _, u := range us {
		v = append(v, of(u))
	}
	return Median(v)
}

// Wall and CPU are medians.
func Wall(us []Usage) time.Duration { return Pick(us, func(u Usage) time.Duration { return u.Wall }) }

// CPU is the median of the processor time.
func CPU(us []Usage) time.Duration { return Pick(us, func(u Usage) time.Duration { return u.CPU }) }

// Shell is a command line for bash, of which each part must end well.
func Shell(format string, args ...any) *exec.Cmd {
	return exec.Command("bash", "-o", "pipefail", "-c", fmt.Sprintf(format, args...))
}

// Command runs a program, which must end well.
func Command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

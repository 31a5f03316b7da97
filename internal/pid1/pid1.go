// Package pid1 gets a box from its kernel's start to the agent, and looks after
// the agent. In the ram form all of it is one process, the init (Main): it
// mounts the kernel's file systems, loads the drivers, brings up the network
// card that booted, mounts the two areas and runs the agent as its child. In the
// debian form systemd stands between the network and the agent, so there are
// two processes: the keeper (NFSRoot), which the initramfs starts and which
// outlives it, and the service (Service).
//
// Nothing here waits for ever: whatever stands still for the stall time ends in
// a reboot, by this program or, if even it hangs, by the watchdog.
package pid1

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// Times that the kernel command line can shorten or lengthen.
const (
	defaultRetry = 5 * time.Minute  // after a failure: an admin can see it, and trouble can pass
	defaultStall = 10 * time.Minute // without a sign of progress the box reboots
)

const moduleDir = "/lib/modules" // of the maintenance system

// system is a running maintenance system, as one process sees it.
type system struct {
	cmd     *bootcfg.Cmdline
	con     *console
	live    *pulse
	drivers drivers
	tries   int      // of network cards that were not named
	resolv  []byte   // resolv.conf as the network wants it
	sysrq   *os.File // /proc/sysrq-trigger; nil if it could not be opened
	keeper  *keeperLine
	openLog OpenLog // nil: this is the keeper
	keeps   bool    // this is the keeper, which reaches no area
}

// drivers loads kernel modules. In the ram form it is this program that finds
// them for the box's devices, in the debian form udev.
type drivers interface {
	scan() int               // loads those of new devices, and returns how many
	byName(name string) bool // loads one that no device asks for; false if there is none
	loadAlways()             // loads all that no device asks for
}

// Main is the whole life of process 1. It does not return: it ends in
// reboot(2), or in a panic, which the kernel's panic=30 makes a reboot too.
func Main(openLog OpenLog) {
	err := mountKernelFS()
	s := newSystem()
	s.openLog = openLog
	s.con.open("/dev", consoles...)
	s.say("testbox maintenance system")
	if err == nil {
		err = s.readCmdline(0)
	}
	s.watchOver(func() error {
		if err != nil {
			return err
		}
		return s.run(context.Background())
	})
}

func newSystem() *system {
	return &system{con: newConsole(), cmd: &bootcfg.Cmdline{}, live: newPulse(defaultStall), sysrq: openSysrq()}
}

// watchOver does the work under the guard and reboots when it ends. It returns
// only for errRescue.
func (s *system) watchOver(work func() error) {
	go s.live.guard(s.stalled)
	go gatherEntropy()
	err := work()
	if errors.Is(err, errRescue) {
		return
	}
	if err != nil {
		s.say("error: %v", err)
		s.obituary(err)
		s.pause()
	}
	s.reboot()
}

// gatherEntropy asks for random bytes and waits for them, which makes the
// kernel gather entropy by itself on machines without a source of it. The DHCP
// library asks without waiting; then the kernel does nothing, and both would
// wait for ever.
func gatherEntropy() {
	var b [1]byte
	unix.Getrandom(b[:], 0)
}

// say writes a line on the consoles, with the seconds since the kernel's start
// as in the kernel's own lines.
func (s *system) say(format string, args ...any) {
	var up unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	fmt.Fprintf(s.con, "[%5d.%06d] init: %s\n", up.Sec, up.Nsec/1000, fmt.Sprintf(format, args...))
}

// readCmdline takes what the kernel was told. The times count even when the
// rest is not understood. slack is added to the stall time.
func (s *system) readCmdline(slack time.Duration) error {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	cmd, err := bootcfg.ParseCmdline(string(text))
	if cmd != nil {
		s.cmd = cmd
	}
	stall := defaultStall
	if s.cmd.Stall > 0 {
		stall = s.cmd.Stall
	}
	s.live = newPulse(stall + slack)
	return err
}

// run does everything up to the agent's end; nil means that the agent ended
// as it should.
func (s *system) run(ctx context.Context) error {
	mods, err := openModules(moduleDir, os.DirFS("/sys"), s.say, s.beat)
	if err != nil {
		return err
	}
	s.drivers = mods
	mods.scan()
	dog := s.startWatchdog()
	fault(s.cmd.Fault, s.beat)
	go s.feed(dog)

	// Cards take seconds to find their link, disks to appear, and NFS is large.
	var always, settled sync.WaitGroup
	always.Go(mods.loadAlways)
	settled.Go(func() { settle(ctx, mods.scan, blockDevices(os.DirFS("/sys")), s.say) })
	address, err := s.network(ctx)
	if err != nil {
		return err
	}
	if err := writeResolvConf("/etc", s.resolv); err != nil {
		return err
	}
	s.beat()
	always.Wait()
	if err := mountAreas(ctx, s.areas(), newNFSClient(s.cmd.Address.String()).forFiles, s.mountLimit(), s.say); err != nil {
		return err
	}
	settled.Wait()
	s.beat()
	return s.runAgent(address)
}

// beat is a sign of progress.
func (s *system) beat() {
	s.live.beat()
	s.keeper.beat()
}

// runAgent runs the agent to its end. It reboots the machine by itself, so
// that it ends at all is already unusual.
func (s *system) runAgent(address netip.Addr) error {
	end, err := runChild("/proc/self/exe", s.agentArgs(address), s.con, s.beat)
	switch {
	case err != nil:
		return fmt.Errorf("cannot start the agent: %w", err)
	case end.ok():
		return nil
	}
	return end
}

func (s *system) agentArgs(address netip.Addr) []string {
	args := []string{"run", "--reboot", "--cmdline", "/proc/cmdline", "--sys", "/sys", "--proc", "/proc", "--dev", "/dev",
		"--tftp", bootcfg.TFTPMount, "--backup", bootcfg.BackupMount}
	if a, err := box.ParseAddr(address.String()); err == nil {
		args = append(args, "--address", a.String())
	}
	if s.cmd.Host != "" {
		args = append(args, "--host", s.cmd.Host)
	}
	return args
}

// stalled is called when nothing has moved for the stall time. The watchdog is
// not fed any more, so this too has only until it bites.
func (s *system) stalled() {
	err := fmt.Errorf("%s %v; rebooting", noProgress, s.live.stall)
	s.say("error: %v", err)
	s.obituary(err)
	s.reboot()
}

// pause waits the retry time, so that the error is seen and trouble can pass.
func (s *system) pause() {
	wait := s.cmd.Retry
	if wait == 0 {
		wait = defaultRetry
	}
	s.say("rebooting in %v", wait)
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(min(time.Second, time.Until(end))) {
		s.beat()
	}
}

// reboot restarts the machine when the consoles have what was said. If the
// kernel refuses, this process dies, which ends in a reboot too: that of process
// 1 by the kernel's panic=30, that of the keeper because nobody feeds the
// watchdog any more, that of the service because the keeper hears nothing.
func (s *system) reboot() {
	s.con.drain(time.Second)
	panic(fmt.Sprintf("reboot: %v", restart(s.sysrq)))
}

func openSysrq() *os.File {
	f, _ := os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0)
	return f
}

// Restart restarts the machine, in a program that this package does not look
// after. It returns only if that is not allowed.
func Restart() error { return restart(openSysrq()) }

// restart restarts the machine at once, without syncing or unmounting: both
// would hang when an area's server is gone, and what must be durable was synced.
func restart(sysrq *os.File) error {
	// A driver that hangs in its shutdown would keep the machine from
	// restarting; this way no driver is asked.
	late := time.AfterFunc(20*time.Second, func() { sysrq.Write([]byte("b")) })
	defer late.Stop()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// ended says how the agent ended when it should not have.
type ended struct {
	status unix.WaitStatus
	stderr string // the end of what it wrote there
}

func (e *ended) ok() bool { return e.status.Exited() && e.status.ExitStatus() == 0 }

func (e *ended) Error() string {
	how := fmt.Sprintf("%s %d", hasExited, e.status.ExitStatus())
	if e.status.Signaled() {
		how = fmt.Sprintf("%s %d (%v)", wasKilled, int(e.status.Signal()), e.status.Signal())
	}
	if reason := panicReason(e.stderr); reason != "" {
		how += ": " + reason
	}
	return how
}

// panicReason is the line of a Go program's last words that says why it died;
// the last line of all if none does.
func panicReason(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			return l
		}
	}
	return lines[len(lines)-1]
}

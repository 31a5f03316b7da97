// Package pid1 gets a box from its kernel's start to the agent, and looks after
// the agent. In the ram form all of this is one process, the init (Main). It
// mounts the kernel's file systems, loads the drivers, brings up the network
// card that booted, mounts share mode's areas and runs the agent as its child. In
// the debian form systemd stands between the network and the agent, so there
// are two processes. The keeper (Root) is started by the initramfs and
// outlives it. The service (Service) runs the agent.
//
// Nothing here waits for ever. Whatever stands still for the stall time ends in
// a reboot, by this program or, if it hangs too, by the watchdog.
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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// Times that the kernel command line can shorten or lengthen.
const (
	defaultRetry = 5 * time.Minute  // wait after a failure, so that an admin can see it and trouble can pass
	defaultStall = 10 * time.Minute // the box reboots after so long without a sign of progress
)

const moduleDir = "/lib/modules" // of the maintenance system

// system is a running maintenance system, as one process sees it.
type system struct {
	cmd     *bootcfg.Cmdline
	con     *console
	live    *pulse
	drivers drivers
	tries   int      // to find a network card that was not named
	resolv  []byte   // the text of resolv.conf, as the network wants it
	sysrq   *os.File // /proc/sysrq-trigger, nil if it could not be opened
	keeper  *keeperLine
	openLog OpenLog // nil in the keeper
	keeps   bool    // this is the keeper, which does not reach the areas
}

// drivers loads kernel modules. In the ram form this program finds those for
// the box's devices, in the debian form udev does.
type drivers interface {
	scan() int               // loads those of new devices, and returns how many
	byName(name string) bool // loads one that no device asks for, and reports whether it could
	loadAlways()             // loads all that no device asks for
}

// Main is the whole life of process 1. It does not return. It ends in
// reboot(2), or in a panic, which the kernel's panic=30 turns into a reboot
// too.
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

// watchOver runs work under the guard, and reboots when work ends. It returns
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

// gatherEntropy asks for random bytes and waits for them. On machines without a
// source of entropy, the kernel only then gathers it by itself. The DHCP
// library asks without waiting, so without this call the kernel would do
// nothing, and the library would wait for ever.
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

// readCmdline reads the kernel command line. The times count even if the rest
// is not understood. slack is added to the stall time. Words of the action that
// cannot be used are no error here. The agent refuses them where the box's log
// is, and ends an arming that has expired.
func (s *system) readCmdline(slack time.Duration) error {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	cmd, err := bootcfg.ParseCmdline(string(text))
	if cmd != nil {
		s.cmd = cmd
		if err != nil {
			s.say("%v", err)
			err = nil
		}
	}
	stall := defaultStall
	if s.cmd.Stall > 0 {
		stall = s.cmd.Stall
	}
	s.live = newPulse(stall + slack)
	return err
}

// run does everything up to the agent's end. It returns nil if the agent ended
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
	s.mountEFI("/sys", mountEFIVars)

	// Cards need seconds to find their link, disks need time to appear, and NFS
	// is large. So these run at the same time.
	var always, settled sync.WaitGroup
	always.Go(mods.loadAlways)
	settled.Go(func() { s.settleDisks(ctx, mods.scan) })
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

// beat records a sign of progress, here and at the keeper.
func (s *system) beat() {
	s.live.beat()
	s.keeper.beat()
}

// runAgent runs the agent to its end. Normally the agent reboots the machine by
// itself, so it is already unusual that it ends at all.
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
		"--tftp", bootcfg.TFTPMount, "--backup", bootcfg.BackupMount, "--run", bootcfg.RunDir}
	if a, err := box.ParseAddr(address.String()); err == nil {
		args = append(args, "--address", a.String())
	}
	if s.cmd.Host != "" {
		args = append(args, "--host", s.cmd.Host)
	}
	return args
}

// stalled is called when nothing has moved for the stall time. The watchdog is
// not fed any more, so the time until it restarts the box limits this function
// too.
func (s *system) stalled() {
	err := fmt.Errorf("%s %v; rebooting", noProgress, s.live.stall)
	s.say("error: %v", err)
	s.obituary(err)
	s.reboot()
}

// pause waits for the retry time, so that an admin can see the error and
// trouble can pass.
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

// reboot restarts the machine after the consoles have written what was said. If
// the kernel refuses, this process dies, which ends in a reboot too. The death
// of process 1 does so by the kernel's panic=30. After the keeper's death
// nobody feeds the watchdog. After the service's death the keeper gets no signs
// of progress.
func (s *system) reboot() {
	s.con.drain(time.Second)
	panic(fmt.Sprintf("reboot: %v", restart(s.sysrq)))
}

func openSysrq() *os.File {
	f, _ := os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0)
	return f
}

// Restart restarts the machine, for a program that this package does not look
// after. It returns only if that is not allowed.
func Restart() error { return restart(openSysrq()) }

// restart restarts the machine at once. It neither syncs nor unmounts, since
// both would hang when an area's server is gone. What must be durable is synced
// already.
func restart(sysrq *os.File) error {
	cardsDown()
	// A driver that hangs in its shutdown would keep the machine from
	// restarting. sysrq restarts it without asking any driver.
	late := time.AfterFunc(20*time.Second, func() { sysrq.Write([]byte("b")) })
	defer late.Stop()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// cardsDown takes the network cards down, where the machine runs from memory. A
// packet that comes while the kernel shuts its drivers down can make it hang: in
// Linux 6.1, virtio_net then looks for ever for packets that were sent (seen with
// one processor, which no other program gets then). Where the root comes over the
// network, the cards are needed until the end.
func cardsDown() {
	self, err := os.Stat("/proc/self/exe")
	init, initErr := os.Stat("/proc/1/exe")
	if err != nil || initErr != nil || !os.SameFile(self, init) {
		return // this is no machine of ours, or one of the form debian
	}
	down := make(chan struct{})
	go func() {
		defer close(down)
		links, _ := netlink.LinkList() // without the list, the machine restarts all the same
		for _, l := range links {
			netlink.LinkSetDown(l)
		}
	}()
	select {
	case <-down:
	case <-time.After(3 * time.Second): // a driver that hangs must not keep the machine from restarting
	}
}

// ended says how the agent ended when it should not have ended.
type ended struct {
	status unix.WaitStatus
	stderr string // the end of what it wrote on stderr
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

// panicReason returns the line of a Go program's last words that says why it
// died. If no line does, it returns the last one.
func panicReason(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			return l
		}
	}
	return lines[len(lines)-1]
}

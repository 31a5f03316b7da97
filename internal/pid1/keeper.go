package pid1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

// The keeper is the process that the initramfs of the debian form leaves
// running. It is wholly in memory and needs no file. The files of the initramfs
// are removed, and the server of the root may be away. The keeper feeds the
// watchdog while there is progress, renews the lease, and reboots the box when
// nothing moves. A clean shutdown ends the keeper like any process, because its
// name does not begin with '@'. Then nobody feeds the watchdog, so a shutdown
// that hangs ends in a reboot too.

// keeperSlack is how much longer than the service the keeper waits. The service
// comes first because it can write into the box's log why it reboots.
const keeperSlack = time.Minute

// keeperEnv tells a process that it is the keeper. readyFD is the keeper's
// descriptor of a pipe, on which it writes readyWord once the root is mounted.
const (
	keeperEnv = "TESTBOX_KEEPER"
	readyFD   = 3
	readyWord = "mounted\n"
)

// Root is the whole life of `testbox-maintenance root`. It starts the
// keeper, which mounts the root on dir, and returns 0 when that is done. It
// returns 1 if the keeper could not be started or died. A keeper that cannot
// mount the root does not die, but tries until it reboots.
func Root(dir string) int {
	if os.Getenv(keeperEnv) != "" {
		os.Unsetenv(keeperEnv)
		keep(dir, os.NewFile(readyFD, "ready"))
	}
	if err := startKeeper("/proc/self/exe", dir); err != nil {
		fmt.Fprintf(os.Stderr, "testbox-maintenance: cannot mount the root: %v\n", err)
		return 1
	}
	return 0
}

// startKeeper runs the keeper in a session of its own and waits for readyWord.
// The keeper gets descriptors of devices only, apart from that pipe, since it
// must not hold this program's own pipes open.
func startKeeper(program, dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// A panic of the keeper should be seen on the console. /dev/console can
	// still be written when a login program has hung up the terminals.
	last, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		last = null
	}
	_, err = syscall.ForkExec(program, []string{"testbox-keeper", "root", dir}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), keeperEnv+"=1"),
		Files: []uintptr{null.Fd(), last.Fd(), last.Fd(), w.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return err
	}
	if word, _ := bufio.NewReader(io.LimitReader(r, 64)).ReadString('\n'); word != readyWord {
		return errors.New("the keeper died; the console says why")
	}
	return nil
}

// keep is the keeper's whole life. It does not return.
func keep(dir string, ready io.WriteCloser) {
	unix.CloseOnExec(readyFD)
	signal.Ignore(unix.SIGHUP)
	unix.Umask(0o022) // it makes files of the root file system, which all may read
	os.WriteFile("/proc/self/comm", []byte("testbox-keeper"), 0)
	os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	s := newSystem()
	s.keeps = true
	s.con.open("/dev", consoles...)
	s.say("testbox maintenance system, debian form")
	err := s.readCmdline(keeperSlack)
	s.watchOver(func() error {
		if err != nil {
			return err
		}
		inbox, err := listenKeeper(keeperName)
		if err != nil {
			return err
		}
		if err := s.bringRoot(context.Background(), dir); err != nil {
			return err
		}
		s.beat()
		s.say("the root is mounted; the keeper stays behind")
		io.WriteString(ready, readyWord)
		ready.Close()
		return inbox.serve(s.beat, func() {
			s.say("the box is in rescue: it stays up without progress")
			s.live.rest()
		})
	})
}

// bringRoot brings up the network and mounts the root on dir.
func (s *system) bringRoot(ctx context.Context, dir string) error {
	if !s.cmd.Debian() {
		return errors.New("the kernel command line names no root; the boot file is that of the ram form")
	}
	s.drivers = udevDrivers{s.say, rootModules(s.cmd)}
	loadWatchdogs()
	dog := s.startWatchdog()
	fault(s.cmd.Fault, s.beat)
	go s.feed(dog)
	s.drivers.loadAlways()
	address, err := s.network(ctx)
	if err != nil {
		return err
	}
	s.beat()
	ensureHostName(address)
	root := newRoot{dir: dir, stage: "/testbox-root"}
	if err := root.mount(func(lower string) error { return s.mountRoot(ctx, lower) }); err != nil {
		return err
	}
	s.beat()
	if err := root.fill(s.resolv, "/proc/self/exe"); err != nil || s.cmd.Fetch.IsZero() {
		return err
	}
	return root.forget("etc/fstab") // it has share mode's areas
}

// mountRoot mounts the root, read-only. The server of one that is fetched is not
// needed any more afterwards.
func (s *system) mountRoot(ctx context.Context, dir string) error {
	if s.cmd.Fetch.IsZero() {
		return mountAll(ctx, []area{{from: s.cmd.Root, dir: dir}}, newNFSClient(s.cmd.Address.String()).toRun, s.say)
	}
	file, err := newFetcher(s).fetch(ctx, s.cmd.Fetch)
	if err != nil {
		return err
	}
	defer file.Close()
	s.beat()
	return mountFile(file, dir)
}

// rootModules are the modules that a root needs and that no device asks for.
func rootModules(cmd *bootcfg.Cmdline) []string {
	if cmd.Fetch.IsZero() {
		return []string{"af_packet", "overlay", "nfs", "nfsv3", "nfsv4"}
	}
	return []string{"af_packet", "overlay", "loop", "squashfs"}
}

// ensureHostName gives a name to a box that has none. Some programs tell
// machines apart by their names, so the name is made of the box's own address.
func ensureHostName(address netip.Addr) {
	if name, err := os.Hostname(); err != nil || name == "" || name == "(none)" {
		unix.Sethostname([]byte("testbox-" + strings.ReplaceAll(address.String(), ".", "-")))
	}
}

// udevDrivers leaves the drivers of devices to udev. For modules that no device
// asks for, it runs modprobe.
type udevDrivers struct {
	say    func(string, ...any)
	always []string // modules that loadAlways loads
}

// udevQueue exists while udev has events to handle. Some of them load drivers.
const udevQueue = "/run/udev/queue"

func (udevDrivers) scan() int { return busyUdev(udevQueue) }

// busyUdev counts udev at work as one new driver. On a slow machine, or with a
// slow server, many seconds pass between one driver and the next. A disk that
// appears after the agent has looked would be missing in a backup.
func busyUdev(queue string) int {
	if _, err := os.Lstat(queue); err == nil {
		return 1
	}
	return 0
}

// loadAlways loads what the kernel would ask modprobe for a moment later. So an
// error names the module that is missing.
func (u udevDrivers) loadAlways() {
	for _, name := range u.always {
		u.byName(name)
	}
}

func (u udevDrivers) byName(name string) bool {
	out, err := modprobe(name)
	if err != nil {
		u.say("cannot load module %s: %v %s", name, err, strings.TrimSpace(string(out)))
	}
	return err == nil
}

// loadWatchdogs loads the watchdog drivers of common boards by name. Debian's
// kernel packages keep udev from loading them (blacklist_linux_*.conf). The
// drivers of watchdogs that the board does not have fail, which does no harm.
func loadWatchdogs() {
	for _, name := range []string{"i6300esb", "iTCO_wdt", "sp5100_tco", "hpwdt", "wdat_wdt"} {
		modprobe(name)
	}
}

// modprobe loads a module. It removes MODPROBE_OPTIONS, which the initramfs
// sets to -qb. With -q a failure would be silent, and with -b modprobe would
// refuse the modules on a blacklist, such as all watchdogs.
func modprobe(name string) (output []byte, err error) {
	cmd := exec.Command("modprobe", name)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "MODPROBE_OPTIONS=") })
	return cmd.CombinedOutput()
}

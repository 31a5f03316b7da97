package pid1

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// errRescue makes watchOver return instead of rebooting.
var errRescue = errors.New("the box is in rescue")

// Service is the whole life of `testbox-maintenance service`. In the debian
// form it does what process 1 does in the ram form once there is a network. It
// returns only if the box is in rescue, with 0. Everything else ends in a
// reboot.
func Service(openLog OpenLog) int {
	signal.Ignore(unix.SIGHUP) // the unit's ExecReload sends it, and there is nothing to reload
	s := newSystem()
	s.openLog = openLog
	s.con.add(os.Stdout)
	active, _ := os.ReadFile("/sys/class/tty/console/active")
	s.con.open("/dev", otherConsoles(string(active))...)
	s.say("testbox maintenance service")
	err := s.readCmdline(0)
	if s.keeper, _ = dialKeeper(keeperName); s.keeper == nil {
		s.say("there is no keeper: this root was not mounted by its own initramfs, and nobody feeds a watchdog")
	}
	s.watchOver(func() error {
		if err != nil {
			return err
		}
		return s.serve(context.Background())
	})
	s.con.drain(time.Second)
	return 0
}

// otherConsoles returns the box's consoles without /dev/console, where systemd
// writes the output of the unit. active lists the kernel's consoles, and its
// last one is /dev/console.
func otherConsoles(active string) []string {
	own := ""
	if f := strings.Fields(active); len(f) > 0 {
		own = f[len(f)-1]
	}
	return slices.DeleteFunc(slices.Clone(consoles), func(c string) bool { return c == own })
}

// serve does everything from mounting the areas to the agent's end.
func (s *system) serve(ctx context.Context) error {
	var settled sync.WaitGroup
	settled.Go(func() { s.settleDisks(ctx, udevDrivers{}.scan) })
	client := newNFSClient(s.cmd.Address.String())
	if err := mountAreas(ctx, notMounted(s.areas()), client.again, s.mountLimit(), s.say); err != nil {
		return err
	}
	settled.Wait()
	s.beat()
	return s.serveAgent()
}

// again mounts an area that does not look mounted, since its mark is missing.
// If it is mounted all the same, the kernel refuses to mount it twice (EBUSY).
// That is not an error here, because the agent will say what is missing.
func (c *nfsClient) again(a area) error {
	if err := c.forFiles(a); !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// serveAgent runs the agent and learns from its exit code whether the box is in
// rescue. It passes no address, because the agent itself checks that a card has
// the armed one.
func (s *system) serveAgent() error {
	err := s.runAgent(netip.Addr{})
	var end *ended
	if !errors.As(err, &end) || !end.status.Exited() || end.status.ExitStatus() != box.ExitRescuing {
		return err
	}
	if s.cmd.Mode == bootcfg.ServerMode {
		if err := startBeside("/proc/self/exe", "attend"); err != nil {
			s.say("error: %v; `testbox finish` does not restart this box, but `testbox-maintenance finish` does", err)
		}
	}
	if err := s.keeper.rescue(); err != nil {
		s.say("error: %v; the keeper does not know of the rescue, so it reboots the box after %v without progress", err, s.live.stall+keeperSlack)
	}
	return errRescue
}

// startBeside starts a verb of the agent's program that goes on when this process has
// ended. systemd leaves it alone, since the unit stays active.
func startBeside(program, verb string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	_, err = syscall.ForkExec(program, []string{"testbox-maintenance", verb}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", verb, err)
	}
	return nil
}

// notMounted leaves out the areas that are mounted already, by an admin or
// before the unit was restarted.
func notMounted(areas []area) []area {
	return slices.DeleteFunc(areas, func(a area) bool {
		_, err := os.Stat(filepath.Join(a.dir, a.mark))
		return err == nil
	})
}

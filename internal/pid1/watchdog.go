package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchdogTimeout = 60 * time.Second // asked for, but the hardware may have less
	watchdogFeed    = 10 * time.Second
	softIdentity    = "Software Watchdog"
)

// watchdog restarts the box when it is not fed. It is never closed, since
// closing could stop it.
type watchdog struct {
	file    *os.File
	name    string
	every   time.Duration // how often it is fed
	timeout time.Duration
}

// startWatchdog opens a watchdog of the hardware if there is one, else the
// kernel's own. The kernel's own still works when process 1 hangs.
func (s *system) startWatchdog() *watchdog {
	dog := openWatchdog("/sys/class/watchdog", "/dev", false)
	if dog == nil {
		s.drivers.byName("softdog")
		dog = openWatchdog("/sys/class/watchdog", "/dev", true)
	}
	if dog == nil {
		s.say("this box has no watchdog: a hanging kernel will not be rebooted")
		return nil
	}
	s.say("watchdog: %s, %v", dog.name, dog.timeout)
	return dog
}

// openWatchdog opens the first watchdog that works. soft chooses between the
// kernel's own and those of the hardware.
func openWatchdog(class, dev string, soft bool) *watchdog {
	dirs, _ := filepath.Glob(filepath.Join(class, "watchdog*"))
	for _, d := range dirs {
		text, _ := os.ReadFile(filepath.Join(d, "identity"))
		name := strings.TrimSpace(string(text))
		if (name == softIdentity) != soft {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dev, filepath.Base(d)), os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		dog := &watchdog{file: f, name: fmt.Sprintf("%s (%s)", filepath.Base(d), name), timeout: setTimeout(f)}
		dog.every = feedEvery(dog.timeout)
		return dog
	}
	return nil
}

// setTimeout asks for watchdogTimeout and returns the timeout that the watchdog
// then has.
func setTimeout(f *os.File) time.Duration {
	unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, int(watchdogTimeout/time.Second))
	seconds, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil || seconds <= 0 {
		return watchdogTimeout
	}
	return time.Duration(seconds) * time.Second
}

// feedEvery is how often to feed, so that two feedings may be missed.
func feedEvery(timeout time.Duration) time.Duration { return min(watchdogFeed, timeout/3) }

func (d *watchdog) feed() { unix.IoctlWatchdogKeepalive(int(d.file.Fd())) }

// feed feeds the watchdog while there is progress, and only then.
func (s *system) feed(dog *watchdog) {
	if dog == nil {
		return
	}
	for s.live.alive() {
		dog.feed()
		time.Sleep(dog.every)
	}
}

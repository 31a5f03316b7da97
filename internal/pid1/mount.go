package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

// mountKernelFS mounts the kernel's file systems, and /run and /tmp in memory.
func mountKernelFS() error {
	for _, m := range []struct {
		kind, dir, options string
		flags              uintptr
	}{
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// mountEFI mounts the variables of UEFI firmware. On a machine that was started by a
// BIOS there are none. Without them the agent still does its action, and says what it
// could not read.
func (s *system) mountEFI(sys string, mount func(dir string) error) {
	dir := filepath.Join(sys, "firmware/efi/efivars")
	if _, err := os.Stat(dir); err != nil {
		return
	}
	s.drivers.byName("efivarfs")
	if err := mount(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		s.say("cannot mount the UEFI variables on %s: %v", dir, err)
	}
}

func mountEFIVars(dir string) error {
	return unix.Mount("efivarfs", dir, "efivarfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "")
}

// mountRetry is the wait between two tries to mount an area.
const mountRetry = 5 * time.Second

// mountAreas mounts areas of the command line. It tries again until the stall
// time ends it. An area that is optional is tried up to limit, and the agent
// runs without it too. Then the agent does no action, but it ends an arming
// that has expired, and lets an admin into a rescue.
func mountAreas(ctx context.Context, areas []area, mount func(area) error, limit time.Duration, say func(string, ...any)) error {
	for _, a := range areas {
		if !a.optional {
			if err := mountAll(ctx, []area{a}, mount, say); err != nil {
				return err
			}
			continue
		}
		limited, cancel := context.WithTimeout(ctx, limit)
		err := mountAll(limited, []area{a}, mount, say)
		cancel()
		if err != nil && !(errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil) {
			return err
		}
		if err != nil {
			say("going on without %s after %v", a.from, limit)
		}
	}
	return nil
}

// mountLimit is how long an optional area is tried. It is shorter than the
// stall time, so that the agent still gets its turn.
func (s *system) mountLimit() time.Duration { return s.live.stall / 2 }

// areas returns what the agent needs mounted. Only share mode needs any.
func (s *system) areas() []area {
	if s.cmd.Mode != bootcfg.ShareMode {
		return nil
	}
	return []area{
		{from: s.cmd.TFTP, dir: bootcfg.TFTPMount, mark: bootcfg.LoaderName},
		{from: s.cmd.Backup, dir: bootcfg.BackupMount, mark: bootcfg.BackupMarker, optional: true},
	}
}

// area is an exported folder and where it is to be mounted.
type area struct {
	from     bootcfg.NFSPath
	dir      string
	mark     string // a file that exists if the area is mounted, "" if none is known
	optional bool   // the agent is started without it too
}

// mountAll mounts all areas with mount. It tries each again every few seconds,
// until that works or ctx ends, and says each failure.
func mountAll(ctx context.Context, areas []area, mount func(area) error, say func(string, ...any)) error {
	for _, a := range areas {
		if err := os.MkdirAll(a.dir, 0o755); err != nil {
			return err
		}
		for {
			err := mount(a)
			if err == nil {
				break
			}
			say("cannot mount %s on %s: %v; trying again in %v", a.from, a.dir, err, mountRetry)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(mountRetry):
			}
		}
		say("mounted %s on %s", a.from, a.dir)
	}
	return nil
}

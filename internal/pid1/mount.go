package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

// mountKernelFS mounts what the kernel gives and two folders for small files.
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

// mountRetry is the wait between two tries to mount an area.
const mountRetry = 5 * time.Second

// mountAreas mounts the areas of the command line, trying again until the
// stall time makes an end.
func (s *system) mountAreas(ctx context.Context) error {
	return MountAreas(ctx, []Area{{s.cmd.TFTP, tftpDir}, {s.cmd.Backup, backupDir}}, mountNFS, s.say)
}

// Area is an exported folder and where it is to be mounted.
type Area struct {
	From bootcfg.NFSPath
	Dir  string
}

// MountAreas mounts all areas with mount, trying each again every few seconds
// until it works or ctx ends. Each failure is said.
func MountAreas(ctx context.Context, areas []Area, mount func(Area) error, say func(string, ...any)) error {
	for _, a := range areas {
		if err := os.MkdirAll(a.Dir, 0o755); err != nil {
			return err
		}
		for {
			err := mount(a)
			if err == nil {
				break
			}
			say("cannot mount %s on %s: %v; trying again in %v", a.From, a.Dir, err, mountRetry)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(mountRetry):
			}
		}
		say("mounted %s on %s", a.From, a.Dir)
	}
	return nil
}

// mountNFS mounts by NFS version 3 over TCP. The mount is hard: an area that
// is away for a while only makes the agent wait. nolock, because locks over
// NFS need a daemon and the agent needs no locks. The kernel itself asks the
// server's portmapper and mount daemon.
func mountNFS(a Area) error {
	options := "vers=3,proto=tcp,mountproto=tcp,nolock,hard,addr=" + a.From.Server.String()
	err := unix.Mount(a.From.String(), a.Dir, "nfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, options)
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; the server does not export it to this box", err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w; the kernel has no NFS client: build the maintenance system anew", err)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w; no NFS version 3 server answers there", err)
	}
	return err
}

package agent

import (
	"context"
	"fmt"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
)

// isRescue reports whether an admin can log in. That needs a maintenance system
// of the debian form, since nobody can log in to the ram form.
func (s *session) isRescue() bool { return s.cmd.Action == box.Rescue && s.cmd.Debian() }

// passOver returns err, unless the action is rescue. A box is armed for rescue
// because something is broken. So what only other actions need must not keep
// the admin out, and is only logged.
func (s *session) passOver(err error) error {
	if err == nil || !s.isRescue() {
		return err
	}
	s.warn("passed over, because this is rescue: %v", err)
	return nil
}

// rescue logs how to log in, and returns errRescuing. The box stays up and
// armed until Finish.
func (s *session) rescue(ctx context.Context, disks []disk.Disk, unprotected []string) error {
	if !s.isRescue() {
		return refuse("in this form of the maintenance system there is nobody to log in to; rescue needs one of the form %s", bootcfg.FormDebian)
	}
	if s.home != nil {
		if err := s.inventory(ctx, disks); err != nil {
			s.log.Error("%v", err)
		}
	}
	s.cfg.Alive()
	for _, d := range withMedium(disks) {
		s.log.Info("seen: disk %s", d)
		// Somebody who logged in earlier may have made the disk writable and mounted
		// it. Setting it read-only only affects programs that open it later.
		if users := disk.Users(s.cfg.Dev, d); users != "" {
			s.log.Error("disk %s is used %s, which may go on writing to it", d.Name, users)
		}
	}
	s.logHostKeys()
	except := ""
	if len(unprotected) > 0 {
		except = fmt.Sprintf(", all but %s which cannot be set so,", strings.Join(unprotected, ", "))
	}
	s.log.Info("rescue: the disks are read-only%s until `testbox-maintenance writable DISK` on this box", except)
	s.log.Info("rescue: log in by `ssh root@%s`, or at the box's own console", s.cmd.Address)
	s.log.Info("rescue: `testbox-maintenance finish` on this box ends it: it disarms the box and restarts it")
	return errRescuing
}

// logHostKeys logs the fingerprints of the ssh server's keys, and keeps the keys for
// the other side. By these an admin knows that this box answers and no other.
func (s *session) logHostKeys() {
	keys, problems := hostKeys(s.fsys, s.cfg.SSHDir)
	s.hostKeys = keys[:min(len(keys), box.MaxHostKeys)]
	for _, k := range keys {
		s.log.Info("ssh host key %s: %s", k.Kind, fingerprint(k))
	}
	for _, p := range problems {
		s.log.Error("ssh host keys: %v", p)
	}
}

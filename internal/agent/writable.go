package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/match"
)

// AllDisks stands for all disks with a medium in calls of Writable.
const AllDisks = "all"

// Disks prints a table of the box's disks. It says which are read-only.
func Disks(cfg Config) box.Outcome {
	s := newSession(cfg)
	t := tabwriter.NewWriter(s.cfg.Console, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSIZE\tMODEL\tSERIAL\tSTATE")
	disks, errs := disk.List(s.cfg.Sys)
	for _, d := range withMedium(disks) {
		ro, err := disk.ReadOnly(s.cfg.Dev, d)
		state := map[bool]string{true: "read-only", false: "writable"}[ro]
		if err != nil {
			state = "not known"
			errs = append(errs, err)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.Name, sizeText(d.Size), cmp.Or(d.Model, "-"), cmp.Or(d.Serial, "-"), state)
	}
	t.Flush()
	return s.report(errors.Join(errs...))
}

// Writable lifts the kernel's write protection of disks, and logs that. items
// name them as disk-devices.lst does, or are AllDisks. With off it protects the
// disks again. It only works in rescue, because an action may be reading the
// disks.
func Writable(cfg Config, items []string, off bool) box.Outcome {
	s := newSession(cfg)
	return s.report(s.writable(items, off))
}

// report prints the error of a verb that is not an action.
func (s *session) report(err error) box.Outcome {
	outcome := outcomeOf(err)
	if err != nil {
		fmt.Fprintf(s.cfg.Console, "%s: %v\n", outcome, err)
	}
	return outcome
}

func (s *session) writable(items []string, off bool) error {
	if err := s.readRescue(); err != nil {
		return err
	}
	disks, err := s.named(items)
	if err != nil {
		return refusal{err}
	}
	if off {
		if err := s.unused(disks); err != nil {
			return refusal{err}
		}
	}
	if err := s.openRescueLog(); err != nil {
		s.log.Error("cannot open the log, so this is not logged: %v", err)
	}
	var errs []error
	for _, d := range disks {
		if err := s.setWritable(d, !off); err != nil {
			s.log.Error("%v", err)
			errs = append(errs, err)
		}
	}
	if err := s.log.Flush(); err != nil {
		fmt.Fprintf(s.cfg.Console, "log: %v\n", err)
	}
	return errors.Join(errs...)
}

// named returns the disks that the items name. If one item is not there it is
// an error, because the remaining disks may be the wrong ones.
func (s *session) named(items []string) ([]disk.Disk, error) {
	disks, errs := disk.List(s.cfg.Sys)
	if len(items) == 1 && items[0] == AllDisks {
		disks = withMedium(disks)
		if len(disks) == 0 {
			return nil, errors.Join(append(errs, errors.New("no disk was found"))...)
		}
		return disks, nil
	}
	sel, err := match.Select(items)
	if err != nil {
		return nil, err
	}
	if !sel.Named() {
		return nil, errors.New("no disk is named")
	}
	choice, err := match.Choose(disks, sel)
	if err == nil && len(choice.Missing) > 0 {
		err = fmt.Errorf("no disk is called %s; `testbox-maintenance writable` lists the disks", strings.Join(choice.Missing, ", "))
	}
	return choice.Disks, err
}

// withMedium leaves out empty drives and unused loop devices.
func withMedium(disks []disk.Disk) []disk.Disk {
	return slices.DeleteFunc(disks, func(d disk.Disk) bool { return d.Size == 0 })
}

// unused refuses to protect a disk that is in use, since a file system on it
// may be written.
func (s *session) unused(disks []disk.Disk) error {
	for _, d := range disks {
		if by := disk.Users(s.cfg.Dev, d); by != "" {
			return fmt.Errorf("disk %s is in use %s; let go of it first", d.Name, by)
		}
	}
	return nil
}

func (s *session) setWritable(d disk.Disk, writable bool) error {
	if err := disk.Protect(s.cfg.Dev, d, !writable); err != nil {
		return err
	}
	ro, err := disk.ReadOnly(s.cfg.Dev, d)
	switch {
	case err != nil:
		return err
	case ro && writable:
		return fmt.Errorf("disk %s is still read-only: it protects itself, by a switch or because it is worn out", d.Name)
	}
	serial := ""
	if d.Serial != "" {
		serial = " (serial " + d.Serial + ")"
	}
	s.log.Info("disk %s%s is %s now, by hand", d.Name, serial, map[bool]string{true: "writable", false: "read-only"}[writable])
	return nil
}

// sizeText is a size in decimal units, as on a disk's label, for example "500
// GB".
func sizeText(n int64) string {
	unit := "bytes"
	for _, u := range []string{"kB", "MB", "GB", "TB", "PB"} {
		if n < 10000 {
			break
		}
		n, unit = (n+500)/1000, u
	}
	return fmt.Sprintf("%d %s", n, unit)
}

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/hook"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/pid1"
	"testbox-imaging/internal/usedmap"
)

// hookHost is the name that a hook gives to the restored system, or "".
func (s *session) hookHost() string {
	if name := s.home.Named(); name != "" || s.host == "unknown" {
		return name
	}
	name, _, _ := strings.Cut(s.host, ".")
	return name
}

// foreseeHooks refuses hooks that the images cannot be changed by, before anything is
// written.
func (s *session) foreseeHooks(targets []target) error {
	if len(s.cmd.Hooks) == 0 {
		return nil
	}
	var layouts []usedmap.Layout
	for _, t := range targets {
		layouts = append(layouts, t.image.Layout())
	}
	return hook.Foresee(layouts, s.cmd.Hooks, s.hookHost())
}

// hooks changes the restored system as the arming asks, and notes that in the receipts.
func (s *session) hooks(ctx context.Context, targets []target, jobs []copier.Job) error {
	if len(s.cmd.Hooks) == 0 {
		return nil
	}
	s.home.Progress("verify", "changing the restored system", 0, 0, 0)
	s.fault("-hooks")
	if err := s.writes(ctx); err != nil { // the restore may have found everything right
		return hooksFailed(err)
	}
	var disks []hook.Disk
	for i, t := range targets {
		m, err := usedmap.Read(ctx, aliveReader{jobs[i].Target, s.cfg.Alive}, jobs[i].Target.Size(), t.disk.SectorSize)
		if err != nil {
			return hooksFailed(err)
		}
		disks = append(disks, hook.Disk{Image: t.info.Name, Path: disk.Path(s.cfg.Dev, t.disk.Name), Size: t.disk.Size,
			SectorSize: t.disk.SectorSize, Layout: m.Layout()})
	}
	of, done, err := hook.Apply(ctx, disks, hook.Config{
		Hooks: s.cmd.Hooks, Host: s.hookHost(), Log: s.log.Info, Warn: s.warn, Alive: s.cfg.Alive,
		Load: func(module string) { pid1.LoadModule(module, s.log.Info, s.cfg.Alive) },
	})
	if i := slices.IndexFunc(s.receipts, func(r image.Receipt) bool { return r.Image == of }); i >= 0 {
		s.receipts[i].Hooks = done
	}
	if err != nil {
		return hooksFailed(err)
	}
	s.log.Announce("the restored system was changed after its proof: %s", box.JoinHooks(s.cmd.Hooks))
	return nil
}

// hooksFailed is why an action failed whose restore was well. The disk must not run: its
// system still takes itself for another box's.
func hooksFailed(err error) error {
	return fmt.Errorf("all disks are restored and proved, but the system on them was not changed as the hooks should, "+
		"so it may take itself for another box's: %w", err)
}

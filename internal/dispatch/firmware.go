package dispatch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/wire"
)

// Firmware implements boxapi.Desk. What is not known, or cannot be read, is left out,
// since it keeps no box from its action.
func (d *Dispatch) Firmware(ctx context.Context, token string, from netip.Addr) (*wire.Firmware, error) {
	t, done, err := d.request(ctx, token, from)
	if err != nil {
		return nil, err
	}
	defer done()
	if working(t.job) != sessionOf(token) {
		return nil, errNoSession
	}
	f := &wire.Firmware{Before: d.noted(t.job.Box)}
	if use := t.doc.Image; use != nil && usesImage(t.job.Action) {
		r, err := d.cfg.Backups.Find(ctx, t.job.Box, use.Box+"@"+use.ID)
		if err != nil {
			d.log(slog.LevelWarn, t.job.ID, "the firmware's state in a backup is not known", "job", t.job.ID, "backup", use.ID, "error", err)
			return f, nil
		}
		f.Image = r.Firmware
	}
	return f, nil
}

// noted returns what the latest start of a box noted of its firmware, or nil.
func (d *Dispatch) noted(addr box.Addr) *efi.Note {
	if d.cfg.Area == nil {
		return nil
	}
	n, err := d.cfg.Area.Look(addr).Note()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log(slog.LevelWarn, addr.String(), "what a box noted of its firmware cannot be read", "box", addr.String(), "error", err)
	}
	return n
}

// takeNote takes what an agent notes of the firmware of its box, before it is stored.
// From a backup, a refresh of the inventory and a restore that has ended, the box's
// own loaders are learnt, by which GRUB starts its systems.
func (d *Dispatch) takeNote(j job.Job, data []byte) error {
	n, err := efi.ParseNote(data)
	if err != nil {
		return &wire.Problem{Code: wire.CodeRefused, Text: wire.Clean(err.Error())}
	}
	if d.cfg.Loaders == nil || !bootcfg.TellsLoaders(n, j.Action) {
		return nil
	}
	// Without the file, GRUB looks for loaders that it knows.
	if err := d.cfg.Loaders(j.Box, bootcfg.LoadersOf(&n.State)); err != nil {
		d.log(slog.LevelWarn, j.ID, "the loaders of a box are not all written for GRUB", "job", j.ID, "box", j.Box.String(), "error", err)
	}
	return nil
}

// withFirmware is the Add of a grant for a job's backup. The record gets the state of
// the firmware that this attempt or an earlier one of the job has noted.
func (d *Dispatch) withFirmware(j job.Job) func(context.Context, *image.Record, func(context.Context) error) error {
	return func(ctx context.Context, r *image.Record, add func(context.Context) error) error {
		r.Firmware = nil
		if n := d.noted(j.Box); n != nil && n.Arming == string(j.Arming) {
			r.Firmware = &n.State
		}
		return add(ctx)
	}
}

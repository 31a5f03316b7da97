package server

import (
	"context"
	"errors"
	"io/fs"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/job"
)

// boots writes and removes the boot files of boxes. It implements dispatch.Boots.
type boots struct {
	place  *arming.Place
	served arming.Served
	key    string                 // fingerprint of the key of the listener for agents
	moves  func([]box.Addr) error // refuses boxes whose address is being changed; nil refuses none
}

var _ dispatch.Boots = (*boots)(nil)

// Arm implements dispatch.Boots.
func (b *boots) Arm(_ context.Context, j job.Job, opt dispatch.Options, secret string) error {
	c := bootcfg.Cmdline{
		Action: j.Action, Arming: j.Arming, Secret: secret, Key: b.key,
		Disks: opt.Disks, Map: opt.Map, ShrinkTable: opt.ShrinkTable, AcceptMachine: opt.AcceptMachine, AcceptFailing: opt.AcceptFailing,
		From: opt.From, Hooks: opt.Hooks,
	}
	file, err := b.place.ForJob(arming.Target{Given: j.Box.String(), Addr: j.Box}, b.served, c)
	if err != nil {
		return err
	}
	return b.place.Arm(file, true)
}

// Disarm implements dispatch.Boots.
func (b *boots) Disarm(_ context.Context, addr box.Addr, id box.Arming) error {
	_, err := b.place.Boot.Disarm(addr, id)
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*bootfiles.ArmedAnewError)) {
		return nil
	}
	return err
}

// Armed implements dispatch.Boots.
func (b *boots) Armed(_ context.Context, addr box.Addr, id box.Arming, secret string) bool {
	f, err := b.place.Boot.Read(addr)
	return err == nil && f.Cmdline != nil && f.Cmdline.Arming == id && f.Cmdline.Secret == secret
}

// writeLoaders is dispatch.Config.Loaders.
func (s *server) writeLoaders(addr box.Addr, loaders []bootcfg.LocalLoader) error {
	left, err := s.Place.Boot.WriteLoaders(addr, loaders)
	return errors.Join(append(left, err)...)
}

// CheckBoxes implements dispatch.Boots.
func (b *boots) CheckBoxes(all []box.Addr) error {
	if b.moves != nil {
		if err := b.moves(all); err != nil {
			return err
		}
	}
	return b.place.CheckBoxes(all)
}

// Ready implements dispatch.Boots.
func (b *boots) Ready(action box.Action) error { return b.place.Ready(action, b.served) }

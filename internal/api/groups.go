package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/setting"
)

func (s *Server) listGroups(ctx context.Context, _ *struct{}) (*body[[]Group], error) {
	c := callerOf(ctx)
	out := []Group{}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		all, err := tx.Groups()
		if err != nil {
			return err
		}
		for _, g := range all {
			if c.group != "" && c.group != g.Name {
				continue
			}
			v, err := groupOf(tx, g)
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return answer(out, err)
}

func groupOf(tx *ledger.Tx, g ledger.Group) (Group, error) {
	v := Group{Name: g.Name}
	set, err := setting.OfGroup(g)
	if err != nil {
		v.Unread = err.Error()
	}
	v.Most, v.Power, v.Keep, v.Peers = set.Most, set.Power, set.Keep.String(), set.Peers
	boxes, err := groupBoxes(tx, ledger.BoxFilter{Group: g.Name})
	v.Boxes = len(boxes)
	return v, err
}

// groupBoxes reads all boxes that a filter finds.
func groupBoxes(tx *ledger.Tx, f ledger.BoxFilter) (all []ledger.Box, err error) {
	p := ledger.Page{}
	for {
		some, next, err := tx.Boxes(f, p)
		if err != nil {
			return nil, err
		}
		if all, p.After = append(all, some...), next; next == "" {
			return all, nil
		}
	}
}

type GroupPath struct {
	Group string `path:"group" maxLength:"100" doc:"name of a group"`
}

func (s *Server) putGroup(ctx context.Context, in *struct {
	GroupPath
	Body SetGroup
}) (*body[Group], error) {
	var v Group
	set, err := s.settings(in.Body)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, "set group", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		g := ledger.Group{Name: in.Group}
		e.On, e.Why = g.Name, because(strings.Join(said(set), "; "), in.Body.Why)
		if g.Settings, err = set.JSON(); err != nil {
			return err
		}
		if err := tx.PutGroup(g); err != nil {
			return err
		}
		v, err = groupOf(tx, g)
		return err
	})
	return answer(v, err)
}

// settings are what is to be set for a group.
func (s *Server) settings(q SetGroup) (set setting.Settings, err error) {
	if err := s.setSettings(&set, q.Power, q.Keep, q.Peers); err != nil {
		return set, err
	}
	set.Most = q.Most
	return set, nil
}

// setSettings changes what is given of the settings that boxes and groups have. "" leaves one as it is.
func (s *Server) setSettings(set *setting.Settings, power, keep, peers string) error {
	switch power {
	case "":
	case setting.Default:
		set.Power = ""
	case setting.None:
		set.Power = power
	default:
		if !slices.Contains(s.cfg.Site.Powers, power) {
			there := "there is none"
			if all := s.cfg.Site.Powers; len(all) > 0 {
				there = "there are " + strings.Join(all, ", ")
			}
			return problem.Wrongf("there is no power command %.80q in the server's configuration; %s, and %s is always possible",
				power, there, setting.None)
		}
		set.Power = power
	}
	switch keep {
	case "":
	case setting.Default:
		set.Keep = setting.Keep{}
	default:
		k, err := setting.ParseKeep(keep)
		if err != nil {
			return err
		}
		set.Keep = k
	}
	switch peers {
	case "":
	case setting.Default:
		set.Peers = ""
	default:
		if err := setting.CheckPeers(peers); err != nil {
			return err
		}
		set.Peers = peers
	}
	return nil
}

// said says settings in words, for the audit log.
func said(set setting.Settings) (all []string) {
	if set.Most != nil {
		all = append(all, fmt.Sprintf("at most %d boxes", *set.Most))
	}
	if set.Power != "" {
		all = append(all, "power "+set.Power)
	}
	if k := set.Keep.String(); k != "" {
		all = append(all, "keep "+k)
	}
	if set.Peers != "" {
		all = append(all, "peers "+set.Peers)
	}
	return all
}

func (s *Server) deleteGroup(ctx context.Context, in *struct {
	GroupPath
	WhyInput
}) (*struct{}, error) {
	return nil, s.change(ctx, "delete group", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.On, e.Why = in.Group, in.Why
		return tx.DeleteGroup(in.Group)
	})
}

// hasGroup reports whether there is a group of this name.
func hasGroup(tx *ledger.Tx, name string) (bool, error) {
	all, err := tx.Groups()
	for _, g := range all {
		if g.Name == name {
			return true, err
		}
	}
	return false, err
}

// because joins what was done with the reason that was given.
func because(done, why string) string {
	if why == "" || done == "" {
		return done + why
	}
	return done + "; " + why
}

package api

import (
	"context"
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/ledger"
)

// groupSettings are a group's settings, as the ledger keeps them.
type groupSettings struct {
	Most *int `json:"most,omitempty"`
}

// Places says how many boxes of a group may be at work at once, as an admin has set it.
// It is a dispatch.Config's Places.
func Places(g ledger.Group) (most int, limited bool) {
	var set groupSettings
	if err := json.Unmarshal(g.Settings, &set); err != nil {
		return 0, true // nobody knows, so none begins
	}
	if set.Most == nil {
		return 0, false
	}
	return *set.Most, true
}

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
	var set groupSettings
	if err := json.Unmarshal(g.Settings, &set); err != nil {
		return v, fmt.Errorf("the settings of the group %q: %w", g.Name, err)
	}
	v.Most = set.Most
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
	err := s.change(ctx, "set group", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.On, e.Why = in.Group, in.Body.Why
		g := ledger.Group{Name: in.Group}
		all, err := tx.Groups()
		if err != nil {
			return err
		}
		set := map[string]any{} // what others keep there stays
		for _, old := range all {
			if old.Name == g.Name {
				if err := json.Unmarshal(old.Settings, &set); err != nil {
					return err
				}
			}
		}
		delete(set, "most")
		if in.Body.Most != nil {
			set["most"] = *in.Body.Most
			e.Why = because(fmt.Sprintf("at most %d boxes", *in.Body.Most), e.Why)
		}
		if g.Settings, err = json.Marshal(set); err != nil {
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
	if why == "" {
		return done
	}
	return done + "; " + why
}

package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// powerBox switches a box.
func (s *Server) powerBox(ctx context.Context, in *struct {
	BoxPath
	Body SwitchBox
}) (*body[Switched], error) {
	c, q := callerOf(ctx), in.Body
	var b ledger.Box
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		if b, err = findBox(tx, c, in.Box); err != nil {
			return err
		}
		return s.mayTake(c, b)
	})
	if err != nil {
		return nil, err
	}
	leave, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	// A command may take longer than connections last without an answer.
	wait, cancel := context.WithTimeout(dispatch.WithWhy(ctx, c.from, q.Why), 3*s.cfg.Patience)
	defer cancel()
	did, err := s.cfg.Jobs.SwitchPower(wait, b.Address, q.Action, c.name, q.Force)
	c.ctl.SetWriteDeadline(time.Now().Add(s.cfg.Patience))
	v := Switched{Box: b.Address.String(), Action: q.Action, Power: did.By, Outcome: PowerDone, Output: did.Output}
	switch {
	case err == nil:
	case errors.Is(err, dispatch.ErrPowerRuns):
		v.Outcome, v.Text = PowerRunning, err.Error()
	case did.By == "" || errors.As(err, new(*problem.Error)): // nothing was begun
		return nil, err
	default:
		v.Outcome, v.Text = PowerFailed, clean(err.Error())
	}
	return &body[Switched]{v}, nil
}

// mayChangeFacts refuses to let somebody who is no admin change what a power command knows a box by. It could
// switch another machine then, or tell a password to one.
func (s *Server) mayChangeFacts(c *caller, b ledger.Box, q SetBox) error {
	if c.may(ledger.Admin) {
		return nil
	}
	for _, fact := range s.cfg.Facts {
		key, isLabel := strings.CutPrefix(fact, "label:")
		switch {
		case isLabel && q.Labels != nil && !slices.Equal(labelsOf(key, *q.Labels), labelsOf(key, b.Labels)):
			return forbidden("only an admin may change the label %s= of a box, since a power command depends on it; %s has the role %s",
				key, c.name, c.role)
		case fact == "name" && q.Name != nil && *q.Name != b.Name:
			return forbidden("only an admin may change the name of a box, since a power command depends on it; %s has the role %s",
				c.name, c.role)
		}
	}
	return nil
}

// labelsOf are the labels KEY=... of some.
func labelsOf(key string, all []string) (mine []string) {
	for _, l := range all {
		if strings.HasPrefix(l, key+"=") {
			mine = append(mine, l)
		}
	}
	slices.Sort(mine)
	return slices.Compact(mine)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/setting"
)

// PowerCommand is a way to switch boxes, as the configuration has it. Package power says
// what its keys mean.
type PowerCommand struct {
	Template     string            `toml:"template"`
	Command      string            `toml:"command"`
	Actions      map[string]string `toml:"actions"`
	Env          map[string]string `toml:"env"`
	EnvFiles     map[string]string `toml:"env-files"`
	Broadcast    string            `toml:"broadcast"`
	PasswordFile string            `toml:"password-file"`
	Timeout      Duration          `toml:"timeout"`
}

func (c *PowerCommand) parse() (*power.Power, error) {
	spec := power.Spec{Template: c.Template, Command: c.Command, Env: c.Env, EnvFiles: c.EnvFiles, Broadcast: c.Broadcast,
		PasswordFile: c.PasswordFile, Timeout: time.Duration(c.Timeout)}
	if c.Actions != nil {
		spec.Actions = map[power.Action]string{}
	}
	for a, text := range c.Actions {
		spec.Actions[power.Action(a)] = text
	}
	return power.Parse(spec)
}

// maxPowers is how many power commands a configuration may have.
const maxPowers = 64

// parsePowers understands all power commands of a configuration.
func (c *Config) parsePowers() (map[string]*power.Power, error) {
	if len(c.Power) > maxPowers {
		return nil, fmt.Errorf("there are %d power commands, and may be at most %d", len(c.Power), maxPowers)
	}
	all := map[string]*power.Power{}
	for _, name := range slices.Sorted(maps.Keys(c.Power)) {
		if err := setting.CheckName(name); err != nil {
			return nil, err
		}
		p := c.Power[name]
		var err error
		if all[name], err = p.parse(); err != nil {
			return nil, fmt.Errorf("power.%s: %w", name, err)
		}
	}
	if name := c.Jobs.Power; name != "" && all[name] == nil {
		return nil, fmt.Errorf("jobs.power is %q, and there is no section [power.%s]", name, name)
	}
	return all, nil
}

const (
	// powersAtOnce is how many power commands run at once. A BMC that does not answer takes a minute.
	powersAtOnce = 16
	// powerGap is the least time between two boxes that are switched for jobs, so that they do not all draw their
	// first current at once.
	powerGap = time.Second
)

// powers switches boxes, as dispatch.Power says.
type powers struct {
	all    map[string]*power.Power
	site   setting.Site
	runner *power.Runner
	gap    time.Duration

	mu   sync.Mutex // guards next
	next time.Time  // before that no box is switched for a job
}

// newPowers returns nil if there is no power command.
func newPowers(cfg *Config, log *slog.Logger) (*powers, error) {
	all, err := cfg.parsePowers()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name].Check(); err != nil {
			log.Warn("A power command cannot work.", "power", name, "error", err)
		}
	}
	return &powers{all: all, site: cfg.Site(), runner: power.New(powersAtOnce), gap: powerGap}, nil
}

// facts are the facts of boxes on which the power commands depend.
func (p *powers) facts() (all []string) {
	if p == nil {
		return nil
	}
	for _, way := range p.all {
		all = append(all, way.Facts()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Has implements dispatch.Power.
func (p *powers) Has(b ledger.Box, groups []ledger.Group) bool {
	return setting.For(b, groups, p.site).Power != ""
}

// of is the power command of a box.
func (p *powers) of(b ledger.Box, groups []ledger.Group) (name string, way *power.Power, err error) {
	e := setting.For(b, groups, p.site)
	switch {
	case e.Power == "" && e.PowerWhy == "":
		return "", nil, problem.Refusef("%s has no power command; `testbox box set %s --power NAME` gives it one", b.Address, b.Address)
	case e.Power == "":
		return "", nil, problem.Refusef("%s has no power command (%s)", b.Address, e.PowerWhy)
	}
	return e.Power, p.all[e.Power], nil
}

func factsOf(b ledger.Box) power.Facts {
	return power.Facts{Address: b.Address.String(), Name: b.Name, UUID: b.UUID, MACs: b.MACs, Labels: b.Labels}
}

// Restart implements dispatch.Power. If a box cannot be cycled, which not every BMC does with one that
// is off, it is at last switched on.
func (p *powers) Restart(ctx context.Context, b ledger.Box, groups []ledger.Group, try int, may func() error) (
	dispatch.Switched, error) {
	name, way, err := p.of(b, groups)
	if err != nil {
		return dispatch.Switched{}, err
	}
	tries := []power.Action{power.On, power.On}
	if way.Can(power.Cycle) {
		tries = []power.Action{power.Cycle, power.Cycle}
		if way.Can(power.On) {
			tries = append(tries, power.On)
		}
	}
	if err := p.wait(ctx); err != nil {
		return dispatch.Switched{By: name}, err
	}
	a := tries[min(try, len(tries))-1]
	res, err := p.runner.Do(ctx, way, a, factsOf(b), may)
	did := dispatch.Switched{By: name, Output: res.Output, Again: err != nil && res.Again() && try < len(tries)}
	switch {
	case err != nil || a == power.Cycle:
	case way.Can(power.Cycle):
		did.Short = fmt.Sprintf("The power command %s could not restart the box, and has switched it on. If it ran already, restart it.", name)
	default:
		did.Short = fmt.Sprintf("The power command %s has switched the box on. If it ran already, restart it.", name)
	}
	return did, err
}

// wait waits until another box may be switched for a job.
func (p *powers) wait(ctx context.Context) error {
	p.mu.Lock()
	at := time.Now()
	if p.next.After(at) {
		at = p.next
	}
	p.next = at.Add(p.gap)
	p.mu.Unlock()
	return pause.For(ctx, time.Until(at))
}

// Switch implements dispatch.Power.
func (p *powers) Switch(ctx context.Context, b ledger.Box, groups []ledger.Group, a power.Action, may func() error) (
	dispatch.Switched, error) {
	name, way, err := p.of(b, groups)
	if err != nil {
		return dispatch.Switched{}, err
	}
	if !way.Can(a) {
		var can []string
		for _, a := range []power.Action{power.On, power.Off, power.Cycle} {
			if way.Can(a) {
				can = append(can, string(a))
			}
		}
		return dispatch.Switched{By: name}, problem.Refusef("the power command %s of %s cannot do %q; it can do %s", name, b.Address, a,
			strings.Join(can, ", "))
	}
	res, err := p.runner.Do(ctx, way, a, factsOf(b), may)
	return dispatch.Switched{By: name, Output: res.Output}, err
}

// lookAtPower says whether a power command could work.
func lookAtPower(way *power.Power, runsAs *writer) error {
	if err := way.Check(); err != nil {
		return err
	}
	var errs []error
	for _, f := range way.Files() {
		errs = append(errs, runsAs.mayRead(f))
	}
	return errors.Join(errs...)
}

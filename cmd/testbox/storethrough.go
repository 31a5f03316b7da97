package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/store"
)

// throughFlags are the flags of commands that write to a store, and go through a
// server if one has the store open.
type throughFlags struct {
	storeFlag
	server serverFlag
}

// throughHelp is what the help of such a command says of it.
const throughHelp = `
If the server of this machine has the store open, it does the work, after the restores that are under
way. --server asks a server on another machine. Interrupted, the command ends the work there too.`

func (o *throughFlags) add(cmd *cobra.Command) {
	o.storeFlag.add(cmd)
	cmd.Flags().StringVar(&o.server.server, "server", "",
		"the store of this `SERVER`: the path of its socket, or an https URL at which you have logged in")
}

// check refuses flags that make no sense together.
func (o *throughFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case given("server") && o.server.server == "":
		return wrong("--server is empty; give it a value or leave it out")
	case given("server") && given("store"):
		return wrong("--store is a folder of this machine, and --server means the store of a server; give one of them")
	}
	return nil
}

// upkeep does work on the store: by do, or through a server.
func (o *throughFlags) upkeep(ctx context.Context, p printer, work api.Work, do func(*store.Locked) error) error {
	c, err := o.far()
	if err != nil {
		return err
	}
	if c == nil {
		// What only plans a collection reads beside a server.
		s, err := o.openOwn(ctx, p, work == api.PlanGC)
		if err == nil {
			return doAndClose(ctx, p, s, do)
		}
		if c, err = o.serverOf(ctx, p, o.server.world, err); err != nil {
			return err
		}
	}
	defer c.Close()
	return lookAfter(ctx, p, c, work)
}

// openOwn opens the store of the folder.
func (o *throughFlags) openOwn(ctx context.Context, p printer, readOnly bool) (*store.Locked, error) {
	s, err := openStore(ctx, p, o.dir, readOnly)
	if errors.Is(err, store.ErrNoStore) {
		err = wrong("%w; --server takes the store of a server instead", err)
	}
	return s, err
}

// far makes a client of the server that is named. It returns nil if none is.
func (o *throughFlags) far() (*apiclient.Client, error) {
	if o.server.server == "" {
		return nil, nil
	}
	return o.server.open()
}

// lookAfter has a server do work on its store, waits until it has ended, and prints
// what the work has said.
func lookAfter(ctx context.Context, p printer, c *apiclient.Client, work api.Work) error {
	var u api.Upkeep
	err := c.Do(ctx, "POST", apiclient.Path("store", "upkeep"), api.NewUpkeep{Work: work, Key: "once-" + rand.Text()}, &u)
	if err != nil {
		return serverErr(err)
	}
	line := newProgress(p.err)
	defer line.end()
	said := false
	for !u.Ended() {
		if u.State == "waiting" && !said {
			said = true
			line.end()
			p.tellf("The server waits until no box restores.")
		}
		if u.Total > 0 {
			line.tellOther("read", u.Done, u.Total)
		}
		if err := lookAgain(ctx, c, &u, "?wait=1"); err != nil {
			line.end()
			if ctx.Err() != nil {
				return endUpkeep(ctx, p, c, u)
			}
			return err
		}
	}
	line.end()
	return sayUpkeep(p, u)
}

// lookAgain asks how work stands.
func lookAgain(ctx context.Context, c *apiclient.Client, u *api.Upkeep, wait string) error {
	var next api.Upkeep
	err := c.Do(ctx, "GET", apiclient.Path("store", "upkeep", u.ID)+wait, nil, &next)
	var problem *api.Problem
	switch {
	case errors.As(err, &problem) && problem.Code == api.CodeNotFound:
		return errors.New("the server was started anew in the middle of it, and the work ended with the one before; run this again")
	case errors.Is(err, apiclient.ErrLost):
		return serverErr(fmt.Errorf("%w; if the server has ended, so has the work", err))
	case err != nil:
		return err
	}
	*u = next
	return nil
}

// endWait is how long an interrupted command waits until the work has ended.
const endWait = 30 * time.Second

// endUpkeep ends work of a command that was interrupted.
func endUpkeep(ctx context.Context, p printer, c *apiclient.Client, u api.Upkeep) error {
	interrupted := ctx.Err()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	err := c.Do(ctx, "POST", apiclient.Path("store", "upkeep", u.ID, "cancel"), api.Reason{Why: "the command was interrupted"}, nil)
	for err == nil && !u.Ended() {
		err = lookAgain(ctx, c, &u, "?wait=1")
	}
	if err != nil {
		return fmt.Errorf("%w; the server could not be told, and goes on with it (%w)", interrupted, err)
	}
	return errors.Join(interrupted, sayUpkeep(p, u))
}

// sayUpkeep prints what work that has ended has said. It returns the error that the
// same work at a shell returns.
func sayUpkeep(p printer, u api.Upkeep) error {
	for line := range strings.Lines(u.Text) {
		p.printf("%s\n", printable(strings.TrimSuffix(line, "\n")))
	}
	if u.Work == api.PlanGC && u.Outcome == api.UpkeepDone {
		p.printf(gcNotDone)
	}
	var lines []string
	for line := range strings.Lines(u.Error) {
		lines = append(lines, printable(strings.TrimSuffix(line, "\n")))
	}
	text := strings.Join(lines, "\n")
	switch u.Outcome {
	case api.UpkeepDone:
		return nil
	case api.UpkeepRefused:
		return refused("%s", text)
	}
	return errors.New(text)
}

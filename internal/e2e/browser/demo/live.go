package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/progress"
	"testbox-imaging/internal/wire"
)

// Lab is a server with the boxes of Boxes.
type Lab struct {
	*rig.Site
	URL   string
	Boxes []*Box
}

// Start makes a server in dir, with a past, and starts it. Its page is at the port. most is how
// many boxes may be at work at once, and 0 is any number. tls is a folder with the keys of
// another server, or "". The caller closes it.
func Start(ctx context.Context, testbox, dir string, port, most int, tls string) (*Lab, error) {
	site, err := rig.MakeSite(testbox, dir)
	if err != nil {
		return nil, err
	}
	at, now := fmt.Sprintf("%s:%d", rig.ServerIP, port), time.Now()
	site.API, site.More = at, Config(now)
	// The upkeep of the day is so far off that it disturbs nothing.
	if err := site.Configure(now.Add(11 * time.Hour).Format("15:04")); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "server.toml")
	text, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, append(fmt.Appendf(nil, "boxes = %d\n", most), text...), 0o644)
	}
	if err == nil && tls != "" {
		err = errors.Join(os.RemoveAll(filepath.Join(dir, "tls")), measure.Command("cp", "-a", tls, filepath.Join(dir, "tls")))
	}
	if err != nil {
		return nil, err
	}
	lab := &Lab{Site: site, URL: "https://" + at}
	if lab.Boxes, err = Make(ctx, dir, now); err != nil {
		return nil, err
	}
	return lab, site.Start()
}

// Begin asks a box for an action, and starts its agent, which does nothing yet.
func (l *Lab) Begin(ctx context.Context, name string, action box.Action) (*Agent, error) {
	b := Named(l.Boxes, name)
	if _, err := l.Ask(ctx, b.Address, action); err != nil {
		return nil, err
	}
	return l.Boot(ctx, name)
}

// Boot starts the agent of a box that is armed, or will be soon.
func (l *Lab) Boot(ctx context.Context, name string) (*Agent, error) {
	b := Named(l.Boxes, name)
	words, err := l.Site.Boot(ctx, b.Address)
	if err != nil {
		return nil, err
	}
	a, err := rig.Hello(ctx, words)
	if err != nil {
		return nil, err
	}
	return &Agent{a, b}, nil
}

// Agent is that of a box of the lab. Its box does what the caller says.
type Agent struct {
	*rig.Agent
	Box *Box
}

// Works says what the agent is doing, and how much of it is done.
func (a *Agent) Works(ctx context.Context, step wire.Step, share float64, lines ...string) (*wire.Told, error) {
	d := a.Box.Disks[0]
	r := wire.Report{Step: step, Total: d.Size, Done: int64(math.Ceil(share * float64(d.Size))), Writes: step == wire.StepWrite,
		Text: fmt.Sprintf("%s: %s %d %%, 1.84 GB/s, %s left", d.name, step, int(100*share+1e-6),
			progress.Clock(time.Duration((1-share)*float64(d.Size)/1.84)))}
	for _, line := range lines {
		r.Lines = append(r.Lines, wire.Line{Text: line})
	}
	return a.Say(ctx, r)
}

// zeros is a disk of so many bytes, all of which are zero.
type zeros int64

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func (z zeros) Size() int64 { return int64(z) }

// Done ends the action well. A backup is made of a small disk.
func (a *Agent) Done(ctx context.Context) error {
	inv := a.Box.inventory(time.Now().UTC())
	err := errors.Join(a.Client().Inventory(ctx, box.InfoText, inv.Text()), a.Client().Inventory(ctx, box.InfoJSON, inv.JSON()))
	if err != nil {
		return err
	}
	id := a.Box.Disks[0].Identity
	id.Size = 8 * mib
	result := &wire.Result{Outcome: box.Done}
	switch a.Job.Action {
	case box.Backup, box.BackupAgain:
		s := a.Client().Begin()
		defer s.Close()
		r := &image.Record{Format: image.RecordFormat, Box: a.Box.Address.String(), Arming: a.Arming()}
		saved, err := backup.Make(ctx, s, r, []backup.Disk{{Name: a.Box.Disks[0].name, Identity: id, Source: zeros(id.Size)}}, backup.Options{})
		if err != nil {
			return err
		}
		for _, one := range saved {
			result.Receipts = append(result.Receipts, one.Receipt)
		}
	case box.Restore:
		if _, err := a.Works(ctx, wire.StepWrite, 0.9); err != nil {
			return err
		}
		for _, d := range a.Job.Record.Disks {
			result.Receipts = append(result.Receipts, image.Receipt{Image: d.Name, Disk: d.Kernel, Identity: d.Disk, Written: d.Data, Zero: d.Zero,
				Skipped: d.Disk.Size - d.Data - d.Unused, Unused: d.Unused, Verified: d.Disk.Size - d.Unused, Root: d.Root.String()})
		}
	}
	return a.end(ctx, result)
}

// Fails ends the action with an error.
func (a *Agent) Fails(ctx context.Context, text string) error {
	return a.end(ctx, &wire.Result{Outcome: box.Failed, Class: job.ClassBox, Text: text})
}

func (a *Agent) end(ctx context.Context, r *wire.Result) error {
	defer a.Close()
	_, err := a.Client().Result(ctx, r)
	return err
}

// Cancel cancels the latest job of a box.
func (l *Lab) Cancel(ctx context.Context, id string) error {
	return l.Admin.Do(ctx, http.MethodPost, apiclient.Path("jobs", id, "cancel"), api.Reason{}, nil)
}

// scrub has all of the store read, which finds what was damaged.
func (l *Lab) scrub(ctx context.Context) error {
	var u api.Upkeep
	err := l.Admin.Do(ctx, http.MethodPost, apiclient.Path("store", "upkeep"), api.NewUpkeep{Work: api.Scrub, Why: "first scrub"}, &u)
	for err == nil && !u.Ended() {
		err = l.Admin.Do(ctx, http.MethodGet, apiclient.Path("store", "upkeep", u.ID)+"?wait=30", nil, &u)
	}
	return err
}

// Present makes boxes work, wait and be held. Agents that are at work are
// closed by the caller.
func (l *Lab) Present(ctx context.Context) (all []*Agent, err error) {
	begin := func(name string, action box.Action) *Agent {
		if err != nil {
			return nil
		}
		var a *Agent
		if a, err = l.Begin(ctx, name, action); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			return nil
		}
		all = append(all, a)
		return a
	}
	// It would wait for restores, so it comes first.
	if err := l.scrub(ctx); err != nil {
		return nil, err
	}
	// A restore that was cancelled when it had begun to write: the box is held.
	if a := begin("ci-09", box.Restore); a != nil {
		if _, err = a.Works(ctx, wire.StepWrite, 0.3); err == nil {
			err = l.Cancel(ctx, a.Job.ID)
		}
		if err == nil {
			_, err = a.Works(ctx, wire.StepWrite, 0.31)
		}
		if err == nil {
			err = a.end(ctx, &wire.Result{Outcome: box.Failed, Class: job.ClassAdmin, Text: "It was told to stop."})
		}
	}
	for _, w := range []struct {
		name   string
		action box.Action
		step   wire.Step
		share  float64
	}{{"gpu-02", box.Backup, wire.StepRead, 0.62}, {"nas-01", box.Restore, wire.StepWrite, 0.17}, {"ci-03", box.Verify, wire.StepCompare,
		0.88}} {
		if a := begin(w.name, w.action); a != nil {
			_, err = a.Works(ctx, w.step, w.share, "disk "+a.Box.Disks[0].name+" has "+fmt.Sprint(a.Box.Disks[0].Size)+" bytes",
				fmt.Sprintf("%s %s begins", w.step, a.Box.Disks[0].name))
		}
	}
	// One box of the group power-strip may be at work at once, so the other waits.
	for _, name := range []string{"edge-01", "gpu-06", "nas-04", "ci-01", "ci-02"} {
		if err == nil {
			_, err = l.Ask(ctx, Named(l.Boxes, name).Address, box.Backup)
		}
	}
	return all, err
}

package rig

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/wire"
)

// Agent is a simulated box that was started for a job. It says to the server what the
// real agent says.
type Agent struct {
	cmd    *bootcfg.Cmdline
	client *remote.Client
	http   *http.Client
	Job    *wire.Job

	mu          sync.Mutex // guards the fields below, and is held while a report is sent
	number      uint64
	done, total int64
}

// Hello begins the session of an agent that was started with this kernel command line.
// The caller closes the agent.
func Hello(ctx context.Context, words string) (*Agent, error) {
	cmd, err := bootcfg.ParseCmdline(words)
	if err != nil {
		return nil, err
	}
	key, err := wire.ParseFingerprint(cmd.Key)
	if err != nil {
		return nil, err
	}
	a := &Agent{cmd: cmd, http: remote.NewHTTP(key)}
	from := &net.TCPAddr{IP: net.ParseIP(cmd.Address.String())}
	a.http.Transport.(*http.Transport).DialContext = (&net.Dialer{Timeout: 15 * time.Second, LocalAddr: from}).DialContext
	if a.client, err = remote.New(remote.Config{HTTP: a.http, Base: "https://" + cmd.Server.String(), Token: rand.Text()}); err != nil {
		return nil, err
	}
	w, err := a.client.Hello(ctx, &wire.Hello{
		Agent: "benchmark", Box: cmd.Address, Arming: cmd.Arming, Secret: cmd.Secret, MACs: []string{CardOf(cmd.Address)},
	})
	if err != nil {
		return nil, err
	}
	if w.Word != job.Work {
		return nil, fmt.Errorf("the server says %s: %s", w.Word, w.Text)
	}
	a.Job = w.Job
	return a, nil
}

// CardOf is the network card of a simulated box.
func CardOf(a box.Addr) string {
	return strings.ToLower(fmt.Sprintf("52:54:00:%s:%s:%s", a.Hex()[2:4], a.Hex()[4:6], a.Hex()[6:8]))
}

// Close closes the agent's connections.
func (a *Agent) Close() { a.http.CloseIdleConnections() }

// Client speaks with the server as the agent.
func (a *Agent) Client() *remote.Client { return a.client }

// Arming is that of the job.
func (a *Agent) Arming() box.Arming { return a.cmd.Arming }

// Say sends a report. It gives it its number.
func (a *Agent) Say(ctx context.Context, r wire.Report) (*wire.Told, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.number++
	r.Number = a.number
	return a.client.Report(ctx, &r)
}

// report sends a sign of life.
func (a *Agent) report(ctx context.Context, writes bool, lines ...wire.Line) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.number++
	told, err := a.client.Report(ctx, &wire.Report{Number: a.number, Writes: writes, Done: a.done, Total: a.total, Lines: lines})
	if err == nil && told.Word != job.GoOn {
		err = fmt.Errorf("the server says %s to a report", told.Word)
	}
	return err
}

// Disk is the disk of a simulated box.
type Disk struct {
	image.Identity
	Target copier.Target
	Used   *usedmap.Map // nil means that all of it is used
}

// Act does the action on a disk. It reports beside that, and says the result.
func (a *Agent) Act(ctx context.Context, d *Disk, opt copier.RestoreOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var reports sync.WaitGroup
	reports.Go(func() {
		tick := time.NewTicker(wire.ReportEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := a.report(ctx, false, wire.Line{Text: "a line of the log"}); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		}
	})
	receipts, err := a.act(ctx, d, opt)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	reports.Wait()
	if err != nil {
		return err
	}
	told, err := a.client.Result(context.WithoutCancel(ctx), &wire.Result{Outcome: box.Done, Receipts: receipts})
	if err == nil && told.Word != job.Restart {
		err = fmt.Errorf("the server says %s to the result", told.Word)
	}
	return err
}

func (a *Agent) act(ctx context.Context, d *Disk, opt copier.RestoreOptions) ([]image.Receipt, error) {
	if err := a.report(ctx, false, wire.Line{Kind: wire.LineHello}); err != nil {
		return nil, err
	}
	if !a.Job.Inventory {
		for _, name := range []string{box.InfoText, box.InfoJSON} {
			if err := a.client.Inventory(ctx, name, make([]byte, 20_000)); err != nil {
				return nil, err
			}
		}
	}
	opt.Progress = a.progress
	switch a.Job.Action {
	case box.Backup:
		s := a.client.Begin()
		defer s.Close()
		r := &image.Record{Format: image.RecordFormat, Box: a.cmd.Address.String(), Arming: a.cmd.Arming}
		saved, err := backup.Make(ctx, s, r, []backup.Disk{{Name: "sda", Identity: d.Identity, Source: d.Target, Used: d.Used}},
			backup.Options{Options: opt.Options})
		if err != nil {
			return nil, err
		}
		return []image.Receipt{saved[0].Receipt}, nil
	case box.Restore:
		im, err := a.client.OpenImage(ctx, a.Job.Record, "sda")
		if err != nil {
			return nil, err
		}
		defer im.Close()
		jobs := []copier.Job{{Name: "sda", Image: copier.StoredImage{Image: im}, Target: d.Target, SectorSize: d.SectorSize}}
		opt.Writes = func() error { return a.report(ctx, true) }
		receipts, err := copier.Restore(ctx, jobs, opt)
		for i := range receipts {
			r := &receipts[i]
			r.Image, r.Disk, r.Identity = "sda", "sda", d.Identity
			r.Verified = r.Written + r.Skipped // else the server would not believe a restore without read-back, which is measured too
		}
		return receipts, err
	}
	return nil, fmt.Errorf("the server asks for %s", a.Job.Action)
}

func (a *Agent) progress(_ string, done, total int64) {
	if a.mu.TryLock() { // not while a report is sent
		a.done, a.total = done, total
		a.mu.Unlock()
	}
}

// Writes reports whether the agent will write to its disk.
func (a *Agent) Writes() bool { return a.Job.Action == box.Restore }

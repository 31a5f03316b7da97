package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
)

// What a storage server costs: the same disk is backed up and restored by `testbox
// image`, by a simulated box, and by the real agent. The two others work over HTTPS with
// a real server on this machine. Each has a store of its own.

// servedStep is what all of them do.
type servedStep struct {
	what   string
	action box.Action
	holds  string // what a target holds before the restore
	full   bool   // everything is written
	verify copier.ReadBack
	bar    float64 // times the time of `testbox image`, at most
}

var servedSteps = []servedStep{
	{what: "first backup", action: box.Backup, bar: 1.7},
	{what: "unchanged backup", action: box.Backup, bar: 1.25},
	{what: "full restore, no read-back", action: box.Restore, holds: "b.img", full: true, verify: copier.VerifyNone, bar: 1.4},
	{what: "full restore", action: box.Restore, holds: "b.img", full: true, bar: 1.3},
	{what: "restore of 5 %", action: box.Restore, holds: "a5.img", bar: 1.25},
}

// servedWay is one way to do the steps.
type servedWay struct {
	name  string
	store string
	addr  box.Addr
	site  *rig.Site                                                 // nil: there is no server
	cmd   func(s servedStep, words, disk string) (*exec.Cmd, error) // words are the kernel command line
	bare  bool                                                      // it restores without read-back
	took  map[string][]servedTook
}

// servedTook is what a step took: the box, or `testbox image`; and the server.
type servedTook struct {
	measure.Usage
	server time.Duration
	rss    int64 // of the server, so far
}

// served does all steps, in rounds in which all ways take turns.
func (b *bench) served(agent string, rounds int) error {
	ways := []*servedWay{
		{name: "image", bare: true, cmd: b.direct},
		{name: "simulated box", bare: true, cmd: func(s servedStep, words, disk string) (*exec.Cmd, error) {
			return rig.Command(words, disk, s.full, s.verify), nil
		}},
		{name: "real agent", cmd: func(_ servedStep, words, disk string) (*exec.Cmd, error) {
			return rig.RealAgent(agent, filepath.Join(b.dir, "box"), words, disk)
		}},
	}
	for i, w := range ways {
		w.took = map[string][]servedTook{}
		var err error
		if w.addr, err = box.ParseAddr([]string{rig.ServerIP, "10.88.1.1", rig.RealIP}[i]); err != nil {
			return err
		}
	}
	for range rounds {
		if err := b.servedRound(ways); err != nil {
			return err
		}
	}
	return b.tellServed(ways)
}

// direct does a step without a server.
func (b *bench) direct(s servedStep, _, disk string) (*exec.Cmd, error) {
	store := filepath.Join(b.dir, "direct")
	if s.action == box.Backup {
		return exec.Command(b.testbox, "image", "create", "--store", store, "a", "sda="+disk), nil
	}
	args := []string{"image", "restore", "--store", store, "--yes", "a", "sda=" + disk, fmt.Sprintf("--full=%v", s.full)}
	if s.verify == copier.VerifyNone {
		args = append(args, "--verify=none")
	}
	return exec.Command(b.testbox, args...), nil
}

func (b *bench) servedRound(ways []*servedWay) (err error) {
	for i, w := range ways {
		dir := filepath.Join(b.dir, []string{"direct", "simulated", "real"}[i])
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if i == 0 {
			w.store = dir
			if err := measure.Command(b.testbox, "store", "init", dir); err != nil {
				return err
			}
			continue
		}
		if w.site, err = rig.NewSite(b.testbox, dir); err != nil {
			return err
		}
		w.store = w.site.Store()
		defer func() { err = errors.Join(err, w.site.Close()) }()
	}
	for _, s := range servedSteps {
		for _, w := range ways {
			if s.verify == copier.VerifyNone && !w.bare {
				continue
			}
			t, err := b.servedStep(s, w)
			if err != nil {
				return fmt.Errorf("%s by %s: %w", s.what, w.name, err)
			}
			w.took[s.what] = append(w.took[s.what], t)
			fmt.Printf("%-28s %-15s %6.2f s, %6.2f s of processors, and %5.2f s of the server's\n", s.what, w.name, t.Wall.Seconds(),
				t.CPU.Seconds(), t.server.Seconds())
		}
	}
	return nil
}

// servedStep measures one step, and proves it.
func (b *bench) servedStep(s servedStep, w *servedWay) (t servedTook, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	on := b.data.path("a.img")
	if s.action == box.Restore {
		on = b.target()
		if err := measure.Command("dd", "if="+b.data.path(s.holds), "of="+on, "bs=1M", "conv=notrunc", "status=none"); err != nil {
			return t, err
		}
	}
	var id, words string
	var before time.Duration
	if w.site != nil {
		if id, err = w.site.Ask(ctx, w.addr, s.action); err != nil {
			return t, err
		}
		if words, err = w.site.Boot(ctx, w.addr); err != nil {
			return t, err
		}
		if before, _, err = w.site.Used(); err != nil {
			return t, err
		}
	}
	cmd, err := w.cmd(s, words, on)
	if err != nil {
		return t, err
	}
	if t.Usage, err = measure.Run(cmd, w.store, on); err != nil {
		return t, err
	}
	if w.site != nil {
		if t.server, t.rss, err = w.site.Used(); err != nil {
			return t, err
		}
		t.server -= before
		j, err := w.site.Job(ctx, id)
		if err != nil || j.Outcome != box.Done {
			return t, fmt.Errorf("the job ended %s (%s), %w", j.Outcome, j.Text, err)
		}
	}
	if s.action == box.Restore {
		err = sameUsed(b.data.path("a.img"), on)
	}
	return t, err
}

// tellServed prints the medians, and where they stand.
func (b *bench) tellServed(ways []*servedWay) error {
	used, err := usedBytes(b.data.path("a.img"))
	if err != nil {
		return err
	}
	pick := func(w *servedWay, s servedStep, of func(servedTook) int64) int64 {
		var v []int64
		for _, t := range w.took[s.what] {
			v = append(v, of(t))
		}
		return measure.Median(v)
	}
	wall := func(w *servedWay, s servedStep) float64 {
		return time.Duration(pick(w, s, func(t servedTook) int64 { return int64(t.Wall) })).Seconds()
	}
	fmt.Printf("\nthrough a server, medians of %d rounds, %d processors, %.2f GB in use; seconds (of processors):\n",
		len(ways[0].took[servedSteps[0].what]), runtime.NumCPU(), float64(used)/1e9)
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "\t\ttook\ttimes\tbar\tserver a GB\tMiB\tserver's MiB\t")
	for _, s := range servedSteps {
		for _, w := range ways {
			if len(w.took[s.what]) == 0 {
				continue
			}
			cpu := time.Duration(pick(w, s, func(t servedTook) int64 { return int64(t.CPU) })).Seconds()
			server := time.Duration(pick(w, s, func(t servedTook) int64 { return int64(t.server) })).Seconds()
			rss := pick(w, s, func(t servedTook) int64 { return t.RSS })
			serverRSS := slices.MaxFunc(w.took[s.what], func(a, b servedTook) int { return int(a.rss - b.rss) }).rss
			if w.site == nil {
				fmt.Fprintf(out, "%s\t%s\t%.2f (%.2f)\t\t\t\t%d\t\t\n", s.what, w.name, wall(w, s), cpu, rss>>20)
				continue
			}
			fmt.Fprintf(out, "\t%s\t%.2f (%.2f)\t%.2f\t%.2f\t%.2f s\t%d\t%d\t\n", w.name, wall(w, s), cpu, wall(w, s)/wall(ways[0], s), s.bar,
				server/(float64(used)/1e9), rss>>20, serverRSS>>20)
		}
	}
	return out.Flush()
}

// Scale measures what a storage server takes for many boxes, backups and jobs: its
// start, lists, histories, followers, pages and who watches them, and the joining of the small packs of a night.
// docs/performance.md says how to read it. Test only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bench/rig"
)

func main() {
	rig.Main()
	o := options{}
	flag.StringVar(&o.testbox, "testbox", "bin/testbox", "the program")
	flag.IntVar(&o.size.Boxes, "boxes", 1000, "how many boxes there are")
	flag.IntVar(&o.size.Backups, "backups", 50, "how many backups each box has")
	flag.IntVar(&o.size.Jobs, "jobs", 100, "how many jobs each box has had")
	flag.IntVar(&o.size.MostBackups, "most-backups", 1000, "how many backups the first box has")
	flag.IntVar(&o.size.MostJobs, "most-jobs", 10_000, "how many jobs the first box has had")
	flag.IntVar(&o.size.Audit, "audit", 100_000, "how many entries the audit log has")
	flag.BoolVar(&o.requests, "requests", true, "measure requests and commands")
	flag.BoolVar(&o.pages, "pages", true, "measure the pages of the server, and who watches them")
	flag.DurationVar(&o.watch, "watch", 60*time.Second, "for how long watchers of pages are measured")
	flag.BoolVar(&o.joins, "join", true, "measure restores beside the joining of small packs")
	flag.BoolVar(&o.keep, "keep", false, "keep the state folder")
	flag.Parse()
	inside, code, err := rig.Network()
	if inside && err == nil {
		err = o.run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/scale:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

type options struct {
	testbox                      string
	size                         size
	requests, pages, joins, keep bool
	watch                        time.Duration
}

// run works in a new folder beside the data, and removes it.
func (o *options) run(ctx context.Context) (err error) {
	if o.testbox, err = filepath.Abs(o.testbox); err != nil {
		return err
	}
	d, err := makeData(o.size)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp(cacheRoot, "scale-run.")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Println("working in", state)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	}
	site, err := rig.MakeSite(o.testbox, state)
	if err != nil {
		return err
	}
	if err := d.copyTo(state); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	fmt.Printf("%d boxes, %d backups, %d jobs\n", o.size.Boxes, o.size.Boxes*o.size.Backups, o.size.Boxes*o.size.Jobs)
	var missed []error
	if o.requests {
		m := &requests{options: o, site: site}
		if err := m.run(ctx); err != nil {
			return err
		}
		missed = append(missed, m.missed...)
	}
	if o.joins {
		j := &joins{options: o, site: site, dir: state}
		if err := j.run(ctx); err != nil {
			return err
		}
		missed = append(missed, j.missed...)
	}
	if o.pages { // at last, since it leaves boxes with jobs
		p, err := newPages(ctx, o, site)
		if err == nil {
			err = errors.Join(p.run(ctx), p.runWatchers(ctx))
		}
		if err != nil {
			return err
		}
		missed = append(missed, p.figures.missed...)
	}
	return errors.Join(missed...)
}

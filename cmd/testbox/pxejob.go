package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/server"
)

// ofServer reports whether the folder of boot files is in the state folder of a
// storage server. Boxes are armed by that server's jobs then.
func ofServer(place *arming.Place) bool {
	cfg := server.Config{State: filepath.Dir(place.Boot.TFTP())}
	_, err := os.Stat(cfg.LedgerFile())
	return err == nil
}

// runPxeJob asks the server for what the flags of pxe-conf say.
func runPxeJob(ctx context.Context, p printer, w world, o pxeOptions, boxes []string, action box.Action) error {
	const area = "this is the area of a storage server, where boxes are armed by jobs; "
	switch {
	case o.show:
		return wrong(area + "--show is for share mode")
	case o.replace:
		return wrong(area + "--replace is for share mode; `testbox cancel BOX` ends the job of before")
	case o.expire != 0:
		return wrong(area + "--expire is for share mode; `start` in the server's configuration says how long a box may take")
	case o.precheck != "":
		return wrong(area + "--precheck is for share mode")
	case o.raw:
		return wrong(area + "--raw is for share mode; `testbox image import` takes such an image into the store")
	}
	q := jobOptions{serverFlag: serverFlag{world: w}, limit: o.limit, disks: o.disks,
		mapped: o.mapped, shrink: o.shrink, accept: o.accept, failing: o.failing,
		from: o.from, hooks: o.hooks}
	if o.wait {
		q.wait = "end"
	}
	if o.image == "old" {
		q.image = "latest~1"
	}
	return q.with(func(c *apiclient.Client) error { return q.run(ctx, p, c, action, boxes) })
}

// mayDisarmServed refuses to disarm a box of a storage server that has a job of it,
// since the server would arm it again. Where the server has none, as after it took an
// old copy of its ledger, or does not answer, a person must be able to disarm a box.
func mayDisarmServed(ctx context.Context, p printer, w world, t arming.Target) error {
	f := serverFlag{world: w}
	c, err := f.open()
	if err == nil {
		defer c.Close()
		var page api.JobList
		query := url.Values{"box": {t.Addr.String()}, "open": {"true"}, "limit": {"1"}}
		err = c.Do(ctx, "GET", apiclient.Path("jobs")+"?"+query.Encode(), nil, &page)
		if len(page.Jobs) > 0 {
			verb := "cancel"
			if page.Jobs[0].State == job.Held {
				verb = "release"
			}
			return refused("%s is armed by job %s of the storage server, which would arm it again; `testbox %s %s` ends the job",
				t, page.Jobs[0].ID, verb, t.Addr)
		}
	}
	var none *api.Problem
	if err != nil && !(errors.As(err, &none) && none.Code == api.CodeNotFound) { // the server may not even know the box
		p.warnf("whether the storage server has a job of %s is not known: %v; when it is started, it may arm the box again", t, err)
		return nil
	}
	p.warnf("%s was armed by a job that the storage server does not have; if that was a restore, its disk may not be fit to run", t)
	return nil
}

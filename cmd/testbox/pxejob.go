package main

import (
	"context"
	"os"
	"path/filepath"

	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
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
	if _, err := bootcfg.ParseDisks(o.disks); o.disks != "" && err != nil {
		return wrong("--disks: %w", err)
	}
	job := jobOptions{serverFlag: serverFlag{world: w}, limit: o.limit, disks: o.disks, accept: o.accept, failing: o.failing}
	if o.wait {
		job.wait = "end"
	}
	if o.image == "old" {
		job.image = "latest~1"
	}
	return job.with(func(c *apiclient.Client) error { return job.run(ctx, p, c, action, boxes) })
}

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
)

// joins measures restores beside the upkeep that joins the small packs of a night.
type joins struct {
	*options
	site   *rig.Site
	dir    string
	missed []error
}

const (
	restoreSize = 256 << 20 // bytes of the disk that is restored
	calmTime    = 40 * time.Second
	upkeepLimit = 20 * time.Minute
	slowerBar   = 1.10
)

// run restores a box again and again: without upkeep, beside it, and without it once
// more, since other work on this machine changes.
func (j *joins) run(ctx context.Context) error {
	if err := j.site.Close(); err != nil {
		return err
	}
	if err := j.site.Start(); err != nil {
		return err
	}
	disk := filepath.Join(j.dir, "disk.img")
	if err := fill(disk); err != nil {
		return err
	}
	if _, err := j.act(ctx, box.Backup, disk); err != nil {
		return err
	}
	packs, bytes, err := j.packs()
	if err != nil {
		return err
	}
	fmt.Printf("before the upkeep the store has %d packs, %d MiB\n", packs, bytes>>20)
	before, err := j.restores(ctx, disk, func(begun time.Time) bool { return time.Since(begun) > calmTime })
	if err != nil {
		return err
	}
	// Upkeep begins at the next minute that is far enough for a start of the server.
	at := time.Now().Add(70 * time.Second).Truncate(time.Minute)
	if err := j.site.Close(); err != nil {
		return err
	}
	if err := j.site.Configure(at.Format("15:04")); err != nil {
		return err
	}
	if err := j.site.Start(); err != nil {
		return err
	}
	time.Sleep(time.Until(at) - 2*time.Second)
	used, _, err := j.site.Used()
	if err != nil {
		return err
	}
	const done = "step=collection"
	beside, err := j.restores(ctx, disk, func(begun time.Time) bool {
		return strings.Contains(j.site.Log(), done) || time.Since(begun) > upkeepLimit
	})
	if err != nil {
		return err
	}
	for line := range strings.Lines(j.site.Log()) {
		if strings.Contains(line, "step of the upkeep") {
			fmt.Print("  ", line)
		}
	}
	if !strings.Contains(j.site.Log(), done) {
		return fmt.Errorf("upkeep does not end beside restores, after %v", upkeepLimit)
	}
	after, err := j.restores(ctx, disk, func(begun time.Time) bool { return time.Since(begun) > calmTime })
	if err != nil {
		return err
	}
	usedNow, rss, err := j.site.Used()
	if err != nil {
		return err
	}
	if packs, bytes, err = j.packs(); err != nil {
		return err
	}
	fmt.Printf("after it the store has %d packs, %d MiB; the server had %d MiB of memory, and took %.0f s of processors\n", packs, bytes>>20,
		rss>>20, (usedNow - used).Seconds())
	calm := measure.Median(slices.Concat(before, after))
	ratio := float64(measure.Median(beside)) / float64(calm)
	for _, some := range []struct {
		what string
		all  []time.Duration
	}{{"before the upkeep", before}, {"beside it", beside}, {"after it", after}} {
		fmt.Printf("restores %s: %d, median %.2f s, slowest %.2f s\n", some.what, len(some.all), measure.Median(some.all).Seconds(),
			slices.Max(some.all).Seconds())
	}
	fmt.Printf("beside the upkeep a restore takes %.2f times as long (bar %.2f)\n", ratio, slowerBar)
	if ratio > slowerBar {
		j.missed = append(j.missed, fmt.Errorf("restores beside the upkeep take %.2f times as long", ratio))
	}
	return nil
}

// restores restores the box until enough says so. It returns how long each took.
func (j *joins) restores(ctx context.Context, disk string, enough func(begun time.Time) bool) (all []time.Duration, err error) {
	for begun := time.Now(); !enough(begun); {
		took, err := j.act(ctx, box.Restore, disk)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	return all, nil
}

// act has the box do a job.
func (j *joins) act(ctx context.Context, action box.Action, disk string) (time.Duration, error) {
	addr, err := box.ParseAddr("10.88.1.1")
	if err != nil {
		return 0, err
	}
	if _, err := j.site.Ask(ctx, addr, action); err != nil {
		return 0, err
	}
	words, err := j.site.Boot(ctx, addr)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	cmd := rig.Command(words, disk, true, copier.VerifyAll)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", action, err, out)
	}
	return time.Since(begun), nil
}

// packs counts the packs of the store.
func (j *joins) packs() (n int, bytes int64, err error) {
	err = filepath.WalkDir(filepath.Join(j.site.Store(), "packs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			n, bytes = n+1, bytes+st.Size()
		}
		return err
	})
	return n, bytes, err
}

// fill makes a disk with files of this machine.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	left := int64(restoreSize)
	err = filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read is left out
		}
		if left == 0 {
			return fs.SkipAll
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		data = data[:min(int64(len(data)), left)]
		left -= int64(len(data))
		_, err = f.Write(data)
		return err
	})
	if err == nil {
		err = f.Truncate(restoreSize)
	}
	return err
}

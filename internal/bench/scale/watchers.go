package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/wire"
)

const (
	pageWatchers = 200
	atWork       = 20  // boxes that report each second
	ofALogin     = 10  // watchers with the same token
	idleBar      = 0.1 // of a processor
)

// watcher is a browser that shows a page, and does what the script of the page does.
type watcher struct {
	b       *rig.Browser
	rows    bool // it shows the list of boxes
	looks   string
	mu      sync.Mutex // guards the fields below
	events  int
	asked   int // parts of a page that were asked for anew
	changed map[string]bool
}

// runWatchers measures what it costs that many have a page open.
func (p *pages) runWatchers(ctx context.Context) error {
	all, err := p.newWatchers(ctx)
	defer func() {
		for _, w := range all {
			w.b.Close()
		}
	}()
	if err != nil {
		return err
	}
	list := func(_ int, w *watcher) { w.rows, w.looks = true, "" }
	one := func(i int, w *watcher) { w.rows, w.looks = false, "/boxes/"+addrOf(i%p.size.Boxes).String()+"/now" }
	for _, m := range []struct {
		what  string
		shows func(i int, w *watcher)
		boxes int
		bar   float64
	}{
		{"the list of boxes, and nothing happens", list, 0, idleBar},
		{"pages of boxes, and nothing happens", one, 0, idleBar},
		{fmt.Sprintf("the list of boxes, and %d boxes report each second", atWork), list, atWork, 0},
	} {
		for i, w := range all {
			m.shows(i, w)
		}
		if err := p.watched(ctx, all, m.what, m.boxes, m.bar); err != nil {
			return fmt.Errorf("%d watch %s: %w", len(all), m.what, err)
		}
	}
	return nil
}

// newWatchers lets many log in, each from an address of its own.
func (p *pages) newWatchers(ctx context.Context) (all []*watcher, err error) {
	token := ""
	for i := range pageWatchers {
		if i%ofALogin == 0 {
			if token, err = p.newToken(ctx); err != nil {
				return all, err
			}
		}
		from, err := box.ParseAddr(fmt.Sprintf("10.88.201.%d", i+1))
		if err != nil {
			return all, err
		}
		b, err := p.site.NewBrowser(ctx, token, from)
		if err != nil {
			return all, err
		}
		all = append(all, &watcher{b: b, changed: map[string]bool{}})
	}
	return all, nil
}

// watched lets all watch for a while, with some boxes at work, and tells what the server took.
func (p *pages) watched(ctx context.Context, all []*watcher, what string, boxes int, bar float64) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	errs := make(chan error, len(all)+boxes+1)
	run := func(f func() error) {
		group.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				errs <- err
			}
		})
	}
	busy, err := p.startWork(ctx, boxes)
	if err != nil {
		return err
	}
	for _, a := range busy {
		run(func() error { return report(ctx, a) })
	}
	for _, w := range all {
		run(func() error { return w.follow(ctx) })
		run(func() error { return w.ask(ctx) })
	}
	time.Sleep(20 * time.Second) // until all are connected, and what a start brings is over
	sum := func() (bytes int64, events, asked int) {
		for _, w := range all {
			w.mu.Lock()
			bytes, events, asked = bytes+w.b.Received(), events+w.events, asked+w.asked
			w.mu.Unlock()
		}
		return
	}
	cpu, _, err := p.site.Used()
	if err != nil {
		return err
	}
	bytes, events, asked := sum()
	begun := time.Now()
	select {
	case err := <-errs:
		return err
	case <-time.After(p.watch):
	}
	cpuNow, rss, err := p.site.Used()
	if err != nil {
		return err
	}
	bytesNow, eventsNow, askedNow := sum()
	took := time.Since(begun).Seconds()
	share := (cpuNow - cpu).Seconds() / took
	each := took * float64(len(all))
	fmt.Printf("%d watch %s: %.3f of a processor; for each of them %.0f bytes, %.2f events and %.2f requests a second; memory at most %d MiB",
		len(all), what, share, float64(bytesNow-bytes)/each, float64(eventsNow-events)/each, float64(askedNow-asked)/each, rss>>20)
	switch {
	case bar > 0 && share > bar:
		p.figures.missed = append(p.figures.missed, fmt.Errorf("%d watch %s: %.3f of a processor, more than %.2f", len(all), what, share, bar))
		fmt.Printf("  bar %.2f: MISSED", bar)
	case bar > 0:
		fmt.Printf("  bar %.2f: met", bar)
	}
	fmt.Println()
	stop()
	group.Wait()
	for _, a := range busy {
		a.Close()
	}
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// startWork has some boxes begin a backup.
func (p *pages) startWork(ctx context.Context, n int) (all []*rig.Agent, err error) {
	for i := range n {
		addr := addrOf(i)
		if _, err := p.site.Ask(ctx, addr, box.Backup); err != nil {
			return all, err
		}
		words, err := p.site.Boot(ctx, addr)
		if err != nil {
			return all, err
		}
		a, err := rig.Hello(ctx, words)
		if err != nil {
			return all, err
		}
		all = append(all, a)
	}
	return all, nil
}

// report says how far a box is, each second.
func report(ctx context.Context, a *rig.Agent) error {
	const total = 500 << 30
	for n := int64(1); ; n++ {
		done := n << 30 % total
		_, err := a.Say(ctx, wire.Report{Step: wire.StepRead, Text: fmt.Sprintf("sda: %d GiB of 500", done>>30), Done: done, Total: total})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// follow reads the events that the page follows.
func (w *watcher) follow(ctx context.Context) error {
	if !w.rows {
		return nil
	}
	r, err := w.b.Open(ctx, "/events")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	for in := bufio.NewReader(r.Body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		data, has := strings.CutPrefix(line, "data: ")
		if !has {
			continue
		}
		var changed struct{ Box string }
		if err := json.Unmarshal([]byte(data), &changed); err != nil {
			return err
		}
		w.mu.Lock()
		w.events++
		if changed.Box != "" {
			w.changed[changed.Box] = true
		}
		w.mu.Unlock()
	}
}

// ask asks for the parts of the page that have changed, as seldom as the script of the page does.
func (w *watcher) ask(ctx context.Context) error {
	for {
		wait := time.Second
		if w.looks != "" {
			wait = 15 * time.Second
		}
		wait += time.Duration(rand.Int64N(int64(wait / 2)))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		path := w.looks
		w.mu.Lock()
		if len(w.changed) > 0 {
			path = "/rows?" + url.Values{"box": slices.Sorted(maps.Keys(w.changed))}.Encode()
			clear(w.changed)
		}
		if path != "" {
			w.asked++
		}
		w.mu.Unlock()
		if path == "" {
			continue
		}
		if _, err := w.b.Get(ctx, path); err != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
)

// requests measures what requests take.
type requests struct {
	*options
	site   *rig.Site
	missed []error
}

// tell prints a figure. bar is 0 if there is none.
func (m *requests) tell(what string, cpu, wall, bar time.Duration) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("%-62s %8.1f ms of processors, %8.1f ms", what, ms(cpu), ms(wall))
	switch {
	case bar > 0 && cpu > bar:
		m.missed = append(m.missed, fmt.Errorf("%s: %v, more than %v", what, cpu, bar))
		fmt.Printf("  bar %.0f: MISSED", ms(bar))
	case bar > 0:
		fmt.Printf("  bar %.0f: met", ms(bar))
	}
	fmt.Println()
}

const (
	startBar   = 10 * time.Second
	listBar    = 50 * time.Millisecond
	historyBar = 20 * time.Millisecond
	watchers   = 50
)

func (m *requests) run(ctx context.Context) error {
	if err := measure.Uncache(m.site.Dir); err != nil {
		return err
	}
	for _, what := range []string{"start, nothing in memory", "start again"} {
		begun := time.Now()
		if err := m.site.Start(); err != nil {
			return err
		}
		wall := time.Since(begun)
		cpu, _, err := m.site.Used()
		if err != nil {
			return err
		}
		if m.tell("the server: "+what, cpu, wall, startBar); wall > startBar {
			m.missed = append(m.missed, fmt.Errorf("%s: %v", what, wall))
		}
		begun = time.Now()
		if err := m.get(ctx, "boxes?limit=1000"); err != nil {
			return err
		}
		after, _, err := m.site.Used()
		if err != nil {
			return err
		}
		m.tell("the first list of boxes after that", after-cpu, time.Since(begun), 0)
		if what != "start again" {
			if err := m.site.Close(); err != nil {
				return err
			}
		}
	}
	one := addrOf(m.size.Boxes / 2).String()
	for _, r := range []struct {
		path string
		bar  time.Duration
	}{
		{"boxes?limit=1000", listBar},
		{"boxes?limit=100", listBar},
		{"boxes?limit=1000&state=held", listBar},
		{"boxes/" + one, listBar},
		{"boxes/box-0500", listBar},
		{"backups/" + one, historyBar},
		{"jobs?limit=1000", listBar},
		{"jobs?limit=100", listBar},
		{"jobs?open=true&limit=1000", listBar},
		{"jobs?state=held&limit=1000", listBar},
		{"jobs?by=nightly&limit=100", listBar},
		{"jobs?by=somebody&limit=100", listBar},
		{"jobs?box=" + one + "&limit=1000", historyBar},
		{"audit?limit=1000", listBar},
		{"/metrics", listBar},
		{"/healthz", listBar},
	} {
		if err := m.measure(r.path, r.bar, 20, func() error { return m.get(ctx, r.path) }); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"boxes"}, {"jobs"}, {"jobs", "--all"}, {"jobs", one}, {"box", "show", one}, {"image", "list", "--store", m.site.Store()},
		{"image", "list", one, "--store", m.site.Store()},
	} {
		if err := m.command(args...); err != nil {
			return err
		}
	}
	if err := m.follow(ctx); err != nil {
		return err
	}
	if err := m.notes(ctx, one); err != nil {
		return err
	}
	_, rss, err := m.site.Used()
	fmt.Printf("the server had at most %d MiB of memory\n", rss>>20)
	return err
}

func (m *requests) get(ctx context.Context, path string) error {
	if path[0] != '/' {
		path = api.Prefix + "/" + path
	}
	if path != "/metrics" {
		var answer map[string]any
		return m.site.Admin.Do(ctx, http.MethodGet, path, nil, &answer)
	}
	r, err := m.http().Get("http://testbox" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w", path, r.Status, err)
	}
	return nil
}

func (m *requests) http() *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.site.Socket())
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}
}

// measure does something several times, and tells what the server took for it.
func (m *requests) measure(what string, bar time.Duration, times int, do func() error) error {
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	before, _, err := m.site.Used()
	if err != nil {
		return err
	}
	begun := time.Now()
	for range times {
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	wall := time.Since(begun)
	after, _, err := m.site.Used()
	if err != nil {
		return err
	}
	m.tell(what, (after-before)/time.Duration(times), wall/time.Duration(times), bar)
	return nil
}

// command tells what a command takes of its own.
func (m *requests) command(args ...string) error {
	cmd := exec.Command(m.testbox, args...)
	cmd.Env = append(cmd.Environ(), "TESTBOX_SERVER="+m.site.Socket())
	u, err := measure.Run(cmd)
	if err == nil {
		m.tell(fmt.Sprint("the command ", args), u.CPU, u.Wall, 0)
	}
	return err
}

// follow lets many follow the jobs, and tells what a job costs that comes and goes.
func (m *requests) follow(ctx context.Context) error {
	const some = 100
	change := func() error {
		var made api.JobList
		q := api.NewJobs{Action: box.RefreshInfo}
		for i := range some {
			q.Targets = append(q.Targets, addrOf(i).String())
		}
		if err := m.site.Admin.Do(ctx, http.MethodPost, apiclient.Path("jobs"), q, &made); err != nil {
			return err
		}
		for _, j := range made.Jobs {
			if err := m.site.Admin.Do(ctx, http.MethodPost, apiclient.Path("jobs", j.ID, "cancel"), api.Reason{}, nil); err != nil {
				return err
			}
		}
		return nil
	}
	if err := m.measure(fmt.Sprintf("%d jobs are made and cancelled, nobody follows", some), 0, 3, change); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	seen := 0
	for range watchers {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://testbox"+api.Prefix+"/events", nil)
		if err != nil {
			return err
		}
		r, err := m.http().Do(q)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer r.Body.Close()
			for in := bufio.NewReader(r.Body); ; {
				line, err := in.ReadString('\n')
				mu.Lock()
				if line == "event: job\n" {
					seen++
				}
				if err != nil && ctx.Err() == nil {
					failed = errors.Join(failed, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	err := m.measure(fmt.Sprintf("the same, and %d follow", watchers), 0, 3, change)
	time.Sleep(time.Second)
	stop()
	all.Wait()
	fmt.Printf("  %d events were sent\n", seen)
	return errors.Join(err, failed)
}

// notes changes what is noted of a backup, and deletes one.
func (m *requests) notes(ctx context.Context, of string) error {
	var list api.BackupList
	if err := m.site.Admin.Do(ctx, http.MethodGet, apiclient.Path("backups", of), nil, &list); err != nil {
		return err
	}
	pinned := true
	n := 0
	err := m.measure("a backup is pinned", 0, 5, func() error {
		n++
		return m.site.Admin.Do(ctx, http.MethodPatch, apiclient.Path("backups", of, list.Backups[n].ID), api.SetBackup{Pinned: &pinned}, nil)
	})
	if err != nil {
		return err
	}
	baseline := true
	if err := m.measure("a backup becomes the baseline", 0, 5, func() error {
		n++
		return m.site.Admin.Do(ctx, http.MethodPatch, apiclient.Path("backups", of, list.Backups[n].ID), api.SetBackup{Baseline: &baseline}, nil)
	}); err != nil {
		return err
	}
	return m.measure("a backup is deleted", 0, 5, func() error {
		n++
		return m.site.Admin.Do(ctx, http.MethodDelete, apiclient.Path("backups", of, list.Backups[n+1].ID), nil, nil)
	})
}

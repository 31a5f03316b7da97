package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"testbox-imaging/internal/box"
)

// report prints how long jobs took. Its error has the jobs that failed.
func (l *load) report(out io.Writer, title string, begun time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	took, wall := map[string][]time.Duration{}, time.Since(begun)
	by := map[string]map[box.Addr]int{"backup": {}, "restore": {}}
	mib := map[string]int{}
	for _, t := range l.done {
		took[t.what] = append(took[t.what], t.wall)
		if action, _, isJob := strings.Cut(t.what, ","); isJob {
			by[action][t.box]++
			mib[action] += t.mib
		}
	}
	fmt.Fprintf(out, "\n%s, for %.0f s; seconds:\n", title, wall.Seconds())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tnumber\tfastest\tmedian\tslowest\t")
	for _, what := range slices.Sorted(maps.Keys(took)) {
		all := slices.Sorted(slices.Values(took[what]))
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%.2f\t\n", what, len(all), all[0].Seconds(), all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
	}
	w.Flush()
	for _, action := range []string{"backup", "restore"} {
		if n := slices.SortedFunc(maps.Values(by[action]), cmp.Compare); len(n) > 0 {
			fmt.Fprintf(out, "%s: each of %d boxes %d to %d times, %.0f MiB of disks a second in all\n", action, len(n), n[0], n[len(n)-1],
				float64(mib[action])/wall.Seconds())
		}
	}
	fmt.Fprintf(out, "failed: %d\n", len(l.failed))
	return errors.Join(l.failed[:min(len(l.failed), 10)]...)
}

const memoryBar = 512 // MiB

// tellServer prints what the server took.
func (l *load) tellServer(out io.Writer, before, wall time.Duration) error {
	cpu, rss, err := l.site.Used()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "server: %.0f s of processors (%.2f of one), at most %d MiB of memory (bar %d)\n", (cpu - before).Seconds(),
		(cpu-before).Seconds()/wall.Seconds(), rss>>20, memoryBar)
	text := l.site.Log()
	fmt.Fprintf(out, "server's log: %d warnings, %d errors\n", strings.Count(text, "level=WARN"), strings.Count(text, "level=ERROR"))
	for line := range strings.Lines(text) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			fmt.Fprint(out, "  ", line)
		}
	}
	if rss > memoryBar<<20 {
		return fmt.Errorf("the server had %d MiB of memory", rss>>20)
	}
	return nil
}

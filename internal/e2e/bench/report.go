package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// bars are what the agent must reach beside gzip's pipeline, on two cores.
const (
	barBackup  = 6.0  // times as fast
	barRestore = 2.0  // with the read-back that gzip's has not
	barWrite   = 3.0  // without it
	barSize    = 1.15 // times the size, at most
	barMemory  = 256  // MiB, at most
)

func median[T int64 | time.Duration](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func pick[T int64 | time.Duration](us []usage, of func(usage) T) T {
	var v []T
	for _, u := range us {
		v = append(v, of(u))
	}
	return median(v)
}

func wall(us []usage) time.Duration { return pick(us, func(u usage) time.Duration { return u.wall }) }
func cpu(us []usage) time.Duration  { return pick(us, func(u usage) time.Duration { return u.cpu }) }

// report prints the medians, and where the agent stands.
func (b *bench) report(out io.Writer) {
	fmt.Fprintf(out, "\nmedians of %d runs in turns, %d processors, a disk of %d MiB:\n", len(b.results["gzip"].backups), runtime.NumCPU(), diskSize>>20)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tbackup\tcpu\timage\trestore\tcpu\t")
	for _, t := range b.tools() {
		r := b.results[t.name]
		fmt.Fprintf(w, "%s\t%.1f s\t%.1f s\t%d MB\t%.1f s\t%.1f s\t\n", t.name, wall(r.backups).Seconds(), cpu(r.backups).Seconds(),
			r.size/1e6, wall(r.restores).Seconds(), cpu(r.restores).Seconds())
	}
	w.Flush()

	gzip, ours := b.results["gzip"], b.results["agent"]
	write := wall(ours.restores) - median(ours.verifies)
	rss := max(pick(ours.backups, func(u usage) int64 { return u.rss }), pick(ours.restores, func(u usage) int64 { return u.rss }))
	fmt.Fprintf(out, "\nthe agent beside dd|gzip:\n")
	line := func(what string, got, bar float64, met bool) {
		verdict := "met"
		if !met {
			verdict = "MISSED"
		}
		fmt.Fprintf(out, "  %-36s %6.2f  (bar %.2f: %s)\n", what, got, bar, verdict)
	}
	faster := func(what string, a, b time.Duration, bar float64) {
		line(what, a.Seconds()/b.Seconds(), bar, a.Seconds() >= bar*b.Seconds())
	}
	faster("backup, times as fast", wall(gzip.backups), wall(ours.backups), barBackup)
	faster("restore with read-back, times as fast", wall(gzip.restores), wall(ours.restores), barRestore)
	faster("restore without, times as fast", wall(gzip.restores), write, barWrite)
	size := float64(ours.size) / float64(gzip.size)
	line("image, times the size", size, barSize, size <= barSize)
	line("memory of the agent, MiB", float64(rss>>20), barMemory, rss <= barMemory<<20)
}

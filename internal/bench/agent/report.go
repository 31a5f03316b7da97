package main

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"

	"testbox-imaging/internal/bench/measure"
)

// bars are what the agent must reach beside gzip's pipeline, on two cores.
const (
	barBackup  = 6.0  // times as fast
	barRestore = 2.0  // with the read-back that gzip's has not
	barWrite   = 3.0  // without it
	barSize    = 1.15 // times the size, at most
	barMemory  = 256  // MiB, at most
)

// report prints the medians, and where the agent stands.
func (b *bench) report(out io.Writer) {
	fmt.Fprintf(out, "\nmedians of %d runs in turns, %d processors, a disk of %d MiB:\n", len(b.results["gzip"].backups), runtime.NumCPU(),
		diskSize>>20)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tbackup\tcpu\timage\trestore\tcpu\t")
	for _, t := range b.tools() {
		r := b.results[t.name]
		fmt.Fprintf(w, "%s\t%.1f s\t%.1f s\t%d MB\t%.1f s\t%.1f s\t\n", t.name, measure.Wall(r.backups).Seconds(),
			measure.CPU(r.backups).Seconds(),
			r.size/1e6, measure.Wall(r.restores).Seconds(), measure.CPU(r.restores).Seconds())
	}
	w.Flush()

	gzip, ours := b.results["gzip"], b.results["agent"]
	write := measure.Wall(ours.restores) - measure.Median(ours.verifies)
	rss := max(measure.Pick(ours.backups, func(u measure.Usage) int64 { return u.RSS }),
		measure.Pick(ours.restores, func(u measure.Usage) int64 { return u.RSS }))
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
	faster("backup, times as fast", measure.Wall(gzip.backups), measure.Wall(ours.backups), barBackup)
	faster("restore with read-back, times as fast", measure.Wall(gzip.restores), measure.Wall(ours.restores), barRestore)
	faster("restore without, times as fast", measure.Wall(gzip.restores), write, barWrite)
	size := float64(ours.size) / float64(gzip.size)
	line("image, times the size", size, barSize, size <= barSize)
	line("memory of the agent, MiB", float64(rss>>20), barMemory, rss <= barMemory<<20)
}

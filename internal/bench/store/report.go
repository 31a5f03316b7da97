package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"testbox-imaging/internal/bench/measure"
)

// secs is the median of the wall time, "-" if it was not measured.
func secs(us []measure.Usage) string {
	if len(us) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f (%.1f)", measure.Wall(us).Seconds(), measure.CPU(us).Seconds())
}

func mb(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint((n + 500_000) / 1_000_000)
}

// grew is bytes as MB with what is below one.
func grew(us []measure.Usage, n int64) string {
	if len(us) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", float64(n)/1e6)
}

// report prints the medians, and where ours stands.
func (b *bench) report(out io.Writer) {
	tools := b.tools()
	fmt.Fprintf(out, "\nmedians of %d runs in turns, %d processors; seconds (of processors), MB:\n", len(b.results["testbox"].first),
		runtime.NumCPU())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tfirst\tMB\tagain\tMB\t5 %\tMB\tsecond\tboth MB\tNTFS\tMB\trestore\t")
	for _, t := range tools {
		r := b.results[t.name]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", t.name, secs(r.first), mb(r.sizeA), secs(r.again),
			grew(r.again, r.growAgain),
			secs(r.changed), grew(r.changed, r.growChanged), secs(r.second), mb(r.sizeBoth), secs(r.ntfs), mb(r.sizeNTFS), secs(r.restore))
	}
	w.Flush()
	ours := b.results["testbox"]
	fmt.Fprintf(out, "testbox: 5 %% scattered %s, %s MB; restore with read-back %s; 5 %% changed %s; the used bytes read twice %.1f\n",
		secs(ours.scattered), mb(ours.growScattered), secs(ours.verified), secs(ours.delta), measure.Wall(b.reads).Seconds())
	b.bars(out)
}

// bars are what ours must reach, on two processors.
func (b *bench) bars(out io.Writer) {
	ours := b.results["testbox"]
	line := func(what string, got, bar float64, met bool) {
		verdict := "met"
		if !met {
			verdict = "MISSED"
		}
		fmt.Fprintf(out, "  %-52s %6.2f  (bar %.2f: %s)\n", what, got, bar, verdict)
	}
	faster := func(what, tool string, of func(*result) []measure.Usage, bar float64) {
		r := b.results[tool]
		if r == nil {
			return
		}
		got := ratio(measure.Wall(of(r)), measure.Wall(of(ours)))
		line(what, got, bar, got >= bar)
	}
	first := func(r *result) []measure.Usage { return r.first }
	again := func(r *result) []measure.Usage { return r.again }
	restore := func(r *result) []measure.Usage { return r.restore }
	faster("first backup, times as fast as dd|gzip", "dd|gzip", first, 20)
	faster("first backup, times as fast as partclone|zstd", "partclone|zstd", first, 1.5)
	faster("unchanged again, times as fast as restic", "restic", again, 5)
	faster("restore without read-back, times as fast as restic", "restic", restore, 2)
	faster("restore without read-back, times as fast as borg", "borg", restore, 2)
	line("what an unchanged disk adds, MB", float64(ours.growAgain)/1e6, 0.01, ours.growAgain <= 10_000)
	b.growth(out, ours)
	bars := map[string]float64{"partclone|zstd": 0.78, "restic": 1, "borg": 1, "casync": 1}
	for _, t := range slices.Sorted(maps.Keys(bars)) {
		if r := b.results[t]; r != nil {
			size, bar := float64(ours.sizeBoth)/float64(r.sizeBoth), bars[t]
			line("both systems, of the size of "+t, size, bar, size <= bar)
		}
	}
	delta := ratio(measure.Wall(ours.delta), measure.Wall(b.reads))
	line("restore of 5 % changed, of reading what is used twice", delta, 1.3, delta <= 1.3)
}

// growth is what 5 % cost: of the first backup's size, and of the time that it
// took beyond reading what is used.
func (b *bench) growth(out io.Writer, ours *result) {
	beyond := func(us []measure.Usage) time.Duration { return measure.CPU(us) - measure.CPU(ours.again) }
	say := func(what string, us []measure.Usage, size int64) {
		fmt.Fprintf(out, "  5 %% changed, %s: %.1f %% of the first backup's size, %.1f %% of its processor time beyond an unchanged disk's\n",
			what, 100*float64(size)/float64(ours.sizeA), 100*ratio(beyond(us), beyond(ours.first)))
	}
	say("whole packages", ours.changed, ours.growChanged)
	say("scattered files", ours.scattered, ours.growScattered)
}

func ratio(a, b time.Duration) float64 { return a.Seconds() / max(b.Seconds(), 1e-9) }

// plot draws bars of what was measured, an SVG file each.
func (b *bench) plot(dir string) error {
	for _, p := range []struct {
		file, title string
		of          func(*result) float64
	}{
		{"store-first.svg", "First backup of a Debian system, seconds", func(r *result) float64 { return wallSecs(r.first) }},
		{"store-again.svg", "Unchanged disk again, seconds", func(r *result) float64 { return wallSecs(r.again) }},
		{"store-restore.svg", "Restore to another disk's content, seconds", func(r *result) float64 { return wallSecs(r.restore) }},
		{"store-size.svg", "Two Debian systems, MB", func(r *result) float64 { return float64(r.sizeBoth) / 1e6 }},
	} {
		if err := os.WriteFile(filepath.Join(dir, p.file), b.bar(p.title, p.of), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func wallSecs(us []measure.Usage) float64 {
	if len(us) == 0 {
		return 0
	}
	return measure.Wall(us).Seconds()
}

// bar is one plot: a bar for each tool that has the figure.
func (b *bench) bar(title string, of func(*result) float64) []byte {
	const rowHeight, left, width = 26, 130, 420
	var rows strings.Builder
	most, n := 0.0, 0
	for _, t := range b.tools() {
		most = max(most, of(b.results[t.name]))
	}
	for _, t := range b.tools() {
		v := of(b.results[t.name])
		if v == 0 {
			continue
		}
		colour := "#8a9ba8"
		if t.name == "testbox" {
			colour = "#1f6feb"
		}
		y := 34 + n*rowHeight
		fmt.Fprintf(&rows, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="16" fill="%s"/><text x="%.1f" y="%d">%.4g</text>`+"\n",
			left-8, y+13, t.name, left, y, v/most*width, colour, left+v/most*width+6, y+13, v)
		n++
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="white"/>
<text x="10" y="20" font-weight="bold">%s</text>
%s</svg>
`, left+width+80, 44+n*rowHeight, title, rows.String())
}

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/usedmap"

	"github.com/spf13/cobra"
)

func newDiskMapCmd() *cobra.Command {
	var o mapOptions
	cmd := &cobra.Command{
		Use:   "map DEVICE|FILE",
		Short: "Show which bytes of a disk matter, and why",
		Long: `Reads the partition table of a disk and the metadata of its file systems, and shows which bytes
matter: what is used, what is free, and what counts as used because of a doubt, with the reason.
Of a file system that was not cleanly unmounted, is damaged, has a feature that this program
does not know, or stands beside the remains of another one, all of it counts as used. Files are
held against the bitmaps of ext2/3/4, NTFS, FAT and exFAT; where an ext file system has too many
to do that soon, a note says what was not looked at.

First comes the disk as a bar, with the partitions' numbers below where they begin ("1-3" if they
begin in one character); then a table of its parts; then what was in doubt, and notes. --json prints
the same for programs, with all used ranges (docs/format.md).

FILE holds the raw bytes of a disk, of a partition or of a file system. One that is known to hold
something else (an image of another tool, an archive, a compressed file) is refused, and the message
says what it is and which command makes raw bytes of it. Nothing is written. A disk that is in use
changes while it is read: then the map is not to be relied on, and a warning says so.`,
		Example: `  testbox disk map /dev/sda
  testbox disk map --json disk.img`,
		Args:              oneDisk,
		ValidArgsFunction: completeDisk,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDiskMap(cmd.Context(), printerOf(cmd), args[0], o)
		},
	}
	f := cmd.Flags()
	addRaw(cmd, &o.raw)
	f.BoolVar(&o.json, "json", false, "print the map for programs, with all used ranges")
	f.IntVar(&o.sector, "sector-size", 0, "logical sectors of `BYTES`; without it those of the device, and for a file what its GPT "+
		"tells, else 512")
	mustComplete(cmd.RegisterFlagCompletionFunc("sector-size",
		cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// mapOptions are the flags of disk map.
type mapOptions struct {
	json   bool
	sector int // bytes; 0 is the device's, or is guessed for a file
	raw    bool
}

func oneDisk(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("give one disk: a device as /dev/sda, or a file with the bytes of a disk")
	}
	return nil
}

func completeDisk(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

func runDiskMap(ctx context.Context, p printer, path string, o mapOptions) error {
	if err := wantDisks([]string{path}, o.raw); err != nil {
		return err
	}
	d, err := openRaw(path, o.sector)
	if err != nil {
		return err
	}
	defer d.Close()
	if by := disk.User(path, false); by != "" {
		p.warnf("%s is in use %s; the map is of a disk that changes, and not to be relied on", path, by)
	}
	m, err := usedmap.Read(ctx, d, d.size, d.sector)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if o.json {
		return printJSON(p, m)
	}
	return printMap(p.out, path, m)
}

// printMap prints a map for people. It has a line about the disk, the bar, the
// parts, and the reasons for doubt.
func printMap(w io.Writer, path string, m *usedmap.Map) error {
	var b bytes.Buffer
	free := m.FreeBytes()
	doubt := lengths(m.InDoubt())
	fmt.Fprintf(&b, "%s: %s, sectors of %d bytes, %s\n", printable(path), bytesText(m.Size), m.SectorSize, tableText(m))
	fmt.Fprintf(&b, "used %s, free %s", bytesText(m.Size-free), bytesText(free))
	if doubt > 0 {
		fmt.Fprintf(&b, "; of what is used, %s in doubt", bytesText(doubt))
	}
	b.WriteString("\n\n")
	writeBar(&b, m)
	b.WriteString("\n")
	writeParts(&b, m.Parts)
	writeReasons(&b, m)
	_, err := w.Write(b.Bytes())
	return err
}

func lengths(ranges []image.Range) (n int64) {
	for _, r := range ranges {
		n += r.Len
	}
	return n
}

func tableText(m *usedmap.Map) string {
	switch {
	case m.Table != "":
		return "partition table " + m.Table
	case m.Doubt != "":
		return "partition table in doubt"
	}
	return "no partition table"
}

// writeParts writes the table of the disk's parts.
func writeParts(w io.Writer, parts []usedmap.Part) {
	var b bytes.Buffer
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, "PART\tSTART\tSIZE\tUSED\tFREE\tHOLDS\tTYPE\tLABEL\n")
	for i := range parts {
		p := &parts[i]
		writePart(tab, partName(p), p)
		for j := range p.Volumes {
			lv := &p.Volumes[j]
			writePart(tab, "  "+printable(lv.Name), lv)
		}
	}
	tab.Flush()
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

func writePart(w io.Writer, name string, p *usedmap.Part) {
	label, kind := p.Label, ""
	if p.Kind == usedmap.Partition {
		kind = parttab.TypeName(p.Type)
		label = cmp.Or(label, p.Name)
	}
	start := fmt.Sprint(p.Off())
	switch n := len(p.Ranges); {
	case n == 0:
		start = "-"
	case n > 1:
		start += fmt.Sprintf(" (+%d)", len(p.Ranges)-1)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, start, bytesText(p.Len()), bytesText(p.Len()-p.Free), bytesText(p.Free),
		holds(p), kind, printable(label))
}

// partName is the name of a part in the table and before its reasons.
func partName(p *usedmap.Part) string {
	switch {
	case p.Kind == usedmap.Partition:
		return fmt.Sprint(p.Number)
	case p.Kind == usedmap.Logical:
		return printable(p.Name)
	}
	return string(p.Kind)
}

// holds says what a part holds. A question mark means that it is in doubt.
func holds(p *usedmap.Part) string {
	switch {
	case p.Kind == usedmap.Gap, p.FS == "" && p.Doubt == "":
		return "-"
	case p.Doubt != "":
		return strings.TrimSpace(p.FS + " ?")
	}
	return p.FS
}

// writeReasons writes why parts are in doubt, and the notes.
func writeReasons(w io.Writer, m *usedmap.Map) {
	var lines []string
	for _, n := range m.Notes {
		lines = append(lines, "note: "+n)
	}
	for i := range m.Parts {
		p := &m.Parts[i]
		lines = append(lines, reasons(partName(p), p)...)
		for j := range p.Volumes {
			lines = append(lines, reasons(partName(&p.Volumes[j]), &p.Volumes[j])...)
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	}
}

func reasons(name string, p *usedmap.Part) (lines []string) {
	if p.Doubt != "" {
		lines = append(lines, fmt.Sprintf("%s: all of it counts as used: %s", name, printable(p.Doubt)))
	}
	for _, n := range p.Notes {
		lines = append(lines, fmt.Sprintf("%s: note: %s", name, printable(n)))
	}
	return lines
}

// barWidth is how many characters the bar of a disk has.
const barWidth = 72

// writeBar draws the disk. It has a character for each 72nd of it, and below
// them the numbers of the partitions where they begin.
func writeBar(w io.Writer, m *usedmap.Map) {
	free := shares(m.Free, m.Size)
	doubt := shares(m.InDoubt(), m.Size)
	bar := make([]byte, barWidth)
	for i := range bar {
		switch {
		case doubt[i] > 0.5:
			bar[i] = '?'
		case free[i] > 0.99:
			bar[i] = '.'
		case free[i] > 0.5:
			bar[i] = '-'
		case free[i] > 0.01:
			bar[i] = '+'
		default:
			bar[i] = '#'
		}
	}
	fmt.Fprintf(w, "[%s]\n", bar)
	for _, line := range barNumbers(m) {
		fmt.Fprintf(w, " %s\n", line)
	}
	fmt.Fprintf(w, "%s a character: # used  + more used than free  - more free than used  . free  ? in doubt, so used\n",
		bytesText((m.Size+barWidth-1)/barWidth))
}

// shares returns how much of each character of the bar the ranges fill, from 0
// to 1.
func shares(ranges []image.Range, size int64) [barWidth]float64 {
	var out [barWidth]float64
	cell := float64(size) / barWidth
	for _, r := range ranges {
		from, to := float64(r.Off)/cell, float64(r.End())/cell
		for i := int(from); i < barWidth && float64(i) < to; i++ {
			out[i] += min(to, float64(i+1)) - max(from, float64(i))
		}
	}
	return out
}

// barNumbers returns the lines below the bar. They have the number of each
// partition where it begins. Partitions that begin in one character are written
// together, as in "1-3,5". A number that does not fit into a line is in the
// next one.
func barNumbers(m *usedmap.Map) (lines []string) {
	var cells [barWidth][]int
	for i := range m.Parts {
		if p := &m.Parts[i]; p.Kind == usedmap.Partition {
			at := min(int(float64(p.Off())/float64(m.Size)*barWidth), barWidth-1)
			cells[at] = append(cells[at], p.Number)
		}
	}
	for at, numbers := range cells {
		if len(numbers) == 0 {
			continue
		}
		i := 0
		for i < len(lines) && len(lines[i]) > 0 && len(lines[i]) >= at {
			i++
		}
		if i == len(lines) {
			lines = append(lines, "")
		}
		lines[i] += strings.Repeat(" ", at-len(lines[i])) + numberList(numbers)
	}
	return lines
}

// numberList writes numbers as text. Three or more in a row become a range, as
// in "1-3,5".
func numberList(numbers []int) string {
	slices.Sort(numbers)
	var out []string
	for i := 0; i < len(numbers); {
		to := i
		for to+1 < len(numbers) && numbers[to+1] == numbers[to]+1 {
			to++
		}
		switch {
		case to-i > 1:
			out = append(out, fmt.Sprintf("%d-%d", numbers[i], numbers[to]))
		default:
			to = i
			out = append(out, fmt.Sprint(numbers[i]))
		}
		i = to + 1
	}
	return strings.Join(out, ",")
}

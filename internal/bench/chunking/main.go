// Chunking measures what the constants of package chunk, and of reading, do to
// disks: how much is stored of the first, of others after it, and what pages
// cost. docs/performance.md has its tables. Test only.
//
//	go run ./internal/bench/chunking a.img a5.img b.img
package main

import (
	"fmt"
	"os"
	"text/tabwriter"
)

const kib, mib = 1 << 10, 1 << 20

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: chunking DISK [LATER-DISK...]")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chunking:", err)
		os.Exit(1)
	}
}

// run prints a table of the ways to cut, and one of the ways to read.
func run(paths []string) error {
	var disks []*source
	for _, path := range paths {
		d, err := open(path)
		if err != nil {
			return err
		}
		defer d.Close()
		disks = append(disks, d)
	}
	if err := cuts(disks); err != nil {
		return err
	}
	return reads(disks[0])
}

// cuts brings the disks into an empty store, in their order, once for each way
// to cut.
func cuts(disks []*source) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprint(w, "| |")
	for _, d := range disks {
		fmt.Fprintf(w, " %s: chunks | KB each | new MB | pages KB | of these new |", d.name)
	}
	fmt.Fprintln(w)
	for _, way := range ways() {
		s := newSim(way)
		fmt.Fprintf(w, "| %s |", way.name)
		for _, d := range disks {
			f, err := s.disk(d)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, " %d | %.0f | %.1f | %.1f | %.1f |", f.chunks, float64(f.data)/float64(f.chunks)/1e3, float64(f.stored)/1e6,
				float64(f.pages)/1e3, float64(f.newPages)/1e3)
		}
		fmt.Fprintln(w)
		w.Flush()
	}
	return nil
}

// reads prints how many reads a disk takes, and of how many bytes, if small
// gaps are read along.
func reads(d *source) error {
	fmt.Println("\n| gaps read along | reads | MB |")
	for _, gap := range []int64{0, 16 * kib, 32 * kib, 64 * kib, 128 * kib} {
		n, bytes := 0, int64(0)
		for _, r := range d.merged(gap) {
			n += int((r.Len + mib - 1) / mib)
			bytes += r.Len
		}
		fmt.Printf("| %d KiB | %d | %.1f |\n", gap/kib, n, float64(bytes)/1e6)
	}
	return nil
}

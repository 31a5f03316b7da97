// Agent measures the agent beside the pipelines that people use without it:
// `dd | gzip` and `dd | pigz`, and back. It makes a disk of 8 GiB with an ext4
// on it (1.3 GB of files, 0.7 GB of deleted ones, both from this machine's
// /usr), runs all tools in turns on the same file system, and prints medians
// and ratios. docs/performance.md says how to read them. Test only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the two programs")
	runs := flag.Int("runs", 3, "how often each tool runs")
	flag.Parse()
	if err := run(*bin, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/agent:", err)
		os.Exit(1)
	}
}

// run works in a new folder below $TMPDIR and removes it.
func run(bin string, runs int) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "testbox-bench.")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Println("making the disk in", dir)
	b := &bench{bin: bin, dir: dir}
	if err := b.prepare(); err != nil {
		return err
	}
	for i := range runs {
		for _, t := range b.tools() {
			if err := b.turn(t); err != nil {
				return fmt.Errorf("run %d of %s: %w", i+1, t.name, err)
			}
		}
	}
	b.report(os.Stdout)
	return nil
}

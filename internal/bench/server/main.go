// Server lets many simulated boxes work with a real storage server for some minutes:
// half of them back up, the others restore. It says whether a job failed, whether one
// was left behind, and what the server took. docs/performance.md says how to read it.
// Test only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bench/rig"
)

func main() {
	testbox := flag.String("testbox", "bin/testbox", "the program")
	boxes := flag.Int("boxes", 64, "how many boxes back up, and how many restore")
	size := flag.Int("size", 64, "MiB of each disk")
	lasts := flag.Duration("for", 3*time.Minute, "how long jobs are asked for")
	keep := flag.Bool("keep", false, "keep the state folder")
	flag.Parse()
	inside, code, err := rig.Network()
	if inside && err == nil {
		err = run(*testbox, *boxes, *size, *lasts, *keep)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/server:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// run works in a new folder below $TMPDIR and removes it.
func run(testbox string, boxes, size int, lasts time.Duration, keep bool) (err error) {
	if testbox, err = filepath.Abs(testbox); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "testbox-bench.")
	if err != nil {
		return err
	}
	if keep {
		fmt.Println("working in", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	pool, err := readPool()
	if err != nil {
		return err
	}
	site, err := rig.NewSite(testbox, filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	l := &load{site: site, pool: pool, pieces: size, boxes: boxes}
	return l.run(lasts)
}

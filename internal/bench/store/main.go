// Store measures images in a store beside what people use without it:
// dd | gzip, dd | pigz, partclone | zstd, restic, borg and casync, in turns, on
// two Debian systems and an NTFS disk. It prints medians and ratios, and writes
// plots. docs/performance.md says how to read them. Test only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/bench/rig"
)

func main() {
	rig.Main()
	testbox := flag.String("testbox", "bin/testbox", "the program")
	runs := flag.Int("runs", 3, "how often each tool runs")
	plots := flag.String("plots", "", "folder for the plots; none without")
	without := flag.String("without", "", "tools that are left out, as \"dd|pigz,casync\"; testbox stays")
	restores := flag.Bool("restores", false, "measure restores alone, beside partclone")
	agent := flag.String("agent", "", "the agent's program; measure what a storage server costs, and nothing else")
	profile := flag.String("profile", "", "file for the profile of a first backup, which is then all that is done")
	flag.Parse()
	inside, code := true, 0
	var err error
	if *agent != "" {
		if _, err = makeData(); err == nil { // while there is a network
			inside, code, err = rig.Network()
		}
	}
	if inside && err == nil {
		err = run(*testbox, *plots, *profile, *without, *agent, *runs, *restores)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/store:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// run works in a new folder below $TMPDIR and removes it.
func run(testbox, plots, profile, without, agent string, runs int, restores bool) (err error) {
	if testbox, err = filepath.Abs(testbox); err != nil {
		return err
	}
	d, err := makeData()
	if err != nil {
		return err
	}
	if err := d.describe(os.Stdout); err != nil {
		return err
	}
	if profile != "" {
		return d.profile(profile)
	}
	dir, err := os.MkdirTemp("", "testbox-bench.")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{testbox: testbox, dir: dir, data: d, without: strings.Split(without, ","), results: map[string]*result{}}
	if err := b.prepare(); err != nil {
		return err
	}
	if agent != "" {
		if agent, err = filepath.Abs(agent); err != nil {
			return err
		}
		return b.served(agent, runs)
	}
	if restores {
		return b.restores(runs)
	}
	for i := range runs {
		if err := b.round(); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		b.report(os.Stdout)
	}
	if plots != "" {
		return b.plot(plots)
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"testbox-imaging/internal/bench/measure"
)

// system is a disk that is restored, with what is needed to prove that.
type system struct {
	name, fs, mount string
	check           []string // a command for the partition, which must end well
}

var restored = []system{
	{"a", "ext4", readOnly, []string{"e2fsck", "-fn"}},
	{"xfs", "xfs", readXFS, []string{"xfs_repair", "-n"}},
}

// way is one way to restore. on is where to: a file or a loop device.
type way struct {
	what string
	cmd  func(b *bench, s system, on string) *exec.Cmd
	part bool // it restores the partition
}

func testboxWay(what string, flags ...string) way {
	return way{what: what, cmd: func(b *bench, s system, on string) *exec.Cmd {
		args := append([]string{"image", "restore", "--store", filepath.Join(b.dir, "store"), "--yes", "--full", s.name, "sda=" + on}, flags...)
		return exec.Command(b.testbox, args...)
	}}
}

var ways = []way{
	{"partclone", func(b *bench, s system, on string) *exec.Cmd {
		return measure.Shell("cd %s && zstd -q -dc %s.zst | partclone.restore -s - -o %s -L log 2>/dev/null && sync", b.dir, s.name, on)
	}, true},
	testboxWay("testbox, no proof", "--verify=none"),
	testboxWay("testbox"),
}

// restores measures restores to a file, and to a block device, which is a loop
// device with direct I/O. In each round, all ways take turns.
func (b *bench) restores(rounds int) error {
	if err := b.data.make("xfs", b.data.xfs); err != nil {
		return err
	}
	if err := measure.Command(b.testbox, "store", "init", filepath.Join(b.dir, "store")); err != nil {
		return err
	}
	for _, s := range restored {
		if err := b.keep(s); err != nil {
			return err
		}
	}
	took := map[string][]measure.Usage{}
	for range rounds {
		for _, s := range restored {
			for _, device := range []bool{false, true} {
				for _, w := range ways {
					u, err := b.timed(s, w, device)
					if err != nil {
						return fmt.Errorf("%s of %s: %w", w.what, s.name, err)
					}
					key := restoreKey(s, w, device)
					took[key] = append(took[key], u)
					fmt.Printf("%-40s %6.2f s, %6.2f s of processors\n", key, u.Wall.Seconds(), u.CPU.Seconds())
				}
			}
		}
	}
	return b.tellRestores(took)
}

func restoreKey(s system, w way, device bool) string {
	to := "a file"
	if device {
		to = "a block device"
	}
	return fmt.Sprintf("%s to %s, %s", s.fs, to, w.what)
}

// keep makes the images of a disk.
func (b *bench) keep(s system) error {
	img := b.data.path(s.name + ".img")
	err := withPart(img, func(part string) error {
		return measure.Shell("cd %s && partclone.%s -c -s %s -o - -L log 2>/dev/null | zstd -q -1 -T0 > %s.zst", b.dir, s.fs, part, s.name).Run()
	})
	return errors.Join(err, measure.Command(b.testbox, "image", "create", "--store", filepath.Join(b.dir, "store"), s.name, "sda="+img))
}

// timed makes the target hold something else, restores it, and proves it.
func (b *bench) timed(s system, w way, device bool) (u measure.Usage, err error) {
	if err := b.spoil(); err != nil {
		return u, err
	}
	run := func(on string) (err error) {
		u, err = measure.Run(w.cmd(b, s, on), filepath.Join(b.dir, "store"), filepath.Join(b.dir, s.name+".zst"), b.target())
		return err
	}
	var flags []string
	if device {
		flags = []string{"--direct-io=on"}
	}
	switch {
	case w.part:
		err = withPart(b.target(), run, flags...)
	case device:
		err = withLoop(b.target(), run, flags...)
	default:
		err = run(b.target())
	}
	if err != nil {
		return u, err
	}
	err = withPart(b.target(), func(part string) error { return measure.Command(s.check[0], append(s.check[1:], part)...) })
	if err != nil {
		return u, err
	}
	want := b.data.path(s.name + ".img")
	if !w.part {
		return u, sameUsed(want, b.target())
	}
	return u, sameFiles(want, b.target(), s.mount)
}

// tellRestores prints the medians, and where ours stands.
func (b *bench) tellRestores(took map[string][]measure.Usage) error {
	fmt.Printf("\nrestores, medians, %d processors; seconds (of processors):\n", runtime.NumCPU())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tpartclone\tno proof\ttimes as fast\twith proof\ttimes as fast\tof no proof\tprocessors a GiB\tMiB of memory\t")
	for _, s := range restored {
		used, err := usedBytes(b.data.path(s.name + ".img"))
		if err != nil {
			return err
		}
		for _, device := range []bool{false, true} {
			of := func(i int) []measure.Usage { return took[restoreKey(s, ways[i], device)] }
			peer, bare, proof := of(0), of(1), of(2)
			rss := measure.Pick(proof, func(u measure.Usage) int64 { return u.RSS })
			to := map[bool]string{false: "file", true: "block device"}[device]
			fmt.Fprintf(w, "%s, %s\t%s\t%s\t%.2f\t%s\t%.2f\t%.2f\t%.2f\t%d\t\n", s.fs, to, secs(peer), secs(bare),
				ratio(measure.Wall(peer), measure.Wall(bare)), secs(proof), ratio(measure.Wall(peer), measure.Wall(proof)),
				ratio(measure.Wall(proof), measure.Wall(bare)), measure.CPU(proof).Seconds()/(float64(used)/(1<<30)), rss>>20)
		}
	}
	fmt.Fprintln(w, "bars\t\t\t2.50\t\t1.70\t1.40\t2.60\t\t")
	return w.Flush()
}

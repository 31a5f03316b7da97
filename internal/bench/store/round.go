package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bench/measure"
)

// bench is the state of one call.
type bench struct {
	testbox, dir string
	data         data
	without      []string           // tools that are left out
	results      map[string]*result // by tool
	reads        []measure.Usage    // of the used bytes of a.img, twice
}

// result is what was measured of a tool.
type result struct {
	// backups: of a, of a again, of a with 5 % changed (two ways), of b, of NTFS
	first, again, changed, scattered, second, ntfs []measure.Usage
	// of a: to a full disk; ours with read-back; ours to a disk that differs in 5 %
	restore, verified, delta                     []measure.Usage
	sizeA, growAgain, growChanged, growScattered int64 // bytes
	sizeBoth, sizeNTFS                           int64
}

func (b *bench) target() string { return filepath.Join(b.dir, "target") }

func (b *bench) prepare() error {
	if err := measure.Command("cp", "--sparse=never", b.data.path("b.img"), b.target()); err != nil {
		return err
	}
	for _, t := range b.tools() {
		b.results[t.name] = &result{}
	}
	return nil
}

// round lets each tool do all once, step by step, the tools in turns.
func (b *bench) round() error {
	tools := b.tools()
	for _, t := range tools {
		if err := os.RemoveAll(t.dir); err != nil {
			return err
		}
		if err := os.MkdirAll(t.dir, 0o755); err != nil {
			return err
		}
		if t.init != nil {
			if err := t.init(); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	for _, step := range []func(tool, *result) error{b.first, b.again, b.restoreA, b.five, b.fiveScattered, b.secondSystem, b.ntfs} {
		for _, t := range tools {
			if err := step(t, b.results[t.name]); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	if err := b.ours(tools[len(tools)-1]); err != nil {
		return err
	}
	for _, t := range tools {
		if err := os.RemoveAll(t.dir); err != nil {
			return err
		}
	}
	return nil
}

// backup measures a backup, and how much the tool's folder grew.
func (b *bench) backup(t tool, img, name string, to *[]measure.Usage) (grew int64, err error) {
	before, err := measure.Size(t.dir)
	if err != nil {
		return 0, err
	}
	path := b.data.path(img)
	err = t.on(path, func(part string) error {
		u, err := measure.Run(t.backup(path, part, name), path, t.dir)
		*to = append(*to, u)
		fmt.Printf("%-15s %-8s %6.1f s, %6.1f s of processors\n", t.name, img, u.Wall.Seconds(), u.CPU.Seconds())
		return err
	})
	if err != nil {
		return 0, err
	}
	after, err := measure.Size(t.dir)
	return after - before, err
}

func (b *bench) first(t tool, r *result) (err error) {
	r.sizeA, err = b.backup(t, "a.img", "a", &r.first)
	return err
}

// again is the same disk with a newer time, as after a start of the box.
func (b *bench) again(t tool, r *result) (err error) {
	if !t.keeps {
		return nil
	}
	now := time.Now()
	if err := os.Chtimes(b.data.path("a.img"), now, now); err != nil {
		return err
	}
	r.growAgain, err = b.backup(t, "a.img", "a", &r.again)
	return err
}

func (b *bench) five(t tool, r *result) (err error) {
	if !t.keeps {
		return nil
	}
	r.growChanged, err = b.backup(t, "a5.img", "a5", &r.changed)
	return err
}

func (b *bench) fiveScattered(t tool, r *result) (err error) {
	if t.name != "testbox" {
		return nil
	}
	r.growScattered, err = b.backup(t, "a5s.img", "a5s", &r.scattered)
	return err
}

func (b *bench) secondSystem(t tool, r *result) error {
	if t.slow {
		return nil
	}
	grew, err := b.backup(t, "b.img", "b", &r.second)
	r.sizeBoth = r.sizeA + grew
	return err
}

func (b *bench) ntfs(t tool, r *result) (err error) {
	if t.slow || t.keeps && t.name != "testbox" {
		return nil
	}
	r.sizeNTFS, err = b.backup(t, "ntfs.img", "ntfs", &r.ntfs)
	return err
}

func (b *bench) restoreA(t tool, r *result) error {
	return b.restore(t, t.restore, &r.restore)
}

// restore measures a restore of a to a disk that holds something else.
func (b *bench) restore(t tool, how func(target, part, name string) *exec.Cmd, to *[]measure.Usage) error {
	if err := b.spoil(); err != nil {
		return err
	}
	err := t.on(b.target(), func(part string) error {
		u, err := measure.Run(how(b.target(), part, "a"), t.dir)
		*to = append(*to, u)
		fmt.Printf("%-15s restore  %6.1f s, %6.1f s of processors\n", t.name, u.Wall.Seconds(), u.CPU.Seconds())
		return err
	})
	if err != nil {
		return err
	}
	return b.check(t)
}

// spoil makes the target hold the other system.
func (b *bench) spoil() error {
	return measure.Command("dd", "if="+b.data.path("b.img"), "of="+b.target(), "bs=1M", "conv=notrunc", "status=none")
}

// check compares the target with the disk: all of it if the tool keeps all,
// else what is used.
func (b *bench) check(t tool) error {
	want := b.data.path("a.img")
	switch t.name {
	case "testbox":
		return errors.Join(sameUsed(want, b.target()), fsck(b.target()))
	case "partclone|zstd":
		return errors.Join(fsck(b.target()), sameFiles(want, b.target(), readOnly))
	}
	return measure.Command("cmp", want, b.target())
}

// ours measures what only ours does.
func (b *bench) ours(t tool) error {
	r := b.results[t.name]
	with := func(flags ...string) func(target, part, name string) *exec.Cmd {
		return func(target, _, name string) *exec.Cmd {
			args := append([]string{"image", "restore", "--store", t.dir, "--yes", "box-" + name, "sda=" + target}, flags...)
			return exec.Command(b.testbox, args...)
		}
	}
	if err := b.restore(t, with("--full"), &r.verified); err != nil {
		return err
	}
	for range deltas {
		if err := b.delta(t, with()); err != nil {
			return err
		}
	}
	return nil
}

// deltas is how often a round restores what differs: it takes little time.
const deltas = 3

// delta measures a restore to a disk of which 5 % differ, and beside it what it
// takes to read it.
func (b *bench) delta(t tool, how func(target, part, name string) *exec.Cmd) error {
	if err := measure.Command("dd", "if="+b.data.path("a5.img"), "of="+b.target(), "bs=1M", "conv=notrunc", "status=none"); err != nil {
		return err
	}
	u, err := measure.Run(how(b.target(), "", "a"), t.dir, b.target())
	if err != nil {
		return err
	}
	r := b.results[t.name]
	r.delta = append(r.delta, u)
	if err := b.check(t); err != nil {
		return err
	}
	return b.readTwice()
}

// readTwice reads the used bytes of the target twice, as fast as the disk does.
func (b *bench) readTwice() error {
	if err := measure.Uncache(b.target()); err != nil {
		return err
	}
	start := time.Now()
	for range 2 {
		if err := readUsed(b.dir, filepath.Base(b.target())); err != nil {
			return err
		}
	}
	b.reads = append(b.reads, measure.Usage{Wall: time.Since(start)})
	return nil
}

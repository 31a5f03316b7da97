package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/cpu"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

const boxVerb = "simulated-box"

// Command is a process of this program that is a simulated box, started with these
// words. Its disk is a file. The program must call Main first.
func Command(words, disk string, full bool, verify copier.ReadBack) *exec.Cmd {
	return exec.Command("/proc/self/exe", boxVerb, "-words", words, "-disk", disk, fmt.Sprintf("-full=%v", full),
		fmt.Sprintf("-verify=%d", verify))
}

// Main is the process of Command, and does not return there.
func Main() {
	if len(os.Args) < 2 || os.Args[1] != boxVerb {
		return
	}
	cpu.LetDisksBlock()
	f := flag.NewFlagSet(boxVerb, flag.ExitOnError)
	words, path := f.String("words", "", "kernel command line"), f.String("disk", "", "file")
	full, verify := f.Bool("full", false, "write everything"), f.Int("verify", 0, "what is read back")
	f.Parse(os.Args[2:])
	opt := copier.RestoreOptions{Full: *full, Verify: copier.ReadBack(*verify)}
	if err := simulate(context.Background(), *words, *path, opt); err != nil {
		fmt.Fprintln(os.Stderr, boxVerb+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func simulate(ctx context.Context, words, path string, opt copier.RestoreOptions) (err error) {
	a, err := Hello(ctx, words)
	if err != nil {
		return err
	}
	defer a.Close()
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	d := &Disk{Identity: image.Identity{Size: st.Size(), SectorSize: 512, Serial: "BENCH"}}
	dev, err := disk.OpenPath(path, disk.Disk{Name: "sda", Identity: d.Identity}, a.Writes())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	d.Target = dev
	if !a.Writes() {
		if d.Used, err = usedmap.Read(ctx, dev, d.Size, d.SectorSize); err != nil {
			return err
		}
	}
	return a.Act(ctx, d, opt)
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"testbox-imaging/internal/bench/measure"
)

const partStart = 1 << 20 // bytes; behind the partition is the backup GPT

// Types of partitions, as sfdisk wants them.
const (
	linuxType   = "linux"
	windowsType = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
)

// makeDisk makes a disk with one partition and a file system in it.
func makeDisk(img string, size int64, kind, mkfs string) error {
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(img, size); err != nil {
		return err
	}
	cmd := exec.Command("sfdisk", "-q", img)
	cmd.Stdin = strings.NewReader("label: gpt\nstart=2048, type=" + kind + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sfdisk: %w: %s", err, out)
	}
	return withPart(img, func(part string) error {
		args := append(strings.Fields(mkfs), part)
		return measure.Command(args[0], args[1:]...)
	})
}

// withPart gives the partition of a disk as a device.
func withPart(img string, do func(part string) error, flags ...string) error {
	st, err := os.Stat(img)
	if err != nil {
		return err
	}
	size := st.Size() - partStart - (1 << 20)
	return withLoop(img, do, append(flags, "--offset", fmt.Sprint(partStart), "--sizelimit", fmt.Sprint(size))...)
}

// withLoop gives a file as a device. flags are more flags for losetup.
func withLoop(img string, do func(loop string) error, flags ...string) error {
	out, err := exec.Command("losetup", append(append([]string{"--find", "--show"}, flags...), img)...).Output()
	if err != nil {
		return fmt.Errorf("losetup: %w", err)
	}
	loop := strings.TrimSpace(string(out))
	return errors.Join(do(loop), measure.Command("losetup", "--detach", loop))
}

// The ways to mount, as commands without the device and the folder.
const (
	readWrite = "mount"
	readOnly  = "mount -o ro,noload"
	readXFS   = "mount -o ro,norecovery,nouuid"
	ntfs3g    = "ntfs-3g"
)

// mounted gives the files of a disk.
func mounted(img, mount string, do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "testbox-bench.")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	return withPart(img, func(part string) error {
		args := append(strings.Fields(mount), part, dir)
		if err := measure.Command(args[0], args[1:]...); err != nil {
			return err
		}
		return errors.Join(do(dir), measure.Command("umount", dir))
	})
}

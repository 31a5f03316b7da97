package lab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"testbox-imaging/internal/child"
)

// Kernel is a Linux kernel to boot. It has the image and, in loading order, the
// modules for a disk on any Bus with ext4.
type Kernel struct {
	Image   []byte
	Modules [][]byte
}

// KernelModules are the modules that a Kernel needs, without their
// dependencies.
var KernelModules = []string{
	"crc32c_generic", "virtio_pci", "virtio_blk", "ahci", "sd_mod", "nvme", "ext4", "virtio_net", "e1000e", "af_packet", "efivarfs",
}

// OwnSystem is a small real operating system for a testbox's disk. It is made
// of GRUB, the kernel and busybox on ext4. It mounts its root read-only, so no
// byte of the disk changes. At each start it checks all its files. It answers pings at the
// address that DHCP gives to its first network card.
type OwnSystem struct {
	Name   string // a part of the line by which it says that it runs
	Kernel Kernel
	Size   int64 // of the disk in bytes, at least 96 MiB
	Data   int64 // bytes of more files, of which about half do not compress

	Loaders *Loaders // for a machine with UEFI; nil for one with a BIOS
	Sector  int      // bytes of a sector, other than 512 only with UEFI; 0 means 512

	// Makes is a system with UEFI whose boot entry this one makes when it starts, unless the firmware has it. It may be the
	// system itself. The entry becomes the second one, or the first one if First is set: so installers do it.
	Makes *OwnSystem
	First bool

	// Tree is a folder with the root of a whole Debian, which is taken in place of busybox. With UEFI only. It has the name as
	// its host name, and its own kernel.
	Tree string
}

// Up matches the console line by which the system says that it runs and that
// its files are unchanged.
func (o OwnSystem) Up() *regexp.Regexp {
	if o.Tree != "" {
		return regexp.MustCompile(regexp.QuoteMeta(o.Name) + ` login: *$`)
	}
	return regexp.MustCompile(`^testbox own system ` + regexp.QuoteMeta(o.Name) + ` up, files ok$`)
}

// partStart is where the partition begins, in bytes. GRUB's core is before it.
const (
	partStart  = 1 << 20
	sectorSize = 512
)

// MakeDisk writes a disk with the system on it. It uses no loop device and no mount.
func (o OwnSystem) MakeDisk(ctx context.Context, path string) error {
	if o.Tree != "" {
		return o.format(ctx, path, o.Tree)
	}
	tree, err := os.MkdirTemp(filepath.Dir(path), "tree-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := o.makeTree(ctx, tree); err != nil {
		return fmt.Errorf("files of the own system: %w", err)
	}
	if err := o.format(ctx, path, tree); err != nil {
		os.Remove(path)
		return fmt.Errorf("disk of the own system: %w", err)
	}
	return nil
}

func (o OwnSystem) format(ctx context.Context, path, tree string) error {
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(path, o.Size); err != nil {
		return err
	}
	if o.Loaders != nil {
		return o.formatUEFI(ctx, path, tree)
	}
	table := fmt.Sprintf("label: dos\nstart=%d, type=83, bootable\n", partStart/sectorSize)
	if err := run(ctx, table, program("sfdisk"), "--quiet", path); err != nil {
		return err
	}
	if err := o.formatRoot(ctx, path, tree, partStart, o.Size-partStart); err != nil {
		return err
	}
	return o.installGRUB(ctx, path)
}

// formatRoot makes the root's file system in a part of the disk.
func (o OwnSystem) formatRoot(ctx context.Context, path, tree string, from, size int64) error {
	return run(ctx, "", program("mkfs.ext4"), "-q", "-F", "-b", "4096", "-L", o.label(), "-d", tree, "-E",
		fmt.Sprintf("offset=%d", from), path, fmt.Sprint(size/4096))
}

// label is the label of the root, which has at most 16 bytes.
func (o OwnSystem) label() string { return "own-" + o.Name }

// grubDir has GRUB's files for BIOS machines, from Debian's package
// grub-pc-bin.
const grubDir = "/usr/lib/grub/i386-pc"

// installGRUB does for a disk image what grub-install does for a disk. It
// writes boot.img into the first sector, without changing the partition table
// there, and the core behind it.
func (o OwnSystem) installGRUB(ctx context.Context, path string) error {
	conf, core := path+".grub.cfg", path+".core"
	defer os.Remove(conf)
	defer os.Remove(core)
	// The 16-bit entry of the kernel is the one that PXELINUX and old BIOS
	// loaders use. With it the start needs a quarter less of the host's time
	// than with the command "linux".
	script := "linux16 $prefix/vmlinuz console=ttyS0,115200 quiet panic=10 ro\ninitrd16 $prefix/initrd\nboot\n"
	if err := os.WriteFile(conf, []byte(script), 0o644); err != nil {
		return err
	}
	if err := run(ctx, "", "grub-mkimage", "-O", "i386-pc", "-d", grubDir, "-c", conf, "-p", "(,msdos1)/boot", "-o", core, "biosdisk",
		"part_msdos", "ext2", "linux16"); err != nil {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(grubDir, "boot.img"))
	if err != nil {
		return err
	}
	img, err := os.ReadFile(core)
	if err != nil {
		return err
	}
	const code = 440 // bytes of the first sector before the disk signature and the partition table
	if len(boot) < code || len(img) > partStart-sectorSize {
		return errors.New("GRUB's boot.img is too short or its core too long")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(boot[:code], 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(img, sectorSize); err != nil {
		return err
	}
	return f.Close()
}

// HashDisk returns the SHA-256 of a whole disk image, in hexadecimal form.
func HashDisk(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Wreck overwrites a whole disk image with noise.
func Wreck(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.Reader, st.Size()); err != nil {
		return err
	}
	return f.Close()
}

// run runs a program with input as its stdin. The error has what the program
// printed.
func run(ctx context.Context, input string, argv ...string) error {
	cmd := child.Command(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err = child.Err(ctx, err); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, strings.TrimSpace(string(out)))
	}
	return nil
}

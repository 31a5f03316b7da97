package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"testbox-imaging/internal/bench/measure"
)

// The data: two Debian systems, installed separately and not with the same
// packages, each on a disk of 8 GiB with a partition of ext4 that also has what
// the installation wrote and deleted again, 0.7 GB and more; the first again with 5 % of its bytes changed, in
// two ways; a disk with NTFS; and, made only when restores are measured, one
// with XFS and other kinds of files. The disks are sparse files: what was never
// written costs the tools that read it next to nothing, less than on a disk.

const (
	diskSize  = 8 << 30     // bytes
	ntfsSize  = 2 << 30     // bytes
	ntfsData  = 400_000_000 // bytes of files
	xfsData   = 1_500_000_000
	xfsNoise  = 300_000_000 // bytes of a file that cannot be compressed
	changed   = 5           // percent of the files' bytes
	cacheRoot = "/var/cache/testbox/bench"
)

// systems are what is installed; with them the files have 1.3 and 1.8 GB.
var systems = []struct{ name, packages string }{
	{"a", "linux-image-amd64,clang,python3,openssh-server,gdb,perl,cmake,curl,locales"},
	{"b", "linux-image-amd64,build-essential,python3,git,vim,openssh-server,apache2,postgresql,php,emacs-nox,curl,ruby,nodejs,llvm,locales"},
}

// data is where the disks are.
type data struct{ dir string }

func (d data) path(name string) string { return filepath.Join(d.dir, name) }

// makeData makes what is not there yet. It depends on the packages of today,
// but is kept by their names: a benchmark compares programs, not days.
func makeData() (data, error) {
	key := sha256.Sum256(fmt.Append(nil, systems, diskSize, ntfsSize, ntfsData, changed, 3))
	d := data{filepath.Join(cacheRoot, hex.EncodeToString(key[:6]))}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return d, err
	}
	for _, s := range systems {
		if err := d.make(s.name, func(img string) error { return install(img, s.packages) }); err != nil {
			return d, err
		}
	}
	for name, scattered := range map[string]bool{"a5": false, "a5s": true} {
		if err := d.make(name, func(img string) error { return d.change(img, scattered) }); err != nil {
			return d, err
		}
	}
	return d, d.make("ntfs", d.ntfs)
}

// make makes one disk, whole or not at all.
func (d data) make(name string, how func(img string) error) error {
	img := d.path(name + ".img")
	if _, err := os.Stat(img); err == nil {
		return nil
	}
	fmt.Println("making", img)
	part := img + ".part"
	if err := how(part); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", img, err), os.Remove(part))
	}
	return os.Rename(part, img)
}

// install makes a disk with a Debian.
func install(img, packages string) error {
	if err := makeDisk(img, diskSize, linuxType, "mkfs.ext4 -q -F"); err != nil {
		return err
	}
	return mounted(img, readWrite, func(dir string) error {
		args := append([]string{"--variant=important", "--include=" + packages, "bookworm", dir}, aptSources()...)
		return errors.Join(measure.Command("mmdebstrap", args...), measure.Command("sync", "-f", dir))
	})
}

// aptSources are this machine's own.
func aptSources() (out []string) {
	for _, path := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"} {
		if _, err := os.Stat(path); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// ntfs makes the disk with NTFS: files of the first system.
func (d data) ntfs(img string) error {
	if err := makeDisk(img, ntfsSize, windowsType, "mkfs.ntfs -q -f -F -s 512 -p 2048 -H 255 -S 63"); err != nil {
		return err
	}
	return mounted(d.path("a.img"), readOnly, func(from string) error {
		return mounted(img, ntfs3g, func(to string) error {
			files, err := regular(from, "usr")
			return errors.Join(err, copyFiles(from, byHash(files), to, ntfsData), measure.Command("sync", "-f", to))
		})
	})
}

// xfs makes the disk with XFS: files of this machine, and one like a film or an
// archive.
func (d data) xfs(img string) error {
	if err := makeDisk(img, diskSize, linuxType, "mkfs.xfs -q -f"); err != nil {
		return err
	}
	return mounted(img, readWrite, func(to string) error {
		files, err := regular("/", "usr")
		return errors.Join(err, copyFiles("/", byHash(files), to, xfsData), writeNoise(filepath.Join(to, "film"), xfsNoise),
			measure.Command("sync", "-f", to))
	})
}

// writeNoise makes a file of n bytes that cannot be compressed.
func writeNoise(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), n)
	return errors.Join(err, f.Close())
}

// copyFiles copies files from one tree to another until they have size bytes.
func copyFiles(from string, files []string, to string, size int64) error {
	for _, f := range files {
		if size <= 0 {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(from, f))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(to, filepath.Dir(f)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f), data, 0o644); err != nil {
			return err
		}
		size -= int64(len(data))
	}
	return fmt.Errorf("%d bytes too few files", size)
}

package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const (
	diskSize  = 8 << 30       // bytes
	usedSize  = 1_300_000_000 // bytes of files
	staleSize = 700_000_000   // bytes of deleted files
)

// makeDisk makes the disk image without mounting anything: mkfs fills it from
// a folder, in which what shall be stale is one file, and debugfs deletes that.
func makeDisk(path, scratch string) error {
	files, err := usrFiles()
	if err != nil {
		return err
	}
	tree := filepath.Join(scratch, "tree")
	used, rest, err := copyFiles(files, tree, usedSize)
	if err != nil {
		return err
	}
	stale, err := packFiles(rest, filepath.Join(tree, "stale"), staleSize)
	if err != nil {
		return err
	}
	if used < usedSize || stale < staleSize {
		return fmt.Errorf("/usr has only %d bytes of files, too few to fill the disk", used+stale)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, diskSize); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-d", tree, path},
		{"debugfs", "-w", "-R", "rm /stale", path},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", args, err, out)
		}
	}
	return os.RemoveAll(tree)
}

// usrFiles lists the files of /usr in an order that has nothing to do with
// their kinds, but is the same each time.
func usrFiles() (files []string, err error) {
	err = filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return nil // what cannot be read is left out
	})
	key := func(s string) uint64 {
		h := fnv.New64a()
		io.WriteString(h, s)
		return h.Sum64()
	}
	slices.SortFunc(files, func(a, b string) int {
		if key(a) < key(b) {
			return -1
		}
		return 1
	})
	return files, err
}

// copyFiles copies files below dir until they have size bytes.
func copyFiles(files []string, dir string, size int64) (n int64, rest []string, err error) {
	for i, path := range files {
		if n >= size {
			return n, files[i:], nil
		}
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return n, nil, err
		}
		out, err := os.Create(to)
		if err != nil {
			return n, nil, err
		}
		k, err := readInto(out, path)
		if err := errors.Join(err, out.Close()); err != nil {
			return n, nil, err
		}
		n += k
	}
	return n, nil, nil
}

func readInto(w io.Writer, path string) (int64, error) {
	in, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	return io.Copy(w, in)
}

// packFiles puts files into one archive until they have size bytes.
func packFiles(files []string, path string, size int64) (n int64, err error) {
	out, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	w := tar.NewWriter(out)
	for _, f := range files {
		if n >= size {
			break
		}
		st, err := os.Stat(f)
		if err != nil {
			return n, errors.Join(err, out.Close())
		}
		err = w.WriteHeader(&tar.Header{Name: f, Size: st.Size(), Mode: 0o644})
		if err == nil {
			var k int64
			k, err = readInto(w, f)
			n += k
		}
		if err != nil {
			return n, errors.Join(err, out.Close())
		}
	}
	return n, errors.Join(w.Close(), out.Close())
}

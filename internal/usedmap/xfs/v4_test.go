package xfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// Version 4 cannot be mounted by kernels of today. So the files are put in by
// mkfs, and half of them taken away by xfs_repair, which finds their inodes
// destroyed; the rest must be found in the image, by their bytes.
func TestVersion4(t *testing.T) {
	for _, args := range []string{
		"", "-l version=1,lazy-count=0 -n ftype=0 -b size=512 -i size=256", "-d agcount=3 -s size=4096", "-b size=65536 -n version=ci -l su=64k",
	} {
		t.Run(args, func(t *testing.T) {
			testenv.Root(t)
			proto, files := protofile(t, 1200)
			img := realfs.XFS.Make(t, 160*mib, append(strings.Fields("-m crc=0 "+args), "-p", proto)...)
			files = destroySome(t, img, files)
			found, err := realfs.Map(t, img, Read)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(found.Free.Ranges()); n < 200 {
				t.Errorf("it is in %d pieces only", n)
			}
			lists := sameAsDB(t, img, found)
			if surplus := realfs.XFS.Surplus(t, img, found.Free.Ranges()); surplus > lists {
				t.Errorf("%d bytes are used here and not for partclone; free lists have %d", surplus, lists)
			}
			realfs.Noise(t, img, found.Free.Ranges())
			realfs.XFS.MustCheck(t, img)
			if n := contents(t, img, files); n < len(files) {
				t.Errorf("of %d files there are %d", len(files), n)
			}
		})
	}
}

// protofile makes files, and the file that tells mkfs of them.
func protofile(t *testing.T, n int) (proto string, files [][]byte) {
	dir := t.TempDir()
	text := "/\n0 0\nd--755 0 0\n"
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		data := make([]byte, 40+rnd.IntN(9000))
		for j := range data {
			data[j] = byte(rnd.Uint32())
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
		text += fmt.Sprintf("f%d ---644 0 0 %s\n", i, path)
	}
	proto = filepath.Join(dir, "proto")
	if err := os.WriteFile(proto, []byte(text+"$\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return proto, files
}

// destroySome takes every second file away, and gives the others.
func destroySome(t *testing.T, img string, files [][]byte) (left [][]byte) {
	t.Helper()
	var inodes, names []string
	for _, line := range strings.Split(realfs.Run(t, "xfs_db", "-r", "-c", "ls /", img), "\n") {
		if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[len(f)-2], "f") {
			inodes, names = append(inodes, f[1]), append(names, f[len(f)-2])
		}
	}
	if len(inodes) < 1000 {
		t.Fatalf("xfs_db finds %d files", len(inodes))
	}
	args := []string{"-x"}
	for i, name := range names {
		if i%2 == 0 {
			args = append(args, "-c", "inode "+inodes[i], "-c", "write core.mode 0")
			continue
		}
		n, err := strconv.Atoi(name[1:])
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, files[n])
	}
	realfs.Run(t, "xfs_db", append(args, img)...)
	realfs.Run(t, "xfs_repair", img)
	return left
}

// contents is how many of the files stand in the image.
func contents(t *testing.T, img string, files [][]byte) (n int) {
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	// Files begin at blocks of at least 512 bytes.
	starts := map[[16]byte]int{}
	for i := 0; i < len(data); i += 512 {
		starts[[16]byte(data[i:])] = i
	}
	for _, f := range files {
		if at, ok := starts[[16]byte(f)]; ok && bytes.HasPrefix(data[at:], f) {
			n++
		}
	}
	return n
}

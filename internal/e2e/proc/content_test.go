package proc

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/e2e/contents"
)

const mib = 1 << 20

// What the tests make disks of, by short names.
var (
	noise, prose, writeAt, run, mkfsExt4 = contents.Noise, contents.Prose, contents.WriteAt, contents.Run, contents.MkfsExt4

	mdHalf, lvmPV, hibernatedSwap, dirtyExt4 content = contents.MDHalf, contents.LVMPV, contents.HibernatedSwap, contents.DirtyExt4
)

// content fills the disk-image file at path, which has its size and is zeros.
type content func(t testing.TB, path string)

// scattered is noise, text and zeros by turns: each piece of an image is of
// another kind, and the first and last MiB have something in them.
func scattered(seed uint64) content {
	return func(t testing.TB, path string) {
		t.Helper()
		st, err := os.Stat(path)
		must(t, err)
		for off := int64(0); off < st.Size(); off += 3 * mib / 2 {
			writeAt(t, path, off, noise(seed+uint64(off), 300<<10))
			writeAt(t, path, off+512<<10, prose(seed+uint64(off), 400<<10))
		}
		writeAt(t, path, st.Size()-5000, noise(seed+1, 5000))
	}
}

// gptExt4 is a GPT with a small partition of text and an ext4 with files.
func gptExt4(seed uint64) content {
	return func(t testing.TB, path string) {
		t.Helper()
		run(t, "label: gpt\nstart=2048, size=2048, type=linux\nstart=4096, type=linux\n", "sfdisk", "-q", path)
		writeAt(t, path, mib, prose(seed, 700<<10))
		st, err := os.Stat(path)
		must(t, err)
		mkfsExt4(t, path, 2*mib, st.Size()-4*mib, seed)
	}
}

// partitions is a GPT disk with a partition of 12 MiB for each content.
func partitions(fill ...content) content {
	return func(t testing.TB, path string) {
		t.Helper()
		table := "label: gpt\n"
		for range fill {
			table += "size=12MiB, type=linux\n"
		}
		run(t, table, "sfdisk", "-q", path)
		for i, f := range fill {
			part := filepath.Join(tempDir(t), "part")
			must(t, os.WriteFile(part, nil, 0o644))
			must(t, os.Truncate(part, 12*mib))
			f(t, part)
			data, err := os.ReadFile(part)
			must(t, err)
			writeAt(t, path, mib+int64(i)*12*mib, data)
		}
	}
}

// mount mounts a device with an ext4, read-only, until the test ends.
func mount(t testing.TB, dev string) {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount(dev, dir, "ext4", unix.MS_RDONLY, "noload"))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// plainExt4 is an ext4 without a partition table.
func plainExt4(seed uint64) content {
	return func(t testing.TB, path string) {
		t.Helper()
		st, err := os.Stat(path)
		must(t, err)
		mkfsExt4(t, path, 0, st.Size(), seed)
	}
}

package maintenance

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// entry is a file, folder or device node of an initramfs.
type entry struct {
	path string // relative, with slashes
	mode uint32 // type and permissions, as in stat(2)
	data []byte
	rdev [2]uint32 // major and minor number of a device node
}

// File types of stat(2).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

// writeCPIO writes entries in the newc format that the kernel reads
// (Documentation/driver-api/early-userspace/buffer-format.rst). It adds the
// folders that entries need, sorts everything, and sets all times to zero. So
// the same entries always give the same bytes.
func writeCPIO(w io.Writer, entries []entry) error {
	all := withFolders(entries)
	c := &cpioWriter{w: w}
	for i, e := range all {
		if i > 0 && e.path == all[i-1].path {
			return fmt.Errorf("initramfs has %s twice", e.path)
		}
		c.entry(e, uint32(i+1))
	}
	c.entry(entry{path: "TRAILER!!!"}, 0)
	return c.err
}

// withFolders adds the folders above the entries and sorts everything, so that
// a folder comes before its contents.
func withFolders(entries []entry) []entry {
	all := slices.Clone(entries)
	have := map[string]bool{}
	for _, e := range entries {
		have[e.path] = true
	}
	for _, e := range entries {
		for i, c := range e.path {
			if dir := e.path[:i]; c == '/' && !have[dir] {
				have[dir] = true
				all = append(all, entry{path: dir, mode: modeDir | 0o755})
			}
		}
	}
	// Compare by path elements, so that "a/b" comes before "a-b", although '-'
	// sorts before '/'.
	slices.SortStableFunc(all, func(a, b entry) int {
		return cmp.Compare(strings.ReplaceAll(a.path, "/", "\x00"), strings.ReplaceAll(b.path, "/", "\x00"))
	})
	return all
}

type cpioWriter struct {
	w   io.Writer
	n   int64 // bytes written
	err error
}

func (c *cpioWriter) entry(e entry, inode uint32) {
	nlink := uint32(1)
	if e.mode&modeDir != 0 {
		nlink = 2
	}
	if int64(len(e.data)) > 1<<32-1 {
		c.err = fmt.Errorf("initramfs: %s is too large", e.path)
	}
	head := "070701"
	for _, v := range []uint32{inode, e.mode, 0, 0, nlink, 0, uint32(len(e.data)), 0, 0, e.rdev[0], e.rdev[1], uint32(len(e.path) + 1), 0} {
		head += fmt.Sprintf("%08X", v)
	}
	c.write([]byte(head + e.path + "\x00"))
	c.pad()
	c.write(e.data)
	c.pad()
}

func (c *cpioWriter) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
		c.n += int64(len(b))
	}
}

// pad writes zeros up to a multiple of four bytes.
func (c *cpioWriter) pad() { c.write(make([]byte, -c.n&3)) }

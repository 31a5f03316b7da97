package ext

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// debugfs runs commands that write.
func debugfs(t *testing.T, img string, commands ...string) {
	t.Helper()
	cmd := exec.Command("/usr/sbin/debugfs", "-w", "-f", "-", img)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), ": ") && strings.Contains(string(out), "rror") {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
}

// TestClaims: a block that an inode has and its bitmap calls free is doubt. So
// is each situation that e2fsck mends by giving a block back to a file.
func TestClaims(t *testing.T) {
	testenv.Tools(t, "mke2fs", "debugfs", "e2fsck")
	const put = 12 // the first inode behind lost+found: file big
	set := func(field string) func(free int64) []string {
		return func(free int64) []string {
			return []string{fmt.Sprintf("set_inode_field <%d> %s %d", put, field, free)}
		}
	}
	for _, c := range []struct {
		name, args string
		change     func(free int64) []string
		inode      int
	}{
		{"extent", "-b 1024", set("block[5]"), put},
		{"extent, bigalloc", "-b 1024 -O bigalloc -C 16384", set("block[5]"), put},
		{"extent, no checksums", "-b 1024 -O ^metadata_csum", set("block[5]"), put},
		{"extent block", "-b 1024", func(free int64) []string {
			return []string{fmt.Sprintf("set_inode_field <%d> block[0] %d", put, 0x0001F30A),
				fmt.Sprintf("set_inode_field <%d> block[1] %d", put, 0x00010004),
				fmt.Sprintf("set_inode_field <%d> block[4] %d", put, free)}
		}, put},
		{"direct", "-b 1024 -t ext2", set("block[3]"), put},
		{"indirect", "-b 1024 -t ext2", set("block[IND]"), put},
		{"double indirect", "-b 1024 -t ext3", set("block[DIND]"), put},
		{"triple indirect", "-b 1024 -t ext3", set("block[TIND]"), put},
		{"attributes", "-b 1024", set("file_acl"), put},
		{"attributes of a pipe", "-b 1024", func(free int64) []string {
			return []string{"mknod pipe p", fmt.Sprintf("set_inode_field pipe file_acl %d", free)}
		}, 14},
		{"folder", "-b 1024 -t ext2", func(free int64) []string { return []string{fmt.Sprintf("set_inode_field <2> block[0] %d", free)} }, 2},
		{"resize inode", "-b 1024", func(free int64) []string { return []string{fmt.Sprintf("set_inode_field <7> block[DIND] %d", free)} }, 7},
		{"bad blocks", "-b 1024 -t ext2", func(free int64) []string { return []string{fmt.Sprintf("set_inode_field <1> block[0] %d", free)} }, 1},
		{"quota", "-b 1024 -O quota", func(free int64) []string { return []string{fmt.Sprintf("set_inode_field <3> block[5] %d", free)} }, 3},
		{"outside", "-b 1024 -t ext2", func(int64) []string { return []string{fmt.Sprintf("set_inode_field <%d> block[0] 99999999", put)} }, put},
		{"checksum", "-b 1024", func(int64) []string { return []string{fmt.Sprintf("set_inode_field <%d> checksum 12345", put)} }, put},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			big := filepath.Join(t.TempDir(), "big")
			if err := os.WriteFile(big, bytes.Repeat([]byte("big"), 250<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			img := realfs.Ext.Make(t, 24*mib, strings.Fields(c.args)...)
			debugfs(t, img, "write "+big+" big", "write "+big+" other")
			if strings.Contains(c.args, "quota") {
				exec.Command("/usr/sbin/e2fsck", "-fy", img).Run()
			}
			found, err := realfs.Map(t, img, Read)
			if err != nil || len(found.Notes) > 0 {
				t.Fatal(err, found.Notes)
			}
			free := found.Free.Ranges()
			debugfs(t, img, c.change(free[len(free)-1].Off/1024+32)...)
			if err := exec.Command("/usr/sbin/e2fsck", "-fn", img).Run(); err == nil {
				t.Fatal("e2fsck finds nothing to mend")
			}
			_, err = realfs.Map(t, img, Read)
			if want := fmt.Sprintf("inode %d: ", c.inode); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// TestClaimsInside: pointers and extents in blocks of their own are held
// against the bitmap too.
func TestClaimsInside(t *testing.T) {
	base := small(t, 24*mib, "-b 1024 -t ext2")
	f := opened(t, base)
	found, err := readPacked(base)
	if err != nil {
		t.Fatal(err)
	}
	free := found.Free.Ranges()
	last := free[len(free)-1].Off/1024 + 32
	resize := int64(f.groups[0].inodeTable)*1024 + 6*int64(f.sb.inodeSize)
	raw := make([]byte, 4)
	base.ReadAt(raw, resize+0x28+4*13)
	dind := int64(le.Uint32(raw))
	base.WriteAt(le.AppendUint32(nil, uint32(last)), dind*1024+4*40)
	if _, err := readPacked(base); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("inode 7: its bitmap calls block %d free", last)) {
		t.Errorf("a pointer in a block of the resize inode: %v", err)
	}
	if err := (&claims{f: f, free: free}).walk(true); err != nil {
		t.Error(err)
	}
	c := &claims{f: f, free: free}
	if err := c.walk(true); err != nil || len(c.queue) == 0 {
		t.Errorf("%v, %d blocks to be read", err, len(c.queue))
	}
	if err := c.drain(); err == nil {
		t.Error("the file system's own inodes alone were not held against the bitmaps")
	}
}

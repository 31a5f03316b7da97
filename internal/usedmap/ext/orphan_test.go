package ext

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/realfs"
)

// An orphan with links is a file whose truncation was cut off. e2fsck ends it
// from the first block on, and not from the last one as the kernel does. So it
// splits an extent for a moment. If the inode has no room for one more extent,
// e2fsck allocates a block for them. This block is free in the map, and that is
// right, because e2fsck writes it before it reads it.
func TestOrphanGrows(t *testing.T) {
	img := filepath.Join(reflinks(t), "cut-orphan")
	realfs.Run(t, "cp", realfs.Ext.Make(t, 24*mib, "-b", "1024"), img)
	found, err := realfs.Map(t, img, Read)
	if err != nil {
		t.Fatal(err)
	}
	// Four extents are all that an inode has room for. The last one is to be
	// cut in its middle. The gap is where e2fsck looks for a free block.
	const piece, gap, size = 8, 4, (6*8 + 2) << 10
	plain, sparse := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "sparse")
	data := append(bytes.Repeat([]byte("data"), piece<<10/4), make([]byte, piece<<10)...)
	os.WriteFile(plain, bytes.Repeat(data, 4), 0o600)
	realfs.Run(t, "cp", "--sparse=always", plain, sparse)
	at := found.Free.Ranges()[0].Off>>10 + piece
	commands := []string{fmt.Sprintf("setb %d %d", at, gap), "write " + sparse + " file"}
	for i := range 5 { // a proof needs some files
		commands = append(commands, fmt.Sprintf("write %s other-%d", sparse, i))
	}
	debugfs(t, img, append(commands, fmt.Sprintf("freeb %d %d", at, gap), fmt.Sprintf("set_inode_field file size %d", size),
		"set_inode_field file dtime 0", "set_super_value last_orphan 12",
		fmt.Sprint("set_super_value state ", stateValid|stateOrphan))...)
	if found, err = realfs.Map(t, img, Read); err != nil {
		t.Fatal(err)
	}
	ended := img + ".ended"
	reflink(t, img, ended)
	said := repair(ended)
	for _, r := range now(t, ended).Ranges() {
		found.Free.Cut(r.Off, r.Len)
	}
	if found.Free.Bytes() != 1024 {
		t.Errorf("e2fsck allocates %d bytes, so this proves nothing:\n%s", found.Free.Bytes(), said)
	}
	for _, byKernel := range []bool{false, true} {
		(&score{}).survive(t, img, byKernel)
	}
}

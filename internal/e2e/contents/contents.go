// Package contents makes contents of disks that Linux likes to write to as soon as
// it sees them: an array to assemble, a volume group to activate, a system to
// resume, a journal to replay. Test only.
package contents

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

const mib = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Noise gives n bytes that do not compress, the same for the same seed.
func Noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Prose gives n bytes that compress like text, the same for the same seed.
func Prose(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of a log that says %d\n", b.Len(), r.IntN(1000))
	}
	return b.Bytes()[:n]
}

// WriteAt writes b at off, cut at the file's end.
func WriteAt(t testing.TB, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	if room := st.Size() - off; room < int64(len(b)) {
		b = b[:max(room, 0)]
	}
	_, err = f.WriteAt(b, off)
	must(t, err)
}

// Run runs a program that must succeed, and gives what it printed.
func Run(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	testenv.Tools(t, name)
	if _, err := exec.LookPath(name); err != nil {
		name = "/usr/sbin/" + name
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// plainExt4 fills the whole file with an ext4.
func plainExt4(t testing.TB, path string) {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	MkfsExt4(t, path, 0, st.Size(), 77)
}

// MkfsExt4 makes an ext4 of size bytes at off, with a few files.
func MkfsExt4(t testing.TB, path string, off, size int64, seed uint64) {
	t.Helper()
	tree := t.TempDir()
	for i := range uint64(8) {
		dir := filepath.Join(tree, fmt.Sprintf("dir%d", i))
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "text"), Prose(seed+i, 150<<10), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "noise"), Noise(seed+i, 60<<10), 0o644))
	}
	Run(t, "", "mkfs.ext4", "-q", "-F", "-O", "^resize_inode", "-E", fmt.Sprintf("offset=%d,nodiscard", off),
		"-d", tree, path, fmt.Sprintf("%dk", size>>10))
}

// DirtyExt4 is an ext4 as a power cut leaves it: to be recovered from its
// journal, and not cleanly unmounted (linux/fs/ext4/ext4.h: the superblock is
// at 1024, s_state at 58 with bit 0 "clean", s_feature_incompat at 96 with bit 2
// "needs recovery").
func DirtyExt4(t testing.TB, path string) {
	t.Helper()
	plainExt4(t, path)
	sb, err := os.ReadFile(path)
	must(t, err)
	state := binary.LittleEndian.Uint16(sb[1024+58:])
	incompat := binary.LittleEndian.Uint32(sb[1024+96:])
	WriteAt(t, path, 1024+58, binary.LittleEndian.AppendUint16(nil, state&^1))
	WriteAt(t, path, 1024+96, binary.LittleEndian.AppendUint32(nil, incompat|4))
}

// HibernatedSwap is a swap area that holds a suspended system: the signature
// of the page is replaced (linux/kernel/power/swap.c), the image follows.
func HibernatedSwap(t testing.TB, path string) {
	t.Helper()
	Run(t, "", "mkswap", "-q", path)
	WriteAt(t, path, 4096-10, []byte("S1SUSPEND\x00"))
	WriteAt(t, path, 4096, Noise(5, 2*mib))
}

// LVMPV is an LVM physical volume with a volume group, made by LVM itself on a
// loop device.
func LVMPV(t testing.TB, path string) {
	t.Helper()
	dev := strings.TrimSpace(Run(t, "", "losetup", "--find", "--show", path))
	defer Run(t, "", "losetup", "--detach", dev)
	Run(t, "", "pvcreate", "-q", "-ff", "-y", "--devices", dev, dev)
	Run(t, "", "vgcreate", "-q", "-An", "--devices", dev, fmt.Sprintf("e2e%d", os.Getpid()), dev)
	WriteAt(t, path, 4*mib, Noise(6, 2*mib))
}

// MDHalf is one half of a RAID 1, metadata 1.2 at 4 KiB, by the layout of
// struct mdp_superblock_1 in linux/raid/md_p.h, since the kernel may have no md.
func MDHalf(t testing.TB, path string) {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	const devs = 2
	sb := make([]byte, 256+2*devs)
	le := binary.LittleEndian
	le.PutUint32(sb[0:], 0xa92b4efc)
	le.PutUint32(sb[4:], 1) // major version
	copy(sb[16:], Noise(1, 16))
	copy(sb[32:], "box:0")
	le.PutUint64(sb[64:], 1700000000)
	le.PutUint32(sb[72:], 1) // level
	sectors := uint64(st.Size()/512 - 2048)
	le.PutUint64(sb[80:], sectors)
	le.PutUint32(sb[92:], devs)
	le.PutUint64(sb[128:], 2048) // data offset
	le.PutUint64(sb[136:], sectors)
	le.PutUint64(sb[144:], 8) // of this superblock
	copy(sb[168:], Noise(2, 16))
	le.PutUint64(sb[192:], 1700000000)
	le.PutUint64(sb[200:], 3)          // events
	le.PutUint64(sb[208:], ^uint64(0)) // resync is done
	le.PutUint32(sb[220:], devs)
	le.PutUint16(sb[256:], 0)
	le.PutUint16(sb[258:], 1)
	le.PutUint32(sb[216:], mdChecksum(sb))
	WriteAt(t, path, 4096, sb)
	WriteAt(t, path, mib, Noise(3, 2*mib))
}

// mdChecksum is the sum of the superblock's words with its own field zero.
func mdChecksum(sb []byte) uint32 {
	sum := uint64(0)
	for i := 0; i+4 <= len(sb); i += 4 {
		sum += uint64(binary.LittleEndian.Uint32(sb[i:]))
	}
	return uint32(sum) + uint32(sum>>32)
}

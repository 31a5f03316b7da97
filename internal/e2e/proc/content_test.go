package proc

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

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/testenv"
)

const mib = 1 << 20

// content fills the disk-image file at path, which has its size and is zeros.
type content func(t testing.TB, path string)

// noise gives n bytes that do not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// prose gives n bytes that compress like text, the same for the same seed.
func prose(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of a log that says %d\n", b.Len(), r.IntN(1000))
	}
	return b.Bytes()[:n]
}

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

// writeAt writes b at off, cut at the file's end.
func writeAt(t testing.TB, path string, off int64, b []byte) {
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

// run runs a program that must succeed, and gives what it printed.
func run(t testing.TB, stdin, name string, args ...string) string {
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

// plainExt4 is an ext4 without a partition table.
func plainExt4(seed uint64) content {
	return func(t testing.TB, path string) {
		t.Helper()
		st, err := os.Stat(path)
		must(t, err)
		mkfsExt4(t, path, 0, st.Size(), seed)
	}
}

// mkfsExt4 makes an ext4 of size bytes at off, with a few files.
func mkfsExt4(t testing.TB, path string, off, size int64, seed uint64) {
	t.Helper()
	tree := t.TempDir()
	for i := range uint64(8) {
		dir := filepath.Join(tree, fmt.Sprintf("dir%d", i))
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "text"), prose(seed+i, 150<<10), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "noise"), noise(seed+i, 60<<10), 0o644))
	}
	run(t, "", "mkfs.ext4", "-q", "-F", "-O", "^resize_inode", "-E", fmt.Sprintf("offset=%d,nodiscard", off),
		"-d", tree, path, fmt.Sprintf("%dk", size>>10))
}

// dirtyExt4 is an ext4 as a power cut leaves it: to be recovered from its
// journal, and not cleanly unmounted (linux/fs/ext4/ext4.h: the superblock is
// at 1024, s_state at 58 with bit 0 "clean", s_feature_incompat at 96 with bit 2
// "needs recovery").
func dirtyExt4(t testing.TB, path string) {
	t.Helper()
	plainExt4(77)(t, path)
	sb, err := os.ReadFile(path)
	must(t, err)
	state := binary.LittleEndian.Uint16(sb[1024+58:])
	incompat := binary.LittleEndian.Uint32(sb[1024+96:])
	writeAt(t, path, 1024+58, binary.LittleEndian.AppendUint16(nil, state&^1))
	writeAt(t, path, 1024+96, binary.LittleEndian.AppendUint32(nil, incompat|4))
}

// hibernatedSwap is a swap area that holds a suspended system: the signature
// of the page is replaced (linux/kernel/power/swap.c), the image follows.
func hibernatedSwap(t testing.TB, path string) {
	t.Helper()
	run(t, "", "mkswap", "-q", path)
	writeAt(t, path, 4096-10, []byte("S1SUSPEND\x00"))
	writeAt(t, path, 4096, noise(5, 2*mib))
}

// lvmPV is an LVM physical volume, made by LVM itself on a loop device.
func lvmPV(t testing.TB, path string) {
	t.Helper()
	dev := loop(t, path, 512, false, 0, 0)
	run(t, "", "pvcreate", "-q", "-ff", "-y", "--devices", dev, dev)
	run(t, "", "vgcreate", "-q", "-An", "--devices", dev, fmt.Sprintf("e2e%d", os.Getpid()), dev)
	writeAt(t, path, 4*mib, noise(6, 2*mib))
}

// mdHalf is one half of a RAID 1, metadata 1.2 at 4 KiB, by the layout of
// struct mdp_superblock_1 in linux/raid/md_p.h, since the kernel may have no md.
func mdHalf(t testing.TB, path string) {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	const devs = 2
	sb := make([]byte, 256+2*devs)
	le := binary.LittleEndian
	le.PutUint32(sb[0:], 0xa92b4efc)
	le.PutUint32(sb[4:], 1) // major version
	copy(sb[16:], noise(1, 16))
	copy(sb[32:], "box:0")
	le.PutUint64(sb[64:], 1700000000)
	le.PutUint32(sb[72:], 1) // level
	sectors := uint64(st.Size()/512 - 2048)
	le.PutUint64(sb[80:], sectors)
	le.PutUint32(sb[92:], devs)
	le.PutUint64(sb[128:], 2048) // data offset
	le.PutUint64(sb[136:], sectors)
	le.PutUint64(sb[144:], 8) // of this superblock
	copy(sb[168:], noise(2, 16))
	le.PutUint64(sb[192:], 1700000000)
	le.PutUint64(sb[200:], 3)          // events
	le.PutUint64(sb[208:], ^uint64(0)) // resync is done
	le.PutUint32(sb[220:], devs)
	le.PutUint16(sb[256:], 0)
	le.PutUint16(sb[258:], 1)
	le.PutUint32(sb[216:], mdChecksum(sb))
	writeAt(t, path, 4096, sb)
	writeAt(t, path, mib, noise(3, 2*mib))
}

// mdChecksum is the sum of the superblock's words with its own field zero.
func mdChecksum(sb []byte) uint32 {
	sum := uint64(0)
	for i := 0; i+4 <= len(sb); i += 4 {
		sum += uint64(binary.LittleEndian.Uint32(sb[i:]))
	}
	return uint32(sum) + uint32(sum>>32)
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

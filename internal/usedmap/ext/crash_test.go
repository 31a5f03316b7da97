package ext

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// busyKinds are file systems whose power is cut while they are busy.
var busyKinds = []struct{ name, mkfs, mount string }{
	{"ordered", "-b 4096 -g 1024", ""},
	{"ordered 1k small journal", "-b 1024 -J size=1", "commit=1"},
	{"writeback no csum", "-O ^metadata_csum", "data=writeback"},
	{"journal", "-b 1024 -J size=4", "data=journal"},
	{"journal no csum", "-b 4096 -O ^metadata_csum,^64bit -J size=4", "data=journal"},
	{"csum v1", "-O ^metadata_csum -b 1024 -J size=4", "journal_checksum"},
	{"bigalloc", "-b 4096 -O bigalloc -C 16384 -J size=4", ""},
	{"ext3", "-t ext3 -b 1024 -J size=2", "discard"},
	{"async", "-b 2048 -J size=4", "journal_async_commit,data=writeback"},
	{"async csum v1", "-b 1024 -O ^metadata_csum -J size=4", "journal_async_commit,data=writeback"},
	{"fast_commit", "-O fast_commit -J size=8", ""},
	{"orphan_file meta_bg", "-b 1024 -O orphan_file,meta_bg,^resize_inode,^flex_bg -J size=2", "nodelalloc"},
}

// rounds is how many power cuts each kind has. It is n, or the number in
// EXT_CUTS. With EXT_KEEP the cuts that fail are copied to that folder.
func rounds(n int) int {
	var more int
	if fmt.Sscan(os.Getenv("EXT_CUTS"), &more); more > 0 {
		return more
	}
	return n
}

// A batch of cuts is made of one file system and proved before the next one
// begins, because hundreds of cuts at once have no room.
const batch = 4

// batches calls do for so many batches that they have n cuts, with the number
// of each batch's first cut. It returns how many cuts there really are. Each
// batch is a test of its own, so that the others run after one has failed.
func batches(t *testing.T, n int, do func(t *testing.T, from int)) int {
	done := 0
	for ; done < n; done += batch {
		t.Run(fmt.Sprint("from-", done), func(t *testing.T) { do(t, done) })
	}
	return done
}

// The bench:
//
//	XFS in a file in memory, mounted
//	  disk: ext4, mounted by loop, kept busy by writers
//	  cut-0, cut-1, ...: reflinks of disk at random moments, each a power cut
//	each: map; noise over the free of a copy; recover both; the same?
func TestPowerCuts(t *testing.T) {
	dir := reflinks(t)
	var wrapped atomic.Int64
	t.Run("kinds", func(t *testing.T) { cutAll(t, dir, &wrapped) })
	if wrapped.Load() == 0 {
		t.Error("no log went around the end of its journal")
	}
	t.Logf("%d logs went around the end of their journal", wrapped.Load())
}

func cutAll(t *testing.T, dir string, wrapped *atomic.Int64) {
	for i, k := range busyKinds {
		t.Run(strings.ReplaceAll(k.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			sub := filepath.Join(dir, fmt.Sprint(i))
			os.Mkdir(sub, 0o700)
			disk := filepath.Join(sub, "disk")
			kind := realfs.Ext
			kind.Mount = []string{"mount", "-o", strings.TrimSuffix("loop,"+k.mount, ","), "IMG", "DIR"}
			s := &score{}
			n := batches(t, rounds(4), func(t *testing.T, _ int) {
				os.WriteFile(disk, nil, 0o600)
				os.Truncate(disk, 48*mib)
				realfs.Ext.Format(t, disk, strings.Fields(k.mkfs)...)
				kind.Mounted(t, disk, func(mnt string) {
					stop := keepBusy(mnt, 4)
					defer stop()
					begin(mnt)
					for c := range batch {
						time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond)
						reflink(t, disk, filepath.Join(sub, fmt.Sprint("cut-", c)))
					}
				})
				for c := range batch {
					cut := filepath.Join(sub, fmt.Sprint("cut-", c))
					s.survive(t, cut, c%2 == 0)
					os.Remove(cut)
				}
			})
			wrapped.Add(int64(s.wrapped))
			t.Logf("%d cuts: %d in doubt (%v), %d with a log, %d bytes more than after a replay", n, len(s.doubts), s.doubts, s.replayed, s.surplus)
			if k.name != "fast_commit" && len(s.doubts) > 0 {
				t.Errorf("in doubt: %v", s.doubts)
			}
			if k.name != "fast_commit" && s.replayed == 0 {
				t.Error("no journal was replayed")
			}
		})
	}
}

// score counts what came of power cuts.
type score struct {
	broken   bool // the file system may be damaged by more than the power cut
	doubts   []string
	replayed int
	wrapped  int // of them, logs that go around the end of the journal
	surplus  int64
}

// survive proves one power cut. Recovered by the kernel or by e2fsck, the file
// system must be the same with noise over what is free.
func (s *score) survive(t *testing.T, cut string, byKernel bool) {
	t.Helper()
	defer keepFailed(t, cut)
	found, err := realfs.Map(t, cut, Read)
	if err != nil {
		s.doubts = append(s.doubts, err.Error())
		return
	}
	if len(found.Notes) > 0 {
		s.replayed++
	}
	if wraps(t, cut) {
		s.wrapped++
	}
	s.compareReplay(t, cut, found.Free)
	plain, noised := cut+".plain", cut+".noised"
	reflink(t, cut, plain)
	reflink(t, cut, noised)
	realfs.Noise(t, noised, found.Free.Ranges())
	same := func(a, b, what string) {
		if a != b {
			t.Fatalf("%s: %s differs:\n%s\nwith noise:\n%s", cut, what, a, b)
		}
	}
	if !byKernel {
		same(repair(plain), repair(noised), "what e2fsck did")
	}
	want, got := realfs.Ext.Files(t, plain), realfs.Ext.Files(t, noised)
	if diff := want.Diff(got); diff != "" || len(want) < 5 {
		t.Fatalf("%s: %d files, with noise:\n%s", cut, len(want), diff)
	}
	same(check(plain), check(noised), "what e2fsck found")
	if out := check(noised); !strings.HasPrefix(out, "<nil>") {
		if !s.broken {
			t.Fatalf("%s: after recovery: %s", cut, out)
		}
		same(repair(plain), repair(noised), "what e2fsck did")
		if diff := realfs.Ext.Files(t, plain).Diff(realfs.Ext.Files(t, noised)); diff != "" {
			t.Fatalf("%s: repaired, with noise:\n%s", cut, diff)
		}
	}
	os.Remove(plain)
	os.Remove(noised)
}

// keepFailed copies a cut whose proof failed to the folder EXT_KEEP.
func keepFailed(t *testing.T, cut string) {
	if dir := os.Getenv("EXT_KEEP"); dir != "" && t.Failed() {
		name := strings.ReplaceAll(t.Name(), "/", "_") + "-" + filepath.Base(cut)
		realfs.Run(t, "cp", "--sparse=always", cut, filepath.Join(dir, name))
	}
}

// compareReplay compares with the replay of e2fsprogs on a copy, the oracle:
// the bitmaps must be those, and all that is free must be free there.
func (s *score) compareReplay(t *testing.T, cut string, free *volume.Free) {
	t.Helper()
	replayed := cut + ".replayed"
	reflink(t, cut, replayed)
	defer os.Remove(replayed)
	replayOnly(t, replayed)
	want, got := now(t, replayed), now(t, cut)
	if !slices.Equal(want.Ranges(), got.Ranges()) {
		t.Fatalf("%s: the replay has other bitmaps: %d bytes free, here %d", cut, want.Bytes(), got.Bytes())
	}
	s.surplus += want.Bytes() - free.Bytes()
	for _, r := range want.Ranges() {
		free.Cut(r.Off, r.Len)
	}
	if free.Bytes() != 0 {
		t.Fatalf("%s: %v are free that are not after a replay", cut, free.Ranges())
	}
	f, err := realfs.Map(t, cut, Read) // it was cut
	if err != nil {
		t.Fatal(err)
	}
	*free = *f.Free
}

// replayOnly replays the journal with the code of e2fsck, but does nothing else.
// e2fsck itself, even if it is told to replay only, also removes and truncates
// orphans. That changes the bitmaps in both directions (see TestOrphanGrows).
func replayOnly(t *testing.T, img string) {
	t.Helper()
	// The bitmaps may be torn before the replay, so their checksums are not
	// looked at. The checksums in the journal are.
	out, err := exec.Command("/usr/sbin/debugfs", "-w", "-n", "-R", "journal_run", img).CombinedOutput()
	if err != nil || strings.Contains(string(out), "journal_run") {
		t.Fatalf("%s: cannot be replayed: %v\n%s", img, err, out)
	}
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw := make([]byte, superSize)
	if f.ReadAt(raw, superAt); parseSuper(raw) == nil || parseSuper(raw).needsRecovery() {
		t.Fatalf("%s: was not replayed:\n%s", img, out)
	}
}

// now is what is free after a replay, without the union with older states.
func now(t *testing.T, img string) *volume.Free {
	t.Helper()
	file, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	st, _ := file.Stat()
	v := volume.New(context.Background(), file, st.Size(), 512, nil)
	raw, _ := v.Bytes(superAt, superSize)
	f := &fsys{v: v, sb: parseSuper(raw)}
	free := &volume.Free{}
	err = f.sb.checkGeometry(v.Size())
	if err == nil {
		err = f.loadGroups()
	}
	if err == nil {
		var j *journal
		if j, err = f.openJournal(); err == nil {
			err = f.recover(j, &volume.Found{})
		}
	}
	if err == nil {
		err = f.checkBitmaps(func(g int, now, _ []byte) { f.addFree(free, g, now) })
	}
	if err != nil {
		t.Fatalf("%s: %v", img, err)
	}
	return free
}

var names = regexp.MustCompile(`/\S*(cut-|torn-|broken-)\S*|\d+\.\d+% non-contiguous`)

// repair runs e2fsck as a boot would, and gives what it said.
func repair(img string) string {
	out, err := exec.Command("/usr/sbin/e2fsck", "-fy", img).CombinedOutput()
	return names.ReplaceAllString(fmt.Sprint(err, string(out)), "")
}

func check(img string) string {
	out, err := exec.Command("/usr/sbin/e2fsck", "-fn", img).CombinedOutput()
	return names.ReplaceAllString(fmt.Sprint(err, string(out)), "")
}

// reflinks is a folder on a file system that can copy a file at one moment.
func reflinks(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	img := realfs.XFS.Make(t, 3<<30, "-m", "reflink=1")
	dir := t.TempDir()
	realfs.Run(t, "mount", "-o", "loop", img, dir)
	t.Cleanup(func() {
		for i := 0; i < 600 && exec.Command("umount", dir).Run() != nil; i++ {
			time.Sleep(50 * time.Millisecond)
		}
	})
	return dir
}

func reflink(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		t.Fatal(err)
	}
}

// keepBusy lets some writers change files in dir, and gives what stops them.
func keepBusy(dir string, writers int) (stop func()) {
	done := make(chan bool)
	var all sync.WaitGroup
	for w := range writers {
		all.Add(1)
		go func() {
			defer all.Done()
			b := &busy{filepath.Join(dir, fmt.Sprint("w", w)), rand.New(rand.NewPCG(rand.Uint64(), 1))}
			os.Mkdir(b.dir, 0o755)
			for {
				select {
				case <-done:
					return
				default:
					b.change()
				}
			}
		}()
	}
	return sync.OnceFunc(func() { close(done); all.Wait() })
}

// begin makes the first files durable.
func begin(dir string) {
	for i := range 8 {
		os.WriteFile(filepath.Join(dir, fmt.Sprint("first-", i)), make([]byte, 3000*i), 0o600)
	}
	if f, err := os.Open(dir); err == nil {
		unix.Syncfs(int(f.Fd()))
		f.Close()
	}
}

// busy is a writer. Errors do not matter: the disk is full now and then.
type busy struct {
	dir string
	rnd *rand.Rand
}

func (b *busy) name() string { return filepath.Join(b.dir, fmt.Sprint("f", b.rnd.IntN(40))) }

func (b *busy) data() []byte {
	n := b.rnd.IntN(1 << (8 + b.rnd.IntN(11)))
	data := make([]byte, n)
	for i := 0; i+8 < n; i += 8 {
		le.PutUint64(data[i:], b.rnd.Uint64())
	}
	if n > 8 && b.rnd.IntN(3) == 0 { // in a journal with data it must be escaped
		be.PutUint32(data, jbdMagic)
	}
	return data
}

func (b *busy) change() {
	name := b.name()
	switch b.rnd.IntN(12) {
	case 0, 1, 2:
		os.WriteFile(name, b.data(), 0o644)
	case 3, 4:
		b.open(name, func(f *os.File) { f.Write(b.data()); f.Sync() })
	case 5:
		os.Rename(name, b.name())
	case 6, 7:
		os.Remove(name)
	case 8:
		os.Truncate(name, int64(b.rnd.IntN(100000)))
	case 9:
		b.open(name, func(f *os.File) {
			unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(b.rnd.IntN(30000)), 20000)
		})
	case 10:
		sub := filepath.Join(b.dir, fmt.Sprint("d", b.rnd.IntN(5)))
		if os.Mkdir(sub, 0o755) == nil {
			for i := range 20 {
				os.Symlink(strings.Repeat("x", i*9+1), filepath.Join(sub, fmt.Sprint(i)))
			}
		} else {
			os.RemoveAll(sub)
		}
	case 11:
		b.open(name, func(f *os.File) {
			unix.Fallocate(int(f.Fd()), 0, int64(b.rnd.IntN(1<<17)), 50000)
			unix.Fsetxattr(int(f.Fd()), "user.x", b.data()[:0], 0)
			unix.Fsetxattr(int(f.Fd()), "user.y", make([]byte, 700), 0)
		})
	}
}

func (b *busy) open(name string, do func(*os.File)) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	do(f)
	f.Close()
}

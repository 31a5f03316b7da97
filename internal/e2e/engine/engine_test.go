// Package engine_test backs up and restores disks with real file systems by
// the command testbox, as a user does.
//
//	disk with file systems -> image create -> store -> image restore -> disk full of noise
//	                                                                        |
//	                                              checked, and all files compared
package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// testbox is the program, built once.
var testbox string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "testbox-engine-")
	if err == nil {
		testbox = filepath.Join(dir, "testbox")
		err = exec.Command("go", "build", "-buildvcs=false", "-o", testbox, "testbox-imaging/cmd/testbox").Run()
	}
	code := 1
	if err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// bench is a store and what the test does with it.
type bench struct {
	t     *testing.T
	store string
}

func newBench(t *testing.T) bench {
	t.Helper()
	b := bench{t, t.TempDir() + "/store"} // a store is not made below /dev, where the disks are
	b.run("store", "init")
	t.Cleanup(func() {
		if !t.Failed() {
			b.run("store", "scrub")
		}
	})
	return b
}

// run runs the command, which must end well.
func (b bench) run(args ...string) string {
	b.t.Helper()
	out, code := b.exit(args...)
	if code != 0 {
		b.t.Fatalf("testbox %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func (b bench) exit(args ...string) (string, int) {
	b.t.Helper()
	cmd := exec.Command(testbox, args...)
	cmd.Env = append(os.Environ(), "TESTBOX_STORE="+b.store)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// noise makes a file full of it.
func noise(t testing.TB, size int64) string {
	t.Helper()
	path := realfs.File(t, 0)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 1<<20)
	r.Read(buf)
	for at := int64(0); at < size; at += int64(len(buf)) {
		buf[0] = byte(at >> 20)
		if _, err := f.Write(buf[:min(int64(len(buf)), size-at)]); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

var kinds = []struct {
	name string
	kind realfs.Kind
	args []string
}{
	{"ext4", realfs.Ext, nil},
	{"ext4 of 1 KiB blocks", realfs.Ext, []string{"-b", "1024"}},
	{"xfs", realfs.XFS, nil},
	{"btrfs", realfs.Btrfs, nil},
	{"ntfs", realfs.NTFS, nil},
	{"exfat", realfs.ExFAT, nil},
	{"fat32", realfs.FAT, []string{"-F", "32"}},
}

// TestFileSystems restores each over noise, and again over what is there.
func TestFileSystems(t *testing.T) {
	for i, c := range kinds {
		t.Run(c.name, func(t *testing.T) {
			testenv.Root(t)
			b := newBench(t)
			img := c.kind.Make(t, 320<<20, c.args...)
			c.kind.Fill(t, img, uint64(i), 40<<20)
			want := c.kind.Files(t, realfs.Copy(t, img))
			before := sum(t, img)
			out := b.run("image", "create", "box", img)
			if sum(t, img) != before {
				t.Fatal("the backup changed its source")
			}
			if strings.Contains(out, "not used 0 B") {
				t.Errorf("nothing is free:\n%s", out)
			}
			target := noise(t, 320<<20)
			b.run("image", "restore", "--yes", "box", target)
			holds(t, c.kind, target, want)
			b.run("image", "verify", "box", target)
			if out := b.run("image", "restore", "--yes", "box", target); !strings.Contains(out, "nothing is written") {
				t.Errorf("a second restore wrote something:\n%s", out)
			}
			b.run("image", "restore", "--yes", "--full", "--unused=zero", "box", target)
			holds(t, c.kind, target, want)
		})
	}
}

// holds checks a restored file system. Checking can change it, so a copy is.
func holds(t *testing.T, k realfs.Kind, img string, want realfs.Files) {
	t.Helper()
	k.MustCheck(t, img)
	if diff := want.Diff(k.Files(t, realfs.Copy(t, img))); diff != "" {
		t.Errorf("files were lost:\n%s", diff)
	}
}

func sum(t testing.TB, path string) string {
	t.Helper()
	return strings.Fields(realfs.Run(t, "sha256sum", path))[0]
}

// layouts are partitioned disks; each partition holds the file system of kinds
// with its number.
var layouts = []struct {
	name   string
	sector int
	script string // of sfdisk
	kinds  []int  // of the partitions; -1 is none
}{
	{"gpt", 512, "label: gpt\nsize=200M\nsize=200M\nsize=200M\nsize=200M\n", []int{0, 2, 3, 4}},
	{"mbr, not aligned", 512, "label: dos\nunit: sectors\nstart=63,size=409600,type=83\nstart=409727,size=409601,type=7\n", []int{0, 4}},
	{"gpt in sectors of 4096", 4096, "label: gpt\nsize=200M\nsize=350M\nsize=320M,type=U\n", []int{0, 2, 6}},
}

func TestPartitions(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			testenv.Root(t)
			b := newBench(t)
			img := realfs.File(t, 1<<30)
			disk := loop(t, img, l.sector)
			cmd := exec.Command("/sbin/sfdisk", "-q", disk)
			cmd.Stdin = strings.NewReader(l.script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			parts := partitions(t, disk, l.sector)
			var want []realfs.Files
			for i, p := range parts {
				k := kinds[l.kinds[i]]
				args := k.args
				if l.sector == 4096 {
					args = map[string][]string{"ext4": nil, "xfs": {"-s", "size=4096"}, "fat32": {"-F", "32", "-S", "4096", "-s", "1"}}[k.name]
				}
				part := k.kind.Make(t, p.size, args...)
				k.kind.Fill(t, part, uint64(i), 30<<20)
				want = append(want, k.kind.Files(t, realfs.Copy(t, part)))
				realfs.Run(t, "dd", "if="+part, "of="+disk, "bs=1M", "seek="+strconv.FormatInt(p.off, 10), "oflag=seek_bytes", "conv=notrunc,fsync",
					"status=none")
			}
			out := b.run("image", "create", "10.40.41.42", "sda="+disk)
			t.Log(out)
			other := noise(t, 1<<30)
			target := loop(t, other, l.sector)
			b.run("image", "restore", "--yes", "10.40.41.42", target)
			b.run("image", "verify", "10.40.41.42", target)
			if got, want := partitions(t, target, l.sector), parts; len(got) != len(want) {
				t.Fatalf("the restored disk has partitions %v, not %v", got, want)
			}
			for i, p := range parts {
				part := realfs.File(t, p.size)
				realfs.Run(t, "dd", "if="+target, "of="+part, "bs=1M", "skip="+strconv.FormatInt(p.off, 10), "count="+strconv.FormatInt(p.size, 10),
					"iflag=skip_bytes,count_bytes", "status=none")
				holds(t, kinds[l.kinds[i]].kind, part, want[i])
			}
			file := noise(t, 1<<30)
			before := sum(t, file)
			otherSectors := loop(t, file, 512+4096-l.sector)
			out, code := b.exit("image", "restore", "--yes", "10.40.41.42", otherSectors)
			if code != 3 || !strings.Contains(out, fmt.Sprintf("use a disk with %d-byte sectors", l.sector)) || sum(t, file) != before {
				t.Errorf("a disk with other sectors: exit code %d\n%s", code, out)
			}
		})
	}
}

// loop makes a file a disk.
func loop(t testing.TB, path string, sector int) string {
	t.Helper()
	dev := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), path))
	t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

// partition is one of a disk, in bytes.
type partition struct{ off, size int64 }

// partitions reads a disk's table by sfdisk.
func partitions(t testing.TB, disk string, sector int) (out []partition) {
	t.Helper()
	for line := range strings.Lines(realfs.Run(t, "sfdisk", "--dump", disk)) {
		_, fields, ok := strings.Cut(line, "start=")
		if !ok {
			continue
		}
		f := strings.FieldsFunc(fields, func(r rune) bool { return r == ',' || r == ' ' || r == '=' })
		off, err1 := strconv.ParseInt(f[0], 10, 64)
		size, err2 := strconv.ParseInt(f[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, partition{off * int64(sector), size * int64(sector)})
	}
	return out
}

// TestKilled ends the command at random moments: a backup that was not said to
// be there is not, and the store goes on.
func TestKilled(t *testing.T) {
	b := newBench(t)
	img := noise(t, 64<<20)
	done := 0
	for i := range 12 {
		f, err := os.OpenFile(img, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{byte(i)}, 1<<20)
		f.Close()
		cmd := exec.Command(testbox, "image", "create", "box", img)
		cmd.Env = append(os.Environ(), "TESTBOX_STORE="+b.store)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i%4 != 3 {
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
			cmd.Process.Kill()
		}
		cmd.Wait()
		if strings.Contains(out.String(), "is in the store") {
			done++
		} else if i%4 == 3 {
			t.Fatalf("a backup after killed ones: %s", out.String())
		}
		list := b.run("image", "list")
		if n := strings.Count(list, "box  "); n < done {
			t.Fatalf("%d backups of %d that were said to be there:\n%s", n, done, list)
		}
	}
	target := noise(t, 64<<20)
	b.run("image", "restore", "--yes", "box@latest", target)
	if sum(t, target) != sum(t, img) {
		t.Error("the last backup is not the disk")
	}
	b.run("store", "gc", "--yes")
	b.run("image", "verify", "box")
}

// TestMount looks into a backup through a loop device on a mounted file.
func TestMount(t *testing.T) {
	testenv.Root(t)
	b := newBench(t)
	img := realfs.Ext.Make(t, 200<<20)
	realfs.Ext.Fill(t, img, 1, 40<<20)
	want := realfs.Ext.Files(t, realfs.Copy(t, img))
	b.run("image", "create", "box", img)
	dir := t.TempDir()
	cmd := exec.Command(testbox, "image", "mount", "--foreground", "box", dir)
	cmd.Env = append(os.Environ(), "TESTBOX_STORE="+b.store)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer exec.Command("umount", "-l", dir).Run()
	file := filepath.Join(dir, "sda.raw")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("nothing is mounted: %s", out.String())
		}
	}
	copied := realfs.Copy(t, file)
	holds(t, realfs.Ext, copied, want)
	if err := os.WriteFile(file, []byte("x"), 0o600); err == nil {
		t.Error("the file can be written to")
	}
	if out, code := b.exit("store", "gc", "--yes"); code != 3 {
		t.Errorf("packs are removed while they are read: exit code %d\n%s", code, out)
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the folder is still mounted")
	}
}

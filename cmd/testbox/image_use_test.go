package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// tool runs a program, which must end well, and gives what it said.
func (s *shell) tool(name string, args ...string) string {
	s.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop puts a loop device on a file.
func (s *shell) loop(path string, args ...string) string {
	s.t.Helper()
	dev := s.tool("losetup", append(args, "--find", "--show", path)...)
	s.t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

// says runs a command, which must end with code and say all of the words.
func (s *shell) says(code int, words string, args ...string) {
	s.t.Helper()
	out := s.run(code, args...)
	for w := range strings.SplitSeq(words, "|") {
		if !strings.Contains(out, w) {
			s.t.Errorf("testbox %s does not say %q:\n%s", strings.Join(args, " "), w, out)
		}
	}
}

// TestLoopFiles: a file is in use if a loop device stands on it, however it is
// called; nobody is deceived by another file of its name.
func TestLoopFiles(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "losetup", "mkfs.ext4", "mount")
	s := newShell(t)
	s.run(0, "store", "init")
	img := s.write("d.img", nil)
	s.tool("truncate", "-s", "16M", img)
	s.tool("mkfs.ext4", "-q", img)
	s.run(0, "image", "create", "box", img)
	link := s.path("link.img")
	if err := os.Link(img, link); err != nil {
		t.Fatal(err)
	}
	restore := func(target string) []string { return []string{"image", "restore", "--yes", "--full", "box", target} }

	dev, mnt := s.loop(img), t.TempDir()
	s.tool("mount", dev, mnt)
	t.Cleanup(func() { exec.Command("umount", mnt).Run() })
	name := filepath.Base(dev)
	for _, path := range []string{img, link} {
		s.says(exitRefused, "in use by the loop device "+name+"|by a mount on "+mnt, "image", "create", "box", path)
		s.says(exitRefused, "in use by the loop device "+name+"|by a mount on "+mnt, restore(path)...)
	}
	s.says(exitRefused, "in use by the loop device", "image", "import", "box", img)
	s.says(exitRefused, "in use by a mount on "+mnt, restore(dev)...)
	second := s.loop(img)
	s.says(exitRefused, "in use by the loop device "+name, restore(second)...)
	s.tool("losetup", "--detach", second)
	s.says(0, "warning", "image", "create", "--busy", "box", img)
	s.says(0, "warning", "disk", "map", img)
	s.tool("umount", mnt)
	s.says(exitRefused, "in use by the loop device "+name, "image", "create", "box", img)
	s.tool("losetup", "--detach", dev)
	s.run(0, "image", "create", "box", img)
	s.run(0, restore(img)...)

	// What cannot be written through the loop device can be read beside it.
	dev = s.loop(img, "--read-only")
	s.run(0, "image", "create", "box", img)
	s.says(exitRefused, "in use by the loop device", restore(img)...)
	s.tool("losetup", "--detach", dev)

	// The file of the loop device is gone, and another one has its name.
	s.loop(img)
	s.tool("rm", img, link)
	s.run(0, restore(img)...)
	s.run(0, "image", "create", "box", img)
}

// TestSwapFile: what the kernel swaps to is no target.
func TestSwapFile(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mkswap", "swapon", "swapoff")
	s := newShell(t)
	s.run(0, "store", "init")
	s.run(0, "image", "create", "box", s.write("a.img", conform.Disks(1 << 20)["mixed"]))
	swap := s.write("a swap.img", make([]byte, 4<<20))
	if err := os.Chmod(swap, 0o600); err != nil {
		t.Fatal(err)
	}
	s.tool("mkswap", swap)
	if out, err := exec.Command("swapon", swap).CombinedOutput(); err != nil {
		t.Skipf("this kernel or file system has no swap files: %s", out)
	}
	defer exec.Command("swapoff", swap).Run()
	s.says(exitRefused, "in use as swap space", "image", "create", "box", swap)
	s.says(exitRefused, "in use as swap space", "image", "restore", "--yes", "box", swap)
}

// during runs a command, and do at the moment when it says word.
func (s *shell) during(word string, do func(), args ...string) {
	s.t.Helper()
	did := false
	out := &listener{word: word}
	out.heard = func() {
		if !did {
			did = true
			do()
		}
	}
	if code := run(context.Background(), newRootCmd(realWorld()), args, out, out); code != exitDone || !did {
		s.t.Fatalf("testbox %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
}

// TestChangedFile: of a file that is changed while it is read no backup is made, whatever
// its form.
func TestChangedFile(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	disk := conform.Disks(3 << 20)["noise"]
	file := s.write("a.img", disk)
	for _, c := range []struct {
		path string
		args []string
	}{
		{file, []string{"image", "create", "a", file}},
		{file, []string{"image", "import", "a", file}},
		{s.write("a.img.gz", s.gzip(disk)), []string{"image", "import", "a", s.path("a.img.gz")}},
	} {
		did := false
		out := &listener{word: "counts as used"} // is printed before the file is read
		out.heard = func() {
			if did {
				return
			}
			did = true
			f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("x"), 0)
				err = errors.Join(err, f.Close(), os.Chtimes(c.path, time.Time{}, time.Now().Add(time.Second)))
			}
			if err != nil {
				t.Error(err)
			}
		}
		code := run(t.Context(), newRootCmd(realWorld()), c.args, out, out)
		if code != exitFailed || !did || !strings.Contains(out.String(), "changed while it was read, so no backup was made") {
			t.Errorf("testbox %s: exit code %d\n%s", strings.Join(c.args, " "), code, out)
		}
	}
	if out := s.run(0, "image", "list"); strings.Contains(out, "sda") {
		t.Errorf("there is a backup:\n%s", out)
	}
}

// TestTwoWriters: while a restore or a backup is at work with a disk, no other
// one writes to it.
func TestTwoWriters(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	a, b := conform.Disks(3 << 20)["mixed"], conform.Disks(3 << 20)["noise"]
	s.run(0, "image", "create", "a", s.write("a.img", a))
	s.run(0, "image", "create", "b", s.write("b.img", b))
	target := s.path("target.img")
	toFile := []string{"image", "restore", "--yes", "b", target}
	refusal := "in use by another program that has locked it, most likely another testbox"
	s.during("differ on the disk", func() {
		s.says(exitRefused, refusal, toFile...)
		s.says(exitRefused, refusal, "image", "create", "--store", s.path("store"), "c", target)
		s.says(exitWrong, "is there already", "image", "export", "b", target)
	}, "image", "restore", "--yes", "a", target)
	s.same(target, a)
	s.during("counts as used", func() { s.says(exitRefused, refusal, toFile...) }, "image", "create", "a", target)
	s.same(target, a)
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.says(exitRefused, "in use by a program that has it open for writing", toFile...)
	s.says(exitRefused, "in use by a program that has it open for writing", "image", "create", "a", target)
	f.Close()
	s.run(0, toFile...)
	s.same(target, b)
}

// TestTwoWritersOfLoop: the same of a device, and of the file that is behind it.
func TestTwoWritersOfLoop(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "losetup")
	s := newShell(t)
	s.run(0, "store", "init")
	a, b := conform.Disks(3 << 20)["mixed"], conform.Disks(3 << 20)["noise"]
	s.run(0, "image", "create", "a", s.write("a.img", a))
	s.run(0, "image", "create", "b", s.write("b.img", b))
	file := s.write("file", make([]byte, 3<<20))
	dev := s.loop(file)
	s.during("differ on the disk", func() {
		s.says(exitRefused, "in use by something that has it for itself", "image", "restore", "--yes", "b", dev)
		s.says(exitRefused, "in use by another program that has locked it", "image", "restore", "--yes", "b", file)
	}, "image", "restore", "--yes", "a", dev)
	s.run(0, "image", "verify", "a", dev)
	s.tool("losetup", "--detach", dev)
	s.during("differ on the disk", func() {
		dev = s.loop(file)
		s.says(exitRefused, "in use by", "image", "restore", "--yes", "a", dev)
		s.tool("losetup", "--detach", dev)
	}, "image", "restore", "--yes", "b", file)
	s.same(file, b)
}

// TestFileAmongDevices: a file that somebody's mistyped device became is no disk.
func TestFileAmongDevices(t *testing.T) {
	info, err := os.Stat(newShell(t).write("a.img", make([]byte, 512)))
	if err != nil {
		t.Fatal(err)
	}
	for full, may := range map[string]bool{"/dev/sdq": false, "/dev/disk/by-id/sdq": false, "/dev/shm/a.img": true, "/srv/a.img": true} {
		if err := (&place{path: full, full: full, info: info}).mustBeDisk(); (err == nil) != may {
			t.Errorf("%s: %v", full, err)
		}
	}
}

// TestRefuseTargets: what a target lacks is found before the first write.
func TestRefuseTargets(t *testing.T) {
	disk := func(size int64, sector int) image.Identity { return image.Identity{Size: size, SectorSize: sector} }
	for _, c := range []struct {
		target image.Identity
		unused copier.Unused
		says   string
	}{
		{disk(1<<20, 512), copier.UnusedKeep, ""},
		{disk(2<<20, 512), copier.UnusedKeep, ""},
		{disk(1<<20, 4096), copier.UnusedKeep, "sectors of 4096 bytes, the image 512"},
		{disk(1<<20-512, 512), copier.UnusedKeep, "at least as large"},
		{disk(1<<20, 512), copier.UnusedDiscard, "cannot discard"},
	} {
		d := restoring{
			RecordedDisk: &image.RecordedDisk{Disk: disk(1<<20, 512)}, im: &chunk.Image{Root: &chunk.Root{Size: 1 << 20, SectorSize: 512}},
			target: &localDisk{Target: readOnlyDisk{size: c.target.Size}, identity: c.target},
		}
		err := refuseTargets(t.Context(), []restoring{{}, d}, c.unused, false)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v, unused %v: %v, want %q", c.target, c.unused, err, c.says)
		}
	}
}

// TestPartitionTarget: an image of a whole disk is not put into a partition.
func TestPartitionTarget(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "losetup", "sfdisk", "partx")
	s := newShell(t)
	s.run(0, "store", "init")
	img, other := s.write("a.img", nil), s.write("b.img", nil)
	for path, size := range map[string]string{img: "8M", other: "32M"} {
		s.tool("truncate", "-s", size, path)
		s.tool("sh", "-c", "printf 'label: gpt\\n2048,8192,L\\n' | sfdisk -q "+path)
	}
	s.tool("sh", "-c", "printf 'label: gpt\\n2048,40960,L\\n' | sfdisk -q "+other)
	s.run(0, "image", "create", "box", img)
	dev := s.loop(other, "--partscan")
	s.tool("partx", "--update", dev) // some kernels cannot read the table themselves
	part := dev + "p1"
	s.says(exitRefused, part+" is a partition|such as "+dev, "image", "restore", "--yes", "box", part)
	s.run(0, "image", "create", "part", part)
	s.run(0, "image", "restore", "--yes", "--full", "part", part)
	s.says(exitRefused, "in use by", "image", "restore", "--yes", "box", other)
}

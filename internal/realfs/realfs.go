// Package realfs makes real file systems for tests, and fills and ages them
// like people do. It proves that the bytes that a used map calls free can be
// lost: they are overwritten with noise, and then the file system's own checker
// must pass and every file must be the same. It is for tests only.
//
// The steps of a proof:
//
//	mkfs -> file system in a sparse file -> mounted, aged -> copy
//	                                                          | reader finds free bytes
//	                                                          | noise over them
//	        the same files?  <- mounted  <- fsck passes?   <--+
//	        partclone: nothing that it calls used is free
package realfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// Kind is a family of file systems, with the commands that make, mount and
// check one. In the commands IMG stands for the file that has the file system,
// LOOP for a loop device of that file, and DIR for the mount point.
type Kind struct {
	Name      string
	Mkfs      []string // Make inserts its arguments before IMG
	Mount     []string // nil if files are changed by mtools, without a mount
	Check     []string // must exit 0 and change nothing
	Partclone string   // the program that maps it, "" if no program can
}

// The kinds that used maps understand.
var (
	Ext = Kind{"ext", []string{"mkfs.ext4", "-q", "-F", "IMG"}, []string{"mount", "-o", "loop", "IMG", "DIR"},
		[]string{"e2fsck", "-fn", "IMG"}, "partclone.extfs"}
	XFS = Kind{"xfs", []string{"mkfs.xfs", "-q", "-f", "IMG"}, []string{"mount", "-o", "loop", "IMG", "DIR"},
		[]string{"xfs_repair", "-n", "IMG"}, "partclone.xfs"}
	Btrfs = Kind{"btrfs", []string{"mkfs.btrfs", "-q", "-f", "IMG"}, []string{"mount", "-o", "loop", "IMG", "DIR"},
		[]string{"btrfs", "check", "--readonly", "--check-data-csum", "IMG"}, "partclone.btrfs"}
	NTFS = Kind{"ntfs", []string{"mkfs.ntfs", "-q", "-F", "-s", "512", "-p", "0", "-H", "255", "-S", "63", "IMG"},
		[]string{"ntfs-3g", "IMG", "DIR"},
		[]string{"ntfsfix", "-n", "IMG"}, "partclone.ntfs"}
	ExFAT = Kind{"exfat", []string{"mkfs.exfat", "IMG"}, []string{"mount.exfat-fuse", "LOOP", "DIR"},
		[]string{"fsck.exfat", "-n", "IMG"}, "partclone.exfat"}
	FAT = Kind{"fat", []string{"mkfs.fat", "IMG"}, nil,
		[]string{"fsck.fat", "-n", "IMG"}, "partclone.fat"}
)

// fill replaces words in a command. names are pairs of a word and its
// replacement.
func fill(words []string, names ...string) []string {
	out := slices.Clone(words)
	for i := range out {
		for n := 0; n < len(names); n += 2 {
			if out[i] == names[n] {
				out[i] = names[n+1]
			}
		}
	}
	return out
}

// Make makes a file system of size bytes in a new sparse file. args are more
// arguments for mkfs.
func (k Kind) Make(t testing.TB, size int64, args ...string) (img string) {
	t.Helper()
	img = File(t, size)
	k.Format(t, img, args...)
	return img
}

// Format makes the file system in an existing file.
func (k Kind) Format(t testing.TB, img string, args ...string) {
	t.Helper()
	words := append(append(k.Mkfs[:len(k.Mkfs)-1:len(k.Mkfs)-1], args...), img)
	Run(t, words[0], words[1:]...)
}

// File is a new sparse file of size bytes, removed after the test.
func File(t testing.TB, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(tempDir(t), "disk.img"))
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return f.Name()
}

// tempDir makes a new folder, in memory if possible, because a mounted file
// system waits for its disk a hundred times in a test.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "testbox-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Copy makes a sparse copy of a file.
func Copy(t testing.TB, img string) string {
	t.Helper()
	to := filepath.Join(tempDir(t), filepath.Base(img))
	Run(t, "cp", "--sparse=always", img, to)
	return to
}

// Mounted mounts the file system, calls do with its folder, and unmounts it.
func (k Kind) Mounted(t testing.TB, img string, do func(dir string)) {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	loop := ""
	if slices.Contains(k.Mount, "LOOP") {
		loop = strings.TrimSpace(Run(t, "losetup", "--find", "--show", img))
		defer Run(t, "losetup", "-d", loop)
	}
	mount := fill(k.Mount, "IMG", img, "LOOP", loop, "DIR", dir)
	Run(t, mount[0], mount[1:]...)
	mounted := true
	t.Cleanup(func() { // if do fails the test
		if mounted {
			exec.Command("umount", "--lazy", dir).Run()
		}
	})
	do(dir)
	// A program that another test starts inherits our open files for a moment,
	// between fork and exec, and then umount fails.
	for i := 0; exec.Command("umount", dir).Run() != nil; i++ {
		if i == 1000 { // twenty seconds
			Run(t, "umount", dir)
		}
		time.Sleep(20 * time.Millisecond)
	}
	mounted = false
	unmountCopies(t, dir)
}

// unmountCopies unmounts dir in all mount namespaces. A namespace that another
// test makes has copies of all mounts of that moment. With such a copy the file
// system lives on after our umount, and what a clean umount writes is not in
// the image yet.
func unmountCopies(t testing.TB, dir string) {
	t.Helper()
	for i := 0; ; i++ {
		tasks := tasksWithMount(t, dir)
		if len(tasks) == 0 {
			return
		}
		if i == 1000 { // twenty seconds
			t.Fatalf("%s is still mounted in the namespaces of the tasks %v", dir, tasks)
		}
		// A task may end meanwhile, and tasks may share a namespace. The next
		// look tells what is left.
		for _, task := range tasks {
			exec.Command("nsenter", "--mount=/proc/"+task+"/ns/mnt", "umount", dir).Run()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tasksWithMount lists the threads in whose mount namespace something is
// mounted on dir.
func tasksWithMount(t testing.TB, dir string) (tasks []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if info, err := os.ReadFile(path); err == nil && strings.Contains(string(info), " "+dir+" ") {
			task, _ := strings.CutPrefix(filepath.Dir(path), "/proc/")
			tasks = append(tasks, task)
		}
	}
	return tasks
}

// Edit calls do with the file system's files.
func (k Kind) Edit(t testing.TB, img string, do func(Tree)) {
	t.Helper()
	if k.Mount == nil {
		do(mtree{t, img})
		return
	}
	k.Mounted(t, img, func(dir string) { do(tree{t, dir}) })
}

// MustCheck fails the test if the file system's checker finds an error. The
// checker changes nothing.
func (k Kind) MustCheck(t testing.TB, img string) {
	t.Helper()
	if said, err := k.check(t, img); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
}

// check returns the output of the checker. The name of the image in it is
// replaced by IMG.
func (k Kind) check(t testing.TB, img string) (string, error) {
	t.Helper()
	words := fill(k.Check, "IMG", img)
	said, err := Try(t, words[0], words[1:]...)
	return strings.ReplaceAll(said, img, "IMG"), err
}

// Run runs a program, fails the test if the program fails, and returns its
// output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	said, err := Try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%.8000s", name, strings.Join(args, " "), err, said)
	}
	return said
}

// Try is Run for a program that may fail.
func Try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	testenv.Tools(t, name)
	cmd := exec.Command(name, args...)
	// xfsprogs only makes file systems below 300 MB for its own tests, which it
	// recognizes by these variables.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MTOOLS_SKIP_CHECK=1", "TEST_DIR=/t", "TEST_DEV=/t", "QA_CHECK_FS=1",
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if p := filepath.Join("/usr/sbin", name); cmd.Err != nil {
		cmd.Path, cmd.Err = p, nil
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

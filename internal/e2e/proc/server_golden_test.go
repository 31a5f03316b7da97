package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/testenv"
)

// Where the disk of a Debian has its root.
const (
	rootOff  = 1 * mib
	rootSize = 24 * mib
)

// debian is a disk with a small system on it, which calls itself by a name.
func debian(name string) content {
	return func(t testing.TB, file string) {
		t.Helper()
		testenv.Tools(t, "sfdisk", "mkfs.ext4", "debugfs")
		tree := t.TempDir()
		for path, text := range map[string]string{
			"etc/os-release": "ID=debian\n", "etc/hostname": name + "\n", "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 " + name + "\n",
			"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/ssh/ssh_host_ed25519_key": "the key of " + name + "\n",
			"etc/ssh/ssh_host_ed25519_key.pub": "its public key\n", "srv/data": strings.Repeat("data of "+name+"\n", 5000),
		} {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(tree, path)), 0o755))
			must(t, os.WriteFile(filepath.Join(tree, path), []byte(text), 0o644))
		}
		run(t, fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=L\n", rootOff/512, rootSize/512), "sfdisk", "--quiet", file)
		run(t, "", "mkfs.ext4", "-q", "-d", tree, "-E", fmt.Sprintf("offset=%d", rootOff), file, fmt.Sprintf("%dk", rootSize/1024))
	}
}

// hasFile returns a file of the system on a disk, as debugfs reads it.
func (d *testDisk) hasFile(t testing.TB, path string) string {
	t.Helper()
	out := run(t, "", "debugfs", "-R", "cat "+path, fmt.Sprintf("%s?offset=%d", d.file, rootOff))
	_, text, _ := strings.Cut(out, "\n") // behind its version
	return text
}

// TestServedGolden: box B gets the system of box A. Without hooks it is the same byte for
// byte. With hooks it is a box of its own, and nothing else is changed. B's job, and the
// audit log of A, say so.
func TestServedGolden(t *testing.T) {
	t.Parallel()
	sda, vda := disk("sda", debian("alpha")).ofSize(32*mib), disk("sdb", scattered(2)).ofSize(40*mib)
	s := newServerSite(t, "")
	a := s.box(11, sda)
	backup, _ := a.act(done, "backup", "--all-used")
	before := sda.hash(t)

	b := s.box(12, vda)
	job, out := b.act(done, "restore", "--from", a.addr)
	if want := a.addr + "@" + backup.Backup; job.Backup != want || !strings.Contains(out, "only this image and this disk are left") {
		t.Errorf("the job used %q and not %q:\n%s", job.Backup, want, out)
	}
	if !slices.Equal(readPart(t, sda.file, rootOff, rootSize), readPart(t, vda.file, rootOff, rootSize)) {
		t.Error("without hooks the system is not the same byte for byte")
	}
	if len(job.Warnings) != 1 || !strings.Contains(job.Warnings[0], "machine-id") {
		t.Errorf("without the hook two boxes have one machine-id, and the job says %q", job.Warnings)
	}
	s.does(done, []string{"audit"}, "use a box's backup for another", b.addr)

	s.does(refused, []string{"restore", b.addr, "--from", a.addr, "--hooks", "hostname"}, "has no name")
	s.does(done, []string{"box", "set", b.addr, "--name", "beta"})
	job, out = b.act(done, "restore", "--from", a.addr, "--hooks", "ssh-keys,hostname,machine-id")
	if job.Outcome != "done" || len(job.Receipts) != 1 || len(job.Receipts[0].Hooks) != 3 || job.Receipts[0].Hooks[0].Hook != "hostname" {
		t.Errorf("%+v\n%s", job, out)
	}
	if len(job.Warnings) != 0 {
		t.Errorf("with hooks the job says %q", job.Warnings)
	}
	for path, want := range map[string]string{"/etc/hostname": "beta\n", "/etc/machine-id": "",
		"/etc/hosts":      "127.0.0.1 localhost\n127.0.1.1 beta\n",
		"/etc/os-release": "ID=debian\n", "/srv/data": strings.Repeat("data of alpha\n", 5000)} {
		if got := vda.hasFile(t, path); got != want {
			t.Errorf("%s has %.100q", path, got)
		}
	}
	if key := vda.hasFile(t, "/etc/ssh/ssh_host_ed25519_key"); !strings.HasPrefix(key, "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		t.Errorf("the key of the box is %.100q", key)
	}
	pub := vda.hasFile(t, "/etc/ssh/ssh_host_ed25519_key.pub")
	if !strings.HasPrefix(pub, "ssh-ed25519 ") || !strings.HasSuffix(pub, " root@beta\n") {
		t.Errorf("the public key is %q", pub)
	}
	run(t, "", "e2fsck", "-fn", fmt.Sprintf("%s?offset=%d", vda.file, rootOff))
	job, out = b.act(differ, "verify", "--from", a.addr)
	if len(job.Warnings) == 0 || !strings.Contains(job.Warnings[len(job.Warnings)-1], "Hooks of job ") {
		t.Errorf("a verify does not say that hooks changed the disk: %+v\n%s", job, out)
	}
	if sda.hash(t) != before {
		t.Error("the disk of the other box was changed")
	}
	s.does(done, []string{"jobs", b.addr, "--all"}, "with hooks hostname,machine-id,ssh-keys")

	// The command of share mode asks for the same.
	s.does(done, []string{"pxe-conf", "-c", filepath.Dir(b.bootFile()), b.addr, "restore", "--from", a.addr, "--hooks", "machine-id"}, "job")
	b.boot()
	b.start().ends(done, "the restored system was changed after its proof: machine-id")
	if r := b.last().Restored; r == nil || r.From != a.addr || !slices.Equal(r.Hooks, []box.Hook{box.HookMachineID}) {
		t.Errorf("the record says %+v", r)
	}
	if id, name := vda.hasFile(t, "/etc/machine-id"), vda.hasFile(t, "/etc/hostname"); id != "" || name != "alpha\n" {
		t.Errorf("by pxe-conf the machine-id is %q, and the name %q", id, name)
	}

	// A restore without hooks makes all right again.
	b.act(done, "restore", "--from", a.addr)
	if got := vda.hasFile(t, "/etc/hostname"); got != "alpha\n" {
		t.Errorf("without hooks the name is %q", got)
	}
}

// TestServedGoldenFails: hooks that cannot be done refuse a restore before it writes, if that
// is known. Else the job does not look like a success, and the box is held.
func TestServedGoldenFails(t *testing.T) {
	t.Parallel()
	data, ntfs := disk("sda", debian("alpha")).ofSize(32*mib), disk("sdc", scattered(3)).ofSize(32*mib)
	s := newServerSite(t, "")
	a := s.box(11, data)
	run(t, "", "debugfs", "-w", "-R", "rm /etc/os-release", fmt.Sprintf("%s?offset=%d", data.file, rootOff))
	run(t, "", "debugfs", "-w", "-R", "rm /etc/hostname", fmt.Sprintf("%s?offset=%d", data.file, rootOff))
	a.act(done, "backup")
	c := s.box(13, ntfs)
	c.act(done, "backup")

	vda := disk("sdb", scattered(2)).ofSize(32 * mib)
	b := s.box(12, vda)
	before := vda.hash(t)
	id := b.ask("restore", "--from", c.addr, "--hooks", "machine-id")
	b.boot()
	b.start().ends(refused, "no partition of the backup can be changed by hooks")
	if j := b.job(id); j.Outcome != "refused" || vda.hash(t) != before {
		t.Errorf("%+v; the disk was changed: %v", j, vda.hash(t) != before)
	}

	id = b.ask("restore", "--from", a.addr, "--hooks", "machine-id")
	for range 3 {
		b.boot()
		b.start().ends(failed, "all disks are restored and proved, but", "no file system has etc/os-release or etc/hostname")
	}
	if j := b.job(id); j.State != "held" || j.Outcome != "failed" || !b.armed() {
		t.Errorf("%+v", j)
	}
	s.does(done, []string{"release", b.addr})
}

// readPart reads a part of a file.
func readPart(t testing.TB, path string, off, n int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	b := make([]byte, n)
	_, err = f.ReadAt(b, off)
	must(t, err)
	return b
}

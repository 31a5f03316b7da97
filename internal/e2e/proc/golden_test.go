package proc

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/sharedir"
)

// The golden box of share mode, whose images others get.
const (
	goldenAddr = "10.88.0.12"
	goldenUUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
)

// golden makes two boxes of one storage server. The first has the system alpha and is backed up.
// The second has another disk.
func golden(t *testing.T) (a, b *testBox, sda, vda *testDisk) {
	t.Helper()
	sda, vda = disk("sda", debian("alpha")).ofSize(32*mib), disk("sdb", scattered(2)).ofSize(40*mib)
	b = newBox(t, vda)
	a = b.beside(goldenAddr, "alpha", goldenUUID, sda)
	a.does("backup")
	return a, b, sda, vda
}

// all is what a box's folder has, with times and rights.
func (b *testBox) all() map[string]string {
	b.t.Helper()
	out := map[string]string{}
	must(b.t, filepath.WalkDir(b.folder(""), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		must(b.t, err)
		out[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size())
		if info.Mode().IsRegular() {
			out[path] += hashFile(b.t, path)
		}
		return nil
	}))
	return out
}

// last is the record of the box's last action.
func (b *testBox) last() (a sharedir.LastAction) {
	b.t.Helper()
	text, err := os.ReadFile(b.folder("last-action.json"))
	must(b.t, err)
	must(b.t, json.Unmarshal(text, &a))
	return a
}

// TestGolden: box B gets the system of box A in share mode. Without hooks it is the same byte
// for byte. With hooks it is a box of its own, and nothing else is changed. B's log and record
// say whose images they were, and nothing is written to A's folder.
func TestGolden(t *testing.T) {
	t.Parallel()
	a, b, sda, vda := golden(t)
	disk, folder := sda.hash(t), a.all()

	out := b.does("restore", "--from", goldenAddr)
	for _, want := range []string{"the images are those of box 10.88.0.12 (alpha), backup of ", "nothing is written there",
		"only this image and this disk are left", "has its machine-id too, if it has one: the hook machine-id was not asked for"} {
		if !strings.Contains(out, want) || !strings.Contains(b.log("maintenance.log"), want) {
			t.Errorf("the box and its log do not say %q:\n%s", want, out)
		}
	}
	if !slices.Equal(readPart(t, sda.file, rootOff, rootSize), readPart(t, vda.file, rootOff, rootSize)) {
		t.Error("without hooks the system is not the same byte for byte")
	}
	if r := b.last().Restored; r == nil || r.From != goldenAddr || !r.SharesMachineID() {
		t.Errorf("the record says %+v", r)
	}
	b.does("verify", "--from", goldenAddr)

	out = b.does("restore", "--from", goldenAddr, "--hooks", "ssh-keys,hostname,machine-id")
	if strings.Contains(out, "was not asked for") || !strings.Contains(out, "the restored system was changed after its proof") {
		t.Errorf("it says\n%s", out)
	}
	if last := b.last(); len(last.Receipts) != 1 || len(last.Receipts[0].Hooks) != 3 || last.Receipts[0].Hooks[0].Hook != "hostname" ||
		last.Restored.From != goldenAddr || last.Restored.SharesMachineID() {
		t.Errorf("the record says %+v", last)
	}
	for path, want := range map[string]string{"/etc/hostname": boxHost + "\n", "/etc/machine-id": "",
		"/etc/hosts":      "127.0.0.1 localhost\n127.0.1.1 " + boxHost + "\n",
		"/etc/os-release": "ID=debian\n", "/srv/data": strings.Repeat("data of alpha\n", 5000)} {
		if got := vda.hasFile(t, path); got != want {
			t.Errorf("%s has %.100q", path, got)
		}
	}
	if key := vda.hasFile(t, "/etc/ssh/ssh_host_ed25519_key"); !strings.HasPrefix(key, "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		t.Errorf("the key of the box is %.100q", key)
	}
	run(t, "", "e2fsck", "-fn", fmt.Sprintf("%s?offset=%d", vda.file, rootOff))

	b.arm("verify", "--from", goldenAddr)
	b.runs(differ)
	if r := b.last().Restored; r == nil || r.From != goldenAddr || len(r.Hooks) != 3 {
		t.Errorf("after a verify the record says of the latest restore %+v", r)
	}

	// Its own backup is its own, whatever it was made of.
	own := vda.hash(t)
	b.does("backup")
	if f := b.facts("sdb.json"); f.Box != boxAddr || f.UUID != boxUUID {
		t.Errorf("the sidecar says %+v", f)
	}
	b.does("backup-again")
	vda.wreck(t)
	b.does("restore")
	if vda.hash(t) != own {
		t.Error("the box's own backup is not restored")
	}
	if r := b.last().Restored; r == nil || r.From != "" {
		t.Errorf("the record says %+v", r)
	}
	if sda.hash(t) != disk || !maps.Equal(a.all(), folder) {
		t.Error("the other box's disk or folder was changed")
	}
	a.does("verify")
}

// TestGoldenOld: the .old images of another box are its backup before, also if the new one has
// another name.
func TestGoldenOld(t *testing.T) {
	t.Parallel()
	a, b, sda, vda := golden(t)
	before := readPart(t, sda.file, rootOff, rootSize)
	sda.wreck(t)
	a.does("backup-again")
	b.does("restore", "--from", goldenAddr, "--image=old")
	if !slices.Equal(readPart(t, vda.file, rootOff, rootSize), before) {
		t.Error("it is not the backup before")
	}
}

// TestGoldenRefuses: what cannot be restored of another box is refused before anything is
// written, and nothing is written to that box's folder.
func TestGoldenRefuses(t *testing.T) {
	t.Parallel()
	restore := func(flags ...string) func(*testing.T, *testBox, *testBox) {
		return func(t *testing.T, _, b *testBox) {
			b.arm("restore", append([]string{"--from", goldenAddr}, flags...)...)
		}
	}
	for _, c := range []struct {
		name string
		set  func(t *testing.T, a, b *testBox)
		arm  func(t *testing.T, a, b *testBox)
		says []string
	}{
		{"no folder", func(t *testing.T, a, b *testBox) { must(t, os.RemoveAll(a.folder(""))) }, restore(),
			[]string{"box 10.88.0.12 has no folder", "arm that box for backup first"}},
		{"no image", func(t *testing.T, a, b *testBox) { a.rm(a.folder("sda.raw.gz")); a.rm(a.folder("sda.json")) }, restore(),
			[]string{"arm box 10.88.0.12 for backup first"}},
		{"no .old image", nil, restore("--image=old"), []string{"there is no .old image in"}},
		{"a backup that is being put in place", func(t *testing.T, a, b *testBox) {
			must(t, os.WriteFile(a.folder("commit.json"), []byte("{}"), 0o644))
		}, restore(), []string{"box 10.88.0.12 is putting a backup in place", "refresh-info"}},
		{"a damaged image", func(t *testing.T, a, b *testBox) {
			data, err := os.ReadFile(a.folder("sda.raw.gz"))
			must(t, err)
			data[len(data)/2] ^= 1
			must(t, os.WriteFile(a.folder("sda.raw.gz"), data, 0o644))
		}, restore(), []string{"SHA-256"}},
		{"an image that was cut", func(t *testing.T, a, b *testBox) {
			must(t, os.Truncate(a.folder("sda.raw.gz"), 5000))
		}, restore("--precheck=size"), []string{"5000 bytes, but its sidecar says"}},
		{"two backups", func(t *testing.T, a, b *testBox) {
			text, err := os.ReadFile(a.folder("sda.json"))
			must(t, err)
			must(t, os.WriteFile(a.folder("sdb.json"), []byte(strings.NewReplacer(`"name": "sda"`, `"name": "sdb"`,
				string(a.facts("sda.json").Arming), "0123456789abcdef").Replace(string(text))), 0o644))
			must(t, os.Link(a.folder("sda.raw.gz"), a.folder("sdb.raw.gz")))
		}, restore(), []string{"the images are not of one backup"}},
		{"an image of a third box", func(t *testing.T, a, b *testBox) {
			text, err := os.ReadFile(a.folder("sda.json"))
			must(t, err)
			must(t, os.WriteFile(a.folder("sda.json"), []byte(strings.ReplaceAll(string(text), goldenAddr, "10.88.0.13")), 0o644))
		}, restore(), []string{"image sda there was made of 10.88.0.13"}},
		{"a folder that is a link to the box's own", func(t *testing.T, a, b *testBox) {
			b.does("refresh-info")
			must(t, os.RemoveAll(a.folder("")))
			must(t, os.Symlink(boxAddr, strings.TrimSuffix(a.folder(""), "/")))
		}, restore(), []string{"is a link to that of box " + boxAddr}},
		{"a boot file that names another box", nil, func(t *testing.T, a, b *testBox) {
			restore()(t, a, b)
			text, err := os.ReadFile(b.bootFile())
			must(t, err)
			other := strings.Replace(string(text), "testbox-from="+goldenAddr, "testbox-from=10.88.0.13", 1)
			must(t, os.WriteFile(b.bootFile(), []byte(other), 0o644))
		}, []string{"testbox-from 10.88.0.12", "10.88.0.13"}},
		{"other hooks than in the boot file", nil, func(t *testing.T, a, b *testBox) {
			restore("--hooks", "machine-id")(t, a, b)
			text, err := os.ReadFile(b.bootFile())
			must(t, err)
			must(t, os.WriteFile(b.bootFile(), []byte(strings.Replace(string(text), " testbox-hooks=machine-id", "", 1)), 0o644))
		}, []string{"testbox-hooks [machine-id]"}},
		{"a disk that is too small", func(t *testing.T, a, b *testBox) {
			b.disks = []*testDisk{disk("sdb", scattered(2)).ofSize(16 * mib)}
			b.disks[0].attach(t)
			b.plug()
		}, restore(), []string{"sda"}},
		{"a box without a name", func(t *testing.T, a, b *testBox) { b.host = "" }, restore("--hooks", "hostname"),
			[]string{"the hook hostname has no name for this box"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b, _, _ := golden(t)
			if c.set != nil {
				c.set(t, a, b)
			}
			var folder map[string]string
			_, err := os.Lstat(a.folder("last-action.json"))
			if err == nil {
				folder = a.all()
			}
			before := b.snapshot()
			c.arm(t, a, b)
			b.runs(refused, c.says...)
			b.unchanged(before)
			if !b.armed() {
				t.Error("the box is not armed any more, so it does not try again")
			}
			if folder != nil && !maps.Equal(a.all(), folder) {
				t.Error("the other box's folder was changed")
			}
		})
	}
}

// TestGoldenFails: a box whose hooks fail says so, stays armed, and tries again. What is done
// then is a whole restore.
func TestGoldenFails(t *testing.T) {
	t.Parallel()
	a, b, sda, vda := golden(t)
	had := map[string][]byte{}
	for _, name := range []string{"sda.raw.gz", "sda.json"} {
		var err error
		had[name], err = os.ReadFile(a.folder(name))
		must(t, err)
	}
	for _, name := range []string{"os-release", "hostname"} {
		run(t, "", "debugfs", "-w", "-R", "rm /etc/"+name, fmt.Sprintf("%s?offset=%d", sda.file, rootOff))
	}
	a.does("backup-again")
	b.arm("restore", "--from", goldenAddr, "--hooks", "machine-id")
	b.runs(failed, "all disks are restored and proved, but", "no file system has etc/os-release or etc/hostname",
		"so it may take itself for another box's")
	if _, err := os.Stat(b.folder("last-action.json")); err == nil || !b.armed() {
		t.Errorf("the box is armed %v, and its record is there: %v", b.armed(), err == nil)
	}
	for name, data := range had { // who set the other box up has put that right
		must(t, os.WriteFile(a.folder(name), data, 0o644))
	}
	b.runs(done)
	if got := vda.hasFile(t, "/etc/machine-id"); got != "" || b.armed() {
		t.Errorf("the machine-id is %q, and the box is armed: %v", got, b.armed())
	}
}

// TestGoldenExpires: an arming that expired does nothing, as with the box's own images.
func TestGoldenExpires(t *testing.T) {
	t.Parallel()
	a, b, _, vda := golden(t)
	before, folder := vda.hash(t), a.all()
	b.arm("restore", "--from", goldenAddr, "--hooks", "machine-id")
	b.armedUntil(time.Now().Add(-time.Minute))
	b.runs(expired)
	if b.armed() || vda.hash(t) != before || !maps.Equal(a.all(), folder) {
		t.Error("the box is armed still, or something was changed")
	}
}

// TestGoldenArming: what is said when a box is armed.
func TestGoldenArming(t *testing.T) {
	t.Parallel()
	_, b, _, _ := golden(t)
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, "is one of the boxes to be armed, and also the one whose images are used", []string{boxAddr, "restore", "--from", boxAddr}},
		{2, "--from is for restore and verify, not for backup", []string{boxAddr, "backup", "--from", goldenAddr}},
		{2, "--hooks is for restore, not for verify", []string{boxAddr, "verify", "--hooks", "machine-id"}},
		{2, "there is no hook", []string{boxAddr, "restore", "--hooks", "all"}},
		{2, "neither an IPv4 address nor a host name", []string{boxAddr, "restore", "--from", "../10.88.0.12"}},
		{0, "armed for restore from 10.88.0.12 with hooks hostname,machine-id until", []string{boxAddr, "restore", "--from", goldenAddr,
			"--hooks", "machine-id,hostname"}},
		{0, "restore from 10.88.0.12 with hooks hostname,machine-id", []string{"list"}},
		{0, "no name of this box is known here", []string{boxAddr, "restore", "--from", goldenAddr, "--hooks", "hostname", "--replace"}},
		{0, "will refuse `restore`: box 10.88.0.13 has no folder", []string{boxAddr, "restore", "--from", "10.88.0.13", "--replace"}},
		{0, "has its machine-id too, if it has one", []string{boxAddr, "restore", "--from", goldenAddr, "--replace"}},
	} {
		dir := filepath.Join(b.areas.dir, "testbox-tftp", "pxelinux.cfg")
		cmd := exec.Command(b.prog.testbox, append([]string{"pxe-conf", "-c", dir}, c.args...)...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.code || strings.Count(string(out), c.says) != 1 {
			t.Errorf("%q: exit code %d, and it should say once %q:\n%s", c.args, cmd.ProcessState.ExitCode(), c.says, out)
		}
	}
}

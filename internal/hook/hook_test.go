package hook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap"
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// maker makes a file system of a tree.
type maker struct {
	fs, tool string
	size     int // bytes
}

var makers = []maker{{"ext4", "mkfs.ext4", 32 << 20}, {"ext2", "mkfs.ext2", 32 << 20}, {"btrfs", "mkfs.btrfs", 256 << 20},
	{"xfs", "mkfs.xfs", 320 << 20}}

const (
	sectors = 512
	partOff = 1 << 20
)

// disk makes a disk with a partition for each tree, as a loop device.
func disk(t testing.TB, m maker, trees ...string) Disk {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "losetup", "sfdisk", m.tool)
	file, partLen := filepath.Join(t.TempDir(), "disk"), m.size
	size := int64(partOff*2 + len(trees)*partLen)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	script := "label: gpt\n"
	for i := range trees {
		script += fmt.Sprintf("start=%d, size=%d, type=L\n", (partOff+i*partLen)/sectors, partLen/sectors)
	}
	cmd := exec.Command("sfdisk", "--quiet", file)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, tree := range trees {
		part := filepath.Join(t.TempDir(), "part")
		if err := os.WriteFile(part, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(part, int64(partLen)); err != nil {
			t.Fatal(err)
		}
		switch m.fs {
		case "btrfs":
			run(t, m.tool, "-q", "--rootdir", tree, part)
		case "xfs":
			run(t, m.tool, "-q", part)
			dir := t.TempDir()
			run(t, "mount", "-o", "loop", part, dir)
			run(t, "cp", "-a", tree+"/.", dir)
			run(t, "umount", dir)
		default:
			run(t, m.tool, "-q", "-F", "-d", tree, part)
		}
		run(t, "dd", "if="+part, "of="+file, "bs=1M", fmt.Sprintf("seek=%d", (partOff+i*partLen)>>20), "conv=notrunc,sparse", "status=none")
	}
	node := strings.TrimSpace(run(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { run(t, "losetup", "-d", node) })
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	used, err := usedmap.Read(context.Background(), f, size, sectors)
	if err != nil {
		t.Fatal(err)
	}
	return Disk{Image: "sda", Path: node, Size: size, SectorSize: sectors, Layout: used.Layout()}
}

// system makes the files of a root. Names that end in "@" are links.
func system(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, strings.TrimSuffix(name, "@"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(path, []byte(text), 0o640)
		if strings.HasSuffix(name, "@") {
			os.Remove(path)
			err = os.Symlink(text, path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const hosts = "127.0.0.1\tlocalhost\n127.0.1.1 alpha.lab.example alpha # own\n10.0.0.7 alpha\n::1 localhost alpha\n"

func debian() map[string]string {
	return map[string]string{
		"etc/os-release@": "../usr/lib/os-release", "usr/lib/os-release": "ID=debian\n", "etc/hostname": "alpha\n", "etc/hosts": hosts,
		"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "var/lib/dbus/machine-id@": "/etc/machine-id",
		"etc/ssh/ssh_host_ed25519_key": "old ed\n", "etc/ssh/ssh_host_ed25519_key.pub": "old ed pub\n",
		"etc/ssh/ssh_host_rsa_key": "old rsa\n", "etc/ssh/ssh_host_rsa_key.pub": "old rsa pub\n",
		"etc/ssh/ssh_host_ecdsa_key": "old ecdsa\n", "etc/ssh/ssh_host_ecdsa_key-cert.pub": "cert\n",
		"etc/ssh/sshd_config": "Port 22\n", "home/file": strings.Repeat("content\n", 1000),
	}
}

func apply(t testing.TB, disks []Disk, host string, hooks ...box.Hook) (string, []image.HookDone, error) {
	t.Helper()
	return Apply(context.Background(), disks, Config{Hooks: hooks, Host: host, Log: t.Logf, Warn: t.Errorf, Alive: func() {}})
}

// files reads all files of the first partition, by their paths below the root.
func files(t testing.TB, d Disk) map[string]string {
	t.Helper()
	part := d.Layout.Parts[slices.IndexFunc(d.Layout.Parts, func(p usedmap.LayoutPart) bool { return p.Kind == usedmap.Partition })]
	node := strings.TrimSpace(run(t, "losetup", "--find", "--show", "--read-only", "-o", fmt.Sprint(part.Off),
		"--sizelimit", fmt.Sprint(part.Len), d.Path))
	defer run(t, "losetup", "-d", node)
	dir := t.TempDir()
	run(t, "mount", "-o", "ro", node, dir)
	defer run(t, "umount", dir)
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if e.Type()&os.ModeSymlink != 0 {
			all[name], err = os.Readlink(path)
			return err
		}
		b, err := os.ReadFile(path)
		info, _ := e.Info()
		all[name] = fmt.Sprintf("%v %s", info.Mode(), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sum(t testing.TB, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// TestApply: all hooks, on each file system, change what they should and nothing else.
func TestApply(t *testing.T) {
	for _, m := range makers {
		t.Run(m.fs, func(t *testing.T) {
			d := disk(t, m, system(t, debian()))
			before := files(t, d)
			of, done, err := apply(t, []Disk{d}, "beta", box.Hooks...)
			if err != nil || of != "sda" || len(done) != len(box.Hooks) {
				t.Fatalf("%q, %+v, %v", of, done, err)
			}
			after := files(t, d)
			named := map[string]bool{}
			for _, h := range done {
				for _, f := range h.Files {
					named[strings.TrimPrefix(f, "/")] = true
				}
			}
			for name, was := range before {
				if is, there := after[name]; (!there || is != was) != named[name] {
					t.Errorf("%s was %.60q, is %.60q, and is named %v", name, was, is, named[name])
				}
			}
			if len(after) != len(before)-1 || after["etc/ssh/ssh_host_ecdsa_key-cert.pub"] != "" {
				t.Errorf("there are %d files, and were %d", len(after), len(before))
			}
			const mode = "-rw-r----- "
			want := strings.NewReplacer("127.0.1.1 alpha.lab.example alpha", "127.0.1.1 beta.lab.example beta", "::1 localhost alpha",
				"::1 localhost beta").Replace(hosts)
			for name, text := range map[string]string{"etc/hostname": "beta\n", "etc/hosts": want, "etc/machine-id": ""} {
				if after[name] != mode+text {
					t.Errorf("%s has %q", name, after[name])
				}
			}
			if after["var/lib/dbus/machine-id"] != "/etc/machine-id" {
				t.Errorf("the link is %q", after["var/lib/dbus/machine-id"])
			}
			testenv.Tools(t, "ssh-keygen")
			for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
				file := filepath.Join(t.TempDir(), "key")
				name := "etc/ssh/ssh_host_" + kind + "_key"
				if err := os.WriteFile(file, []byte(strings.TrimPrefix(after[name], mode)), 0o600); err != nil {
					t.Fatal(err)
				}
				public := strings.Fields(run(t, "ssh-keygen", "-y", "-f", file))
				if has := after[name+".pub"]; kind != "ecdsa" && !strings.HasPrefix(has, mode+public[0]+" "+public[1]+" root@beta\n") {
					t.Errorf("the public key of %s is %q, and it should be %q", kind, has, public)
				}
			}
			// Nothing of the mount stays behind.
			for _, l := range strings.Split(run(t, "losetup", "--list", "--noheadings", "--output", "BACK-FILE"), "\n") {
				if strings.TrimSpace(l) == d.Path {
					t.Error("a loop device is left")
				}
			}
		})
	}
}

// TestApplyRefuses: where there is no system, or no certain one, nothing is changed at all.
func TestApplyRefuses(t *testing.T) {
	ext4 := makers[0]
	data := map[string]string{"home/file": "x"}
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "hostname"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		trees []map[string]string
		text  string
	}{
		{"no system", []map[string]string{data}, "no file system has etc/os-release or etc/hostname"},
		{"two systems", []map[string]string{debian(), debian()}, "there are several systems"},
		{"/etc leads out of the system", []map[string]string{{"etc@": outside, "home/file": "x"}}, "no file system has"},
		{"/etc leads up and out", []map[string]string{{"etc@": "../../../../../../../.." + outside, "home/file": "x"}}, "no file system has"},
	} {
		var trees []string
		for _, f := range c.trees {
			trees = append(trees, system(t, f))
		}
		d := disk(t, ext4, trees...)
		before := sum(t, d.Path)
		_, done, err := apply(t, []Disk{d}, "beta", box.Hooks...)
		var none *NoSystemError
		if !errors.As(err, &none) || !strings.Contains(err.Error(), c.text) || len(done) > 0 {
			t.Errorf("%s: %+v, %v", c.what, done, err)
		}
		if sum(t, d.Path) != before {
			t.Errorf("%s: the disk was changed", c.what)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(outside, "hostname")); string(b) != "host\n" {
		t.Error("a file of this machine was changed")
	}
}

// TestApplyHostile: files that are not what they should be end a hook with an error, and
// lead to no file of this machine.
func TestApplyHostile(t *testing.T) {
	ext4 := makers[0]
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	with := func(name, text string) map[string]string {
		f := debian()
		delete(f, name)
		delete(f, filepath.Dir(name))
		delete(f, strings.TrimSuffix(name, "@"))
		f[name] = text
		return f
	}
	for _, c := range []struct {
		what string
		tree map[string]string
		hook box.Hook
		text string
	}{
		{"a link in place of the name", with("etc/hostname@", outside), box.HookHostname, "is a symbolic link"},
		{"a folder in place of the name", with("etc/hostname/x", ""), box.HookHostname, "is no regular file"},
		{"a link in place of the id", with("etc/machine-id@", outside), box.HookMachineID, "is a symbolic link"},
		{"a link in place of a key", with("etc/ssh/ssh_host_rsa_key@", outside), box.HookSSHKeys, "is a symbolic link"},
		{"a link in place of a public key", with("etc/ssh/ssh_host_rsa_key.pub@", outside), box.HookSSHKeys, "is a symbolic link"},
		{"a key of another type", with("etc/ssh/ssh_host_new_key", "x"), box.HookSSHKeys, "a type for which no new one can be made"},
	} {
		d := disk(t, ext4, system(t, c.tree))
		_, done, err := apply(t, []Disk{d}, "beta", c.hook)
		if err == nil || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), string(c.hook)) || len(done) > 0 {
			t.Errorf("%s: %+v, %v", c.what, done, err)
		}
	}
	if b, _ := os.ReadFile(outside); string(b) != "host\n" {
		t.Error("a file of this machine was changed")
	}
}

// TestHostsStay: an /etc/hosts that no hook changes is said in the receipt and in a warning,
// and keeps the box from nothing.
func TestHostsStay(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, name, text, why string }{
		{"a link", "etc/hosts@", outside, "/etc/hosts is a symbolic link"},
		{"too long", "etc/hosts", strings.Repeat("127.0.1.1 alpha\n", maxFile/16+1), "bytes"},
		{"a folder", "etc/hosts/x", "", "/etc/hosts is no regular file"},
	} {
		tree := debian()
		delete(tree, "etc/hosts")
		tree[c.name] = c.text
		d := disk(t, makers[0], system(t, tree))
		before := files(t, d)
		var warned []string
		_, done, err := Apply(context.Background(), []Disk{d}, Config{Hooks: []box.Hook{box.HookHostname}, Host: "beta", Log: t.Logf,
			Warn: func(f string, args ...any) { warned = append(warned, fmt.Sprintf(f, args...)) }, Alive: func() {}})
		if err != nil || len(done) != 1 || !strings.Contains(done[0].Text, "/etc/hosts is not changed, because "+c.why) && c.what != "too long" ||
			!slices.Equal(done[0].Files, []string{"/etc/hostname"}) {
			t.Errorf("%s: %+v, %v", c.what, done, err)
		}
		if len(warned) != 1 || !strings.Contains(warned[0], "not changed /etc/hosts, because") || !strings.Contains(warned[0], c.why) {
			t.Errorf("%s: the warnings are %q", c.what, warned)
		}
		after := files(t, d)
		if name := after["etc/hostname"]; !strings.HasSuffix(name, " beta\n") {
			t.Errorf("%s: the name is %q", c.what, name)
		}
		after["etc/hostname"] = before["etc/hostname"]
		if !maps.Equal(before, after) {
			t.Errorf("%s: other files were changed", c.what)
		}
	}
	if b, _ := os.ReadFile(outside); string(b) != hosts {
		t.Error("a file of this machine was changed")
	}
}

// TestNotDurable: a hook counts only if the disk has what was written.
func TestNotDurable(t *testing.T) {
	d := disk(t, makers[0], system(t, debian()))
	a := &applying{ctx: context.Background(), Config: Config{Log: t.Logf, Alive: func() {}}}
	at, err := a.find([]Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	for what, w := range map[string]want{
		"other bytes": {path: "etc/hostname", data: []byte("beta\n")}, "is still there": {path: "etc/hostname", absent: true},
		"is gone": {path: "etc/none", data: []byte("x")},
	} {
		if err := a.prove(at, []want{w}); err == nil {
			t.Errorf("%s: it was not seen", what)
		}
	}
	if err := a.prove(at, []want{{path: "etc/hostname", data: []byte("alpha\n")}, {path: "etc/none", absent: true}}); err != nil {
		t.Error(err)
	}
}

func TestRenameHosts(t *testing.T) {
	for _, c := range []struct{ text, old, host, want string }{
		{"127.0.1.1 alpha\n", "alpha", "beta", "127.0.1.1 beta\n"},
		{"127.0.1.1\talpha.lab  alpha", "alpha", "beta.site", "127.0.1.1\tbeta.site  beta.site"},
		{"127.0.1.1 alpha.lab alpha\n", "alpha.lab", "beta", "127.0.1.1 beta beta\n"},
		{"127.0.1.1 alpha2 xalpha # alpha\n", "alpha", "beta", "127.0.1.1 alpha2 xalpha # alpha\n"},
		{"# 127.0.1.1 alpha\n10.0.0.7 alpha\nx alpha\n", "alpha", "beta", "# 127.0.1.1 alpha\n10.0.0.7 alpha\nx alpha\n"},
		{"127.0.0.1 localhost\n", "localhost", "beta", "127.0.0.1 localhost\n"},
		{"", "alpha", "beta", ""},
	} {
		if got := renameHosts(c.text, c.old, c.host); got != c.want {
			t.Errorf("%q: %q", c.text, got)
		}
	}
}

// FuzzRenameHosts: only names of loopback addresses become others, and no line is lost.
func FuzzRenameHosts(f *testing.F) {
	f.Add(hosts, "alpha")
	f.Add("127.0.1.1\r\n\x00#", "a.b")
	f.Fuzz(func(t *testing.T, text, old string) {
		if !box.ValidHost(old) {
			return
		}
		got := renameHosts(text, old, "beta")
		if strings.Count(got, "\n") != strings.Count(text, "\n") {
			t.Fatalf("%q became %q", text, got)
		}
		if again := renameHosts(text, old, old); nameIn([]byte(old)) == old && !strings.Contains(old, ".") && again != text {
			t.Fatalf("the same name makes %q of %q", again, text)
		}
	})
}

func TestNameIn(t *testing.T) {
	for text, want := range map[string]string{"alpha\n": "alpha", "# a\n\nalpha.lab\n": "alpha.lab", "": "", "a b\n": "", "\x1b[0m": "",
		strings.Repeat("a", 300): ""} {
		if got := nameIn([]byte(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestForesee: what a backup is known to have, or to lack, refuses hooks before a restore.
func TestForesee(t *testing.T) {
	part := func(fs string, pieces int) usedmap.LayoutPart {
		p := usedmap.LayoutPart{Kind: usedmap.Partition, Number: 1, FS: fs, Off: 1 << 20, Len: 1 << 20}
		if pieces > 1 {
			p.Ranges = slices.Repeat([]image.Range{{Off: 1 << 20, Len: 1 << 20}}, pieces)
		}
		return p
	}
	lvm := func(p usedmap.LayoutPart) usedmap.LayoutPart {
		return usedmap.LayoutPart{Kind: usedmap.Partition, Number: 1, FS: "LVM2_member", Volumes: []usedmap.LayoutPart{p}}
	}
	for _, c := range []struct {
		what    string
		layouts []usedmap.Layout
		hook    box.Hook
		host    string
		text    string
	}{
		{"nothing is known", []usedmap.Layout{{}}, box.HookMachineID, "", ""},
		{"ext4", []usedmap.Layout{{Parts: []usedmap.LayoutPart{part("ext4", 1)}}}, box.HookMachineID, "", ""},
		{"a volume in one piece", []usedmap.Layout{{Parts: []usedmap.LayoutPart{lvm(part("xfs", 1))}}}, box.HookMachineID, "", ""},
		{"a volume in two pieces", []usedmap.Layout{{Parts: []usedmap.LayoutPart{lvm(part("xfs", 2))}}}, box.HookMachineID, "", "in one piece"},
		{"LUKS", []usedmap.Layout{{Parts: []usedmap.LayoutPart{part("crypto_LUKS", 1)}}}, box.HookMachineID, "", "crypto_LUKS"},
		{"NTFS", []usedmap.Layout{{Parts: []usedmap.LayoutPart{part("ntfs", 1)}}}, box.HookMachineID, "", "no partition of the backup"},
		{"one of two disks", []usedmap.Layout{{Parts: []usedmap.LayoutPart{part("ntfs", 1)}},
			{Parts: []usedmap.LayoutPart{part("btrfs", 1)}}}, box.HookMachineID, "", ""},
		{"no name", []usedmap.Layout{{}}, box.HookHostname, "", "has no name"},
		{"a name", []usedmap.Layout{{}}, box.HookHostname, "beta", ""},
	} {
		err := Foresee(c.layouts, []box.Hook{c.hook}, c.host)
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// FuzzNewKeyName: no name of a file makes the agent panic.
func FuzzNewKeyName(f *testing.F) {
	f.Add("ssh_host_dsa_key")
	f.Fuzz(func(t *testing.T, name string) {
		if bytes.Contains([]byte(name), []byte("rsa")) {
			return // slow
		}
		newKey(name)
	})
}

// TestDamagedBeside: a root beside a file system that cannot be looked at may be the wrong one.
func TestDamagedBeside(t *testing.T) {
	d := disk(t, makers[0], system(t, map[string]string{"etc/hostname": "real\n"}), system(t, map[string]string{"etc/hostname": "old\n"}))
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 1<<20), partOff+2048); err == nil { // all behind the superblock
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, done, err := Apply(t.Context(), []Disk{d}, Config{Hooks: []box.Hook{box.HookHostname}, Host: "new", Log: t.Logf, Alive: func() {}})
	if no := new(NoSystemError); !errors.As(err, &no) || len(done) > 0 || !strings.Contains(err.Error(), "partition 1 of sda") {
		t.Errorf("%+v, %v", done, err)
	}
}

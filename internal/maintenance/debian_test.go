package maintenance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
)

// originalUnit is the unit of the document that this project implements.
const originalUnit = `[Unit]
Description=Testbox Maintenance
After=network.target
Before=getty@tty1.service

[Service]
Type=oneshot
RemainAfterExit=True
ExecStart=/root/scripts/testbox-maintenance.sh
ExecStartPre=/bin/echo -e \033%G
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory=/tmp
Environment=TERM=xterm
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
`

// TestUnitIsOriginals: the program is another one, and systemd has come to
// take %G for something (systemd.unit(5), specifiers), so it is written %%G.
func TestUnitIsOriginals(t *testing.T) {
	got, err := debianFiles.ReadFile("debianroot/etc/systemd/system/testbox-maintenance.service")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("/root/scripts/testbox-maintenance.sh", "/usr/local/sbin/testbox-maintenance service", "%G",
		"%%G").Replace(originalUnit)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDebianFilesOfOriginal(t *testing.T) {
	for name, want := range map[string]string{
		"etc/systemd/system/getty@tty1.service.d/noclear.conf": "TTYVTDisallocate=no",
		"etc/sudoers.d/testbox":                                "NOPASSWD: ALL",
		"etc/systemd/journald.conf.d/testbox.conf":             "Storage=volatile",
		"etc/initramfs-tools/conf.d/testbox":                   "RESUME=none",
		"etc/mdadm/mdadm.conf":                                 "AUTO -all",
		"etc/lvm/lvmlocal.conf":                                "auto_activation_volume_list = []",
	} {
		data, err := debianFiles.ReadFile("debianroot/" + name)
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %v\n%s", name, err, data)
		}
	}
	for _, p := range strings.Fields("pxelinux syslinux initramfs-tools zip gddrescue sudo joe smbclient cifs-utils smartmontools " +
		"nvme-cli gdisk parted dosfstools " +
		"exfatprogs ntfs-3g xfsprogs btrfs-progs lvm2 mdadm cryptsetup pciutils dmidecode efibootmgr strace tcpdump") {
		if !slices.Contains(debianPackages, p) {
			t.Errorf("package %s is missing", p)
		}
	}
	for name := range debianModes {
		if _, err := debianFiles.ReadFile("debianroot/" + name); err != nil {
			t.Error(err)
		}
	}
}

func TestParseSimulation(t *testing.T) {
	set, err := parseSimulation([]byte("NOTE: This is only a simulation!\nInst zip (3.0-13 Debian:12.11/stable [amd64])\nInst base-files " +
		"[12.4] (12.4+deb12u11 x [amd64])\nConf zip (3.0-13 x)\n"))
	if err == nil {
		t.Errorf("an upgrade was taken for an installation: %v", set)
	}
	set, err = parseSimulation([]byte("Inst zip (3.0-13 Debian:12.11/stable [amd64])\nInst adduser (3.134 Debian [all]) []\nConf zip " +
		"(3.0-13 x)\n"))
	if err != nil || !slices.Equal(set, []debianPackage{{"adduser", "3.134"}, {"zip", "3.0-13"}}) {
		t.Errorf("%v, %v", set, err)
	}
	if _, err := parseSimulation([]byte("Inst ../zip (1 x)")); err == nil {
		t.Error("a path was taken for a package")
	}
}

func FuzzParseSimulation(f *testing.F) {
	f.Add([]byte("Inst zip (3.0-13 Debian:12.11/stable [amd64])\nInst"))
	f.Fuzz(func(t *testing.T, out []byte) {
		set, err := parseSimulation(out)
		for _, p := range set {
			if err == nil && (!validPackage(p.Name) || !validVersion(p.Version)) {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestValidKeys(t *testing.T) {
	for keys, ok := range map[string]bool{
		"": true,
		"# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI a@b\n":               true,
		"from=\"10.*\",no-pty ssh-rsa AAAAB3NzaC1yc2E x\n":                  true,
		"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAabc\n":                    false,
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI a@b\nthis is something else": false,
		strings.Repeat("#", 1<<20+1):                                        false,
	} {
		if err := validKeys([]byte(keys)); (err == nil) != ok {
			t.Errorf("%.60q: %v", keys, err)
		}
	}
}

func testDebian(t *testing.T) *debianBuild {
	t.Helper()
	dir := t.TempDir()
	b := &debianBuild{recipe: &recipe{key: "k", kernel: "6.1.0-99-amd64"}, agent: []byte("agent")}
	server := netip.MustParseAddr("10.42.1.1")
	b.TFTP, b.NFSRoot = filepath.Join(dir, "tftp"), filepath.Join(dir, "roots")
	b.TFTPFrom, b.BackupFrom = bootcfg.NFSPath{Server: server, Path: "/export/testbox-tftp"},
		bootcfg.NFSPath{Server: server, Path: "/export/testbox-backup"}
	b.Say = func(string, ...any) {}
	b.name()
	for _, d := range []string{b.TFTP, b.NFSRoot} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestDebianVersionName(t *testing.T) {
	base := testDebian(t).versionName()
	if !strings.HasPrefix(base, "debian-6.1.0-99-amd64-") || !bootcfg.ValidVersion(base) {
		t.Error(base)
	}
	for what, change := range map[string]func(*debianBuild){
		"tree": func(b *debianBuild) { b.recipe.key = "l" }, "agent": func(b *debianBuild) { b.agent = []byte("b") },
		"keys": func(b *debianBuild) { b.SSHKeys = []byte("x") }, "password": func(b *debianBuild) { b.Password = "x" },
		"site": func(b *debianBuild) { b.BackupFrom.Path = "/x" }, "kind of root": func(b *debianBuild) { b.NFSRoot = "" },
	} {
		b := testDebian(t)
		change(b)
		if b.versionName() == base {
			t.Errorf("with another %s the version has the same name", what)
		}
	}
}

func TestFSTab(t *testing.T) {
	const want = `proc /proc proc defaults 0 0
/dev/nfs / nfs defaults 1 1
10.42.1.1:/export/testbox-tftp /mnt/testbox-tftp nfs tcp,nfsvers=3,noauto,nolock 2 2
10.42.1.1:/export/testbox-backup /mnt/testbox-backup nfs tcp,nfsvers=3,noauto,nolock 3 3
`
	if got := string(testDebian(t).fstab()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestDebianPublish: a root without boot files is given them, also by a later
// build; boot files that were changed are noticed.
func TestDebianPublish(t *testing.T) {
	testenv.Tools(t, "mksquashfs")
	b := testDebian(t)
	sums := fmt.Sprintf(`{"sha256": {"kernel": %q, "initrd": %q}}`, sha256Hex([]byte("kernel")), sha256Hex([]byte("initrd")))
	v := bootcfg.Version{Format: 1, Version: b.version, Form: bootcfg.FormDebian, Kernel: "6.1.0-99-amd64", Built: now()}
	text, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"vmlinuz": "kernel", "initrd.img": "initrd", "manifest.json": sums,
		"version.json": string(text)} {
		if err := writeIn(b.NFSRoot, filepath.Join(b.version, debianBoot, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blocked := filepath.Join(b.TFTP, bootcfg.MaintDir)
	os.WriteFile(blocked, nil, 0o644)
	if _, err := b.run(t.Context()); err == nil {
		t.Fatal("no error without a folder for boot files")
	}
	os.Remove(blocked)
	r, err := b.run(t.Context())
	if err != nil || r.Existed || r.Version.Version != b.version || r.Size != 12 || r.Version.NoNFS {
		t.Fatalf("%+v, %v", r, err)
	}
	if sum, err := fileSHA256(filepath.Join(b.boot, "root.squashfs")); err != nil || sum != r.Version.Root.SHA256 {
		t.Errorf("the root as a file: %v, %v", r.Version.Root, err)
	}
	if r, err = b.run(t.Context()); err != nil || !r.Existed {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, name := range []string{"root.squashfs", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(b.boot, name), []byte("Initrd"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := b.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "remove the folder") || !strings.Contains(err.Error(), name) {
			t.Errorf("a changed %s gave %v", name, err)
		}
		if name == "root.squashfs" {
			if err := os.RemoveAll(b.boot); err != nil {
				t.Fatal(err)
			}
			if _, err := b.run(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	noTemp(t, b.TFTP)
}

func TestDebianInput(t *testing.T) {
	area := t.TempDir()
	for what, opt := range map[string]DebianOptions{
		"no TFTP area": {Options: Options{TFTP: filepath.Join(area, "none")}},
		"no folder":    {Options: Options{TFTP: area}, NFSRoot: filepath.Join(area, "none")},
	} {
		_, err := BuildDebian(t.Context(), opt)
		var input *problem.Error
		if !errors.As(err, &input) || input.Kind != problem.Wrong || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestTreeCache: a kept tree comes back as it was; a cut one is an error.
func TestTreeCache(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "tar")
	dir := t.TempDir()
	tree, kept := filepath.Join(dir, "tree"), filepath.Join(dir, "cache/key.tar.zst")
	if err := writeIn(dir, "tree/usr/bin/sudo", []byte("set-uid"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(tree, "usr/bin/sudo")
	if err := errors.Join(os.Chown(name, 12, 34), os.Chmod(name, 0o755|fs.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	if err := packTree(t.Context(), tree, kept); err != nil {
		t.Fatal(err)
	}
	if err := unpackTree(t.Context(), kept, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "again/usr/bin/sudo"))
	if err != nil || st.Mode() != 0o755|fs.ModeSetuid || st.Size() != 7 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	data, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unpackTree(t.Context(), kept, filepath.Join(dir, "cut")); err == nil {
		t.Error("a tree that was cut short was taken")
	}
}

// TestBuildDebian builds for real, from the cache if the tree is there: twice
// the same gives the same, another agent another version, and neither that nor
// a build that fails touches the first.
func TestBuildDebian(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "mmdebstrap", "unshare", "tar", "mksquashfs", "unsquashfs")
	dir := t.TempDir()
	opt := DebianOptions{
		Options: Options{TFTP: filepath.Join(dir, "tftp"), Agent: testenv.Build(t, "cmd/testbox-maintenance"), Say: t.Logf},
		NFSRoot: filepath.Join(dir, "roots"), SSHKeys: []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI a@b\n"), Password: "a word of two",
	}
	server := netip.MustParseAddr("10.42.1.1")
	opt.TFTPFrom, opt.BackupFrom = bootcfg.NFSPath{Server: server, Path: "/export/testbox-tftp"},
		bootcfg.NFSPath{Server: server, Path: "/export/testbox-backup"}
	for _, d := range []string{opt.TFTP, opt.NFSRoot} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	first, err := BuildDebian(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(opt.NFSRoot, first.Version.Version)
	checkDebianRoot(t, root)
	checkRootFile(t, filepath.Join(opt.TFTP, first.Version.RootFile()), root)
	before := treeText(t, dir)

	again, err := BuildDebian(t.Context(), opt)
	if err != nil || !again.Existed || again.Version != first.Version || treeText(t, dir) != before {
		t.Errorf("%+v, %v; changed %v", again, err, treeText(t, dir) != before)
	}

	bad := opt
	bad.Packages = []string{"no-such-package-of-debian"}
	if _, err := BuildDebian(t.Context(), bad); err == nil {
		t.Error("a package that is nowhere was built in")
	}
	ctx, cancel := context.WithCancel(t.Context())
	other := opt
	other.Agent = testenv.Build(t, "cmd/testbox-maintenance", "faults")
	other.Say = func(format string, args ...any) {
		if said := fmt.Sprintf(format, args...); strings.HasPrefix(said, "unpacking") || strings.HasPrefix(said, "installing") {
			cancel()
		}
	}
	if _, err := BuildDebian(ctx, other); !errors.Is(err, context.Canceled) {
		t.Errorf("a build that was interrupted ended with %v", err)
	}
	if treeText(t, dir) != before {
		t.Error("a build that failed changed something")
	}

	other.Say = t.Logf
	second, err := BuildDebian(t.Context(), other)
	if err != nil || second.Existed || second.Version.Version == first.Version.Version {
		t.Fatalf("%+v, %v", second, err)
	}
	for _, d := range []string{filepath.Join(opt.NFSRoot, second.Version.Version),
		filepath.Join(opt.TFTP, bootcfg.MaintDir, second.Version.Version)} {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	if treeText(t, dir) != before {
		t.Error("the second build changed something of the first")
	}

	// For a server of ours nothing is made in the area of roots.
	served := opt
	served.NFSRoot = ""
	third, err := BuildDebian(t.Context(), served)
	if err != nil || third.Existed || !third.Version.NoNFS || third.Version.Version == first.Version.Version {
		t.Fatalf("%+v, %v", third, err)
	}
	if _, err := os.Stat(filepath.Join(opt.NFSRoot, third.Version.Version)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a root for NFS: %v", err)
	}
	checkRootFile(t, filepath.Join(opt.TFTP, third.Version.RootFile()), root)
	if again, err := BuildDebian(t.Context(), served); err != nil || !again.Existed || again.Version != third.Version {
		t.Errorf("%+v, %v", again, err)
	}
}

// checkRootFile compares the root as one file with the root for NFS.
func checkRootFile(t *testing.T, file, root string) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "unpacked")
	if out, err := exec.Command("unsquashfs", "-quiet", "-no-progress", "-dest", to, file).CombinedOutput(); err != nil {
		t.Fatalf("unsquashfs: %v: %s", err, out)
	}
	checkDebianRoot(t, to)
	for _, gone := range []string{"boot", debianBoot} {
		if _, err := os.Lstat(filepath.Join(to, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file has %s, which no box needs: %v", gone, err)
		}
	}
	out, err := exec.Command("diff", "--recursive", "--brief", "--no-dereference", "--exclude=boot", "--exclude=testbox",
		filepath.Join(root, "usr"), filepath.Join(to, "usr")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %.2000s", err, out)
	}
}

// treeText describes every file below dir but folders, whose times change when
// another version comes to them.
func treeText(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		fmt.Fprintln(&all, name, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func checkDebianRoot(t *testing.T, root string) {
	t.Helper()
	for name, want := range map[string]string{
		"etc/initramfs-tools/initramfs.conf":             "\nMODULES=netboot\n",
		"etc/fstab":                                      "/dev/nfs / nfs defaults 1 1\n",
		"etc/systemd/system/testbox-maintenance.service": "ExecStart=/usr/local/sbin/testbox-maintenance service\n",
		"root/.ssh/authorized_keys":                      "ssh-ed25519 AAAA",
		"home/testbox/.ssh/authorized_keys":              "ssh-ed25519 AAAA",
		"etc/ssh/sshd_config.d/00-password.conf":         "PasswordAuthentication yes",
		"etc/passwd":                                     "\ntestbox:x:",
		"etc/shadow":                                     "\ntestbox:$",
	} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s has no %q, %v:\n%.2000s", name, want, err, data)
		}
	}
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/sudo": 0o755 | fs.ModeSetuid, "etc/sudoers.d/testbox": 0o440, debianAgent: 0o755, "root/.ssh/authorized_keys": 0o600,
		"etc/systemd/system/multi-user.target.wants/testbox-maintenance.service": fs.ModeSymlink | 0o777,
		"etc/udev/rules.d/69-lvm.rules":                                          fs.ModeSymlink | 0o777,
	} {
		if st, err := os.Lstat(filepath.Join(root, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if keys, _ := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*")); len(keys) > 0 {
		t.Errorf("a root for every box holds %q", keys)
	}
	if id, err := os.ReadFile(filepath.Join(root, "etc/machine-id")); err != nil || len(id) != 0 {
		t.Errorf("machine-id %q, %v", id, err)
	}
	if proc, err := os.ReadDir(filepath.Join(root, "proc")); err != nil || len(proc) > 0 {
		t.Errorf("proc is still mounted in the root: %v", err)
	}
}

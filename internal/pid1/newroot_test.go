package pid1

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/testenv"
)

// TestNewRoot puts a root together in a mount namespace of its own; the
// server's folder is a read-only bind mount.
func TestNewRoot(t *testing.T) {
	if dir := os.Getenv(insideEnv); dir != "" {
		insideNewRoot(t, dir)
		return
	}
	testenv.Root(t)
	testenv.Tools(t, "unshare")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil { // overlayfs takes not every file system for a layer
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	runInside(t, dir, "TestNewRoot", "--mount", "--uts")
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func insideNewRoot(t *testing.T, dir string) {
	server, outside, program := filepath.Join(dir, "server"), filepath.Join(dir, "outside"), filepath.Join(dir, "program")
	write(t, outside, "not yours", 0o644)
	write(t, program, "agent", 0o644)
	write(t, server+"/etc/hosts", "old", 0o644)
	write(t, server+"/usr/bin/sudo", "set-uid", 0o755|os.ModeSetuid)
	write(t, server+"/media/x", "", 0o644)
	for path, to := range map[string]string{"etc/resolv.conf": outside, "etc/hostname": "../../outside"} {
		if err := os.Symlink(to, filepath.Join(server, path)); err != nil {
			t.Fatal(err)
		}
	}
	unix.Umask(0o077)
	if err := unix.Sethostname([]byte("box42.lab.example")); err != nil {
		t.Fatal(err)
	}
	n := newRoot{dir: filepath.Join(dir, "root"), stage: filepath.Join(dir, "stage")}
	err := n.mount(func(lower string) error {
		if err := os.MkdirAll(lower, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(server, lower, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return unix.Mount("", lower, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.fill([]byte("nameserver 10.0.0.53\n"), program); err != nil {
		t.Fatal(err)
	}
	checkNewRoot(t, n.dir, server)
	if text := read(t, outside); text != "not yours" {
		t.Errorf("a link led out of the root: %q", text)
	}
}

func checkNewRoot(t *testing.T, root, server string) {
	for path, want := range map[string]string{
		"etc/resolv.conf": "nameserver 10.0.0.53\n", "etc/hostname": "box42.lab.example\n", programPath: "agent",
		"etc/hosts":                     "127.0.0.1 localhost\n127.0.1.1 box42.lab.example box42\n::1 localhost ip6-localhost ip6-loopback\n",
		"media/root-ro/etc/hosts":       "old",
		"media/root-rw/upper/etc/hosts": hosts("box42.lab.example"),
	} {
		if got := read(t, filepath.Join(root, path)); got != want {
			t.Errorf("%s has %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]os.FileMode{"usr/bin/sudo": 0o755 | os.ModeSetuid, programPath: 0o755, "etc/resolv.conf": 0o644} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(root, &st); err != nil || st.Flags&(unix.ST_NOSUID|unix.ST_NODEV|unix.ST_NOEXEC|unix.ST_RDONLY) != 0 {
		t.Errorf("the root is mounted with %#x, %v", st.Flags, err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/new"), nil, 0o644); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(root, layerRO, "etc/new"), nil, 0o644); err == nil {
		t.Error("the layer of the server is writable")
	}
	for _, path := range []string{"etc/new", programPath, layerRO} {
		if _, err := os.Lstat(filepath.Join(server, path)); err == nil {
			t.Errorf("%s got to the server", path)
		}
	}
}

func TestHosts(t *testing.T) {
	if got := hosts("box42"); !strings.Contains(got, "127.0.1.1 box42\n") {
		t.Errorf("%q", got)
	}
}

// A link in the path must not lead out of the root either.
func TestReplaceFileStaysInside(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"root", "outside"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(dir, "root/etc")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(root, "etc/hosts", 0o644, strings.NewReader("x")); err == nil {
		t.Error("a link led out of the root")
	}
	if err := replaceFile(root, "var/a", 0o600, strings.NewReader("first")); err != nil {
		t.Error(err)
	}
	if err := replaceFile(root, "var/a", 0o644, strings.NewReader("second")); err != nil ||
		read(t, filepath.Join(dir, "root/var/a")) != "second" {
		t.Error(err)
	}
}

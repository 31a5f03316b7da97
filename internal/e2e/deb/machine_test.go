package deb

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
)

// Far more than a command or a start of a machine needs, and than a build of the packages does
// with nothing in Go's cache.
const (
	machineLimit = 5 * time.Minute
	buildLimit   = 20 * time.Minute
)

func run(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = testenv.Top()
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// aptConf has apt ask nothing, take packages from its folder of downloads, and wait for nobody's disk.
const aptConf = `APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
APT::Keep-Downloaded-Packages "true";
DPkg::Use-Pty "false";
DPkg::Options { "--force-unsafe-io"; };
DPkg::Lock::Timeout "600";
`

// treeSetup makes a machine of a Debian tree: the packages that ours need are in apt's folder of
// downloads, no timer starts apt beside the test, and no index of manuals is made each time.
const treeSetup = `set -e
root=$1; shift
printf '%s' "$CONF" >"$root/etc/apt/apt.conf.d/90test"
rm -f "$root"/var/cache/apt/archives/*.deb
chroot "$root" apt-get install --download-only "$@"
ln -s /dev/null "$root/etc/systemd/system/timers.target"
echo nameserver 127.0.0.1 >"$root/etc/resolv.conf"
echo man-db man-db/auto-update boolean false | chroot "$root" debconf-set-selections
mkdir "$root/usr/local/host"
`

// debian unpacks a clean Debian with systemd, in which our packages can be installed without
// a network. It is kept in the user's cache.
func debian(t *testing.T, packages ...string) (root string) {
	t.Helper()
	needs := ""
	for _, file := range packages {
		needs += run(t, "dpkg-deb", "-f", file, "Depends")
	}
	needs = regexp.MustCompile(`testbox \([^)]*\),?`).ReplaceAllString(needs, "")
	suite, sources := maintenance.Sources("/etc/apt")
	if suite == "" {
		t.Fatal("this machine has no apt sources of Debian")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "testbox")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %s %s %s %s", suite, sources, needs, aptConf, treeSetup)))[:16]
	tree := filepath.Join(dir, "deb-root-"+key+".tar")
	// Another run may make the tree at this moment, or remove this one since it is of another source.
	lock, err := os.OpenFile(filepath.Join(dir, "deb-root.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree); err != nil {
		old, _ := filepath.Glob(filepath.Join(dir, "deb-root-*"))
		for _, path := range old {
			os.Remove(path)
		}
		words := regexp.MustCompile(`[a-z][a-z0-9+.-]+`).FindAllString(needs, -1)
		if err := makeTree(t, tree, suite, sources, words); err != nil {
			t.Fatal(err)
		}
	}
	root = t.TempDir()
	run(t, "tar", "--extract", "--numeric-owner", "--preserve-permissions", "--directory", root, "--file", tree)
	return root
}

// makeTree is the only part that needs the network. It tries again, since mirrors fail now and then.
func makeTree(t *testing.T, tree, suite string, sources []byte, words []string) (err error) {
	t.Helper()
	list := filepath.Join(t.TempDir(), "all.sources")
	write(t, list, string(sources))
	hook := filepath.Join(t.TempDir(), "hook")
	write(t, hook, treeSetup)
	tmp := strings.TrimSuffix(tree, ".tar") + ".part.tar"
	defer os.Remove(tmp)
	for try := range 4 {
		time.Sleep(time.Duration(try) * 20 * time.Second)
		cmd := exec.Command("mmdebstrap", "--mode=root", "--variant=minbase", "--include=bash-completion,debconf,man-db,systemd",
			"--dpkgopt=path-exclude=/usr/share/locale/*", `--aptopt=Acquire::Retries "5"`,
			"--skip=cleanup/apt", "--customize-hook=sh "+hook+` "$1" `+strings.Join(words, " "), suite, tmp, list)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "CONF="+aptConf)
		var out []byte
		if out, err = cmd.CombinedOutput(); err == nil {
			return os.Rename(tmp, tree)
		}
		err = fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return err
}

// machine is a Debian tree that runs: its process 1 is systemd, in namespaces, a control group
// and a network of its own. This machine's /usr is at /usr/local/host in it.
type machine struct {
	t    *testing.T
	root string
	cmd  *exec.Cmd
	boot strings.Builder // what was said before systemd began
}

// The address of the machine's only network card.
const (
	address = "10.9.0.1"
	network = "10.9.0.0/16"
)

// bootScript is process 1 until systemd is. What a machine does to its kernel, such as to set
// sysctls or the clock, must not reach this one's.
const bootScript = `set -eu
root=$1 group=$2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t cgroup2 cgroup2 "$root/mnt"
mkdir "$root/mnt/$group"
echo 0 >"$root/mnt/$group/cgroup.procs"
umount "$root/mnt"
exec unshare --cgroup --propagation unchanged /bin/bash -euc '
root=$1
ip link set lo up
ip link add br0 type bridge
ip addr add ` + address + `/16 dev br0
ip link set br0 up
mount --bind /usr "$root/usr/local/host"
mount -o remount,bind,ro "$root/usr/local/host"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
	words=($device)
	mknod -m 666 "$root/dev/${words[0]}" c "${words[1]}" "${words[2]}"
done
ln -s pts/ptmx "$root/dev/ptmx"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \
	--bounding-set=-sys_module,-sys_rawio,-sys_time,-syslog,-audit_control,-audit_read,-audit_write \
	/lib/systemd/systemd --log-target=journal --unit=multi-user.target
' bash "$root"`

func start(t *testing.T, root string) *machine {
	t.Helper()
	m := &machine{t: t, root: root}
	group := fmt.Sprintf("testbox-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	t.Cleanup(func() { removeGroup(t, group) })
	m.cmd = exec.Command("/bin/sh", "-c", bootScript, "sh", root, group)
	m.cmd.Stdout, m.cmd.Stderr = &m.boot, &m.boot
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- m.cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := m.try("systemctl --no-pager status testbox || true; journalctl --no-pager --lines=80")
			t.Logf("the machine says\n%s", said)
		}
		m.cmd.Process.Kill()
		<-ended
	})
	said := ""
	for end := time.Now().Add(machineLimit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the machine does not start: %v\n%s", err, m.boot.String())
		default:
		}
		// A unit of the machine may have failed; it is up then, and "degraded".
		said, _ = m.try(`[ "$(cat /proc/1/comm)" = systemd ] && systemctl is-system-running --wait`)
		if state := strings.TrimSpace(said); state == "running" || state == "degraded" {
			return m
		}
	}
	t.Fatalf("the machine does not come up: %s", said)
	return nil
}

// removeGroup removes the control group when its processes have ended.
func removeGroup(t *testing.T, group string) {
	at := t.TempDir()
	const script = `mount -t cgroup2 cgroup2 "$1" && [ ! -e "$1/$2" ] || find "$1/$2" -depth -type d -exec rmdir {} +`
	var err error
	for end := time.Now().Add(machineLimit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = exec.Command("unshare", "--mount", "/bin/sh", "-c", script, "sh", at, group).Run(); err == nil {
			return
		}
	}
	t.Errorf("the control group %s stays: %v", group, err)
}

// prelude says what failed, which bash does not. A script ends with what fails, but not with what
// is to fail and does not, so it says "no COMMAND" for that.
const prelude = `set -e; trap 'echo "failed: $BASH_COMMAND"' ERR
no() { if "$@"; then echo "this worked: $*"; exit 1; fi; }
`

// try runs a script in the machine, as root.
func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), machineLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--target=%d", m.cmd.Process.Pid), "--mount", "--net", "--pid", "--uts", "--ipc",
		"--cgroup", "/bin/bash", "-c", prelude+script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) in(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// outside runs a program of this machine in the network of the other one.
func (m *machine) outside(argv ...string) string {
	m.t.Helper()
	return run(m.t, append([]string{"nsenter", fmt.Sprintf("--target=%d", m.cmd.Process.Pid), "--net"}, argv...)...)
}

// until waits for what a script says, by its exit code.
func (m *machine) until(what, script string) {
	m.t.Helper()
	said := ""
	var err error
	for end := time.Now().Add(machineLimit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if said, err = m.try(script); err == nil {
			return
		}
	}
	m.t.Fatalf("not seen: %s: %v\n%s", what, err, said)
}

// says reports what a text lacks.
func says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("this does not say %q:\n%s", want, text)
		}
	}
}

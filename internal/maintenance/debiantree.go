package maintenance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/child"
	"testbox-imaging/internal/words"
)

// debianFiles are files for the root. Their paths below debianroot/ are their
// paths in the root.
//
//go:embed all:debianroot
var debianFiles embed.FS

//go:embed debiansetup.sh
var debianSetup string

// debianModes are the modes of the files whose mode is not 0644.
var debianModes = map[string]fs.FileMode{
	"etc/initramfs-tools/hooks/testbox": 0o755,
	"etc/sudoers.d/testbox":             0o440,
}

// debianPackages are the packages of the root besides Debian's essential ones.
// First come those that the root needs to run, then those that a person in
// rescue needs.
var debianPackages = strings.Fields(`
	linux-image-amd64 initramfs-tools systemd-sysv udev kmod dbus libpam-systemd nfs-common netbase iproute2 openssh-server busybox
	pxelinux syslinux zip gddrescue sudo joe smbclient cifs-utils
	smartmontools nvme-cli gdisk parted fdisk dosfstools exfatprogs ntfs-3g xfsprogs btrfs-progs lvm2 mdadm cryptsetup
	pciutils usbutils ethtool iputils-ping dmidecode efibootmgr strace tcpdump nano less pigz zstd`)

// debianExcludes are paths that are left out of packages. They are drivers that
// a box without a screen does not need, and files that nobody reads.
var debianExcludes = []string{
	"/lib/modules/*/kernel/drivers/gpu/*", "/lib/modules/*/kernel/drivers/media/*", "/lib/modules/*/kernel/drivers/net/wireless/*",
	"/lib/modules/*/kernel/sound/*", "/usr/share/doc/*", "/usr/share/locale/*",
}

// recipe is what a tree is made of. It is the same for all boxes of a site, and
// does not depend on the agent.
type recipe struct {
	key      string   // differs if the tree differs
	kernel   string   // release
	suite    string   // such as "bookworm"
	sources  string   // file with the apt sources
	packages []string // the packages to install, without their dependencies
	notes    []string
}

// newRecipe finds out from the host's apt sources what a tree would be made of
// now.
func newRecipe(ctx context.Context, a *apt, opt DebianOptions) (*recipe, error) {
	defer opt.busy("", "finding out what the root is made of")()
	r := &recipe{sources: filepath.Join(a.work, sourcesFile), suite: a.suite}
	r.packages = append(slices.Clone(debianPackages), opt.Packages...)
	for _, p := range firmwarePackages {
		if _, err := a.show(ctx, p); errors.Is(err, errNoPackage) {
			r.notes = append(r.notes, fmt.Sprintf("no apt source has %s: network cards that need it are not driven", p))
			continue
		} else if err != nil {
			return nil, err
		}
		r.packages = append(r.packages, p)
	}
	out, msg, err := a.run(ctx, a.work, "apt-get", append([]string{"-q", "--simulate", "--no-install-recommends", "install", "?essential",
		"?priority(^required$)", "apt"}, r.packages...)...)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("the packages of the root cannot be had: %w\n%s", err, bytes.TrimSpace(msg))
	}
	set, err := parseSimulation(out)
	if err != nil {
		return nil, err
	}
	for _, p := range set {
		if rest, ok := strings.CutPrefix(p.Name, "linux-image-"); ok && rest != "amd64" {
			r.kernel = rest
		}
	}
	if r.kernel == "" {
		return nil, errors.New("the packages of the root have no kernel")
	}
	r.notes = append(r.notes, a.notes...)
	r.key, err = r.makeKey(set)
	return r, err
}

// parseSimulation reads what apt-get --simulate would install. Its lines are
// such as "Inst zip (3.0-13 Debian:12.11/stable [amd64])".
func parseSimulation(out []byte) (set []debianPackage, err error) {
	for _, line := range strings.Split(string(out), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "Inst" {
			continue
		}
		p := debianPackage{}
		if len(f) >= 3 {
			p = debianPackage{f[1], strings.TrimPrefix(f[2], "(")}
		}
		if !validPackage(p.Name) || !validVersion(p.Version) {
			return nil, fmt.Errorf("apt's output is not understood: %.200q", line)
		}
		set = append(set, p)
	}
	slices.SortFunc(set, func(a, b debianPackage) int { return strings.Compare(a.Name, b.Name) })
	return set, nil
}

// makeKey is a hash of everything on which a tree depends.
func (r *recipe) makeKey(set []debianPackage) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, r.suite, r.packages, debianExcludes, debianSetup, set)
	err := fs.WalkDir(debianFiles, "debianroot", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := debianFiles.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(data), data)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// tree makes the tree in dir, which must not exist yet. It unpacks the tree
// from the cache, or else makes a new one.
func (r *recipe) tree(ctx context.Context, c *cache, dir string, opt Options) (err error) {
	cached := filepath.Join(c.dir, "trees", r.key+".tar.zst")
	if exists(cached) {
		end := opt.busy("", "unpacking the tree that an earlier build kept")
		err := unpackTree(ctx, cached, dir)
		end()
		if err == nil || ctx.Err() != nil {
			return err
		}
		opt.Say("the tree in the cache is damaged, so a new one is made: %v", err)
		if err := errors.Join(os.Remove(cached), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	end := opt.busy("", "installing %s and what they need into a tree", words.Count(len(r.packages), "package"))
	err = r.debootstrap(ctx, dir, opt.Say)
	end()
	if err != nil {
		return err
	}
	if err := writeDebianFiles(dir); err != nil {
		return err
	}
	end = opt.busy("", "making the initramfs")
	err = chroot(ctx, dir, debianSetup, "sh")
	end()
	if err != nil {
		return err
	}
	defer opt.busy("", "keeping the tree for the next build")()
	if err := packTree(ctx, dir, cached); err != nil {
		opt.Say("the tree is not kept for the next build: %v", err)
	}
	return ctx.Err()
}

func (r *recipe) debootstrap(ctx context.Context, dir string, say func(string, ...any)) error {
	args := []string{"--mode=root", "--format=directory", "--variant=minbase", "--architectures=amd64", "--include=" +
		strings.Join(r.packages, ",")}
	for _, e := range debianExcludes {
		args = append(args, "--dpkgopt=path-exclude="+e)
	}
	args = append(args, "--dpkgopt=path-include=/usr/share/doc/*/copyright", r.suite, dir, r.sources)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	// mmdebstrap mounts this machine's devices in the tree. It runs in
	// namespaces of its own, so that no mount is left when it is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
		Setpgid: true}
	return runLoud(ctx, cmd, &toolSays{name: "mmdebstrap", say: say})
}

// writeDebianFiles copies debianFiles into the tree.
func writeDebianFiles(dir string) error {
	return fs.WalkDir(debianFiles, "debianroot", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := debianFiles.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, "debianroot/")
		mode, ok := debianModes[name]
		if !ok {
			mode = 0o644
		}
		return writeIn(dir, name, data, mode)
	})
}

// writeIn writes a file of a tree. No link in the tree can lead it outside.
func writeIn(dir, name string, data []byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.WriteFile(name, data, mode); err != nil {
		return err
	}
	return root.Chmod(name, mode) // independent of the umask
}

// installed lists the packages of a tree.
func installed(ctx context.Context, dir string) ([]debianPackage, error) {
	out, err := child.Command(ctx, "dpkg-query", "--admindir="+filepath.Join(dir, "var/lib/dpkg"), "-W", "-f",
		"${Package} ${Version}\n").Output()
	if err = child.Err(ctx, err); err != nil {
		return nil, fmt.Errorf("list the packages: %w", err)
	}
	var all []debianPackage
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, version, _ := strings.Cut(line, " ")
		all = append(all, debianPackage{name, version})
	}
	return all, nil
}

// chroot runs a program in the tree, with stdin as its input. It runs in
// namespaces of its own, so that no mount and no process is left, however it
// ends.
func chroot(ctx context.Context, dir, stdin string, argv ...string) error {
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child",
		"--mount-proc=" + filepath.Join(dir, "proc"), "chroot", dir}, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root", "TERM=dumb"}
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no signals of the terminal
	return runTool(ctx, cmd)
}

// runTool runs a program. The error has the end of what the program printed.
func runTool(ctx context.Context, cmd *exec.Cmd) error {
	return runLoud(ctx, cmd, &toolSays{say: func(string, ...any) {}})
}

// runLoud is like runTool, and also passes on what the program says of its
// steps.
func runLoud(ctx context.Context, cmd *exec.Cmd, out *toolSays) error {
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out.all.String()), "\n")
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return nil
}

// packTree stores a tree in the cache, and removes all earlier ones.
func packTree(ctx context.Context, dir, to string) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	earlier, _ := filepath.Glob(filepath.Join(filepath.Dir(to), "*"))
	for _, e := range earlier {
		os.Remove(e)
	}
	tmp := to + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), ignoreMissing(os.Remove(tmp))) }()
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	cmd := child.Command(ctx, "tar", "--create", "--numeric-owner", "--xattrs", "--directory", dir, ".")
	var msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = z, &msg
	if err := child.Err(ctx, cmd.Run()); err != nil {
		return fmt.Errorf("tar: %w: %s", err, bytes.TrimSpace(msg.Bytes()))
	}
	if err := errors.Join(z.Close(), f.Sync()); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// unpackTree makes dir from a stored tree. The zstd stream has a checksum.
func unpackTree(ctx context.Context, from, dir string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	cmd := child.Command(ctx, "tar", "--extract", "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*",
		"--directory", dir)
	cmd.Stdin = z // errors of reading it are errors of the command
	return runTool(ctx, cmd)
}

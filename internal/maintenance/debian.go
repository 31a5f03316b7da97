package maintenance

import (
	"bytes"
	"cmp"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/child"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// DebianOptions say how to build the form debian.
type DebianOptions struct {
	Options
	NFSRoot  string   // folder of the roots for NFS, which must exist; "" makes none
	SSHKeys  []byte   // authorized_keys of root and of the user testbox; may be nil
	Password string   // of root and testbox; "" means that there is none
	Packages []string // more packages of Debian

	// The areas as boxes mount them, for /etc/fstab.
	TFTPFrom, BackupFrom bootcfg.NFSPath
}

// maxDebianSize is the largest size in bytes of kernel and initrd together, for
// the form debian. A build fails if they are larger, since loaders fetch both
// by TFTP.
const maxDebianSize = 64 << 20

// debianAgent is the agent's path in the root and in its initrd.
const debianAgent = "usr/local/sbin/testbox-maintenance"

// debianBoot is a folder in the root. It has the files that are copied to the
// version's folder in the TFTP area.
const debianBoot = "usr/share/testbox"

// debianManifest is the content of manifestFile in the form debian. It is for
// people, for Updates, and for checking that the boot files are those that were built.
type debianManifest struct {
	Packages []debianPackage `json:"packages"`
	SHA256   struct {
		Kernel string `json:"kernel"`
		Initrd string `json:"initrd"`
		Agent  string `json:"agent"`
	} `json:"sha256"`
}

type debianPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// BuildDebian makes a maintenance system of the form debian. It makes the root
// in the area of roots, if there is one, and then kernel, initrd and the root as
// one file in the TFTP area. Each gets
// its name only when it is complete and durable, and nothing that has a name is
// changed. So a build that fails changes nothing for anybody, and boxes that
// run an earlier version keep it. The same input gives the same version.
func BuildDebian(ctx context.Context, opt DebianOptions) (*Result, error) {
	var err error
	if opt.Options, err = opt.Options.complete(); err != nil {
		return nil, err
	}
	if err := opt.check(); err != nil {
		return nil, err
	}
	if opt.NFSRoot != "" {
		// removeTree needs the real path, since mounts are known by their real
		// paths.
		if opt.NFSRoot, err = filepath.Abs(opt.NFSRoot); err != nil {
			return nil, err
		}
		if opt.NFSRoot, err = filepath.EvalSymlinks(opt.NFSRoot); err != nil {
			return nil, err
		}
	}
	agent, err := readAgent(opt.Agent)
	if err != nil {
		return nil, err
	}
	a, err := openApt(ctx, opt.Options)
	if err != nil {
		return nil, err
	}
	defer a.close()
	recipe, err := newRecipe(ctx, a, opt)
	if err != nil {
		return nil, err
	}
	lock, err := lockArea(ctx, cmp.Or(opt.NFSRoot, opt.TFTP))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	b := &debianBuild{DebianOptions: opt, cache: a.cache, recipe: recipe, agent: agent}
	b.name()
	r, err := b.run(ctx)
	if err != nil {
		return nil, err
	}
	return r, r.addLoaders(ctx, a)
}

// lockArea waits until no other build works in dir. The lock of the cache does
// not suffice, because another build may have another cache.
func lockArea(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, f, dir); err != nil {
		return nil, err
	}
	return f, nil
}

// check refuses options that cannot work, before anything is begun.
func (o *DebianOptions) check() error {
	if err := checkArea(o.TFTP); err != nil {
		return err
	}
	if st, err := os.Stat(o.NFSRoot); o.NFSRoot != "" && (err != nil || !st.IsDir()) {
		return problem.Wrongf("no folder %s for the roots of the form debian; `testbox share init` makes one", o.NFSRoot)
	}
	for _, p := range o.Packages {
		if !validPackage(p) {
			return problem.Wrongf("%q is not the name of a Debian package", p)
		}
	}
	if err := validKeys(o.SSHKeys); err != nil {
		return problem.Wrongf("%w", err)
	}
	if strings.ContainsFunc(o.Password, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(o.Password) > 256 {
		return problem.Wrongf("the password has a control character or more than 256 bytes")
	}
	if os.Geteuid() != 0 {
		return problem.Wrongf("the form debian can only be built by root: its files belong to users of their own")
	}
	for program, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools"} {
		if _, err := exec.LookPath(program); err != nil {
			return problem.Wrongf("%s is not installed; run: apt-get install %s", program, pkg)
		}
	}
	return nil
}

// validKeys makes sure that keys is an authorized_keys text. Every box could
// read a private key in its place.
func validKeys(keys []byte) error {
	if len(keys) > 1<<20 || bytes.Contains(keys, []byte("PRIVATE KEY")) {
		return errors.New("the SSH key is a private one, or larger than 1 MiB; give the public key (a file .pub, or an authorized_keys)")
	}
	for i, line := range strings.Split(string(keys), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if !slices.ContainsFunc(strings.Fields(line), func(w string) bool { return strings.HasPrefix(w, "AAAA") }) {
			return fmt.Errorf("line %d of the SSH keys is no public key", i+1)
		}
	}
	return nil
}

// debianBuild is one build of one version.
type debianBuild struct {
	DebianOptions
	cache   *cache
	recipe  *recipe
	agent   []byte
	version string
	root    string // the version's folder among the roots; "" if there are no roots
	boot    string // the version's folder in the TFTP area
}

// name sets the version and its folders.
func (b *debianBuild) name() {
	b.version = b.versionName()
	if b.NFSRoot != "" {
		b.root = filepath.Join(b.NFSRoot, b.version)
	}
	b.boot = filepath.Join(b.TFTP, bootcfg.MaintDir, b.version)
}

// versionName is a name that depends on everything of which the version is
// made.
func (b *debianBuild) versionName() string {
	h := sha256.New()
	parts := [][]byte{[]byte(b.recipe.key), b.agent, b.fstab(), b.SSHKeys, b.slowPassword()}
	if b.NFSRoot == "" {
		parts = append(parts, []byte("no NFS"))
	}
	for _, part := range parts {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
	}
	return fmt.Sprintf("debian-%s-%s", b.recipe.kernel, hex.EncodeToString(h.Sum(nil)[:4]))
}

// slowPassword is a hash of the password. Everybody can see the name of the
// version, which is made from this hash. So the hash is slow to compute, and
// guessing the password from the name takes long.
func (b *debianBuild) slowPassword() []byte {
	if b.Password == "" {
		return nil
	}
	key, err := pbkdf2.Key(sha256.New, b.Password, []byte(b.recipe.key), 1_000_000, sha256.Size)
	if err != nil {
		panic(err) // cannot happen, since the key length is valid
	}
	return key
}

func (b *debianBuild) run(ctx context.Context) (*Result, error) {
	r := &Result{Notes: b.recipe.notes}
	v, size, err := b.published()
	if err == nil && (b.root == "" || exists(b.root)) {
		r.Version, r.Size, r.Existed = *v, size, true
		return r, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this version was built before and is damaged: %w; remove the folder %s and build again", err, b.boot)
	}
	if b.root != "" && !exists(b.root) {
		if err := b.makeRoot(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.makeBoot(ctx); err != nil {
		return nil, err
	}
	if v, size, err = b.published(); err != nil {
		return nil, err
	}
	r.Version, r.Size = *v, size
	return r, nil
}

// makeBoot makes the version's folder in the TFTP area, unless it is there.
func (b *debianBuild) makeBoot(ctx context.Context) error {
	switch {
	case exists(b.boot):
		return nil
	case b.root != "":
		return b.publish(ctx, b.root)
	}
	return b.inWork(ctx, b.cache.work, func(tree string) error { return b.publish(ctx, tree) })
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// published reads the version's folder in the TFTP area. It makes sure that
// kernel and initrd are those that were built, and returns their size in bytes.
// The error matches fs.ErrNotExist only if there is no such folder.
func (b *debianBuild) published() (*bootcfg.Version, int64, error) {
	if _, err := os.Lstat(b.boot); err != nil {
		return nil, 0, err
	}
	v, size, err := b.readBoot()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %v", b.boot, err) // not %w, which could match fs.ErrNotExist
	}
	return v, size, nil
}

func (b *debianBuild) readBoot() (*bootcfg.Version, int64, error) {
	fsys := durable.OS{}
	text, err := durable.ReadFile(fsys, filepath.Join(b.boot, manifestFile), 1<<20)
	if err != nil {
		return nil, 0, err
	}
	var m debianManifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", manifestFile, err)
	}
	if text, err = durable.ReadFile(fsys, filepath.Join(b.boot, bootcfg.VersionFile), bootcfg.MaxVersion); err != nil {
		return nil, 0, err
	}
	v, err := bootcfg.ParseVersion(text)
	if err != nil {
		return nil, 0, err
	}
	size := int64(0)
	for name, want := range map[string]string{bootcfg.KernelFile: m.SHA256.Kernel, bootcfg.InitrdFile: m.SHA256.Initrd} {
		data, err := durable.ReadFile(fsys, filepath.Join(b.boot, name), maxDebianSize)
		if err != nil {
			return nil, 0, err
		}
		if sha256Hex(data) != want || v.Version != b.version {
			return nil, 0, fmt.Errorf("%s is not what was built", name)
		}
		size += int64(len(data))
	}
	sum, err := fileSHA256(filepath.Join(b.boot, bootcfg.RootName))
	if err == nil && sum != v.Root.SHA256 {
		err = fmt.Errorf("%s is not what was built", bootcfg.RootName)
	}
	return v, size, err
}

// publish makes the version's folder in the TFTP area from its root.
func (b *debianBuild) publish(ctx context.Context, tree string) error {
	content := map[string][]byte{}
	for _, name := range []string{bootcfg.KernelFile, bootcfg.InitrdFile, manifestFile, bootcfg.VersionFile} {
		data, err := os.ReadFile(filepath.Join(tree, debianBoot, name))
		if err != nil {
			return fmt.Errorf("the root %s is damaged: %v; remove it when no box runs it, and build again", tree, err)
		}
		content[name] = data
	}
	v, err := bootcfg.ParseVersion(content[bootcfg.VersionFile])
	if err != nil {
		return err
	}
	return writeFolder(b.boot, func(tmp string) ([]file, error) {
		if v.Root, err = b.squash(ctx, tree, filepath.Join(tmp, bootcfg.RootName)); err != nil {
			return nil, err
		}
		v.NoNFS = b.root == ""
		if content[bootcfg.VersionFile], err = v.Marshal(); err != nil {
			return nil, err
		}
		b.Say("publishing %s", b.version)
		var files []file
		for _, name := range []string{bootcfg.KernelFile, bootcfg.InitrdFile, manifestFile, bootcfg.VersionFile} { // the last one counts
			files = append(files, file{name, content[name]})
		}
		return files, nil
	})
}

// squash makes one file of a root, durably. Boxes have a kernel of their own already.
func (b *debianBuild) squash(ctx context.Context, tree, to string) (sum bootcfg.RootSum, err error) {
	defer b.busy("", "packing the root into one file")()
	cmd := child.Command(ctx, "mksquashfs", tree, to, "-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", "3",
		"-e", "boot", debianBoot)
	if err := runTool(ctx, cmd); err != nil {
		return sum, err
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return sum, err
	}
	st, err := f.Stat()
	if err != nil {
		return sum, err
	}
	sum.Size = st.Size()
	sum.SHA256, err = fileSHA256(to)
	return sum, err
}

// buildPrefix begins the names of roots that are not complete yet.
const buildPrefix = ".build-"

// makeRoot makes the version's root under another name. The root gets its name
// when everything in it is durable.
func (b *debianBuild) makeRoot(ctx context.Context) error {
	left, _ := filepath.Glob(filepath.Join(b.NFSRoot, buildPrefix+"*"))
	for _, l := range left { // left behind by killed builds
		if err := removeTree(l); err != nil {
			return err
		}
	}
	work := func() (string, error) { return os.MkdirTemp(b.NFSRoot, buildPrefix) }
	return b.inWork(ctx, work, func(tree string) error {
		end := b.busy("", "making the root durable")
		err := syncFS(tree)
		end()
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fsys := durable.OS{}
		if err := fsys.Rename(tree, b.root); err != nil {
			return err
		}
		return fsys.SyncDir(b.NFSRoot)
	})
}

// inWork makes the version's root in a folder of its own, and removes that
// afterwards.
func (b *debianBuild) inWork(ctx context.Context, newWork func() (string, error), use func(tree string) error) error {
	work, err := newWork()
	if err != nil {
		return err
	}
	tree := filepath.Join(work, "root")
	err = b.recipe.tree(ctx, b.cache, tree, b.Options)
	if err == nil {
		b.Say("adding the agent, the site's addresses and the logins")
		if err = b.finish(ctx, tree); err != nil {
			err = fmt.Errorf("finish the root: %w", err)
		}
	}
	if err == nil {
		err = use(tree)
	}
	return errors.Join(err, removeTree(work))
}

// removeTree removes a tree that is not complete. It refuses if something is
// mounted in the tree, because files behind a mount do not belong to the tree.
func removeTree(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		// Field 5 is the mount point (proc_pid_mountinfo(5)).
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			return fmt.Errorf("%s is mounted there; unmount it and remove %s", f[4], dir)
		}
	}
	return os.RemoveAll(dir)
}

// syncFS makes everything on the file system of dir durable.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// finish adds to a tree what only this version has. That is the agent, the
// site's addresses, the logins, and the files that the loader gets.
func (b *debianBuild) finish(ctx context.Context, tree string) error {
	if err := writeIn(tree, debianAgent, b.agent, 0o755); err != nil {
		return err
	}
	if err := writeIn(tree, "etc/fstab", b.fstab(), 0o644); err != nil {
		return err
	}
	if err := b.logins(ctx, tree); err != nil {
		return err
	}
	initrd, err := b.initrd(tree)
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile(filepath.Join(tree, "boot/vmlinuz-"+b.recipe.kernel))
	if err != nil {
		return err
	}
	if size := len(kernel) + len(initrd); size > maxDebianSize {
		return fmt.Errorf("kernel and initrd have %d bytes, more than %d; loaders would fail on them", size, maxDebianSize)
	}
	m := debianManifest{}
	if m.Packages, err = installed(ctx, tree); err != nil {
		return err
	}
	m.SHA256.Kernel, m.SHA256.Initrd, m.SHA256.Agent = sha256Hex(kernel), sha256Hex(initrd), sha256Hex(b.agent)
	list, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: b.version, Form: bootcfg.FormDebian, Kernel: b.recipe.kernel, Built: now()}
	text, err := v.Marshal()
	if err != nil {
		return err
	}
	for _, f := range []file{{bootcfg.KernelFile, kernel}, {bootcfg.InitrdFile, initrd}, {manifestFile, append(list, '\n')},
		{bootcfg.VersionFile, text}} {
		if err := writeIn(tree, filepath.Join(debianBoot, f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// initrd is the tree's initramfs and, behind it, a second archive with the
// agent. So the first archive depends on Debian alone. The kernel unpacks one
// after the other (Documentation/driver-api/early-userspace/buffer-format.rst).
func (b *debianBuild) initrd(tree string) ([]byte, error) {
	base, err := os.ReadFile(filepath.Join(tree, "boot/initrd.img-"+b.recipe.kernel))
	if err != nil {
		return nil, err
	}
	base = append(base, make([]byte, -len(base)&3)...)
	second, err := packInitrd([]entry{
		{path: "usr", mode: modeDir | 0o755}, {path: "usr/local", mode: modeDir | 0o755}, {path: "usr/local/sbin", mode: modeDir | 0o755},
		{path: debianAgent, mode: modeFile | 0o755, data: b.agent},
	})
	return append(base, second...), err
}

// fstab is like that of the original. The agent or a person mounts the areas.
// nolock is there because locks would need a daemon, and a server that offers
// them.
func (b *debianBuild) fstab() []byte {
	return fmt.Appendf(nil, `proc /proc proc defaults 0 0
/dev/nfs / nfs defaults 1 1
%s %s nfs tcp,nfsvers=3,noauto,nolock 2 2
%s %s nfs tcp,nfsvers=3,noauto,nolock 3 3
`, b.TFTPFrom, bootcfg.TFTPMount, b.BackupFrom, bootcfg.BackupMount)
}

// logins lets the admin log in, by key and by password.
func (b *debianBuild) logins(ctx context.Context, tree string) error {
	if len(b.SSHKeys) > 0 {
		if err := chroot(ctx, tree, string(b.SSHKeys), "sh", "-euc", `
umask 077
mkdir -p /root/.ssh /home/testbox/.ssh
tee /root/.ssh/authorized_keys >/home/testbox/.ssh/authorized_keys
chown -R testbox: /home/testbox/.ssh`); err != nil {
			return err
		}
	}
	if b.Password == "" {
		return nil
	}
	if err := chroot(ctx, tree, "root:"+b.Password+"\ntestbox:"+b.Password+"\n", "chpasswd"); err != nil {
		return err
	}
	return writeIn(tree, "etc/ssh/sshd_config.d/00-password.conf", []byte("PermitRootLogin yes\nPasswordAuthentication yes\n"), 0o644)
}

package maintos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"testbox-imaging/internal/bootcfg"
)

// DebianOptions say what to build for the form debian.
type DebianOptions struct {
	Options
	NFSRoot  string   // folder of the area of roots, which is there already
	SSHKeys  []byte   // text of authorized_keys for root and testbox; may be empty
	Password string   // of root and testbox; "": no password works
	Packages []string // what the admin wants beside ours
	FSTab    FSTab
}

// FSTab is what the root's /etc/fstab has of a lab: as whom boxes know the server.
type FSTab struct {
	Server     string // address
	TFTPPath   string // exported folders
	BackupPath string
}

// maxDebianSize is the size in bytes of kernel and initrd over which a build of
// the form debian fails. Its initramfs is Debian's, with all network cards'
// drivers, so it is larger than ours can be.
const maxDebianSize = 64_000_000

// BuildDebian makes a maintenance system of the form debian. Its root gets its
// name, whole, before its boot files get theirs, and what is there under a name
// is never changed: a build that fails leaves the earlier ones as they were.
func BuildDebian(ctx context.Context, opt DebianOptions) (*Result, error) {
	var err error
	if opt.Options, err = opt.Options.complete(); err != nil {
		return nil, err
	}
	agent, err := opt.check()
	if err != nil {
		return nil, err
	}
	c, err := openCache(ctx, opt.Cache)
	if err != nil {
		return nil, err
	}
	defer c.close()
	set, work, err := opt.resolve(ctx, c)
	if err != nil {
		return nil, err
	}
	b, err := newDebianBuild(opt, agent, set)
	if err != nil {
		return nil, err
	}
	area, err := lockArea(ctx, opt.NFSRoot)
	if err != nil {
		return nil, err
	}
	defer area.Close()
	r, err := b.publish(func(dir string) error {
		tree, err := c.tree(ctx, set, work, opt.Say)
		if err != nil {
			return err
		}
		defer tree.Close()
		opt.Say("unpacking the tree")
		return tree.unpack(ctx, dir)
	})
	if err != nil {
		return nil, err
	}
	r.Notes = set.notes
	return r, nil
}

// check refuses wrong input, and what cannot work, before anything is begun.
// It returns the agent's program.
func (opt *DebianOptions) check() ([]byte, error) {
	if err := opt.checkSettings(); err != nil {
		return nil, &InputError{err}
	}
	agent, err := readAgent(opt.Agent)
	if err != nil {
		return nil, err
	}
	if err := checkArea(opt.TFTP); err != nil {
		return nil, err
	}
	if err := checkArea(opt.NFSRoot); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, &InputError{errors.New("the form debian is built by root: its files belong to several users")}
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return nil, &InputError{errors.New("mmdebstrap is not installed, which makes the tree; apt-get install mmdebstrap")}
	}
	return agent, nil
}

// resolve finds out which packages the tree has, by the host's apt sources.
func (opt *DebianOptions) resolve(ctx context.Context, c *cache) (*packageSet, string, error) {
	work, err := c.work()
	if err != nil {
		return nil, "", err
	}
	a, err := newApt(c, work, opt.Etc, opt.Say)
	if err != nil {
		return nil, "", err
	}
	opt.Say("reading the package indexes of the host's apt sources")
	if err := a.update(ctx); err != nil {
		return nil, "", err
	}
	set, err := a.resolveDebian(ctx, opt.Packages)
	return set, work, err
}

// debianBuild is one version of the form debian on its way into the areas.
type debianBuild struct {
	opt     DebianOptions
	agent   []byte
	set     *packageSet
	version bootcfg.Version
}

// newDebianBuild names the version by all that goes into it. A tree that was
// made anew from the same packages has the same name: a difference would be one
// of times alone.
func newDebianBuild(opt DebianOptions, agent []byte, set *packageSet) (*debianBuild, error) {
	release, err := set.kernelRelease()
	if err != nil {
		return nil, err
	}
	program := sha256.Sum256(agent)
	input, err := json.Marshal([]any{set.key(), hex.EncodeToString(program[:]), opt.SSHKeys, opt.Password, opt.FSTab})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(input)
	b := &debianBuild{opt: opt, agent: agent, set: set, version: bootcfg.Version{
		Format: bootcfg.VersionFormat, Form: bootcfg.FormDebian, Kernel: release, Built: now(),
		Version: fmt.Sprintf("debian-%s-%s", release, hex.EncodeToString(sum[:4])),
	}}
	_, err = b.version.Marshal()
	return b, err
}

// bootDir and rootDir are where the version's two folders are or would be.
func (b *debianBuild) bootDir() string {
	return filepath.Join(b.opt.TFTP, bootcfg.MaintDir, b.version.Version)
}

func (b *debianBuild) rootDir() string { return filepath.Join(b.opt.NFSRoot, b.version.Version) }

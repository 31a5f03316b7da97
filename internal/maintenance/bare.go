package maintenance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Bare is Debian's kernel with some of its modules and nothing else. It is for
// programs that boot it in their own way, as the virtual lab does for its
// boxes' own system.
type Bare struct {
	Image   []byte
	Modules [][]byte // their files, in the order in which they must be loaded
}

// FetchBare gets the kernel that Build would use, with the named modules and
// all that they need. Of opt it uses Cache, Etc and Say.
func FetchBare(ctx context.Context, opt Options, modules ...string) (*Bare, error) {
	opt, err := opt.complete()
	if err != nil {
		return nil, err
	}
	a, err := openApt(ctx, opt)
	if err != nil {
		return nil, err
	}
	defer a.close()
	p := &parts{}
	if err := p.gatherKernel(ctx, a, filepath.Join(a.work, "kernel"), opt, modules, nil); err != nil {
		return nil, err
	}
	b := &Bare{Image: p.kernel.image}
	for _, m := range p.modules.table.Modules {
		b.Modules = append(b.Modules, p.kernel.tree.read[m.Name].data)
	}
	return b, nil
}

// FetchFile gets a file of a Debian package, without installing the package. The package is of Debian 13 where the
// host's sources have an older one, as the loaders of UEFI machines are. Of opt it uses Cache, Etc and Say.
func FetchFile(ctx context.Context, opt Options, name, file string) ([]byte, error) {
	opt, err := opt.complete()
	if err != nil {
		return nil, err
	}
	host, err := openApt(ctx, opt)
	if err != nil {
		return nil, err
	}
	defer host.close()
	a, err := host.forLoaders(ctx)
	if err != nil {
		return nil, err
	}
	p, err := a.show(ctx, name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(a.work, name)
	if err := a.unpack(ctx, p, dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	data, err := readInRoot(root, file, 64<<20)
	if err != nil {
		return nil, fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
	}
	return data, nil
}

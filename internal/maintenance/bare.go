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

// PackageFile is a file of a Debian package.
type PackageFile struct{ Package, File string }

// FetchFiles gets files of Debian packages, without installing them. The packages are of Debian 13 where the
// host's sources have older ones, as the loaders of UEFI machines are. Of opt it uses Cache, Etc and Say.
func FetchFiles(ctx context.Context, opt Options, files ...PackageFile) ([][]byte, error) {
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
	var all [][]byte
	for _, f := range files {
		data, err := a.file(ctx, f)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (a *apt) file(ctx context.Context, f PackageFile) ([]byte, error) {
	p, err := a.show(ctx, f.Package)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(a.work, f.Package)
	if err := a.unpack(ctx, p, dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	data, err := readInRoot(root, f.File, 64<<20)
	if err != nil {
		return nil, fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
	}
	return data, nil
}

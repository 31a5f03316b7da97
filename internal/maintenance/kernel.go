package maintenance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// kernelPackage is the package that depends on the newest kernel of the Debian
// release.
const kernelPackage = "linux-image-amd64"

// kernelPackages follows the dependencies from kernelPackage to the packages
// with the kernel and its modules. Up to Debian 13 this is one package. Later
// releases split it.
func kernelPackages(ctx context.Context, a *apt) ([]pkg, error) {
	var found []pkg
	todo, seen := []string{kernelPackage}, map[string]bool{}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		p, err := a.show(ctx, name)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("%w; the kernel comes from the host's apt sources, see sources.list(5)%s", err,
				strings.Join(append([]string{""}, a.notes...), "\n"))
		}
		if name != kernelPackage {
			found = append(found, p)
		}
		for _, d := range p.depends {
			if hasKernel(d) {
				todo = append(todo, d)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("package %s depends on no kernel", kernelPackage)
	}
	return found, nil
}

func hasKernel(name string) bool {
	for _, p := range []string{"linux-image-", "linux-binary-", "linux-modules-"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// kernel is an unpacked kernel.
type kernel struct {
	release string // "6.1.0-37-amd64"
	image   []byte // vmlinuz
	tree    *kernelTree
}

// findKernel finds the kernel in a folder into which its packages were
// unpacked.
func findKernel(dir string) (*kernel, error) {
	var modules []string
	for _, top := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		found, _ := filepath.Glob(filepath.Join(dir, top))
		modules = append(modules, found...)
	}
	if len(modules) != 1 {
		return nil, fmt.Errorf("the kernel's packages have modules for %d kernels", len(modules))
	}
	k := &kernel{release: filepath.Base(modules[0])}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	k.image, err = readInRoot(root, "boot/vmlinuz-"+k.release, maxModule)
	if errors.Is(err, os.ErrNotExist) {
		k.image, err = readInRoot(root, "usr/lib/modules/"+k.release+"/vmlinuz", maxModule)
	}
	if err != nil {
		return nil, fmt.Errorf("the kernel's packages have no kernel: %w", err)
	}
	k.tree, err = openKernelTree(modules[0])
	return k, err
}

// readInRoot reads a file of an unpacked package. No link in the package can
// lead it outside.
func readInRoot(root *os.Root, path string, limit int64) ([]byte, error) {
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular() || st.Size() > limit:
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", path, limit)
	}
	return io.ReadAll(f)
}

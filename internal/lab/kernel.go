package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// FetchKernel gets Debian's kernel by apt into a cache below dir.
func FetchKernel(ctx context.Context, dir string) (Kernel, error) {
	name, err := kernelPackage(ctx)
	if err != nil {
		return Kernel{}, err
	}
	tree := filepath.Join(dir, name)
	if !exists(tree) {
		if err := unpackKernel(ctx, dir, name, tree); err != nil {
			return Kernel{}, err
		}
	}
	release := strings.TrimPrefix(name, "linux-image-")
	image, err := os.ReadFile(filepath.Join(tree, "boot", "vmlinuz-"+release))
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Image: image}
	seen := map[string]bool{}
	for _, m := range KernelModules {
		out, err := exec.CommandContext(ctx, program("modprobe"), "-d", tree, "-S", release, "-D", m).Output()
		if err != nil {
			return Kernel{}, fmt.Errorf("modprobe -D %s: %w", m, err)
		}
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "insmod" && !seen[f[1]] {
				seen[f[1]] = true
				data, err := os.ReadFile(f[1])
				if err != nil {
					return Kernel{}, err
				}
				k.Modules = append(k.Modules, Module{strings.TrimSuffix(filepath.Base(f[1]), ".ko"), data})
			}
		}
	}
	return k, nil
}

func kernelPackage(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "linux-image-amd64").Output()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Depends:" {
			return f[1], nil
		}
	}
	return "", errors.New("apt knows no linux-image-amd64")
}

func unpackKernel(ctx context.Context, dir, name, tree string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, "sh", "-ec", `apt-get -qq download "$1"; dpkg-deb -x "$1"_*.deb tree; depmod -b tree "${1#linux-image-}"`, "sh", name)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return os.Rename(filepath.Join(tmp, "tree"), tree)
}

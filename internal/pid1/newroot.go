package pid1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// newRoot is the root of the debian form. It is the server's folder, or a file that
// was fetched from it, read-only, with a layer in memory above it for all writes.
type newRoot struct {
	dir   string // where the root is mounted
	stage string // where the layers are mounted until then
}

// Where the layers are found in the running system, below the root.
const (
	layerRO = "media/root-ro"
	layerRW = "media/root-rw"
)

// programPath is the path of the agent's program in the root.
const programPath = "usr/local/sbin/testbox-maintenance"

// mount assembles the root. mountLower mounts the lower layer.
func (n newRoot) mount(mountLower func(dir string) error) error {
	lower, rw := filepath.Join(n.stage, "ro"), filepath.Join(n.stage, "rw")
	if err := mountLower(lower); err != nil {
		return err
	}
	if err := mountDir("tmpfs", rw, "tmpfs", "mode=0755"); err != nil {
		return err
	}
	upper, work := filepath.Join(rw, "upper"), filepath.Join(rw, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := mountDir("overlay", n.dir, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)); err != nil {
		return err
	}
	root, err := os.OpenRoot(n.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for from, to := range map[string]string{lower: layerRO, rw: layerRW} {
		if err := root.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, filepath.Join(n.dir, to), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move the layer %s to %s: %w", from, to, err)
		}
	}
	return nil
}

// mountDir mounts a file system of the kernel's own. It becomes a part of the
// root, so it has neither nosuid nor nodev.
func mountDir(source, dir, kind, options string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, dir, kind, 0, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, dir, err)
	}
	return nil
}

// fill writes the files into the root that differ from box to box, and the
// program that runs now. In the layer in memory, the agent has the very version
// that the box was started with, and it goes on when the server is away.
func (n newRoot) fill(resolv []byte, program string) error {
	root, err := os.OpenRoot(n.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	self, err := os.Open(program)
	if err != nil {
		return err
	}
	defer self.Close()
	for _, f := range []struct {
		path string
		mode os.FileMode
		text io.Reader
	}{
		{"etc/hostname", 0o644, strings.NewReader(host + "\n")},
		{"etc/hosts", 0o644, strings.NewReader(hosts(host))},
		{"etc/resolv.conf", 0o644, bytes.NewReader(resolv)},
		{programPath, 0o755, self},
	} {
		if err := replaceFile(root, f.path, f.mode, f.text); err != nil {
			return fmt.Errorf("cannot write %s into the root: %w", f.path, err)
		}
	}
	return nil
}

// forget makes a file of the lower layer be gone.
func (n newRoot) forget(path string) error {
	root, err := os.OpenRoot(n.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// hosts is the text of /etc/hosts. Programs such as sudo look up the machine's
// own name, and must not wait for a name server that does not answer.
func hosts(host string) string {
	names := host
	if short, _, dotted := strings.Cut(host, "."); dotted {
		names += " " + short
	}
	return "127.0.0.1 localhost\n127.0.1.1 " + names + "\n::1 localhost ip6-localhost ip6-loopback\n"
}

// replaceFile writes a file in the place of whatever has its name. A link of
// that name is replaced, not followed. No link in the path leads out of the
// root.
func replaceFile(root *os.Root, path string, mode os.FileMode, text io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fresh := path + ".testbox-new"
	if err := root.RemoveAll(fresh); err != nil {
		return err
	}
	f, err := root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, text)
	if err == nil {
		err = f.Chmod(mode) // independent of the umask
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return root.Rename(fresh, path)
}

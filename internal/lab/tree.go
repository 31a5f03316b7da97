package lab

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"testbox-imaging/internal/child"
)

// busybox is the program of Debian's busybox-static, which needs no libraries.
const busybox = "/usr/bin/busybox"

// initrdInit is /init of the own system's initrd. It loads the drivers, finds
// the root by its label and starts the system there.
const initrdInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for m in /modules/*; do insmod $m; done
n=0
until root=$(findfs LABEL=%s 2>/dev/null); do
	n=$((n+1))
	[ $n -lt 300 ] || { echo "testbox own system: no root found"; reboot -f; }
	usleep 100000
done
mount -t ext4 -o ro $root /root || { echo "testbox own system: no mount of $root"; reboot -f; }
mount --move /dev /root/dev
exec switch_root /root /sbin/init
`

// ownInit is /sbin/init of the own system. It checks the system's files and
// prints the result. Then it asks for a login, as systems do.
const ownInit = `#!/bin/busybox sh
cd /
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
/sbin/efi
echo "testbox own system %[1]s: host name $(busybox cat /etc/hostname)"
busybox ip link set eth0 up
busybox udhcpc -i eth0 -s /sbin/dhcp -t 60 -T 1 -q >/dev/null 2>&1 &
if busybox sha256sum -c -s etc/sums; then
	echo "testbox own system %[1]s up, files ok"
	echo "%[1]s login: "
else
	echo "testbox own system %[1]s up, FILES DAMAGED"
fi
while :; do busybox sleep 3600; done
`

// ownDHCP is /sbin/dhcp of the own system. udhcpc calls it with what it was given.
const ownDHCP = `#!/bin/busybox sh
[ "$1" != bound ] || busybox ip addr add $ip/$mask dev $interface
`

// makeTree makes the files of the system's root.
func (o OwnSystem) makeTree(ctx context.Context, root string) error {
	for _, dir := range []string{"bin", "boot", "data", "dev", "etc", "proc", "sbin", "sys"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "boot/vmlinuz"), o.Kernel.Image, 0o644); err != nil {
		return err
	}
	if err := makeInitrd(ctx, filepath.Join(root, "boot/initrd"), o.Kernel.Modules, fmt.Sprintf(initrdInit, o.label())); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "sbin/init"), fmt.Appendf(nil, ownInit, o.Name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "sbin/dhcp"), []byte(ownDHCP), 0o755); err != nil {
		return err
	}
	if err := o.makeEFI(root); err != nil {
		return err
	}
	if err := o.makeData(filepath.Join(root, "data")); err != nil {
		return err
	}
	if err := writeSums(root); err != nil {
		return err
	}
	// What makes a machine itself has no sum, since it may be changed on purpose.
	return os.WriteFile(filepath.Join(root, "etc/hostname"), []byte(o.Name+"\n"), 0o644)
}

// makeData makes files of different sizes. Every second file does not compress.
// A system of the same name always gets the same files.
func (o OwnSystem) makeData(dir string) error {
	random := rand.NewChaCha8(sha256.Sum256([]byte(o.Name)))
	for n, left := 0, o.Data; left > 0; n++ {
		size := min(left, 1+int64(random.Uint64()%(2<<20)))
		left -= size
		data := make([]byte, size)
		if n%2 == 0 {
			random.Read(data)
		} else {
			line := fmt.Sprintf("%s: line %d of a file that compresses well\n", o.Name, n)
			copy(data, strings.Repeat(line, int(size)/len(line)+1))
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%03d", n)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeSums writes etc/sums, which has the SHA-256 of every other file.
func writeSums(root string) error {
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		sum, err := HashDisk(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		lines = append(lines, sum+"  "+rel+"\n")
		return err
	})
	if err != nil {
		return err
	}
	sort.Strings(lines)
	return os.WriteFile(filepath.Join(root, "etc/sums"), []byte(strings.Join(lines, "")), 0o644)
}

// makeInitrd makes an initrd of busybox, the modules, and the script as /init.
// It needs no /dev/console, since the kernel's own initramfs has it.
func makeInitrd(ctx context.Context, path string, modules [][]byte, script string) error {
	tree, err := os.MkdirTemp(filepath.Dir(path), "initrd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	names := []string{"bin", "bin/busybox", "dev", "init", "modules", "proc", "root", "sys"}
	for _, dir := range []string{"bin", "dev", "modules", "proc", "root", "sys"} {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(tree, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	for i, m := range modules {
		name := fmt.Sprintf("modules/%02d.ko", i)
		if err := os.WriteFile(filepath.Join(tree, name), m, 0o644); err != nil {
			return err
		}
		names = append(names, name)
	}
	if err := os.WriteFile(filepath.Join(tree, "init"), []byte(script), 0o755); err != nil {
		return err
	}
	return packInitrd(ctx, path, tree, names)
}

func packInitrd(ctx context.Context, path, tree string, names []string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z := gzip.NewWriter(f)
	var said strings.Builder
	cmd := child.Command(ctx, busybox, "cpio", "-o", "-H", "newc")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = tree, strings.NewReader(strings.Join(names, "\n")+"\n"), z, &said
	if err := child.Err(ctx, cmd.Run()); err != nil {
		return fmt.Errorf("cpio: %w: %s", err, said.String())
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}

func copyFile(dst, src string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

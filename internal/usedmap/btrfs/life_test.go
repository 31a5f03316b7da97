package btrfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// What is made of a file system later on.
func TestLife(t *testing.T) {
	for _, c := range []struct {
		name, mkfs string
		do         func(t *testing.T, k realfs.Kind, img string)
	}{
		{"subvolumes", "", func(t *testing.T, k realfs.Kind, img string) {
			k.Mounted(t, img, func(dir string) {
				in(t, dir, `
btrfs quota enable .
head -c 5000000 /dev/urandom >data
for i in 1 2 3 4; do btrfs subvolume snapshot . snap$i; cp -r b c$i; rm -f a/file-*$i; cp --reflink=always data clone$i; done
btrfs subvolume create sub; cp -r b sub/; btrfs subvolume set-default sub
btrfs filesystem defragment -r -czlib b
btrfs subvolume delete snap2 snap3
truncate -s 0 b/sparse
sync; btrfs subvolume sync .; btrfs quota rescan -w .`)
			})
		}},
		{"bookends", "-O ^no-holes", func(t *testing.T, k realfs.Kind, img string) {
			k.Mounted(t, img, func(dir string) { bookends(t, dir) })
		}},
		{"balanced", "-m single", func(t *testing.T, k realfs.Kind, img string) {
			k.Mounted(t, img, func(dir string) {
				in(t, dir, `
sync; btrfs balance start -f -mconvert=dup -dconvert=raid0 -sconvert=dup .
cp -r b c; sync
btrfs balance start -d . & sleep 0.3; btrfs balance pause . || true; wait || true
btrfs balance status . || true`)
			})
			shows(t, img, "chunk", "DATA|RAID0")
		}},
		{"resized", "", func(t *testing.T, k realfs.Kind, img string) {
			realfs.Run(t, "truncate", "-s", "500M", img)
			k.Mounted(t, img, func(dir string) {
				in(t, dir, `btrfs filesystem resize max .; cp -r b c; cp -r a e; sync; rm -r b a; sync; btrfs balance start -d -m . ; btrfs filesystem resize 460M .; cp -r c d`)
			})
		}},
		{"tuned", "-O ^no-holes,^skinny-metadata,^extref", func(t *testing.T, k realfs.Kind, img string) {
			realfs.Run(t, "btrfstune", "-rxn", img)
			realfs.Run(t, "btrfstune", "-m", img)
			k.Mounted(t, img, func(dir string) { in(t, dir, "cp -r b c; rm -r a; sync") })
		}},
		{"another UUID", "", func(t *testing.T, k realfs.Kind, img string) {
			realfs.Run(t, "btrfstune", "-f", "-u", img)
		}},
		{"swap file", "", func(t *testing.T, k realfs.Kind, img string) {
			k.Mounted(t, img, func(dir string) {
				in(t, dir, `
truncate -s 0 swap; chattr +C swap; chmod 600 swap; fallocate -l 20M swap; mkswap swap; cp -r b c
truncate -s 0 nocow; chattr +C nocow; for i in 1 2 3; do dd if=/dev/urandom of=nocow bs=1M count=5 seek=$i conv=notrunc,fsync status=none; btrfs subvolume snapshot . s$i; done`)
			})
		}},
		{"second device kept", "", func(t *testing.T, k realfs.Kind, img string) {
			other := realfs.File(t, 300<<20)
			loop := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", other))
			defer realfs.Run(t, "losetup", "-d", loop)
			k.Mounted(t, img, func(dir string) {
				in(t, dir, `btrfs device add -f `+loop+` .; btrfs device remove 1 .; cp -r b c; sync`)
			})
			realfs.Run(t, "cp", "--sparse=always", other, img)
			shows(t, img, "chunk", "devid 2")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Root(t)
			k := kind("")
			img := k.Make(t, 300<<20, strings.Fields(c.mkfs)...)
			k.Fill(t, img, 2, 40<<20)
			c.do(t, k, img)
			prove(t, k, img)
		})
	}
}

// bookends makes extents of which only pieces are still referred to.
func bookends(t testing.TB, dir string) {
	f, err := os.OpenFile(filepath.Join(dir, "b/big-1"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(40) {
		if _, err := f.WriteAt([]byte(fmt.Sprint("written over ", i)), i*50_000); err != nil {
			t.Fatal(err)
		}
		f.Sync()
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*50_000+20_000, 9000); err != nil {
			t.Fatal(err)
		}
	}
	f.Truncate(2 << 20)
}

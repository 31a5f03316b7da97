package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

func fsck(img string) error {
	return withPart(img, func(part string) error { return measure.Command("e2fsck", "-fn", part) })
}

// sameFiles compares all files of two disks, which are mounted as mount says.
func sameFiles(a, b, mount string) error {
	return mounted(a, mount, func(da string) error {
		return mounted(b, mount, func(db string) error { return measure.Command("diff", "-r", "--no-dereference", da, db) })
	})
}

// usedBytes is how many bytes of a disk are used.
func usedBytes(img string) (n int64, err error) {
	f, err := os.Open(img)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	m, err := usedmap.Read(context.Background(), f, diskSize, 512)
	if err != nil {
		return 0, err
	}
	for _, r := range m.Used() {
		n += r.Len
	}
	return n, nil
}

// sameUsed compares what is used of a disk with another.
func sameUsed(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	m, err := usedmap.Read(context.Background(), fa, diskSize, 512)
	if err != nil {
		return err
	}
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	return pieces(m.Used(), func(off int64, n int) error {
		_, errA := fa.ReadAt(ba[:n], off)
		_, errB := fb.ReadAt(bb[:n], off)
		if errA == nil && errB == nil && !bytes.Equal(ba[:n], bb[:n]) {
			return fmt.Errorf("%s and %s differ within %d bytes from %d", a, b, n, off)
		}
		return errors.Join(errA, errB)
	})
}

// pieces goes over ranges, at most a MiB at a time.
func pieces(ranges []image.Range, do func(off int64, n int) error) error {
	for _, r := range ranges {
		for off, end := r.Off, r.End(); off < end; off += 1 << 20 {
			if err := do(off, int(min(1<<20, end-off))); err != nil {
				return err
			}
		}
	}
	return nil
}

// readUsed reads what is used of a disk, past the page cache, four reads at a
// time: as fast as the disk does.
func readUsed(dir, name string) error {
	d, err := disk.Open(dir, disk.Disk{Name: name, Identity: image.Identity{Size: diskSize, SectorSize: 512}}, false)
	if err != nil {
		return err
	}
	defer d.Close()
	m, err := usedmap.Read(context.Background(), d, diskSize, 512)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(4)
	buffers := make(chan []byte, 4)
	for range cap(buffers) {
		buffers <- disk.AlignedBuffer(1 << 20)
	}
	err = pieces(m.Used(), func(off int64, n int) error {
		g.Go(func() error {
			buf := <-buffers
			defer func() { buffers <- buf }()
			if _, err := d.ReadAt(buf[:n], off); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		})
		return nil
	})
	return errors.Join(err, g.Wait())
}

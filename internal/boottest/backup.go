package boottest

import (
	"context"
	"fmt"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

// viewCache is how many bytes of unpacked chunks are kept for each disk.
const viewCache = 64 << 20

// Open opens the disks of a backup. The caller calls shut when the test is over.
func Open(ctx context.Context, images chunk.Images, r *image.Record) (disks []Disk, shut func(), err error) {
	var opened []func() error
	shut = func() {
		for i := range opened {
			opened[len(opened)-1-i]()
		}
	}
	for i := range r.Disks {
		d := &r.Disks[i]
		im, err := images.OpenImage(ctx, r, d.Name)
		if err != nil {
			shut()
			return nil, nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		view := im.ReaderAt(ctx, viewCache)
		opened = append(opened, im.Close, view.Close)
		disks = append(disks, Disk{ReaderAt: view, Name: d.Name, Kernel: d.Kernel, Size: d.Disk.Size, Sector: d.Disk.SectorSize})
	}
	return disks, shut, nil
}

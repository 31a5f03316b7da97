package ntfs

import (
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// bitmap returns what $Bitmap says is free. Bits behind the last cluster are
// ignored. Windows and mkntfs set them.
func (f *fileSystem) bitmap() (*volume.Free, error) {
	s, err := f.stream(fileBitmap, typeData, "")
	if err != nil {
		return nil, err
	}
	need := (f.clusters + 7) / 8
	switch {
	case s.size < need || s.initialized != s.size:
		return nil, fmt.Errorf("it has %d bytes, %d of them written, for %d clusters", s.size, s.initialized, f.clusters)
	case !s.plain() || s.value == nil && s.hasHole():
		return nil, errors.New("it is compressed or has holes")
	}
	free := &volume.Free{}
	b := make([]byte, min(need, volume.MaxRead))
	for at := int64(0); at < need; at += int64(len(b)) {
		b = b[:min(int64(len(b)), need-at)]
		if err := f.fill(s, b, at); err != nil {
			return nil, err
		}
		free.AddClear(b, f.clusters-at*8, at*8*f.cluster, f.cluster)
	}
	// NT up to 3.51 kept the copy of the boot sector in the middle of the
	// volume, without a bit in the map.
	for _, at := range []int64{f.sectors / 2 * f.sector, f.v.Size() / f.sector / 2 * f.sector} {
		free.Cut(at, f.sector)
	}
	return free, nil
}

package exfat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	bootSize      = 512 // the part of the boot sector that has fields, whatever the sector size is
	regionSectors = 12  // of a boot region; the second one follows the first
	firstCluster  = 2
)

// geometry is the layout. Lengths are in sectors unless noted.
type geometry struct {
	sector, cluster int64 // bytes
	total           int64
	fat, fatSize    int64
	heap            int64
	clusters        int64
	root            int64 // first cluster of the root directory
}

// at is the byte where a cluster begins.
func (g *geometry) at(c int64) int64 { return g.heap*g.sector + (c-firstCluster)*g.cluster }

// is reports whether c is the number of a cluster.
func (g *geometry) is(c int64) bool { return c >= firstCluster && c < firstCluster+g.clusters }

// clustersOf is how many clusters n bytes take.
func (g *geometry) clustersOf(n int64) int64 { return n/g.cluster + min(1, n%g.cluster) }

// parse reads the layout (section 3.1), and fails if its parts do not fit into
// the volume.
func parse(b []byte) (*geometry, error) {
	long := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	sectorShift, clusterShift := int(b[108]), int(b[109])
	total := binary.LittleEndian.Uint64(b[72:])
	switch {
	case b[510] != 0x55 || b[511] != 0xAA:
		return nil, errors.New("the signature of the boot sector is missing")
	case string(b[:3]) != "\xEB\x76\x90":
		return nil, errors.New("it does not begin with a jump")
	case !bytes.Equal(b[11:64], make([]byte, 53)):
		return nil, errors.New("its boot sector has fields of another file system")
	case sectorShift < 9 || sectorShift > 12:
		return nil, fmt.Errorf("sectors of 2^%d bytes", sectorShift)
	case clusterShift > 25-sectorShift:
		return nil, fmt.Errorf("clusters of 2^%d sectors", clusterShift)
	case total > 1<<50:
		return nil, fmt.Errorf("it says that it has %d sectors", total)
	}
	g := &geometry{
		sector: 1 << sectorShift, cluster: 1 << (sectorShift + clusterShift), total: int64(total),
		fat: long(80), fatSize: long(84), heap: long(88), clusters: long(92), root: long(96),
	}
	switch {
	case g.fat < 2*regionSectors || g.fat+g.fatSize > g.heap || g.heap > g.total:
		return nil, fmt.Errorf("its tables have no room (FAT of %d sectors at %d, clusters from %d on, %d sectors in all)", g.fatSize, g.fat,
			g.heap, total)
	case g.clusters < 1 || g.clusters > 0xFFFFFFF5 || g.clusters > (g.total-g.heap)>>clusterShift:
		return nil, fmt.Errorf("%d clusters have no room in it", g.clusters)
	case (g.clusters+firstCluster)*4 > g.fatSize*g.sector:
		return nil, fmt.Errorf("its FAT of %d sectors is too small for %d clusters", g.fatSize, g.clusters)
	case !g.is(g.root):
		return nil, fmt.Errorf("its root directory is at cluster %d of %d", g.root, g.clusters)
	}
	return g, nil
}

// Bits of VolumeFlags, section 3.1.13.
const (
	flagActiveFAT    = 1
	flagDirty        = 2
	flagMediaFailure = 4
	flagClearToZero  = 8
)

// trust fails if anything in the boot regions makes doubt.
func (g *geometry) trust(v *volume.Volume, b []byte) error {
	flags, revision := binary.LittleEndian.Uint16(b[106:]), binary.LittleEndian.Uint16(b[104:])
	switch {
	case g.total > v.Size()/g.sector:
		return fmt.Errorf("it has %d bytes, more than the %d here", g.total*g.sector, v.Size())
	case revision != 0x0100:
		return fmt.Errorf("it has the unknown revision %d.%02d", revision>>8, revision&0xFF)
	case b[110] != 1 || flags&flagActiveFAT != 0:
		return fmt.Errorf("it has %d FATs (TexFAT)", b[110])
	case flags&flagDirty != 0:
		return errors.New("it was not cleanly unmounted (VolumeDirty)")
	case flags&flagMediaFailure != 0:
		return errors.New("it met errors of the disk (MediaFailure)")
	case flags&^flagClearToZero != 0:
		return fmt.Errorf("it has the unknown flags %#x", flags)
	}
	if _, err := g.region(v, 0); err != nil {
		return fmt.Errorf("boot region: %w", err)
	}
	second, err := g.region(v, regionSectors)
	if err != nil {
		return fmt.Errorf("second boot region: %w", err)
	}
	// Only the layout is compared. A program may have changed the partition
	// offset, the serial number or the boot code only in the first region.
	for _, field := range [][2]int{{0, 11}, {72, 100}, {104, 106}, {108, 111}} {
		if !bytes.Equal(b[field[0]:field[1]], second[field[0]:field[1]]) {
			return errors.New("its two boot regions differ")
		}
	}
	return nil
}

// region reads a boot region and checks its checksum, which is repeated in
// every word of the last sector (section 3.4). VolumeFlags and PercentInUse are
// not part of the sum.
func (g *geometry) region(v *volume.Volume, sector int64) ([]byte, error) {
	b, err := v.Bytes(sector*g.sector, int(regionSectors*g.sector))
	if err != nil {
		return nil, err
	}
	body, sums := b[:11*g.sector], b[11*g.sector:]
	want := checksum(0, body, []int{106, 107, 112})
	for ; len(sums) > 0; sums = sums[4:] {
		if got := binary.LittleEndian.Uint32(sums); got != want {
			return nil, fmt.Errorf("its checksum is wrong (%#x, not %#x)", got, want)
		}
	}
	return b, nil
}

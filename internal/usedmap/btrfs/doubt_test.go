package btrfs

import (
	"bytes"
	"strings"
	"testing"
)

// What breaks one, with right checksums, makes doubt; the words say why.
func TestDoubt(t *testing.T) {
	super, mirror := superblocks[0], superblocks[1]
	type test struct {
		seed, want string
		do         func(d disk)
	}
	set := func(off int64, n int, v uint64) func(disk) { return func(d disk) { d.set(off, n, v) } }
	header := func(owner uint64, off int64, n int, v uint64) func(disk) {
		return func(d disk) { d.set(d.block(t, owner, 0)+off, n, v) }
	}
	// The data of the first item of a type, and its key.
	data := func(owner uint64, kind uint8, off int64, n int, v uint64) func(disk) {
		return func(d disk) { _, at := d.item(t, d.leaf(t, owner, kind), kind, 0); d.set(at+off, n, v) }
	}
	keys := func(owner uint64, kind uint8, nth int, off int64, n int, v uint64) func(disk) {
		return func(d disk) { at, _ := d.item(t, d.leaf(t, owner, kind), kind, nth); d.set(at+off, n, v) }
	}
	tests := []test{
		{"dup", "no btrfs superblock", set(super+64, 1, 'x')},
		{"dup", "written for byte 0", set(super+48, 8, 0)},
		{"dup", "checksum type 9", set(super+196, 2, 9)},
		{"dup", "one of 2 devices", set(super+136, 8, 2)},
		{"dup", "sector has 513 bytes", set(super+144, 4, 513)},
		{"dup", "block of a tree has 131072 bytes", set(super+148, 4, 128<<10)},
		{"dup", "has 134217729 bytes, the volume only 134217728", set(super+201+8, 8, 128<<20+1)},
		{"dup", "the device has 65536 bytes", set(super+201+8, 8, 64<<10)},
		{"dup", "66051 bytes of system chunks", set(super+160, 4, 0x10203)},
		{"dup", "its device of another", set(super+201+82, 8, 0)},
		{"dup", "more than 7 levels", set(super+199, 1, 8)},
		{"dup", "in the superblock and 134217728", set(super+201+8, 8, 128<<20-4096)},
		{"dup", "unknown flag 0x8", set(super+56, 8, 9)},
		{"dup", "had an error", set(super+56, 8, 5)},
		{"dup", "unknown compatible feature 0x1", set(super+172, 8, 1)},
		{"dup", "unknown read-only compatible feature 0x10", set(super+180, 8, 0x13)},
		{"dup", "before 2009", set(super+188, 8, 0x340)},
		{"dup", "lacks a tree, or has one too many", set(super+180, 8, 0xb)},
		{"groups-tree", "lacks a tree, or has one too many", set(super+180, 8, 3)},
		{"dup", "no superblock at byte 67108864", func(d disk) { d.WriteAt(make([]byte, 4096), mirror) }},
		{"dup", "is of another file system", set(mirror+32, 8, 0)},
		{"dup", "newer than the first", set(mirror+72, 8, 1000)},
		{"dup", "written for byte 65536", set(mirror+48, 8, 64<<10)},
		{"dup", "where 1000 should be", set(super+72, 8, 1000)},
		{"dup", "where 1 should be", set(super+164, 8, 1)},
		{"dup", "of no chunk", set(super+88, 8, 1<<50)},
		{"dup", "of no chunk", set(super+80, 8, 1<<63)},
		{"dup", "system chunks of its superblock are cut", set(super+160, 4, 3)},
		{"dup", "chunk at", set(super+160, 4, 30)},
		{"dup", "something else", set(super+811+8, 1, 3)},
		{"dup", "differs in the chunk tree", set(super+811+keySize+48+32+8, 8, 100<<20)},
	}
	for bit, why := range flagDoubtful {
		tests = append(tests, test{"dup", why, set(super+56, 8, bit|1)})
	}
	for bit, why := range incDoubtful {
		tests = append(tests, test{"dup", why, set(super+188, 8, bit|1)})
	}
	for bit := 18; bit < 64; bit++ {
		tests = append(tests, test{"dup", "unknown incompatible feature", set(super+188, 8, 1|1<<bit)})
	}
	tests = append(tests, []test{
		{"dup", "of another file system", func(d disk) { // as if it had a UUID for its blocks
			d.set(super+188, 8, le64(d.bytes(super+188, 8))|incMetadataUUID)
			d.WriteAt(bytes.Repeat([]byte{7}, 16), super+571)
			d.WriteAt(bytes.Repeat([]byte{7}, 16), super+201+82)
			for _, m := range []int64{188, 571, 201 + 82} {
				d.WriteAt(d.bytes(super+m, 16), mirror+m)
			}
		}},
		{"dup", "written for another place", header(chunkTree, 48, 8, 0)},
		{"dup", "generation 99 where", header(extentTree, 80, 8, 99)},
		{"dup", "it is of tree 9", header(devTree, 88, 8, 9)},
		{"dup", "level 1 where 0", header(extentTree, 100, 1, 1)},
		{"dup", "it has 65535 items", header(extentTree, 96, 4, 65535)},
		{"dup", "keys are not in order", keys(extentTree, metadataItem, 1, 0, 8, 0)},
		{"dup", "items overlap", keys(extentTree, blockGroup, 0, keySize, 4, 200)},
		{"dup", "items overlap", keys(extentTree, blockGroup, 0, keySize+4, 4, 1<<31)},
		{"dup", "RAID profile", data(chunkTree, chunkItem, 24, 8, forSystem|1<<4)},
		{"dup", "of the unknown type", data(chunkTree, chunkItem, 24, 8, forSystem|1<<11)},
		{"dup", "of the unknown type", data(chunkTree, chunkItem, 24, 8, raid0)},
		{"dup", "has 2 places", data(chunkTree, chunkItem, 44, 2, 2)},
		{"dup", "has 1 bytes", data(chunkTree, chunkItem, 0, 8, 1)},
		{"dup", "lies outside", data(chunkTree, chunkItem, 0, 8, 1<<40)},
		{"dup", "lies outside", data(chunkTree, chunkItem, 48+8, 8, 1<<63)},
		{"dup", "on another device", data(chunkTree, chunkItem, 48, 8, 2)},
		{"dup", "on another device", data(chunkTree, chunkItem, 48+16, 8, 2)},
		{"dup", "belongs to two chunks", data(chunkTree, chunkItem, 48+8, 8, 22<<20)},
		{"dup", "overlaps another", data(chunkTree, chunkItem, 0, 8, 16<<20)},
		{"dup", "its device tree gives away", data(chunkTree, chunkItem, 48+8, 8, 110<<20)},
		{"dup", "unknown type 230", keys(chunkTree, chunkItem, 2, 8, 1, 230)},
		{"dup", "another device", data(chunkTree, devItem, 0, 8, 2)},
		{"dup", "bytes in the superblock and 67108864", data(chunkTree, devItem, 8, 8, 64<<20)},
		{"dup", "its device tree gives away", data(devTree, devExtent, 24, 8, 1<<20)},
		{"dup", "its device tree gives away", keys(devTree, devExtent, 0, 9, 8, 1)},
		{"dup", "lacks the chunk", func(d disk) {
			leaf := d.block(t, devTree, 0)
			d.set(leaf+96, 4, uint64(le32(d.bytes(leaf+96, 4))-1))
		}},
		{"dup", "counts 1 bytes as used", data(extentTree, blockGroup, 0, 8, 1)},
		{"dup", "has no such chunk", data(extentTree, blockGroup, 16, 8, forMetadata)},
		{"dup", "has no such chunk", keys(extentTree, blockGroup, 1, 9, 8, 1<<20)},
		{"groups-tree", "counts 12345 bytes as used", data(blockGroupTree, blockGroup, 0, 8, 12345)},
		{"groups-tree", "unknown type 168", keys(blockGroupTree, blockGroup, 2, 8, 1, 168)},
		{"groups-tree", "unknown type 192", keys(extentTree, metadataItem, 0, 8, 1, blockGroup)},
		{"dup", "has an item that cannot be", data(extentTree, metadataItem, 16, 8, extentIsData)},
		{"dup", "neither data nor", data(extentTree, metadataItem, 16, 8, 3)},
		{"log", "has 3 bytes", keys(extentTree, extentItem, 0, 9, 8, 3)},
		{"log", "lies in no chunk", keys(extentTree, extentItem, 0, 9, 8, 1<<30)},
		{"log", "overlaps another", keys(extentTree, extentItem, 0, 9, 8, 1<<20)},
		{"log", "unknown type 180", keys(extentTree, extentItem, 0, 8, 1, 180)},
		{"log", "log has items of the unknown type 1", func(d disk) { d.set(super+96, 8, le64(d.bytes(d.leaf(t, logTree, extentData)+48, 8))) }},
		{"log", "of no chunk", set(super+96, 8, 4)},
		{"log", "where 99 should be", data(logTree, rootItem, 160, 8, 99)},
		{"log", "more than", set(super+200, 1, 8)},
		{"log", "has 9 levels", data(logTree, rootItem, 238, 1, 9)},
		{"log", "of no chunk", data(logTree, extentData, 21, 8, 1<<40)},
		{"log", "an extent of 0 bytes", data(logTree, extentData, 29, 8, 0)},
		{"log", "cannot be read", data(logTree, extentData, 20, 1, 3)},
		{"log", "is being replaced", func(d disk) { // device statistics have what it takes
			k, at := d.item(t, d.leaf(t, devTree, devStats), devStats, 0)
			d.set(k, 8, 0)
			d.set(k+8, 1, devReplace)
			d.set(at+32, 8, 4)
		}},
		{"mixed", "where 1 should be", func(d disk) { d.set(d.block(t, extentTree, 1)+headerSize+ptrSize+keySize+8, 8, 1) }},
		{"mixed", "of no chunk", func(d disk) { d.set(d.block(t, extentTree, 1)+headerSize+ptrSize+keySize, 8, 1<<40) }},
		{"mixed", "starts with another key", func(d disk) { d.set(d.block(t, extentTree, 1)+headerSize+ptrSize, 8, 1<<20) }},
		{"mixed", "it has 0 items", func(d disk) { d.set(d.block(t, extentTree, 1)+96, 4, 0) }},
		{"mixed", "it has 124 items", func(d disk) { d.set(d.block(t, extentTree, 1)+96, 4, 124) }},
		{"mixed", "its extents have", func(d disk) { // as if a leaf had been lost
			d.set(d.block(t, extentTree, 1)+96, 4, 2)
		}},
		{"mixed", "is free", func(d disk) { // a root where nothing is; its chunks lie at their addresses
			found, _ := seed(t, "mixed").read()
			free := found.Free.Ranges()
			_, at := d.item(t, d.leaf(t, rootTree, rootItem), rootItem, 2)
			d.set(at+176, 8, uint64(free[len(free)-1].Off))
		}},
	}...)
	for _, c := range tests {
		d := seed(t, c.seed)
		c.do(d)
		d.repair()
		found, err := d.read()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, broken so that %q: %v", c.seed, c.want, err)
		}
		if found != nil && (found.Free != nil || found.FS != "btrfs") {
			t.Errorf("%s, broken so that %q: %+v", c.seed, c.want, found)
		}
	}
}

package usedmap

import (
	"context"
	"encoding/binary"
	"io"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// Limits of what a disk made for harm may cost (the time is some twenty times
// what it takes on an idle machine: it tells an endless loop, and no more).
const (
	hostileTime   = 4 * time.Minute
	hostileMemory = 64 << 20 // bytes above the map itself
)

// patched is a disk of which some blocks are not as in the file.
type patched struct {
	*os.File
	patch func(block []byte, off int64) // 4 KiB, at a multiple of it
	read  int64
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.File.ReadAt(b, off)
	p.read += int64(n)
	var block [4096]byte
	for at := int64(0); at < int64(n); {
		in := (off + at) % 4096
		m := min(4096-in, int64(n)-at)
		if m == 4096 {
			p.patch(b[at:at+m], off+at)
		} else {
			p.File.ReadAt(block[:], off+at-in)
			p.patch(block[:], off+at-in)
			copy(b[at:at+m], block[in:])
		}
		at += m
	}
	return n, err
}

// TestHostileSizes: file systems of 16 TiB in which every other block is free
// cost seconds, and no memory that grows with them.
func TestHostileSizes(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T) *patched
	}{
		{"ext4", checkeredExt},
		{"fat32", checkeredFAT},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Root(t)
			p := c.make(t)
			size, _ := p.Seek(0, io.SeekEnd)
			peak := watchMemory(t)
			begin := time.Now()
			m, err := Read(context.Background(), p, size, 512)
			took := time.Since(begin)
			if err != nil {
				t.Fatal(err)
			}
			checkMap(t, m)
			above := peak() - int64(16*len(m.Free))
			t.Logf("%v, %d MiB read, %d MiB of memory above the map, %d free ranges; %+v", took.Round(time.Millisecond), p.read>>20, above>>20,
				len(m.Free), m.Parts[0])
			if took > hostileTime || above > hostileMemory {
				t.Errorf("%v and %d MiB of memory", took, above>>20)
			}
			if m.Parts[0].Doubt != "" {
				t.Errorf("it was not gone through: %s", m.Parts[0].Doubt)
			}
		})
	}
}

// TestHostilePartitions: thousands of partitions, each with all that a file
// system can cost, cost together what one disk may.
func TestHostilePartitions(t *testing.T) {
	testenv.Root(t)
	const parts, each, content, first = 2000, 8 << 30, 2 << 30, 1 << 20 // 16 TiB
	img := realfs.File(t, first+parts*each+first)
	script := realfs.File(t, 0)
	text := "label: gpt\ntable-length: 4000\n" + strings.Repeat("size=8G, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n", parts)
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	realfs.Run(t, "sh", "-c", "sfdisk -q "+img+" <"+script)
	one := checkered(t, realfs.FAT.Make(t, content, "-F", "32", "-s", "1"))
	disk := &repeated{open(t, img), one, content, first, each, first + parts*each}
	peak := watchMemory(t)
	begin := time.Now()
	m, err := Read(context.Background(), disk, first+parts*each+first, 512)
	if err != nil {
		t.Fatal(err)
	}
	took, above := time.Since(begin), peak()-int64(16*len(m.Free))
	checkMap(t, m)
	doubt := 0
	for _, p := range m.Parts {
		if strings.Contains(p.Doubt, "metadata is more than") {
			doubt++
		}
	}
	t.Logf("%v, %d MiB of memory above the map, %d of %d parts were not gone through", took.Round(time.Millisecond), above>>20, doubt,
		len(m.Parts))
	if took > hostileTime || above > hostileMemory || doubt == 0 || doubt >= parts-10 {
		t.Errorf("it cost %v and %d MiB; %d were in doubt", took, above>>20, doubt)
	}
}

// repeated is a disk with the same content in all partitions.
type repeated struct {
	io.ReaderAt
	content          io.ReaderAt
	room             int64 // its bytes
	first, each, end int64 // bytes: where partitions begin, how long one is, where they end
}

func (r *repeated) ReadAt(b []byte, off int64) (int, error) {
	if in := off - r.first; in >= 0 && off < r.end && in%r.each+int64(len(b)) <= r.room {
		return r.content.ReadAt(b, in%r.each)
	}
	return r.ReaderAt.ReadAt(b, off)
}

// checkeredExt is an ext4 of 16 TiB of whose free blocks every other one is
// used, with counters that say so.
func checkeredExt(t *testing.T) *patched {
	const group = 128 << 20
	img := realfs.Ext.Make(t, 16<<40-4096, "-O", "^metadata_csum,^uninit_bg,^has_journal,^resize_inode", "-i", "67108864", "-E", "nodiscard")
	f := open(t, img)
	le := binary.LittleEndian
	groups := int64(16 << 40 / group)
	table := make([]byte, groups*64)
	readAt(t, f, table, 4096)
	bitmaps := map[int64]bool{}
	free := int64(0)
	bitmap := make([]byte, 4096)
	for g := range groups {
		d := table[g*64:]
		at := (int64(le.Uint32(d)) | int64(le.Uint32(d[32:]))<<32) * 4096
		bitmaps[at] = true
		readAt(t, f, bitmap, at)
		checker(bitmap)
		n := 0
		for i := 0; i < len(bitmap); i += 8 {
			n += bits.OnesCount64(^le.Uint64(bitmap[i:]))
		}
		le.PutUint16(d[12:], uint16(n))
		le.PutUint16(d[44:], uint16(n>>16))
		free += int64(n)
	}
	return &patched{File: f, patch: func(b []byte, off int64) {
		switch {
		case bitmaps[off]:
			checker(b)
		case off == 0:
			le.PutUint32(b[1024+12:], uint32(free))
			le.PutUint32(b[1024+0x158:], uint32(free>>32))
		case off >= 4096 && off < 4096+int64(len(table)):
			copy(b, table[off-4096:])
		}
	}}
}

func checker(b []byte) {
	for i := range b {
		b[i] |= 0xAA
	}
}

// checkeredFAT is one with nearly as many clusters as there can be.
func checkeredFAT(t *testing.T) *patched {
	return checkered(t, realfs.FAT.Make(t, 2<<40-64<<10, "-F", "32", "-s", "16", "-R", "32"))
}

// checkered is a FAT32 of whose clusters every other one is used.
func checkered(t *testing.T, img string) *patched {
	f := open(t, img)
	boot := make([]byte, 512)
	readAt(t, f, boot, 0)
	fat := int64(binary.LittleEndian.Uint32(boot[36:])) * 512
	begin := int64(binary.LittleEndian.Uint16(boot[14:])) * 512
	return &patched{File: f, patch: func(b []byte, off int64) {
		if off < begin || off >= begin+2*fat {
			return
		}
		at := (off - begin) % fat
		for i := int64(0); i < 4096; i += 8 {
			if at+i > 8 && at+i+8 <= fat {
				binary.LittleEndian.PutUint32(b[i:], 0x0FFFFFFF)
			}
		}
	}}
}

func open(t *testing.T, img string) *os.File {
	t.Helper()
	f, _ := realfs.Open(t, img)
	return f
}

func readAt(t *testing.T, f *os.File, b []byte, off int64) {
	t.Helper()
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// watchMemory looks at how much memory the heap has until the returned
// function is called, which gives the most that was added since. The collector
// is made to run often, or it would be its patience that is measured.
func watchMemory(t *testing.T) (peak func() int64) {
	percent := debug.SetGCPercent(10)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	now := func() int64 { metrics.Read(sample); return int64(sample[0].Value.Uint64()) }
	runtime.GC() // what others left
	begin, most := now(), int64(0)
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			most = max(most, now()-begin)
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return most
	}
}

package swap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// area is a swap area of pages of a size, in memory.
func area(order binary.ByteOrder, page, pages int64) *realfs.Packed {
	p := &realfs.Packed{Size: page * pages, Sectors: map[int64][]byte{}}
	b := make([]byte, 12)
	order.PutUint32(b, 1)
	order.PutUint32(b[4:], uint32(pages-1))
	p.WriteAt(append(append(b, "0123456789abcdef"...), "label"...), infoAt)
	p.WriteAt([]byte(signed), page-10)
	return p
}

func read(p *realfs.Packed) (*volume.Found, error) {
	return Read(volume.New(context.Background(), p, p.Size, 512, nil))
}

func TestRead(t *testing.T) {
	for page := int64(4096); page <= 65536; page *= 2 {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			p := area(order, page, 100)
			p.Size += 3*page + 512 // the partition has a tail
			f, err := read(p)
			if err != nil {
				t.Fatal(page, order, err)
			}
			want := image.Range{Off: page, Len: 99 * page}
			if r := f.Free.Ranges(); len(r) != 1 || r[0] != want || f.Size != 100*page || f.FS != "swap" {
				t.Errorf("%d %v: %v is free, not %v", page, order, r, want)
			}
			if f.Label != "label" || f.UUID != "30313233-3435-3637-3839-616263646566" {
				t.Errorf("%q %q", f.Label, f.UUID)
			}
		}
	}
	// The largest that the header can tell of.
	p := area(binary.LittleEndian, 65536, 1<<32)
	if f, err := read(p); err != nil || f.Free.Bytes() != (1<<32-1)<<16 {
		t.Error(err, f)
	}
	// As small as can be, without a label.
	p = area(binary.LittleEndian, 4096, 2)
	p.WriteAt(make([]byte, 21), infoAt+12)
	if f, err := read(p); err != nil || f.Free.Bytes() != 4096 || f.UUID != "" || f.Label != "" {
		t.Error(err, f)
	}
}

func TestDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		at   int64
		b    string
		want string
	}{
		"no signature":             {4086, "SWAPSPACE3", "no swap signature"},
		"old":                      {4086, "SWAP-SPACE", "old format"},
		"suspended":                {4086, "S1SUSPEND\x00", "suspended system (S1SUSPEND)"},
		"suspended 2":              {4086, "S2SUSPEND\x00", "suspended system (S2SUSPEND)"},
		"suspended from user land": {4086, "ULSUSPEND\x00", "suspended system (ULSUSPEND)"},
		"hibernated":               {4086, "LINHIB0001", "suspended system (LINHIB0001)"},
		"TuxOnIce":                 {4086, tuxOnIce, "suspended system (TuxOnIce)"},
		"TuxOnIce at the start":    {0, tuxOnIce, "suspended system (TuxOnIce)"},
		"suspended, other page":    {16384 - 10, "S1SUSPEND\x00", "suspended system (S1SUSPEND)"},
		"old, other page":          {65536 - 10, "SWAP-SPACE", "old format"},
		"two page sizes":           {8192 - 10, signed, "4096-byte and of 8192-byte pages"},
		"version":                  {infoAt, "\x02", "unknown version 2"},
		"no version":               {infoAt, "\x00", "unknown version 0"},
		"no pages":                 {infoAt + 4, "\x00\x00\x00\x00", "no pages"},
		"a page too many":          {infoAt + 4, "\x64\x00\x00\x00", "413696 bytes, its volume 409600"},
		"far too many":             {infoAt + 4, "\xff\xff\xff\xff", "17592186044416 bytes"},
		"bad pages":                {infoAt + 8, "\x01", "1 bad pages"},
		"bad pages without end":    {infoAt + 8, "\xff\xff\xff\xff", "4294967295 bad pages"},
		"crash dump in page 1":     {4096, lkcdLittle, "crash dump"},
		"crash dump at 64 KiB":     {65536, lkcdLittle, "crash dump"},
		"crash dump of the other":  {65536, lkcdBig, "crash dump"},
		"disk dump":                {4096, diskDump, "crash dump"},
		"kdump":                    {4096, kdump, "crash dump"},
	} {
		p := area(binary.LittleEndian, 4096, 100)
		p.WriteAt([]byte(c.b), c.at)
		f, err := read(p)
		if err == nil || !strings.Contains(err.Error(), c.want) || f != nil && f.Free != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && f != nil && (f.FS == "swsuspend") != strings.Contains(err.Error(), "suspended") {
			t.Errorf("%s: it is called %s", name, f.FS)
		}
	}
	for _, size := range []int64{0, 1, 1023, 4085, 4095} {
		p := area(binary.LittleEndian, 4096, 100)
		p.Size = size
		if f, err := read(p); err == nil || f != nil && f.Free != nil {
			t.Errorf("of %d bytes some are free", size)
		}
	}
	p := area(binary.LittleEndian, 65536, 10)
	p.Size = 65536
	if f, err := read(p); err == nil || f.Free != nil {
		t.Error("more pages than the volume has")
	}
}

// mkswap's areas of all page sizes; blkid, the oracle, still sees the same when
// what is free is noise.
func TestMkswap(t *testing.T) {
	testenv.Root(t)
	for _, args := range []string{
		"-p 4096", "-p 8192 -L eight", "-p 16384", "-p 32768 -L exactly16letters", "-p 65536 -U 12345678-1234-1234-1234-123456789abc",
		"-L x -U clear", "-v1",
	} {
		img := realfs.File(t, 3<<20+1536)
		realfs.Run(t, "mkswap", append(strings.Fields(args), img)...)
		prove(t, img)
	}
}

// prove reads an area and puts noise over what is free.
func prove(t *testing.T, img string) {
	t.Helper()
	f, err := realfs.Map(t, img, Read)
	if err != nil {
		t.Fatal(err)
	}
	before := blkid(t, img)
	if f.Free.Bytes() == 0 || f.Label != before["LABEL"] || f.UUID != before["UUID"] || before["TYPE"] != f.FS {
		t.Errorf("blkid says %v, here is %+v", before, f)
	}
	realfs.Noise(t, img, f.Free.Ranges())
	if after := blkid(t, img); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("blkid says %v, and before %v", after, before)
	}
}

func blkid(t *testing.T, img string) map[string]string {
	out := map[string]string{}
	for _, l := range strings.Fields(realfs.Run(t, "blkid", "-p", "-o", "export", img)) {
		key, value, _ := strings.Cut(l, "=")
		out[key] = value
	}
	return out
}

// An area that the kernel has written to is taken by it again when what is
// free is noise.
func TestSwapon(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "swapon", "swapoff", "losetup")
	img := filepath.Join(t.TempDir(), "swap.img") // not in memory, which may itself be swapped
	if err := os.WriteFile(img, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	realfs.Run(t, "mkswap", "-L", "used", img)
	dev := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", img))
	t.Cleanup(func() { realfs.Run(t, "losetup", "-d", dev) })
	t.Cleanup(func() { exec.Command("swapoff", dev).Run() }) // when a step fails
	for range 2 {
		realfs.Run(t, "swapon", dev)
		swapOut(t)
		realfs.Run(t, "swapoff", dev)
		if data, err := os.ReadFile(img); err != nil || !bytes.Contains(data, pattern()) {
			t.Error("the kernel wrote no page: this proves nothing ", err)
		}
		prove(t, img)
	}
}

func pattern() []byte { return bytes.Repeat([]byte("swapped!"), 512) }

// swapOut makes the kernel write pages of ours (madvise(2), Linux 5.4).
func swapOut(t *testing.T) {
	t.Helper()
	m, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	for i := 0; i < len(m); i += 4096 {
		copy(m[i:], pattern())
	}
	if err := unix.Madvise(m, unix.MADV_PAGEOUT); err != nil {
		t.Fatal(err)
	}
}

package realfs

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A packed disk is the input of fuzz tests. It has the size of the disk (8
// bytes, little endian), then all sectors of 512 bytes that are not zero, each
// with its number in front (4 bytes). So it is small, and a fuzzer can change
// any byte of metadata.
const packSector = 512

// Pack packs the file in img.
func Pack(t testing.TB, img string) []byte {
	t.Helper()
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	zero := make([]byte, packSector)
	for i := 0; i+packSector <= len(data); i += packSector {
		if s := data[i : i+packSector]; !bytes.Equal(s, zero) {
			out = binary.LittleEndian.AppendUint32(out, uint32(i/packSector))
			out = append(out, s...)
		}
	}
	return out
}

// Seeds returns the packed disks in a folder testdata. The keys are the names
// of the files without the ending (.packed or .packed.gz). dir may be a pattern
// that matches several folders; then keys are like fat/fat32.
func Seeds(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	seeds := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.packed*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no packed disks in %s: %v", dir, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(path, ".gz") {
			data, err = gunzip(data)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		name, _, _ := strings.Cut(strings.Replace(path, "testdata/", "", 1), ".packed")
		seeds[name] = data
	}
	return seeds
}

// Seed returns one of the disks in the folder testdata.
func Seed(t testing.TB, name string) []byte {
	t.Helper()
	data, ok := Seeds(t, "testdata")[name]
	if !ok {
		t.Fatalf("there is no packed disk %s", name)
	}
	return data
}

func gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// Packed is an unpacked disk. It is an io.ReaderAt whose sectors can be
// changed.
type Packed struct {
	Size    int64
	Sectors map[int64][]byte // by number; sectors that are missing are zero
}

// Unpack reads any bytes as a packed disk of at most limit bytes. If a sector
// is there twice, the last one is used.
func Unpack(data []byte, limit int64) *Packed {
	p := &Packed{Sectors: map[int64][]byte{}}
	if len(data) < 8 {
		return p
	}
	p.Size = int64(binary.LittleEndian.Uint64(data) % uint64(limit+1))
	for data = data[8:]; len(data) >= 4+packSector; data = data[4+packSector:] {
		n := int64(binary.LittleEndian.Uint32(data))
		p.Sectors[n] = bytes.Clone(data[4 : 4+packSector])
	}
	return p
}

// ReadAt implements io.ReaderAt.
func (p *Packed) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) && off < p.Size {
		in := off % packSector
		m := int(min(packSector-in, int64(len(b)-n), p.Size-off))
		if s, ok := p.Sectors[off/packSector]; ok {
			copy(b[n:n+m], s[in:])
		} else {
			clear(b[n : n+m])
		}
		n, off = n+m, off+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt changes bytes. Those beyond the end are ignored.
func (p *Packed) WriteAt(b []byte, off int64) (int, error) {
	for i, c := range b {
		at := off + int64(i)
		if at < 0 || at >= p.Size {
			continue
		}
		s, ok := p.Sectors[at/packSector]
		if !ok {
			s = make([]byte, packSector)
			p.Sectors[at/packSector] = s
		}
		s[at%packSector] = c
	}
	return len(b), nil
}

package rawgz

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/zeebo/blake3"

	"testbox-imaging/internal/image"
)

// write makes an image file of a disk.
func write(t testing.TB, disk []byte) ([]byte, Sums) {
	t.Helper()
	var file bytes.Buffer
	w := NewWriter(&file)
	for at := 0; at < len(disk); at += image.PieceSize {
		p := disk[at:min(at+image.PieceSize, len(disk))]
		enc, err := w.Encode(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(p, enc); err != nil {
			t.Fatal(err)
		}
	}
	sums, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), sums
}

// readAll decodes an image file, at most limit bytes of it.
func readAll(file []byte, limit int) ([]byte, error) {
	z, err := NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	var disk []byte
	for len(disk) < limit {
		p, err := z.Next()
		if err == io.EOF {
			return disk, nil
		}
		if err != nil {
			return disk, err
		}
		b := make([]byte, p.Len)
		if p.Content == image.Data {
			if err := p.Decode(b); err != nil {
				return disk, err
			}
		}
		disk = append(disk, b...)
	}
	return disk, io.ErrShortBuffer
}

// stdlib is what another implementation makes of the file.
func stdlib(file []byte, limit int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, int64(limit)))
}

// otherHash reports whether the file says that the disk has another hash.
func otherHash(file, disk []byte) bool {
	z, err := NewReader(bytes.NewReader(file), int64(len(file)))
	sum := blake3.Sum256(disk)
	return err == nil && z.BLAKE3() != "" && z.BLAKE3() != hex.EncodeToString(sum[:])
}

// FuzzReader reads any bytes. What is read without an error is what the
// standard library reads, and memory stays small.
func FuzzReader(f *testing.F) {
	text := bytes.Repeat([]byte("testbox "), 400)
	for _, disk := range [][]byte{nil, text, make([]byte, 5000), append(make([]byte, image.PieceSize), text...)} {
		file, _ := write(f, disk)
		f.Add(file)
		f.Add(file[:len(file)-1])
		f.Add(file[:len(file)-endLen])
		if len(file) > headerLen+endLen {
			long := bytes.Clone(file)
			binary.LittleEndian.PutUint32(long[16:], 1<<31)
			f.Add(long)
			big := bytes.Clone(file)
			binary.LittleEndian.PutUint32(big[20:], image.PieceSize)
			f.Add(big)
		}
		var other bytes.Buffer
		for range 2 {
			w := gzip.NewWriter(&other)
			w.Extra, w.Name, w.Comment = []byte("TB\x02\x00xx"), "sda", "by hand"
			w.Write(disk)
			w.Close()
		}
		f.Add(other.Bytes())
		f.Add(append(other.Bytes(), 0, 0, 0))
		f.Add(append(bytes.Clone(file), other.Bytes()...))
	}
	const limit = 4 << 20
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := readAll(file, limit)
		if err == io.ErrShortBuffer {
			return
		}
		sums, checked := Check(context.Background(), bytes.NewReader(file), int64(len(file)), nil, nil)
		if err == nil && checked == nil {
			want, err := stdlib(file[:int64(len(file))-sums.Padding], 2*limit)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d bytes, the standard library %d, %v", len(got), len(want), err)
			}
		}
		if err == nil && otherHash(file, got) {
			err = errors.New("not the hash at its end") // which Check alone compares
		}
		if (checked == nil) != (err == nil) || err == nil && sums.RawSize != int64(len(got)) {
			t.Fatalf("reading gives %d bytes, %v; Check %d, %v", len(got), err, sums.RawSize, checked)
		}
	})
}

// FuzzRoundTrip writes disks, reads them by both programs, and damages one
// bit, which is found or harmless.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("testbox"), uint16(3), false, uint32(100))
	f.Add(make([]byte, 600), uint16(1), false, uint32(8*(headerLen+5)))
	f.Add([]byte{0, 1, 0, 0, 255}, uint16(2000), true, uint32(1))
	f.Fuzz(func(t *testing.T, seed []byte, times uint16, long bool, flip uint32) {
		disk := bytes.Repeat(seed, min(int(times), 1+64<<10/(len(seed)+1)))
		if long { // pieces of zeros, then what the seed made
			disk = append(make([]byte, 2*image.PieceSize), disk...)
		}
		file, sums := write(t, disk)
		sha := sha256.Sum256(file)
		if sums.RawSize != int64(len(disk)) || sums.FileSize != int64(len(file)) || sums.SHA256 != hex.EncodeToString(sha[:]) {
			t.Fatalf("sums %+v of a disk of %d and a file of %d bytes", sums, len(disk), len(file))
		}
		for _, read := range []func([]byte, int) ([]byte, error){readAll, stdlib} {
			if got, err := read(file, len(disk)+1); err != nil || !bytes.Equal(got, disk) {
				t.Fatalf("%d bytes came back as %d, %v", len(disk), len(got), err)
			}
		}
		bit := int(flip) % (8 * len(file))
		file[bit/8] ^= 1 << (bit % 8)
		if got, err := readAll(file, len(disk)+1); err == nil && !bytes.Equal(got, disk) {
			t.Fatalf("bit %d is wrong, and so are the bytes, without an error", bit)
		}
	})
}

// TestHostileLengths: headers that promise more than they have cost no memory.
func TestHostileLengths(t *testing.T) {
	file, _ := write(t, []byte("testbox"))
	for _, lengths := range [][2]uint32{{1 << 31, 7}, {1<<32 - 1, 7}, {0, 7}, {33, 7}, {50, 1 << 31}, {50, 0}, {50, image.PieceSize + 1},
		{maxMember + 1, 7}, {maxMember, 7}} {
		bad := bytes.Clone(file)
		binary.LittleEndian.PutUint32(bad[16:], lengths[0])
		binary.LittleEndian.PutUint32(bad[20:], lengths[1])
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readAll(bad, 1<<30)
		runtime.ReadMemStats(&after)
		// A header that is not ours makes the file another program's, and
		// these lengths mean nothing to it: then the bytes are right.
		if got, _ := readAll(bad, 1<<30); err == nil && string(got) != "testbox" {
			t.Errorf("lengths %v: no error", lengths)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("lengths %v: %d bytes of memory", lengths, n)
		}
	}
}

package convert

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/realfs"
)

// bytesDisk is a disk in memory.
type bytesDisk struct{ *bytes.Reader }

func diskOf(b []byte) bytesDisk { return bytesDisk{bytes.NewReader(b)} }

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func writeQcow2(t testing.TB, disk []byte) *os.File {
	t.Helper()
	f := tempFile(t)
	if err := WriteQcow2(t.Context(), diskOf(disk), f, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

// readAll reads the disk of a qcow2 file.
func readAll(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	q, err := OpenQcow2(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, q.Size())
	if n, err := q.ReadAt(out, 0); n < len(out) {
		t.Fatal(err)
	}
	return out
}

var sizes = []int{512, cluster - 512, cluster, cluster + 512, 3<<20 + 1536}

func TestQcow2RoundTrip(t *testing.T) {
	for _, size := range sizes {
		for name, disk := range conform.Disks(size) {
			if got := readAll(t, writeQcow2(t, disk).Name()); !bytes.Equal(got, disk) {
				t.Errorf("%s of %d bytes came back otherwise", name, size)
			}
		}
	}
}

// TestQemuReads: QEMU finds our files right, and we find its.
func TestQemuReads(t *testing.T) {
	for _, size := range append(sizes, 600<<20) {
		disk := conform.Disks(min(size, 4<<20))["mixed"]
		raw := filepath.Join(t.TempDir(), "raw")
		must(t, os.WriteFile(raw, disk, 0o600))
		must(t, os.Truncate(raw, int64(size)))
		if size > len(disk) { // something behind a hole, in the second table
			f, err := os.OpenFile(raw, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("the end"), int64(size)-512)
			must(t, err)
			f.Close()
		}
		want, err := os.ReadFile(raw)
		must(t, err)
		q := writeQcow2(t, want)
		realfs.Run(t, "qemu-img", "check", q.Name())
		realfs.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, q.Name())
		for _, how := range []string{"compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M"} {
			for _, pack := range [][]string{nil, {"-c"}, {"-c", "-o", "compression_type=zstd"}} {
				if size != 3<<20+1536 && (how != "compat=1.1" || pack != nil) || len(pack) == 3 && how == "compat=0.10" {
					continue
				}
				out := filepath.Join(t.TempDir(), "theirs")
				realfs.Run(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, pack...), "-o", how, raw, out)...)
				if got := readAll(t, out); !bytes.Equal(got, want) {
					t.Errorf("%d bytes, %s %v: read otherwise", size, how, pack)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	good, err := os.ReadFile(writeQcow2(t, conform.Disks(1 << 20)["text"]).Name())
	must(t, err)
	for name, spoil := range map[string]func(b []byte){
		"magic":        func(b []byte) { b[0] = 'X' },
		"version":      func(b []byte) { b[7] = 4 },
		"backing file": func(b []byte) { b[atBacking+7] = 1 },
		"encrypted":    func(b []byte) { b[atCrypt+3] = 1 },
		"cluster":      func(b []byte) { b[atBits+3] = 40 },
		"size":         func(b []byte) { b[atSize] = 0x7f },
		"corrupt":      func(b []byte) { b[atFeatures+7] = featCorrupt },
		"external":     func(b []byte) { b[atFeatures+7] = 4 },
		"l1":           func(b []byte) { b[atL1] = 0x7f },
		"l1 size":      func(b []byte) { b[atL1Size+3] = 0 },
	} {
		b := bytes.Clone(good)
		spoil(b)
		if _, err := OpenQcow2(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	q, err := OpenQcow2(bytes.NewReader(good), int64(len(good)/2))
	if err == nil {
		if _, err = q.ReadAt(make([]byte, q.Size()), 0); err == nil {
			t.Error("a file that was cut off is read")
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteRaw(t *testing.T) {
	for name, disk := range conform.Disks(3<<20 + 512) {
		f := tempFile(t)
		must(t, WriteRaw(t.Context(), diskOf(disk), f, nil))
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzQcow2(f *testing.F) {
	good, err := os.ReadFile(writeQcow2(f, conform.Disks(200 << 10)["text"]).Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := OpenQcow2(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		p := make([]byte, 4096)
		for _, off := range []int64{0, 1 << 16, q.Size() - 100} {
			q.ReadAt(p, max(off, 0))
		}
	})
}

package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/object"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// account gives what Scan finds in b, which is told to have size bytes. All of
// them are in an object or a fault, each in one, but for header, table and
// trailer, which may be whole.
func account(t testing.TB, r io.ReaderAt, size int64) (found []Entry, faults []*FaultError) {
	t.Helper()
	at := int64(-1)
	begin := func(off, n int64) {
		if at < 0 && off != 0 {
			at = HeaderSize
		}
		if off != max(at, 0) || n < 0 || off+n > size {
			t.Fatalf("%d bytes at %d of %d follow what ends at %d", n, off, size, at)
		}
		at = off + n
	}
	err := Scan(t.Context(), r, size, func(e Entry, o object.Object, f *FaultError) error {
		if f != nil {
			begin(f.Off, f.Len)
			faults = append(faults, f)
			if !errors.Is(f, object.ErrDamaged) || f.Error() == "" {
				t.Fatalf("%v is no damage", f)
			}
			return nil
		}
		begin(int64(e.Off), e.End()-int64(e.Off))
		found = append(found, e)
		if o.Check() != nil || o.Key != e.Key || o.Codec != e.Codec || len(o.Data) != int(e.Stored) || o.RawLen != int(e.Raw) {
			t.Fatalf("%+v is the entry of %+v", e, o)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if at = max(at, HeaderSize); at < size { // table and trailer
		if entries, end, err := readTable(r, size); err != nil || end != at || len(entries) < len(found) {
			t.Fatalf("nothing is said of %d to %d (%d, %v)", at, size, end, err)
		}
	}
	return found, faults
}

func scan(t testing.TB, b []byte) ([]Entry, []*FaultError) {
	t.Helper()
	return account(t, bytes.NewReader(b), int64(len(b)))
}

// TestReadsOnce: a scan reads each byte once, in few reads, and makes no garbage
// for each object.
func TestReadsOnce(t *testing.T) {
	var objects []object.Object
	for i := range uint32(300) {
		raw := noise(100_000)
		binary.LittleEndian.PutUint32(raw, i)
		objects = append(objects, objectOf(object.Chunk, raw))
	}
	b, _ := write(t, objects)
	r := &counting{r: bytes.NewReader(b)}
	allocs := testing.AllocsPerRun(1, func() {
		if err := Scan(t.Context(), r, int64(len(b)), func(Entry, object.Object, *FaultError) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	r.n, r.bytes = r.n/2, r.bytes/2 // AllocsPerRun runs it twice
	if r.n > len(b)/readAhead+4 || r.bytes > int64(len(b)+tailSize+HeaderSize) || allocs > 50 {
		t.Errorf("%d bytes in %d reads for a pack of %d bytes, %.0f allocations", r.bytes, r.n, len(b), allocs)
	}
	e := Entry{Off: HeaderSize, Stored: 100_000}
	buf := make([]byte, e.End())
	allocs = testing.AllocsPerRun(10, func() {
		r.n = 0
		if _, err := ReadObject(r, HeaderSize, int(e.End())-HeaderSize, buf); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 || r.n != 1 {
		t.Errorf("reading an object: %d reads, %.0f allocations", r.n, allocs)
	}
}

// TestAppendAllocates: writing makes no garbage for each object but its entry in
// the table.
func TestAppendAllocates(t *testing.T) {
	w, err := NewWriter(&counter{}, header)
	if err != nil {
		t.Fatal(err)
	}
	o := some()[0]
	if n := testing.AllocsPerRun(10_000, func() { w.Append(o) }); n > 0 || w.Len() != 10_001 {
		t.Errorf("%.2f allocations for each of %d objects", n, w.Len())
	}
}

type counting struct {
	r     io.ReaderAt
	n     int
	bytes int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	c.n++
	n, err := c.r.ReadAt(b, off)
	c.bytes += int64(n)
	return n, err
}

// TestSlowPack: one made of nothing but headers, each of a long object that is
// not whole, is done in time.
func TestSlowPack(t *testing.T) {
	long := Entry{Key: object.Key{Kind: object.Root}, Stored: object.MaxRoot - 1, Raw: object.MaxRoot, Codec: object.Zstd}
	short := long
	short.Stored = 65
	for what, b := range map[string][]byte{
		"long":   bytes.Repeat(long.appendHeader(nil, 0), (object.MaxRoot+4<<20)/ObjectHeaderSize),
		"short":  bytes.Repeat(short.appendHeader(nil, 0), (8<<20)/ObjectHeaderSize),
		"magics": bytes.Repeat([]byte(objectMagic), 2<<20),
	} {
		r := &counting{r: bytes.NewReader(b)}
		if found, faults := account(t, r, int64(len(b))); len(found) > 0 || len(faults) == 0 {
			t.Errorf("%s: %v, %v", what, found, faults)
		}
		if r.bytes > int64(len(b))+2*tailSize {
			t.Errorf("%s: %d bytes are read", what, r.bytes)
		}
	}
}

// TestErrorsAreNoDamage: what cannot be read now may be whole.
func TestErrorsAreNoDamage(t *testing.T) {
	b, entries := write(t, some())
	disk := faults.NewDisk(b)
	for i := range b {
		r := &faults.Bad{Target: disk, Places: []faults.Op{{Off: int64(i), N: 1}}, Err: syscall.EIO}
		visit := func(Entry, object.Object, *FaultError) error { return nil }
		if err := Scan(t.Context(), r, int64(len(b)), visit); !errors.Is(err, syscall.EIO) {
			t.Fatalf("byte %d cannot be read: %v", i, err)
		}
		for _, e := range entries {
			_, err := ReadObject(r, int64(e.Off), ObjectHeaderSize+int(e.Stored), nil)
			if in := int(e.Off) <= i && i < int(e.End()); errors.Is(err, object.ErrDamaged) || in != (err != nil) {
				t.Fatalf("byte %d cannot be read, the object at %d: %v", i, e.Off, err)
			}
		}
	}
}

func TestScanStops(t *testing.T) {
	b, _ := write(t, some())
	enough := errors.New("enough")
	for _, b := range [][]byte{b, b[:len(b)-1], b[1:], b[:20], nil} {
		for stopAt := 1; ; stopAt++ {
			n := 0
			err := Scan(t.Context(), bytes.NewReader(b), int64(len(b)), func(Entry, object.Object, *FaultError) error {
				if n++; n == stopAt {
					return enough
				}
				return nil
			})
			if n < stopAt {
				break
			}
			if n > stopAt || err != enough {
				t.Errorf("stopped at %d of %d: %v", n, stopAt, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Scan(ctx, bytes.NewReader(b), int64(len(b)), nil); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkScan(b *testing.B) {
	var objects []object.Object
	for range 600 {
		objects = append(objects, objectOf(object.Chunk, noise(100_000)))
	}
	data, _ := write(b, objects)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if found, faults := scan(b, data); len(found) != 600 || len(faults) > 0 {
			b.Fatal(len(found), faults)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	o := objectOf(object.Chunk, noise(100_000))
	b.SetBytes(int64(len(o.Data)))
	var w *Writer
	for b.Loop() {
		if w == nil || w.Size() > TargetSize {
			w, _ = NewWriter(&counter{}, header)
		}
		if _, err := w.Append(o); err != nil {
			b.Fatal(err)
		}
	}
}

package rawgz

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/words"
)

func factsOf(s Sums) *image.Facts {
	return &image.Facts{Disk: image.Identity{Size: s.RawSize}, BLAKE3: s.BLAKE3, SHA256: s.SHA256, FileSize: s.FileSize}
}

func check(file []byte, facts *image.Facts) (Sums, error) {
	return Check(context.Background(), bytes.NewReader(file), int64(len(file)), facts, nil)
}

func TestCheck(t *testing.T) {
	disk := bytes.Repeat([]byte("some bytes of a disk. "), 3<<20/22)
	clear(disk[1<<20 : 2<<20])
	file, sums := write(t, disk)
	if got, err := check(file, factsOf(sums)); err != nil || got != sums {
		t.Errorf("with the sidecar: %+v, %v", got, err)
	}
	want := sums
	want.SHA256 = ""
	got, err := check(file, nil)
	if e := got.Ends; e == nil || e.Size != int64(len(disk)) || !bytes.Equal(e.Head, disk[:1<<20]) ||
		!bytes.Equal(e.Tail, disk[len(disk)-keptTail:]) {
		t.Error("the ends are not the disk's")
	}
	if got.Ends = nil; err != nil || got != want {
		t.Errorf("without a sidecar: %+v, %v", got, err)
	}
	for n := 0; n < len(file); n += 97 {
		for _, facts := range []*image.Facts{factsOf(sums), nil} {
			if _, err := check(file[:n], facts); err == nil {
				t.Fatalf("cut at %d of %d: no error", n, len(file))
			}
		}
	}
	bad := bytes.Clone(file)
	for at := range bad {
		if at%101 != 0 {
			continue
		}
		bad[at] ^= 4
		if _, err := check(bad, factsOf(sums)); err == nil {
			t.Fatalf("byte %d is wrong: no error", at)
		}
		bad[at] ^= 4
	}
}

// TestMemberMissing: an image without one of its members, or cut between two, is
// no shorter disk, for the reader alone and for the check without a sidecar.
func TestMemberMissing(t *testing.T) {
	disk := bytes.Repeat([]byte("some bytes of a disk. "), 3<<20/22)
	file, _ := write(t, disk)
	var ends []int
	for at := 0; at < len(file)-endLen; {
		n, _, err := parseHeader(file[at:])
		if err != nil {
			t.Fatal(err)
		}
		at += n
		ends = append(ends, at)
	}
	if len(ends) != 3 {
		t.Fatalf("%d members", len(ends))
	}
	for i := range ends {
		from := 0
		if i > 0 {
			from = ends[i-1]
		}
		cut := append(bytes.Clone(file[:from]), file[ends[i]:]...)
		z, err := NewReader(bytes.NewReader(cut), int64(len(cut)))
		for err == nil {
			_, err = z.Next()
		}
		if err == io.EOF {
			t.Errorf("without member %d, the reader comes to a good end", i)
		}
		if _, err := check(cut, nil); err == nil {
			t.Errorf("without member %d, the check finds nothing", i)
		}
		if _, err := NewReader(bytes.NewReader(file[:ends[i]]), int64(ends[i])); err == nil {
			t.Errorf("cut behind member %d, it is taken", i)
		}
	}
}

// TestCheckOtherPieces: members that are whole but belong to another disk are
// found by the hash at the end.
func TestCheckOtherPieces(t *testing.T) {
	a, _ := write(t, bytes.Repeat([]byte("a"), image.PieceSize))
	b, _ := write(t, bytes.Repeat([]byte("b"), image.PieceSize))
	mixed := append(bytes.Clone(a[:len(a)-endLen]), b[len(b)-endLen:]...)
	if _, err := check(mixed, nil); err == nil {
		t.Error("no error")
	}
}

func TestCheckOtherSidecar(t *testing.T) {
	file, sums := write(t, []byte("a disk"))
	_, other := write(t, []byte("b disk"))
	for name, f := range map[string]*image.Facts{
		"blake3": {Disk: image.Identity{Size: sums.RawSize}, BLAKE3: other.BLAKE3, SHA256: sums.SHA256, FileSize: sums.FileSize},
		"size":   {Disk: image.Identity{Size: sums.RawSize + 512}, BLAKE3: sums.BLAKE3, SHA256: sums.SHA256, FileSize: sums.FileSize},
		"sha256": {Disk: image.Identity{Size: sums.RawSize}, BLAKE3: sums.BLAKE3, SHA256: other.SHA256, FileSize: sums.FileSize},
		"file":   {Disk: image.Identity{Size: sums.RawSize}, BLAKE3: sums.BLAKE3, SHA256: sums.SHA256, FileSize: sums.FileSize + 1},
	} {
		if _, err := check(file, f); err == nil {
			t.Errorf("%s of another image: no error", name)
		}
	}
}

// TestForeign: files of other programs read, and when they are cut or have
// something after their end they do not.
func TestForeign(t *testing.T) {
	disk := bytes.Repeat([]byte("a disk made by hand "), 2<<20/20)
	clear(disk[1<<20:])
	_, whole := write(t, disk)
	var one, many bytes.Buffer
	w := gzip.NewWriter(&one)
	w.Write(disk)
	w.Close()
	for at := 0; at < len(disk); at += 300_000 {
		w := gzip.NewWriter(&many)
		w.Name = "sda"
		w.Write(disk[at:min(at+300_000, len(disk))])
		w.Close()
	}
	for name, file := range map[string][]byte{"one member": one.Bytes(), "many members": many.Bytes()} {
		got, err := readAll(file, len(disk)+1)
		if err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if sums, err := check(file, nil); err != nil || sums.RawSize != int64(len(disk)) || sums.BLAKE3 != whole.BLAKE3 {
			t.Errorf("%s: check %+v, %v", name, sums, err)
		}
		for _, n := range []int{0, 1, 9, 10, 11, len(file) / 2, len(file) - 9, len(file) - 8, len(file) - 1} {
			if _, err := check(file[:n], nil); err == nil {
				t.Errorf("%s, cut at %d: no error", name, n)
			}
		}
		wantTrailers(t, name, file, whole)
	}
}

// wantTrailers puts something behind a whole image: zeros are padding, anything
// else may be half of an image, and the error says where it begins.
func wantTrailers(t *testing.T, name string, file []byte, whole Sums) {
	t.Helper()
	for _, zeros := range []int{1, 7, 8, 12, 512, 100_000} {
		got, err := check(append(bytes.Clone(file), make([]byte, zeros)...), nil)
		if err != nil || got.RawSize != whole.RawSize || got.BLAKE3 != whole.BLAKE3 || got.Padding != int64(zeros) {
			t.Errorf("%s, with %d zeros after its end: %+v, %v", name, zeros, got, err)
		}
	}
	for _, more := range []string{"\x1f\x8b", string(file[:20])} {
		if _, err := check(append(bytes.Clone(file), more...), nil); err == nil {
			t.Errorf("%s, with %q after its end: no error", name, more)
		}
	}
	for _, more := range []string{"x", "\x1f", "no gzip", "\x00\x00\x00x", strings.Repeat("\x00", 100_000) + "x", "x" +
		strings.Repeat("\x00", 512)} {
		_, err := check(append(bytes.Clone(file), more...), nil)
		place := fmt.Sprintf("%d bytes of a disk end at byte %d of the file, and %s ", whole.RawSize, len(file), words.Count(len(more), "byte"))
		if err == nil || !strings.Contains(err.Error(), place) {
			t.Errorf("%s, with %d bytes after its end: %v", name, len(more), err)
		}
	}
}

// TestOursWithTrailer: the same of a file of ours.
func TestOursWithTrailer(t *testing.T) {
	file, sums := write(t, bytes.Repeat([]byte("a disk "), 300_000))
	wantTrailers(t, "ours", file, sums)
}

// TestTwoFiles: two disks that were compressed into one file are no disk.
func TestTwoFiles(t *testing.T) {
	var both bytes.Buffer
	for _, name := range []string{"sda.img", "sdb.img"} {
		w := gzip.NewWriter(&both)
		w.Name = name
		w.Write(make([]byte, 4096))
		w.Close()
	}
	if _, err := check(both.Bytes(), nil); err == nil || !strings.Contains(err.Error(), "sdb.img") {
		t.Errorf("two files in one: %v", err)
	}
}

// shrunk is a file that became shorter after its size was asked.
type shrunk struct {
	io.ReaderAt
	size int64
}

func (s shrunk) ReadAt(b []byte, off int64) (int, error) {
	return io.NewSectionReader(s.ReaderAt, 0, s.size).ReadAt(b, off)
}

func TestShrunkFile(t *testing.T) {
	disk := bytes.Repeat([]byte("a disk made by hand "), 2<<20/20)
	ours, _ := write(t, disk)
	var member bytes.Buffer
	w := gzip.NewWriter(&member)
	w.Write(disk)
	w.Close()
	foreign := bytes.Repeat(member.Bytes(), 2) // it shrinks to one whole member
	for name, file := range map[string][]byte{"ours": ours, "foreign": foreign} {
		r := shrunk{bytes.NewReader(file), int64(len(file)) / 2}
		if _, err := Check(context.Background(), r, int64(len(file)), nil, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := Check(context.Background(), r, int64(len(file)), factsOf(Sums{FileSize: int64(len(file))}), nil); err == nil {
			t.Errorf("%s, with a sidecar: no error", name)
		}
	}
	// What was read before is not taken for what is missing.
	zeros := shrunk{bytes.NewReader(make([]byte, 3<<20)), 3 << 19}
	if _, err := hashFile(context.Background(), zeros, 3<<20, func(int64, int64) {}); err == nil {
		t.Error("half a file has the hash of the whole one")
	}
}

func TestCheckCancels(t *testing.T) {
	file, sums := write(t, bytes.Repeat([]byte("x"), 3<<20))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, facts := range []*image.Facts{factsOf(sums), nil} {
		if _, err := Check(ctx, bytes.NewReader(file), int64(len(file)), facts, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	}
}

func TestCheckProgress(t *testing.T) {
	file, sums := write(t, bytes.Repeat([]byte("x"), 3<<20))
	for _, facts := range []*image.Facts{factsOf(sums), nil} {
		last, size := int64(0), int64(len(file))
		_, err := Check(context.Background(), bytes.NewReader(file), size, facts, func(done, total int64) {
			if done < last || done > total || total != size {
				t.Errorf("progress %d of %d after %d", done, total, last)
			}
			last = done
		})
		if err != nil || last < size-endLen {
			t.Errorf("progress ended at %d of %d, %v", last, size, err)
		}
	}
}

// failing is a file that cannot be written after some bytes.
type failing struct{ left int }

var errFull = errors.New("no space left")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// TestWriterFails: an error of the file is one of Append or Close, for good. The
// last bytes reach the file in Close.
func TestWriterFails(t *testing.T) {
	noise := make([]byte, image.PieceSize)
	rand.NewChaCha8([32]byte{}).Read(noise)
	enc, err := NewWriter(io.Discard).Encode(nil, noise)
	if err != nil {
		t.Fatal(err)
	}
	writes := func(left int) (size int, err, closed error) {
		w := NewWriter(&failing{left: left})
		for i := 0; i < 4 && err == nil; i++ {
			err = w.Append(noise, enc)
		}
		sums, closed := w.Close()
		return int(sums.FileSize), err, closed
	}
	whole, err, closed := writes(1 << 30)
	if err != nil || closed != nil {
		t.Fatal(err, closed)
	}
	for left := 0; left < whole; left += 99_991 {
		for _, left := range []int{left, whole - 1 - left} {
			if _, err, closed := writes(left); !errors.Is(errors.Join(err, closed), errFull) || closed == nil {
				t.Fatalf("file full after %d of %d bytes: %v, %v", left, whole, err, closed)
			}
		}
	}
}

func TestClosedWriter(t *testing.T) {
	w := NewWriter(io.Discard)
	enc, _ := w.Encode(nil, []byte("x"))
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Append([]byte("x"), enc); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("append after close: %v", err)
	}
	if _, err := w.Close(); err == nil {
		t.Error("closed twice")
	}
	for _, n := range []int{0, image.PieceSize + 1} {
		if _, err := w.Encode(nil, make([]byte, n)); err == nil {
			t.Errorf("a piece of %d bytes", n)
		}
	}
}

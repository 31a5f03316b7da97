package conform

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"testbox-imaging/internal/image"
)

// StoredImage is an image that a writer has finished.
type StoredImage interface {
	// Open starts to read it. Readers are independent of each other.
	Open() (image.Reader, error)
	// Damages is how many ways there are to damage it: flipped bits, cuts,
	// parts that are added or removed.
	Damages() int
	// Damaged is the image with damage number n.
	Damaged(n int) StoredImage
}

// BeginImage starts an image. finish must be called after the last Append.
type BeginImage func(t testing.TB) (w image.Writer, finish func() (StoredImage, error))

// Images tests an image.Writer, and the image.Reader that reads the same
// format.
func Images(t *testing.T, begin BeginImage) {
	for _, size := range []int{1, 512, 4096, image.PieceSize - 512, image.PieceSize, image.PieceSize + 1, 5*image.PieceSize + 1536} {
		for name, disk := range Disks(size) {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				st := store(t, begin, disk)
				readInOrder(t, st, disk)
				readAtOnce(t, st, disk)
			})
		}
	}
	t.Run("empty", func(t *testing.T) { readInOrder(t, store(t, begin, nil), nil) })
	t.Run("damage", func(t *testing.T) { damage(t, begin) })
	t.Run("wrong order", func(t *testing.T) { wrongOrder(t, begin) })
	t.Run("deterministic", func(t *testing.T) { deterministic(t, begin) })
}

// Disks are different contents of a disk of size bytes.
func Disks(size int) map[string][]byte {
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, size)
	r.Read(noise)
	text := bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), size/44+1)[:size]
	mixed := make([]byte, size) // zeros, text and noise, not aligned to pieces
	for at, kind := 0, 0; at < size; at, kind = at+700_000, kind+1 {
		if from := [][]byte{noise, mixed, text}[kind%3]; kind%3 != 1 {
			copy(mixed[at:min(size, at+700_000)], from)
		}
	}
	last := make([]byte, size)
	last[size-1] = 1
	return map[string][]byte{"zeros": make([]byte, size), "noise": noise, "text": text, "mixed": mixed, "last byte": last}
}

// store writes a disk as a pipeline does. Pieces are encoded concurrently, and
// appended in order from buffers that are used again.
func store(t testing.TB, begin BeginImage, disk []byte) StoredImage {
	t.Helper()
	w, finish := begin(t)
	pieces := slices.Collect(slices.Chunk(disk, image.PieceSize))
	encoded := make([][]byte, len(pieces))
	var wg sync.WaitGroup
	for i, p := range pieces {
		wg.Go(func() {
			out, err := w.Encode([]byte("before"), slices.Clone(p))
			if err != nil || !bytes.HasPrefix(out, []byte("before")) {
				t.Errorf("Encode does not append: %v", err)
			}
			encoded[i] = bytes.TrimPrefix(out, []byte("before"))
		})
	}
	wg.Wait()
	for i, p := range pieces {
		p := slices.Clone(p)
		if err := w.Append(p, encoded[i]); err != nil {
			t.Fatal(err)
		}
		spoil(p)
		spoil(encoded[i])
	}
	st, err := finish()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func spoil(b []byte) {
	for i := range b {
		b[i] ^= 0xa5
	}
}

// read reads an image one piece after the other.
func read(st StoredImage) ([]byte, error) {
	r, err := st.Open()
	if err != nil {
		return nil, err
	}
	var disk []byte
	for {
		p, err := r.Next()
		if err == io.EOF {
			return disk, nil
		}
		if err != nil {
			return disk, err
		}
		b := make([]byte, p.Len)
		if want := []image.Range{{Off: int64(len(disk)), Len: p.Len}}; !slices.Equal(p.Ranges, want) {
			return disk, fmt.Errorf("a piece at %v after %d bytes", p.Ranges, len(disk))
		}
		if p.Content > image.Zero || (p.Content == image.Zero) != (p.Decode == nil) {
			return disk, fmt.Errorf("contradiction of the content %v and Decode", p.Content)
		}
		if p.Content == image.Data {
			spoil(b)
			if err := p.Decode(b); err != nil {
				return disk, err
			}
		}
		disk = append(disk, b...)
	}
}

func readInOrder(t *testing.T, st StoredImage, disk []byte) {
	t.Helper()
	got, err := read(st)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, disk) {
		t.Fatalf("%d bytes came back wrong, as %d", len(disk), len(got))
	}
}

// readAtOnce collects all pieces, and then decodes them from many goroutines,
// in reverse order.
func readAtOnce(t *testing.T, st StoredImage, disk []byte) {
	t.Helper()
	r, err := st.Open()
	if err != nil {
		t.Fatal(err)
	}
	var ps []image.Piece
	for {
		p, err := r.Next()
		if err != nil {
			if err != io.EOF {
				t.Fatal(err)
			}
			break
		}
		ps = append(ps, p)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("Next after the end: %v", err)
	}
	got := make([]byte, len(disk))
	var wg sync.WaitGroup
	for i, p := range slices.Backward(ps) {
		off := int64(i) * image.PieceSize
		if want := []image.Range{{Off: off, Len: min(image.PieceSize, int64(len(disk))-off)}}; !slices.Equal(p.Ranges, want) {
			t.Fatalf("piece %d is at %v, want %v", i, p.Ranges, want)
		}
		if p.Content == image.Zero {
			continue
		}
		wg.Go(func() {
			if err := p.Decode(got[off:][:p.Len]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(got, disk) {
		t.Fatal("wrong bytes when decoded all at once")
	}
}

// damage tests that for each damage of a stored image, a read fails or returns
// the right bytes.
func damage(t *testing.T, begin BeginImage) {
	disk := Disks(2*image.PieceSize + 512)["text"]
	clear(disk[:image.PieceSize])
	st := store(t, begin, disk)
	found := 0
	for n := range st.Damages() {
		got, err := read(st.Damaged(n))
		if err != nil {
			found++
		} else if !bytes.Equal(got, disk) {
			t.Errorf("damage %d: wrong bytes without an error", n)
		}
	}
	if found == 0 {
		t.Errorf("none of %d damages was found", st.Damages())
	}
}

// wrongOrder tests that Append refuses a piece after a short one, and the
// stored form of another piece. finish must fail then too.
func wrongOrder(t *testing.T, begin BeginImage) {
	piece := bytes.Repeat([]byte{7}, image.PieceSize)
	for _, tt := range []struct{ pieces, encoded [][]byte }{
		{[][]byte{piece[:512], piece}, [][]byte{piece[:512], piece}},
		{[][]byte{piece}, [][]byte{piece[:512]}},
	} {
		w, finish := begin(t)
		var err error
		for i := range tt.pieces {
			enc, e := w.Encode(nil, tt.encoded[i])
			if e != nil {
				t.Fatal(e)
			}
			if err = w.Append(tt.pieces[i], enc); err != nil {
				break
			}
		}
		if err == nil {
			t.Error("Append took a piece that cannot be")
		}
		if _, err := finish(); err == nil {
			t.Error("an image with a refused piece was finished")
		}
	}
}

func deterministic(t *testing.T, begin BeginImage) {
	w, _ := begin(t)
	for name, piece := range Disks(image.PieceSize) {
		a, err1 := w.Encode(nil, piece)
		b, err2 := w.Encode(nil, piece)
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: encoded differently the second time (%v)", name, err)
		}
	}
}

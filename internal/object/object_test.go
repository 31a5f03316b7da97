package object

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func of(kind Kind, raw []byte) Object {
	return Encode(Key{kind, NameOf(raw)}, raw, nil)
}

func text(n int) []byte {
	return bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), n/44+1)[:n]
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, MaxChunk)).Draw(t, "n")
		raw := noise(n)
		copy(raw, text(rapid.IntRange(0, n).Draw(t, "text")))
		want := bytes.Clone(raw)
		o := Encode(Key{Chunk, NameOf(raw)}, raw, make([]byte, 0, rapid.IntRange(0, 2*n).Draw(t, "room")))
		if err := o.Check(); err != nil || len(o.Data) > n {
			t.Fatalf("%d bytes are stored as %d: %v", n, len(o.Data), err)
		}
		got, err := o.Decode(make([]byte, rapid.IntRange(0, 2*n).Draw(t, "old")))
		if err != nil || !bytes.Equal(got, want) || !bytes.Equal(raw, want) {
			t.Fatalf("%d bytes came back as %d: %v", n, len(got), err)
		}
		o.Data = slices.Clone(o.Data)
		o.Data[rapid.IntRange(0, len(o.Data)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got, err := o.Decode(nil); err == nil && !bytes.Equal(got, want) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("with a flipped bit: %v", err)
		}
	})
}

func TestLargest(t *testing.T) {
	for _, kind := range []Kind{Chunk, Page, Root} {
		for _, raw := range [][]byte{text(kind.Max()), noise(kind.Max())} {
			if got, err := of(kind, raw).Decode(nil); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%v: %v", kind, err)
			}
		}
		if _, err := of(kind, text(kind.Max()+1)).Decode(nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("a %v that is too large: %v", kind, err)
		}
	}
}

// frame compresses otherwise than Encode does.
func frame(t testing.TB, raw []byte, opts ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(raw, nil)
}

// TestFrames are those of other programs, and hostile ones.
func TestFrames(t *testing.T) {
	raw := text(300_000)
	good := frame(t, raw)
	skip := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "skip"...)
	bomb := frame(t, make([]byte, 512<<20))
	dict := frame(t, raw, zstd.WithEncoderDictRaw(7, raw[:10_000]))
	half := frame(t, raw[:150_000])
	noSize := func() []byte {
		var b bytes.Buffer
		w, _ := zstd.NewWriter(&b)
		w.Write(raw)
		w.Flush() // before the end is known, so the header has no size
		w.Close()
		return b.Bytes()
	}()
	for what, tt := range map[string]struct {
		data []byte
		ok   bool
	}{
		"another level":                 {frame(t, raw, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(true)), true},
		"a large window":                {frame(t, raw, zstd.WithWindowSize(512<<20)), true},
		"cut off":                       {good[:len(good)-3], false},
		"something after it":            {append(slices.Clone(good), 'x'), false},
		"a skippable frame first":       {append(skip, good...), false},
		"nothing but a skippable frame": {skip, false},
		"two frames":                    {append(half, half...), false},
		"a bomb":                        {bomb, false},
		"a bomb after it":               {append(slices.Clone(good), bomb...), false},
		"a dictionary":                  {dict, false},
		"no size":                       {noSize, false},
		"no frame":                      {text(5000), false},
	} {
		o := Object{Key{Chunk, NameOf(raw)}, Zstd, len(raw), tt.data}
		got, err := o.Decode(nil)
		if tt.ok != (err == nil) || err == nil && !bytes.Equal(got, raw) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for what, o := range map[string]Object{
		"no kind":        {Key{}, Raw, 1, []byte{1}},
		"kind 4":         {Key{Kind: 4}, Raw, 1, []byte{1}},
		"codec 2":        {Key{Kind: Chunk}, 2, 1, []byte{1}},
		"nothing":        {Key{Kind: Chunk}, Raw, 0, nil},
		"negative":       {Key{Kind: Chunk}, Raw, -1, nil},
		"longer as zstd": {Key{Kind: Chunk}, Zstd, 1, []byte{1}},
		"empty zstd":     {Key{Kind: Chunk}, Zstd, 1, nil},
		"raw, shorter":   {Key{Kind: Chunk}, Raw, 2, []byte{1}},
		"too large":      {Key{Kind: Page}, Zstd, MaxPage + 1, []byte{1}},
	} {
		if o.Check() == nil {
			t.Errorf("%s can be", what)
		}
		if _, err := o.Decode(nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNames(t *testing.T) {
	n := NameOf([]byte("abc"))
	// From the test of the reference implementation (b3sum).
	if n.String() != "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85" {
		t.Errorf("abc has the name %v", n)
	}
	if got, err := ParseName(n.String()); err != nil || got != n {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "64", n.String()[1:], n.String() + "0", "X" + n.String()[1:], "A" + n.String()[1:]} {
		if _, err := ParseName(s); err == nil {
			t.Errorf("%q is a name", s)
		}
	}
}

// TestAllocates: a backup and a restore make no garbage for each chunk.
func TestAllocates(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for what, raw := range map[string][]byte{"text": text(180_000), "noise": noise(180_000)} {
		key := Key{Chunk, NameOf(raw)}
		stored, back := make([]byte, 0, 200_000), make([]byte, len(raw))
		n := testing.AllocsPerRun(50, func() {
			if _, err := Encode(key, raw, stored).Decode(back); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("%s: %.1f allocations", what, n)
		}
	}
}

// FuzzDecode: whatever is stored, Decode gives the bytes of the name or fails,
// and needs no more memory than the object may have.
func FuzzDecode(f *testing.F) {
	raw := text(5000)
	f.Add(uint8(1), uint8(1), 5000, frame(f, raw))
	f.Add(uint8(2), uint8(0), 5000, raw)
	f.Add(uint8(3), uint8(1), 1<<20, frame(f, make([]byte, 1<<20)))
	f.Add(uint8(1), uint8(1), 5000, frame(f, raw, zstd.WithEncoderDictRaw(7, raw)))
	f.Fuzz(func(t *testing.T, kind, codec uint8, n int, data []byte) {
		o := Object{Key{Kind(kind), NameOf(raw)}, Codec(codec), n, data}
		b, err := o.unpack(nil)
		if err != nil {
			return
		}
		if len(b) != n || n > o.Kind.Max() {
			t.Errorf("%d bytes came of a %v of %d", len(b), o.Kind, n)
		}
		if got, err := o.Decode(nil); err == nil && NameOf(got) != o.Name {
			t.Error("bytes of another name")
		}
	})
}

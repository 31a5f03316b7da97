package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func objectOf(kind object.Kind, text string) object.Object {
	return object.Encode(object.Key{Kind: kind, Name: object.NameOf([]byte(text))}, []byte(text), nil)
}

func record() *image.Record {
	return &image.Record{Format: image.RecordFormat, Box: "10.0.0.7", Host: "seven", UUID: "x", Arming: "0123456789abcdef",
		Disks: []image.RecordedDisk{{Name: "sda", Root: object.Name{1}, Disk: image.Identity{Size: 512, SectorSize: 512}, Data: 512}}}
}

// TestLimits: the limits fit each other and what a store has.
func TestLimits(t *testing.T) {
	if AnswerWait >= QuietWait || AwayWait >= IdleWait || MaxBody < object.MaxRoot+FrameSize || MaxRecord > image.MaxRecord {
		t.Error("two limits do not fit each other")
	}
	if image.ValidBox(strings.Repeat("a", 65)) || MaxOpen < 64+32+32+64+200 {
		t.Error("a request to open an image may not have room")
	}
}

// TestProblems: each code comes back as the error that it stands for.
func TestProblems(t *testing.T) {
	for _, err := range []error{chunk.ErrMissing, chunk.ErrClosed, object.ErrDamaged, fs.ErrNotExist, ErrNotOpen, ErrRefused, ErrToken,
		ErrForbidden, ErrFull, ErrBusy, ErrFailed} {
		p := ProblemOf(fmt.Errorf("chunk 7: %w", err))
		back, parseErr := ParseProblem(p.Marshal(), p.Status())
		must(t, parseErr)
		if !errors.Is(back, err) || back.Error() != "chunk 7: "+err.Error() {
			t.Errorf("%v came back as %v", err, back)
		}
		if again := ProblemOf(fmt.Errorf("x: %w", back)); again.Code != p.Code {
			t.Errorf("%v was passed on as %v", p.Code, again.Code)
		}
	}
	if p := ProblemOf(fmt.Errorf("x %w", chunk.ErrWrong)); p.Code != CodeRefused || !errors.Is(&p, ErrRefused) {
		t.Errorf("what says what cannot be true is %q", p.Code)
	}
	if p := ProblemOf(io.ErrClosedPipe); p.Code != CodeFailed {
		t.Errorf("an error without a code is %q", p.Code)
	}
	seen := map[Code]int{}
	for _, c := range codes {
		if status, is := seen[c.code]; is && status != c.status || c.status < 400 {
			t.Errorf("code %s", c.code)
		}
		seen[c.code] = c.status
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "",
		"plain Größe":      "plain Größe",
		"a\nb\x1b[2J\x00c": "a b?[2J?c",
		"bad \xff utf":     "bad ? utf",
		"turned \u202e":    "turned ?",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
	for _, long := range []string{strings.Repeat("x", 5000), strings.Repeat("ö", 5000), strings.Repeat("x", MaxText-1) + "ööö",
		strings.Repeat("\xff", 5000)} {
		if got := Clean(long); len(got) > MaxText || !utf8.ValidString(got) || Clean(got) != got {
			t.Errorf("%.20q became %d bytes", long, len(got))
		}
	}
}

func TestNumbersAndTokens(t *testing.T) {
	for s, ok := range map[string]bool{"1": true, "9007199254740991": true, "9007199254740992": false, "0": false, "": false, "01": false,
		"+1": false, "-1": false, "1 ": false, "1e3": false, "٣": false} {
		if _, err := ParseNumber(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, ok := range map[string]bool{"aZ09-_": true, "": false, "a b": false, "a.b": false, "a\n": false,
		strings.Repeat("a", MaxToken):   true,
		strings.Repeat("a", MaxToken+1): false} {
		if ValidToken(s) != ok {
			t.Errorf("%q: %v", s, !ok)
		}
	}
}

func TestBitmap(t *testing.T) {
	var keys []object.Key
	for i := range byte(19) {
		keys = append(keys, object.Key{Kind: object.Chunk, Name: object.Name{i}})
	}
	keys = append(keys, keys[3]) // the same once more
	for _, missing := range [][]object.Key{nil, keys, {keys[0], keys[8], keys[18]}, {keys[3], keys[3]}} {
		b, err := Bitmap(keys, missing)
		must(t, err)
		got, err := ParseBitmap(b, keys)
		must(t, err)
		if !slices.Equal(got, missing) {
			t.Errorf("%v came back as %v", missing, got)
		}
	}
	for _, wrong := range [][]object.Key{{keys[8], keys[0]}, {{Kind: object.Page, Name: keys[0].Name}}} {
		if _, err := Bitmap(keys, wrong); err == nil {
			t.Errorf("%v has a bitmap", wrong)
		}
	}
	for _, b := range [][]byte{nil, {0, 0}, {0, 0, 0, 0}, {0, 0, 0x10}} {
		if _, err := ParseBitmap(b, keys); err == nil {
			t.Errorf("%v is taken", b)
		}
	}
}

// TestPace: what is slow for long is given up, and time that the other side needs by
// MinRate is not counted.
func TestPace(t *testing.T) {
	p := NewPace(time.Second)
	p.Note(MinRate, time.Second)
	if p.Left() != time.Second {
		t.Errorf("there is %v left", p.Left())
	}
	p.Note(0, 600*time.Millisecond)
	p.Note(MinRate/8, 0)
	if p.Left() != 525*time.Millisecond {
		t.Errorf("there is %v left", p.Left())
	}
	p.Note(1<<30, 0)
	if p.Left() != time.Second {
		t.Errorf("there is %v left", p.Left())
	}
	p.Note(0, time.Hour)
	if p.Left() > time.Millisecond {
		t.Errorf("there is %v left", p.Left())
	}
}

// The fuzz tests see that no input breaks a parser, that it holds its limits, and that
// what it takes is what its counterpart writes.

func FuzzKeys(f *testing.F) {
	f.Add(AppendKeys(nil, []object.Key{objectOf(object.Chunk, "a").Key, objectOf(object.Root, "b").Key}), []byte{1})
	f.Fuzz(func(t *testing.T, b, bits []byte) {
		keys, err := ParseKeys(b)
		if err != nil {
			return
		}
		if len(keys) > MaxNames || !bytes.Equal(AppendKeys(nil, keys), b) {
			t.Errorf("%d keys", len(keys))
		}
		missing, err := ParseBitmap(bits, keys)
		if err == nil && len(missing) > len(keys) {
			t.Errorf("%d of %d are missing", len(missing), len(keys))
		}
	})
}

func FuzzPlaces(f *testing.F) {
	f.Add(AppendPlaces(nil, []Place{{1, 2}, {3, none}, Root}))
	f.Fuzz(func(t *testing.T, b []byte) {
		places, err := ParsePlaces(b, MaxPlaces)
		if err != nil {
			return
		}
		if len(places) == 0 || len(places) > MaxPlaces || !bytes.Equal(AppendPlaces(nil, places), b) {
			t.Errorf("%v", places)
		}
		for _, p := range places {
			if p.Kind().Max() == 0 || p.String() == "" {
				t.Errorf("%v is of kind %v", p, p.Kind())
			}
		}
	})
}

func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"code":"missing","text":"x\u0000","counted":3}`), 409)
	f.Fuzz(func(t *testing.T, b []byte, status int) {
		p, err := ParseProblem(b, status)
		if err != nil {
			return
		}
		again, err := ParseProblem(p.Marshal(), p.Status())
		if err != nil || *again != *p || len(p.Text) > MaxText {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
	})
}

// FuzzFrames reads a stream of objects, as a server and a client do.
func FuzzFrames(f *testing.F) {
	o := objectOf(object.Chunk, strings.Repeat("text ", 100))
	lack := AppendLack(nil, fmt.Errorf("x: %w", object.ErrDamaged))
	f.Add(append(append(AppendHeader(nil, o), o.Data...), lack...), false)
	f.Add(append(AppendHeader(nil, o), o.Data...), true)
	f.Add(lack, true)
	f.Fuzz(func(t *testing.T, b []byte, sums bool) {
		if sums && len(b) > FrameSize { // make the sums fit, which no fuzzer can guess
			binary.LittleEndian.PutUint64(b[48:], xxh3.Hash(b[FrameSize:]))
			binary.LittleEndian.PutUint64(b[56:], xxh3.Hash(b[:56]))
		}
		r := bytes.NewReader(b)
		var again []byte
		for {
			h, err := ReadHeader(r)
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			if h.Lack != nil {
				again = AppendLack(again, h.Lack)
				continue
			}
			if h.Kind.Max() == 0 || h.Stored > h.Raw || int(h.Raw) > h.Kind.Max() {
				t.Fatalf("%+v", h)
			}
			if int(h.Stored) > r.Len() {
				return // reading it would only fill memory
			}
			o, err := h.ReadObject(r, nil)
			if err != nil {
				return
			}
			must(t, o.Check())
			again = append(AppendHeader(again, o), o.Data...)
		}
		if !bytes.Equal(again, b) && !bytes.Contains(b, []byte(lackMagic)) { // texts are cleaned
			t.Error("it was not what is written")
		}
	})
}

func FuzzOpen(f *testing.F) {
	r := record()
	r.ID = "20260101-000000"
	f.Add(Marshal(OpenOf(r, &r.Disks[0])))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOpen(b)
		if err != nil {
			return
		}
		again, err := ParseOpen(Marshal(o))
		if err != nil || *again != *o {
			t.Errorf("%+v became %+v, %v", o, again, err)
		}
		if rec := o.Record(); rec.Disk(o.Disk) == nil || strings.ContainsAny(o.Box+o.ID+o.Disk, "/\\\x00\n") {
			t.Errorf("%+v", rec)
		}
	})
}

func FuzzRecord(f *testing.F) {
	b, err := MarshalRecord(record())
	must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			return
		}
		text, err := MarshalRecord(r)
		must(t, err)
		again, err := ParseRecord(text)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add(Marshal(Committed{ID: "20260101-000000", Time: time.Unix(1, 0)}))
	f.Add(Marshal(Stored{3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCommitted(b); err == nil && !image.ValidID(c.ID) {
			t.Errorf("%+v", c)
		}
		if err := ParseStored(b, 3); err == nil {
			var s Stored
			must(t, json.Unmarshal(b, &s))
			if s.Counted != 3 {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzFingerprint(f *testing.F) {
	f.Add(Fingerprint{1, 2, 3}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseFingerprint(s); err == nil && k.String() != s {
			t.Errorf("%q became %v", s, k)
		}
		if n, err := ParseNumber(s); err == nil && fmt.Sprint(n) != s {
			t.Errorf("%q became %d", s, n)
		}
		if got := Clean(s); len(got) > MaxText || Clean(got) != got {
			t.Errorf("%q became %q", s, got)
		}
	})
}

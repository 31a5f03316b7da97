package realfs

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap/volume"
)

// Reader is a used map's reader under test.
type Reader func(*volume.Volume) (*volume.Found, error)

// Map runs a reader over a file.
func Map(t testing.TB, img string, read Reader) (*volume.Found, error) {
	t.Helper()
	f, size := Open(t, img)
	return read(volume.New(context.Background(), f, size, 512, nil))
}

// Open opens a file until the test ends, and says how many bytes it has.
func Open(t testing.TB, img string) (f *os.File, size int64) {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}

// Fuzzed runs a reader over a disk that a fuzzer made, and checks what holds of
// all readers: it reads no more than it may, names nothing free beside an
// error, and what it names free lies in order, apart, and within the file
// system, which lies within the disk. It gives what was found; nil after an
// error of the reader.
func Fuzzed(t testing.TB, p *Packed, read Reader) *volume.Found {
	t.Helper()
	c := &counted{Packed: p}
	found, err := read(volume.New(context.Background(), c, p.Size, 512, nil))
	if c.n > 256<<20+p.Size/32 {
		t.Fatalf("it read %d bytes of a disk of %d", c.n, p.Size)
	}
	if err != nil {
		if found != nil && found.Free != nil {
			t.Fatal("something is free beside an error")
		}
		return nil
	}
	at := int64(0)
	for _, r := range found.Free.Ranges() {
		if r.Off < at || r.Len <= 0 || r.End() > found.Size || found.Size > p.Size {
			t.Fatalf("%v is free on a file system of %d bytes on a disk of %d", r, found.Size, p.Size)
		}
		at = r.End()
	}
	return found
}

// counted counts how many bytes are read.
type counted struct {
	*Packed
	n int64
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	c.n += int64(len(b))
	return c.Packed.ReadAt(b, off)
}

// Prove maps the file system in img and proves the map: noise over all that is
// free harms neither the file system nor a file, and nothing that partclone
// takes for used is free. img itself is left as it is. It fails when the reader is in doubt, and
// gives what was found and the surplus: bytes that are used here and not for
// partclone (-1 if partclone cannot say).
func (k Kind) Prove(t testing.TB, img string, read Reader) (found *volume.Found, surplus int64) {
	t.Helper()
	found, err := Map(t, img, read)
	if err != nil {
		t.Fatalf("the reader is in doubt: %v", err)
	}
	free := found.Free.Ranges()
	k.MustSurvive(t, img, free)
	surplus = k.Surplus(t, img, free)
	return found, surplus
}

// MustSurvive fails the test unless the file system keeps all its files when
// what is said to be free is noise.
func (k Kind) MustSurvive(t testing.TB, img string, free []image.Range) {
	t.Helper()
	want := k.Files(t, Copy(t, img))
	if len(want) < 2 {
		t.Fatal("the file system has no files: this proves nothing")
	}
	noised := Copy(t, img)
	Noise(t, noised, free)
	if said, err := k.check(t, noised); err != nil {
		// Some are not whole before the noise: Btrfs miscounts its quotas now
		// and then. What the checker finds must be the very same, then.
		if before, err := k.check(t, img); err == nil || before != said {
			t.Fatalf("the checker says, of what was whole before: %s\n\nand said before (%v): %s", said, err, before)
		}
		t.Logf("was not whole before either: %s", said)
	}
	if diff := want.Diff(k.Files(t, noised)); diff != "" {
		t.Fatalf("files were lost with what was said to be free:\n%s", diff)
	}
}

// Noise overwrites ranges of a file with noise: all of each range, or of more
// than a GiB of them the first and last 2 MiB of each.
func Noise(t testing.TB, img string, free []image.Range) {
	t.Helper()
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	total := int64(0)
	for _, r := range free {
		total += r.Len
	}
	buf := make([]byte, 2<<20)
	noise(buf, rand.New(rand.NewPCG(1, 2)))
	for _, r := range free {
		for at := r.Off; at < r.End(); {
			n := min(int64(len(buf)), r.End()-at)
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				t.Fatal(err)
			}
			at += n
			if last := r.End() - int64(len(buf)); total > 1<<30 && at < last {
				at = last
			}
		}
	}
}

// Surplus compares with partclone, the oracle: all that it takes for used must
// not be free. It gives how many bytes are neither free nor used for
// partclone, -1 for a kind that partclone cannot map.
func (k Kind) Surplus(t testing.TB, img string, free []image.Range) int64 {
	t.Helper()
	if k.Partclone == "" {
		return -1
	}
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	unused := st.Size()
	for _, u := range k.PartcloneUsed(t, img) {
		for _, f := range free {
			if f.Off < u.End() && u.Off < f.End() {
				t.Errorf("partclone takes bytes %d to %d for used; here %d to %d are free", u.Off, u.End(), f.Off, f.End())
			}
		}
		unused -= u.Len
	}
	for _, f := range free {
		unused -= f.Len
	}
	return unused
}

// PartcloneUsed is what partclone takes for used, from its domain file (the
// format of ddrescue's). It shows its progress every 0 seconds, because it ends
// no sooner than it has shown it.
func (k Kind) PartcloneUsed(t testing.TB, img string) []image.Range {
	t.Helper()
	domain := filepath.Join(t.TempDir(), "domain")
	Run(t, k.Partclone, "-f", "0", "-D", "-s", img, "-O", domain, "-L", filepath.Join(t.TempDir(), "log"))
	f, err := os.Open(domain)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var used []image.Range
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") || !strings.HasSuffix(line, "+") {
			continue
		}
		var r image.Range
		if _, err := fmt.Sscanf(line, "0x%x 0x%x", &r.Off, &r.Len); err != nil {
			t.Fatalf("%s: %q: %v", k.Partclone, line, err)
		}
		used = append(used, r)
	}
	if len(used) == 0 {
		t.Fatalf("%s says that nothing is used", k.Partclone)
	}
	return used
}

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

// Map runs a reader on the file img.
func Map(t testing.TB, img string, read Reader) (*volume.Found, error) {
	t.Helper()
	f, size := Open(t, img)
	defer f.Close() // now, since a folder may be unmounted in which the file is
	return read(volume.New(context.Background(), f, size, 512, nil))
}

// Open opens a file until the test ends, and returns its size too.
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

// Fuzzed runs a reader on a disk that a fuzzer made, and checks what is true
// for all readers. A reader does not read more than it may. With an error it
// calls nothing free. Free ranges are in order and do not overlap. They are
// inside the file system, which is inside the disk. The result is nil if the
// reader fails.
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

// Prove maps the file system in img and proves the map. Noise over all free
// bytes must harm neither the file system nor a file, and no byte that
// partclone calls used may be free. img is not changed. The test fails if the
// reader is in doubt. surplus is how many bytes are used here and not for
// partclone, or -1 if partclone cannot map it.
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

// MustSurvive fails the test if the file system loses a file when noise
// overwrites the free ranges.
func (k Kind) MustSurvive(t testing.TB, img string, free []image.Range) {
	t.Helper()
	want := k.Files(t, Copy(t, img))
	if len(want) < 2 {
		t.Fatal("the file system has no files: this proves nothing")
	}
	noised := Copy(t, img)
	Noise(t, noised, free)
	if said, err := k.check(t, noised); err != nil {
		// Some file systems have errors before the noise, since Btrfs sometimes
		// miscounts its quotas. Then the output of the checker must be the same
		// as before.
		if before, err := k.check(t, img); err == nil || before != said {
			t.Fatalf("the checker says, of what was whole before: %s\n\nand said before (%v): %s", said, err, before)
		}
		t.Logf("was not whole before either: %s", said)
	}
	if diff := want.Diff(k.Files(t, noised)); diff != "" {
		t.Fatalf("files were lost with what was said to be free:\n%s", diff)
	}
}

// Noise overwrites ranges of a file with noise. If the ranges have more than a
// GiB in all, only the first and last 2 MiB of each are overwritten.
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

// Surplus fails the test if a byte is free that partclone calls used. It
// returns how many bytes are neither free nor used by partclone, or -1 for a
// kind that partclone cannot map.
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

// PartcloneUsed returns what partclone calls used, from its domain file, which
// has the format of ddrescue's. It asks for a progress report every 0 seconds,
// because partclone does not end before it has shown one.
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

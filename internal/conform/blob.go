package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"testbox-imaging/internal/blob"
)

// Blobs tests a blob.Store. open returns an empty one.
func Blobs(t *testing.T, open func(t *testing.T) blob.Store) {
	tests := []struct {
		name string
		run  func(*testing.T, blobCase)
	}{
		{"create", testBlobCreate}, {"replace", testBlobReplace}, {"abort", testBlobAbort}, {"ended", testBlobEnded},
		{"ranges", testBlobRanges}, {"list", testBlobList}, {"list-many", testBlobListMany}, {"remove", testBlobRemove},
		{"missing", testBlobMissing}, {"invalid-names", testBlobNames}, {"large", testBlobLarge}, {"cancelled", testBlobCancelled},
		{"at-once", testBlobAtOnce}, {"replaced-whole", testBlobReplacedWhole}, {"only-if-absent", testBlobAbsent},
		{"only-over-a-version", testBlobOverVersion}, {"one-creates", testBlobOneCreates}, {"one-changes", testBlobOneChanges},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, blobCase{open(t)}) })
	}
}

// blobCase is a store with helpers for the tests.
type blobCase struct{ blob.Store }

func (c blobCase) put(t *testing.T, name, text string) {
	t.Helper()
	if err := blob.WriteAll(t.Context(), c, name, []byte(text)); err != nil {
		t.Errorf("write %s: %v", name, err) // not Fatal, since some tests call put from goroutines
	}
}

func (c blobCase) begin(t *testing.T, name, text string) blob.Writer {
	t.Helper()
	w, err := c.Create(t.Context(), name, blob.Any)
	must(t, err)
	_, err = io.WriteString(w, text)
	must(t, err)
	return w
}

func (c blobCase) want(t *testing.T, name, text string) {
	t.Helper()
	got, err := blob.ReadAll(t.Context(), c, name, 1<<30)
	if err != nil || string(got) != text {
		t.Errorf("%s has %.50q, %v; want %.50q", name, got, err, text)
	}
}

func (c blobCase) wantMissing(t *testing.T, name string) {
	t.Helper()
	_, err := c.Size(t.Context(), name)
	wantErr(t, "size of "+name, err, fs.ErrNotExist)
	_, err = c.ReadAt(t.Context(), name, make([]byte, 1), 0)
	wantErr(t, "read of "+name, err, fs.ErrNotExist)
	_, err = c.ReadAt(t.Context(), name, nil, 0)
	wantErr(t, "read of nothing of "+name, err, fs.ErrNotExist)
}

func (c blobCase) wantList(t *testing.T, prefix string, want ...string) {
	t.Helper()
	infos, err := c.List(t.Context(), prefix)
	must(t, err)
	var got []string
	for _, info := range infos {
		got = append(got, info.Name)
		if n, err := c.Size(t.Context(), info.Name); err != nil || n != info.Size {
			t.Errorf("%s is listed with %d bytes and has %d, %v", info.Name, info.Size, n, err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the list of %q has %q, want %q", prefix, got, want)
	}
}

func testBlobCreate(t *testing.T, c blobCase) {
	w := c.begin(t, "packs/data-1", "one")
	c.wantMissing(t, "packs/data-1")
	c.wantList(t, "")
	_, err := io.WriteString(w, " and two")
	must(t, errors.Join(err, w.Commit()))
	c.want(t, "packs/data-1", "one and two")
	c.wantList(t, "", "packs/data-1")
	c.put(t, "empty", "")
	c.want(t, "empty", "")
	c.wantList(t, "", "empty", "packs/data-1")
}

func testBlobReplace(t *testing.T, c blobCase) {
	c.put(t, "a/b", "the old text, which is longer")
	w := c.begin(t, "a/b", "the new text")
	c.want(t, "a/b", "the old text, which is longer")
	must(t, w.Commit())
	c.want(t, "a/b", "the new text")
	w.Abort()
	c.want(t, "a/b", "the new text")
	c.wantList(t, "", "a/b")
}

func testBlobAbort(t *testing.T, c blobCase) {
	c.begin(t, "a", "text").Abort()
	c.wantMissing(t, "a")
	c.put(t, "a", "old")
	c.begin(t, "a", "new").Abort()
	c.want(t, "a", "old")
	c.put(t, "a", "third")
	c.want(t, "a", "third")
}

func testBlobEnded(t *testing.T, c blobCase) {
	for name, end := range map[string]func(blob.Writer){
		"committed": func(w blob.Writer) { must(t, w.Commit()) }, "aborted": blob.Writer.Abort,
	} {
		w := c.begin(t, name, "text")
		end(w)
		if _, err := io.WriteString(w, "more"); err == nil {
			t.Errorf("a blob that is %s can be written to", name)
		}
		if w.Commit() == nil {
			t.Errorf("a blob that is %s can be committed", name)
		}
		w.Abort()
	}
	c.wantList(t, "", "committed")
	c.want(t, "committed", "text")
}

// testBlobRanges compares ReadAt with that of bytes.Reader.
func testBlobRanges(t *testing.T, c blobCase) {
	for _, size := range []int{0, 1, 5000} {
		text := make([]byte, size)
		rand.NewChaCha8([32]byte{5}).Read(text)
		c.put(t, "ranges", string(text))
		r := blob.Reader(t.Context(), c, "ranges")
		for _, off := range []int64{0, 1, 4000, 4999, 5000, 5001, 1 << 40} {
			for _, n := range []int{0, 1, 1000, 1001, 9000} {
				want, got := make([]byte, n), make([]byte, n)
				wantN, wantErr := bytes.NewReader(text).ReadAt(want, off)
				gotN, err := r.ReadAt(got, off)
				if n == 0 { // io.ReaderAt allows both nil and io.EOF then
					wantErr, err = nil, noEOF(err)
				}
				if gotN != wantN || err != wantErr || !bytes.Equal(got[:gotN], want[:wantN]) {
					t.Errorf("%d of %d bytes from %d: %d, %v; want %d, %v", n, size, off, gotN, err, wantN, wantErr)
				}
			}
		}
		if n, err := r.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
			t.Errorf("a read before the start gives %d, %v", n, err)
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func testBlobList(t *testing.T, c blobCase) {
	c.wantList(t, "")
	c.wantList(t, "packs/")
	names := []string{"bad", "packs/data-1", "packs/data-10", "packs/data-2", "packs/tree-3", "records/10.0.0.7/a", "records/10.0.0.7/b",
		"records/10.0.0.70/c", "records/box/d", "store"}
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(len(names)) {
		c.put(t, names[i], names[i][:i%4])
	}
	c.wantList(t, "", names...)
	c.wantList(t, "packs/", names[1:5]...)
	c.wantList(t, "packs/data-1", names[1:3]...)
	c.wantList(t, "packs", names[1:5]...)
	c.wantList(t, "records/10.0.0.7/", names[5:7]...)
	c.wantList(t, "records/10.0.0.7", names[5:8]...)
	c.wantList(t, "store", "store")
	c.wantList(t, "store/")
	c.wantList(t, "packs/data-3")
	for _, outside := range []string{"..", "../", "/", "packs/../", "packs//", "./"} {
		if infos, _ := c.List(t.Context(), outside); len(infos) > 0 {
			t.Errorf("the list of %q has %v", outside, infos)
		}
	}
}

func testBlobListMany(t *testing.T, c blobCase) {
	const n = 1100 // servers list at most 1000 at once
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("packs/data-%08d", i))
	}
	parallel(8, n, func(i int) {
		if err := blob.WriteAll(t.Context(), c, names[i], []byte("x")[:i%2]); err != nil {
			t.Error(err)
		}
	})
	infos, err := c.List(t.Context(), "packs/")
	must(t, err)
	for i, info := range infos {
		if len(infos) != n || info.Name != names[i] || info.Size != int64(i%2) {
			t.Fatalf("of %d blobs, %d are listed, number %d as %v", n, len(infos), i, info)
		}
	}
	if len(infos) != n {
		t.Errorf("%d blobs are listed of %d", len(infos), n)
	}
}

// parallel calls do for 0 to n-1 from several goroutines.
func parallel(workers, n int, do func(i int)) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	wg.Wait()
}

func testBlobRemove(t *testing.T, c blobCase) {
	c.put(t, "a/b/c", "text")
	c.put(t, "a/b/d", "text")
	must(t, c.Remove(t.Context(), "a/b/c"))
	c.wantMissing(t, "a/b/c")
	c.wantList(t, "", "a/b/d")
	must(t, c.Remove(t.Context(), "a/b/c"))
	must(t, c.Remove(t.Context(), "never/was/there"))
	must(t, c.Remove(t.Context(), "a/b/d"))
	c.wantList(t, "")
	c.put(t, "a/b/c", "again")
	c.want(t, "a/b/c", "again")
}

func testBlobMissing(t *testing.T, c blobCase) {
	c.wantMissing(t, "a")
	c.wantMissing(t, "a/b/c")
	_, err := blob.ReadAll(t.Context(), c, "a", 1)
	wantErr(t, "reading all", err, fs.ErrNotExist)
	c.put(t, "ab", "text")
	c.wantMissing(t, "a")
	c.wantMissing(t, "abc")
}

func testBlobNames(t *testing.T, c blobCase) {
	for _, name := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".a", "a.tmp", "a/b.tmp/c", "a b",
		"a\x00b",
		"ä", "a\\b", "a?b", strings.Repeat("a", 101), strings.Repeat("abcdefgh/", 60) + "a"} {
		w, createErr := c.Create(t.Context(), name, blob.Any)
		if createErr == nil {
			w.Abort()
		}
		_, sizeErr := c.Size(t.Context(), name)
		_, readErr := c.ReadAt(t.Context(), name, make([]byte, 1), 0)
		removeErr := c.Remove(t.Context(), name)
		for _, err := range []error{createErr, sizeErr, readErr, removeErr} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the name %q gives %v, want an error of its own", name, err)
			}
		}
	}
	long := strings.Repeat(strings.Repeat("a", 99)+"/", 4) + strings.Repeat("b", 100)
	for _, name := range []string{"A-Z_0.9", "a.", long} {
		c.put(t, name, name)
		c.want(t, name, name)
	}
}

func testBlobLarge(t *testing.T, c blobCase) {
	text := make([]byte, 70<<20+3)
	rand.NewChaCha8([32]byte{7}).Read(text)
	w, err := c.Create(t.Context(), "packs/large", blob.Any)
	must(t, err)
	for p := range slices.Chunk(text, 1<<20+1) {
		p = slices.Clone(p)
		_, err := w.Write(p)
		must(t, err)
		spoil(p)
	}
	must(t, w.Commit())
	if n, err := c.Size(t.Context(), "packs/large"); err != nil || n != int64(len(text)) {
		t.Errorf("size %d, %v", n, err)
	}
	got := make([]byte, len(text))
	n, err := c.ReadAt(t.Context(), "packs/large", got, 0)
	if n != len(text) || noEOF(err) != nil || !bytes.Equal(got, text) {
		t.Errorf("the large blob came back as %d bytes, %v", n, err)
	}
	part := make([]byte, 1000)
	n, err = c.ReadAt(t.Context(), "packs/large", part, int64(len(text)-500))
	if n != 500 || err != io.EOF || !bytes.Equal(part[:n], text[len(text)-500:]) {
		t.Errorf("the tail came back as %d bytes, %v", n, err)
	}
	if _, err := blob.ReadAll(t.Context(), c, "packs/large", 1<<20); !errors.As(err, new(*blob.TooLargeError)) {
		t.Errorf("a limit of 1 MiB gives %v", err)
	}
}

func testBlobCancelled(t *testing.T, c blobCase) {
	c.put(t, "a", "old")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := c.Create(ctx, "a", blob.Any)
	must(t, err)
	_, err = io.WriteString(w, "new")
	must(t, err)
	cancel()
	wantErr(t, "commit", w.Commit(), context.Canceled)
	w.Abort()
	_, err = c.Create(ctx, "a", blob.Any)
	wantErr(t, "create", err, context.Canceled)
	_, err = c.Size(ctx, "a")
	wantErr(t, "size", err, context.Canceled)
	_, err = c.ReadAt(ctx, "a", make([]byte, 1), 0)
	wantErr(t, "read", err, context.Canceled)
	_, err = c.List(ctx, "")
	wantErr(t, "list", err, context.Canceled)
	wantErr(t, "remove", c.Remove(ctx, "a"), context.Canceled)
	c.want(t, "a", "old")
}

// testBlobAtOnce works on many blobs at the same time.
func testBlobAtOnce(t *testing.T, c blobCase) {
	c.put(t, "records/kept", "kept")
	parallel(8, 80, func(i int) {
		name, text := fmt.Sprintf("records/box-%d/id", i), strings.Repeat(fmt.Sprint(i, " "), 100)
		c.put(t, name, text)
		c.want(t, name, text)
		c.want(t, "records/kept", "kept")
		if infos, err := c.List(t.Context(), "records/kept"); err != nil || len(infos) != 1 {
			t.Errorf("what was there all the time is listed as %v, %v", infos, err)
		}
		if i%2 == 0 {
			if err := c.Remove(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
	})
	infos, err := c.List(t.Context(), "records/box-")
	if err != nil || len(infos) != 40 {
		t.Errorf("%d blobs are left, %v; want 40", len(infos), err)
	}
}

// testBlobReplacedWhole reads a blob that is being replaced. Each read must see
// exactly one state of it.
func testBlobReplacedWhole(t *testing.T, c blobCase) {
	const size = 100_000
	c.put(t, "a", strings.Repeat("A", size))
	parallel(4, 4, func(i int) {
		for v := range 20 {
			if i == 0 {
				c.put(t, "a", strings.Repeat(string(rune('B'+v)), size))
				continue
			}
			b := make([]byte, size)
			n, err := c.ReadAt(t.Context(), "a", b, 0)
			if n != size || noEOF(err) != nil || bytes.Count(b, b[:1]) != size {
				t.Errorf("read %d of a blob being replaced, %v, of more than one state", n, err)
			}
		}
	})
}

// over writes a blob over a version.
func (c blobCase) over(t *testing.T, name string, v blob.Version, text string) error {
	return blob.WriteOver(t.Context(), c, name, v, []byte(text))
}

func (c blobCase) version(t *testing.T, name string) blob.Version {
	t.Helper()
	v, err := c.Version(t.Context(), name)
	must(t, err)
	return v
}

// testBlobAbsent tests that a blob with version None never replaces another
// one. That other one may be equal, or may have been committed after the first
// was begun.
func testBlobAbsent(t *testing.T, c blobCase) {
	must(t, c.over(t, "a/b", blob.None, "first"))
	for _, text := range []string{"second", "first", ""} {
		wantErr(t, "a second creation", c.over(t, "a/b", blob.None, text), fs.ErrExist)
	}
	c.want(t, "a/b", "first")
	w, err := c.Create(t.Context(), "a/c", blob.None)
	must(t, err)
	_, err = io.WriteString(w, "begun first")
	must(t, err)
	c.put(t, "a/c", "committed first")
	wantErr(t, "commit of what was begun first", w.Commit(), fs.ErrExist)
	w.Abort()
	c.want(t, "a/c", "committed first")
	must(t, c.Remove(t.Context(), "a/c"))
	must(t, c.over(t, "a/c", blob.None, "again"))
	c.want(t, "a/c", "again")
	c.wantList(t, "", "a/b", "a/c")
}

// testBlobOverVersion tests that a blob is only written over the version that
// is there.
func testBlobOverVersion(t *testing.T, c blobCase) {
	_, err := c.Version(t.Context(), "a/b")
	wantErr(t, "version of nothing", err, fs.ErrNotExist)
	_, err = c.Version(t.Context(), "..")
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the version of a name that no blob has: %v", err)
	}
	c.put(t, "a/b", "one")
	one := c.version(t, "a/b")
	if again := c.version(t, "a/b"); one == "" || one == blob.Any || again != one {
		t.Errorf("the version is %q, then %q", one, again)
	}
	must(t, c.over(t, "a/b", one, "two"))
	c.want(t, "a/b", "two")
	two := c.version(t, "a/b")
	if two == one {
		t.Errorf("another state has the version %q too", two)
	}
	wantErr(t, "over a state that was", c.over(t, "a/b", one, "three"), blob.ErrChanged)
	c.want(t, "a/b", "two")
	w, err := c.Create(t.Context(), "a/b", two)
	must(t, err)
	_, err = io.WriteString(w, "begun first")
	must(t, err)
	c.put(t, "a/b", "three")
	wantErr(t, "over a state that changed meanwhile", w.Commit(), blob.ErrChanged)
	must(t, c.Remove(t.Context(), "a/b"))
	wantErr(t, "over a state of what is not there", c.over(t, "a/b", two, "four"), blob.ErrChanged)
	c.wantList(t, "")
}

// oneWins writes a blob over the same version from several goroutines. Only one
// may succeed.
func (c blobCase) oneWins(t *testing.T, name string, v blob.Version, lost error) {
	t.Helper()
	const writers = 6
	errs := make([]error, writers)
	parallel(writers, writers, func(i int) { errs[i] = c.over(t, name, v, fmt.Sprint("of writer ", i, " over ", v)) })
	winners := 0
	for i, err := range errs {
		if err == nil {
			winners++
			c.want(t, name, fmt.Sprint("of writer ", i, " over ", v))
		} else if !errors.Is(err, lost) {
			t.Errorf("%s, writer %d: %v", name, i, err)
		}
	}
	if winners != 1 {
		t.Errorf("%s: %d of %d writers succeed", name, winners, writers)
	}
}

func testBlobOneCreates(t *testing.T, c blobCase) {
	for i := range 20 {
		c.oneWins(t, fmt.Sprint("packs/", i), blob.None, fs.ErrExist)
	}
}

func testBlobOneChanges(t *testing.T, c blobCase) {
	c.put(t, "owner", "at first")
	for range 20 {
		c.oneWins(t, "owner", c.version(t, "owner"), blob.ErrChanged)
	}
}

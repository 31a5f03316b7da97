package dir_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

// gone is the content of a blob that is not there.
const gone = "(not there)"

// model is what each blob may hold: what the last call that succeeded left, or
// what one that failed since then was to leave.
type model map[string][]string

func (m model) did(name, content string, err error) {
	if err == nil {
		m[name] = nil
	} else if m[name] == nil {
		m[name] = []string{gone}
	}
	m[name] = append(m[name], content)
}

// check holds a store to the model. Calls of a store that is made to fail may
// fail.
func (m model) check(t *testing.T, s blob.Store, mayFail bool, what string) {
	t.Helper()
	infos, listErr := s.List(context.Background(), "")
	if listErr != nil && !mayFail {
		t.Errorf("%s: list: %v", what, listErr)
	}
	for name, may := range m {
		content, err := blob.ReadAll(context.Background(), s, name, 1<<20)
		got := string(content)
		if errors.Is(err, fs.ErrNotExist) {
			got, err = gone, nil
		}
		if err != nil && mayFail {
			continue
		}
		if err != nil || !slices.Contains(may, got) {
			t.Errorf("%s: %s has %.30q, %v; may have %.30q", what, name, got, err, may)
		}
		listed := slices.ContainsFunc(infos, func(i blob.Info) bool { return i == blob.Info{Name: name, Size: int64(len(got))} })
		if listErr == nil && listed != (got != gone) {
			t.Errorf("%s: %s has %.30q, but the list is %v", what, name, got, infos)
		}
	}
	for _, i := range infos {
		if m[i.Name] == nil {
			t.Errorf("%s: %s is listed, and was never written", what, i.Name)
		}
	}
}

// work is one life of a store, whatever fails in it.
func work(t *testing.T, s blob.Store, m model, life int) {
	content := func(i int) string { return strings.Repeat(fmt.Sprint(life, i, " "), 400*i) }
	write := func(name string, i int) {
		m.did(name, content(i), blob.WriteAll(context.Background(), s, name, []byte(content(i))))
	}
	remove := func(name string) { m.did(name, gone, s.Remove(context.Background(), name)) }
	write("packs/1", 1)
	write("packs/2", 2)
	write("packs/1", 3)
	remove("packs/2")
	m.check(t, s, true, "while it works")
	write("records/box/1", 1)
	write("bad", 0)
	remove("packs/1")
	write("packs/2", 4)
}

// TestFaults fails each operation of a store's life in each manner, cuts the
// power, and lives again on what is left.
func TestFaults(t *testing.T) {
	for _, manner := range []faults.Manner{faults.Fails, faults.Lies, faults.Dies} {
		for k, hit := 1, true; hit; k++ {
			v, m := faults.NewVolatile(), model{}
			kth := &faults.Kth{FS: v, K: k + 2, Manner: manner} // opening it takes two
			work(t, open(t, kth, "/store"), m, 1)
			hit = kth.Failed() != ""
			what := fmt.Sprintf("%s %v", kth.Failed(), manner)
			m.check(t, open(t, v, "/store"), false, what)
			for seed := range uint64(10) {
				random := rand.New(rand.NewPCG(seed, uint64(k)))
				after := open(t, v.Crash(func() bool { return random.IntN(2) == 0 }), "/store")
				m := clone(m)
				m.check(t, after, false, what+" and a crash")
				work(t, after, m, 2)
				m.check(t, after, false, what+", a crash and a second life")
			}
		}
	}
}

func clone(m model) model {
	c := model{}
	for name, may := range m {
		c[name] = slices.Clone(may)
	}
	return c
}

// TestClean: what a crash leaves of blobs being written is not listed, and
// goes, and nothing else does.
func TestClean(t *testing.T) {
	root := t.TempDir()
	s := open(t, durable.OS{}, root)
	for _, name := range []string{"store", "packs/1"} {
		if err := blob.WriteAll(t.Context(), s, name, []byte("text")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"packs/2.tmp", "records.tmp", ".hidden", "notes.txt~"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if infos, err := s.List(t.Context(), ""); err != nil || len(infos) != 2 {
		t.Errorf("listed are %v, %v", infos, err)
	}
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			left = append(left, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if want := []string{".hidden", "notes.txt~", "packs/1", "store"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
}

// TestFolderGone: an unmounted folder is not an empty store.
func TestFolderGone(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, durable.OS{}, root)
	if err := os.Rename(root, root+"-away"); err != nil {
		t.Fatal(err)
	}
	if infos, err := s.List(t.Context(), ""); err == nil {
		t.Errorf("the list is %v", infos)
	}
	if err := s.Remove(t.Context(), "packs/1"); err == nil {
		t.Error("a blob was removed")
	}
	if _, err := dir.Open(durable.OS{}, root); err == nil {
		t.Error("it opens")
	}
}

// TestHalfWritten: after a write that failed, nothing can be committed.
func TestHalfWritten(t *testing.T) {
	v := faults.NewVolatile()
	s := open(t, &faults.Kth{FS: v, K: 2 + 3, Manner: faults.Fails}, "/store") // create, write, write
	w, err := s.Create(t.Context(), "a", blob.Any)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("first "))
	if _, err := w.Write([]byte("second ")); !errors.Is(err, faults.ErrInjected) {
		t.Fatalf("the write says %v", err)
	}
	w.Write([]byte("third"))
	if err := w.Commit(); !errors.Is(err, faults.ErrInjected) {
		t.Errorf("commit says %v", err)
	}
	model{"a": {gone}}.check(t, open(t, v, "/store"), false, "after a failed write")
}

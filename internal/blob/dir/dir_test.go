package dir_test

import (
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

func open(t *testing.T, fsys durable.FS, root string) *dir.Store {
	t.Helper()
	s, err := dir.New(fsys, root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFolder(t *testing.T) {
	conform.Blobs(t, func(t *testing.T) blob.Store { return open(t, durable.OS{}, t.TempDir()) })
}

func TestVolatile(t *testing.T) {
	conform.Blobs(t, func(t *testing.T) blob.Store { return open(t, faults.NewVolatile(), "/store") })
}

// TestSettle: what was removed and not synced, by a process that was killed,
// stays removed after a Settle that says that it succeeded.
func TestSettle(t *testing.T) {
	for k, hit := 1, true; hit; k++ {
		v := faults.NewVolatile()
		s := open(t, v, "/store")
		for _, name := range []string{"a/b/removed", "a/b/stays", "other/removed"} {
			if err := blob.WriteAll(t.Context(), s, name, []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
		v.Remove("/store/a/b/removed")
		v.Remove("/store/other/removed")
		kth := &faults.Kth{FS: v, K: k + 2} // opening it takes two
		err := open(t, kth, "/store").Settle(t.Context(), "a/")
		if hit = kth.Failed() != ""; err != nil {
			if !hit {
				t.Error(err)
			}
			continue
		}
		after := open(t, v.Crash(func() bool { return false }), "/store")
		list, err := after.List(t.Context(), "")
		if err != nil || len(list) != 2 || list[0].Name != "a/b/stays" || list[1].Name != "other/removed" {
			t.Errorf("%s fails; after the crash: %v, %v", kth.Failed(), list, err)
		}
	}
}

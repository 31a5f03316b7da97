package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/testenv"
)

// loseName are the ways in which the blob that makes a store is lost.
var loseName = map[string]func(t testing.TB, blobs blob.Store){
	"removed": func(t testing.TB, blobs blob.Store) { must(t, blobs.Remove(t.Context(), storeName)) },
	"empty":   func(t testing.TB, blobs blob.Store) { must(t, blob.WriteAll(t.Context(), blobs, storeName, nil)) },
	"bit":     func(t testing.TB, blobs blob.Store) { flip(t, blobs, storeName, 8*90) },
	"large": func(t testing.TB, blobs blob.Store) {
		must(t, blob.WriteAll(t.Context(), blobs, storeName, make([]byte, maxStoreFile+1)))
	},
}

// testNameLost loses the blob that makes a store, and brings it back.
func testNameLost(t *testing.T, blobs blob.Store) {
	must(t, Init(t.Context(), blobs))
	d := newDisk(seeds(1, 10))
	r := mustBackup(t, openStore(t, Config{Blobs: blobs}), "10.0.0.1", day(1), d)
	was, err := blob.ReadAll(t.Context(), blobs, storeName, maxStoreFile)
	must(t, err)
	for how, lose := range loseName {
		lose(t, blobs)
		if _, err := Open(t.Context(), Config{Blobs: blobs}); !errors.Is(err, ErrNameLost) || !strings.Contains(err.Error(), "rebuild-index") {
			t.Fatalf("%s: %v", how, err)
		}
		if err := Init(t.Context(), blobs); err == nil {
			t.Fatalf("%s: another store is made over it", how)
		}
		restored, err := RestoreName(t.Context(), t.TempDir(), blobs)
		now, readErr := blob.ReadAll(t.Context(), blobs, storeName, maxStoreFile)
		if err != nil || !restored || readErr != nil || string(now) != string(was) {
			t.Fatalf("%s: %v, %v, %v", how, restored, err, readErr)
		}
		if restored, err := RestoreName(t.Context(), t.TempDir(), blobs); restored || err != nil {
			t.Errorf("%s: written again: %v", how, err)
		}
		s := openStore(t, Config{Blobs: blobs})
		mustRestore(t, s, r, d)
		must(t, s.Check(t.Context()))
	}
}

func TestNameLost(t *testing.T) {
	testNameLost(t, &mem.Store{})
	folder, err := dir.New(durable.OS{}, t.TempDir())
	must(t, err)
	testNameLost(t, folder)
}

func TestNameLostInS3(t *testing.T) {
	server := testenv.StartS3(t)
	cfg, err := s3.ParseURL(server.URL(server.Addr, "name"))
	must(t, err)
	blobs, err := s3.Open(t.Context(), cfg, t.TempDir())
	must(t, err)
	testNameLost(t, blobs)
}

// TestNameOfNoStore: nothing is made a store that was none, or may be two.
func TestNameOfNoStore(t *testing.T) {
	empty, other, folder := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(other, "packs"), 0o700))
	must(t, os.WriteFile(filepath.Join(other, "packs", "data-00000001"), []byte("TBXPACK1 and then something else, long enough"), 0o600))
	blobs, err := dir.New(durable.OS{}, folder)
	must(t, err)
	must(t, Init(t.Context(), blobs))
	mustBackup(t, openStore(t, Config{Blobs: blobs}), "10.0.0.1", day(1), newDisk(seeds(1, 10)))
	foreign := &mem.Store{}
	must(t, Init(t.Context(), foreign))
	s := openStore(t, Config{Blobs: foreign})
	mustBackup(t, s, "10.0.0.1", day(1), newDisk(seeds(1, 10)))
	mustBackup(t, s, "10.0.0.1", day(2), newDisk(seeds(50, 10)))
	name := packsOf(t, foreign, chunks)[1]
	text, err := blob.ReadAll(t.Context(), foreign, name, 1<<20)
	must(t, err)
	must(t, blob.WriteAll(t.Context(), blobs, name, text))
	must(t, blobs.Remove(t.Context(), storeName))
	for path, want := range map[string]string{empty: "there is no store", other: "none has a header that can be read",
		folder: "of different stores"} {
		before, _ := filepath.Glob(path + "/*")
		_, err := RestoreName(t.Context(), path, nil)
		after, _ := filepath.Glob(path + "/*")
		if err == nil || !strings.Contains(err.Error(), want) || len(before) != len(after) {
			t.Errorf("%v, want %q; there was %v, and is %v", err, want, before, after)
		}
	}
	must(t, blobs.Remove(t.Context(), name))
	if restored, err := RestoreName(t.Context(), folder, nil); !restored || err != nil {
		t.Errorf("without the pack from elsewhere: %v", err)
	}
}

package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// oddBoxes are names that somebody may think of.
var oddBoxes = []string{
	"lab.tmp", ".tmp", "a.tmp.tmp", "LAB.TMP", "lab.tmpx", ".x", "a..b", "..", ".", "a.", "-x", "--yes", "_", "Web-1", "web-1",
	"x@y", "a:b", "a b", "a/b", "", "ä", "latest", "baseline", "2026-11-27", "20261127-004616", "10.0.0.1", "records", "packs", "store",
	"data-00000001", "tree-00000001", "bad", "index", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 101),
	strings.Repeat("x", 60) + ".tmp",
}

// wantUsable wants a box that is valid to be what its own name means.
func wantUsable(t interface {
	Helper()
	Errorf(string, ...any)
}, box string) {
	t.Helper()
	if !image.ValidBox(box) {
		return
	}
	const id = "20261127-004616-2"
	if !blob.ValidName(recordName(box, id)) {
		t.Errorf("%q is a box, and no blob can have its record", box)
	}
	for text, want := range map[string]Selector{
		box: {Box: box}, box + "@latest~1": {Box: box, When: "latest~1"}, box + "@" + id + ":sda": {Box: box, When: id, Disk: "sda"},
		box + "@2026-11-27T00:46": {Box: box, When: "2026-11-27T00:46"}, box + ":nvme0n1": {Box: box, Disk: "nvme0n1"},
	} {
		if got, err := ParseSelector(text); err != nil || got != want {
			t.Errorf("%q means %+v, %v", text, got, err)
		}
	}
}

func TestNamesAgree(t *testing.T) {
	for _, box := range oddBoxes {
		wantUsable(t, box)
	}
	text := rapid.StringOfN(rapid.RuneFrom([]rune(`abzAZ09-_.tmp/:@ ~`)), 0, 70, -1)
	rapid.Check(t, func(t *rapid.T) {
		box := text.Draw(t, "box")
		if rapid.Bool().Draw(t, "tmp") {
			box += ".tmp"
		}
		wantUsable(t, box)
	})
}

// TestNamesAreKept stores a backup of each valid name wherever blobs are kept,
// and finds it by name.
func TestNamesAreKept(t *testing.T) {
	folder, err := dir.New(durable.OS{}, t.TempDir())
	must(t, err)
	testNames(t, "memory", &mem.Store{})
	testNames(t, "folder", folder)
}

func TestNamesAreKeptInS3(t *testing.T) {
	server := testenv.StartS3(t)
	cfg, err := s3.ParseURL(server.URL(server.Addr, "names"))
	must(t, err)
	blobs, err := s3.Open(t.Context(), cfg, t.TempDir())
	must(t, err)
	testNames(t, "S3", blobs)
}

func testNames(t *testing.T, where string, blobs blob.Store) {
	t.Helper()
	must(t, Init(t.Context(), blobs))
	s := openStore(t, Config{Blobs: blobs})
	d := newDisk(seeds(1, 3))
	var valid []string
	for _, box := range oddBoxes {
		r, err := backup(t.Context(), s, box, day(1), d)
		if image.ValidBox(box) != (err == nil) {
			t.Errorf("%s: backup of %q: %v", where, box, err)
		}
		if err == nil {
			valid = append(valid, r.Box)
		}
	}
	all := records(t, s)
	for _, box := range valid {
		r, err := Select(all, nil, Selector{Box: box, When: "2026-11-01"}, time.Now())
		if err != nil || r.Box != box {
			t.Errorf("%s: %q: %v", where, box, err)
			continue
		}
		mustRestore(t, s, r, d)
		must(t, s.Delete(t.Context(), r))
	}
	if left := records(t, s); len(all) != len(valid) || len(left) > 0 || !slices.Contains(valid, "a..b") {
		t.Errorf("%s: %d backups of %d are listed, and %d are left", where, len(all), len(valid), len(left))
	}
}

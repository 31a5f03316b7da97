package store

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/durable"
)

// makeBucket makes the specimen of TestFormerBucket anew, in this new folder.
// That is done by the program that writes a new format, beside the specimens
// of the formats before.
var makeBucket = flag.String("make-bucket", "", "make a specimen of a bucket and of its owner's folder in this new folder")

// bucketDisk is the disk of the specimen's backups.
func bucketDisk() fakeDisk { return newDisk(seeds(1, 10), seeds(50, 5)) }

// TestFormerBucket: a bucket that an earlier program left in the middle of a
// collection is used by its owner and by a folder that takes it over.
func TestFormerBucket(t *testing.T) {
	if *makeBucket != "" {
		makeFormerBucket(t, *makeBucket)
		return
	}
	sets, err := filepath.Glob("testdata/bucket/*")
	must(t, err)
	if len(sets) == 0 {
		t.Fatal("there are no specimens")
	}
	for _, dir := range sets {
		for _, takeOver := range []bool{false, true} {
			bucket, state := &mem.Store{}, t.TempDir()
			fsys := os.DirFS(filepath.Join(dir, "blobs"))
			must(t, fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				text, err := fs.ReadFile(fsys, name)
				return errors.Join(err, blob.WriteAll(t.Context(), bucket, name, text))
			}))
			if !takeOver {
				must(t, os.CopyFS(state, os.DirFS(filepath.Join(dir, "folder"))))
			}
			before := packsOf(t, bucket, trees)
			c := Config{Blobs: bucket, State: durable.OS{}, Dir: state, Owner: &Owner{Host: "host", Path: "one", TakeOver: takeOver}}
			s := openStore(t, c)
			if after := packsOf(t, bucket, trees); len(after) >= len(before) {
				t.Errorf("take over %v: the removal that was announced is not settled: %q, then %q", takeOver, before, after)
			}
			records, damaged, err := s.Records(t.Context())
			if err != nil || len(records) != 1 || len(damaged) > 0 {
				t.Fatalf("take over %v: the records are %v, %v, %v", takeOver, records, damaged, err)
			}
			mustRestore(t, s, records[0], bucketDisk())
			again := mustBackup(t, s, "10.0.0.2", day(3), bucketDisk())
			mustGC(t, s)
			mustRestore(t, s, again, bucketDisk())
			must(t, s.Check(t.Context()))
			must(t, s.Close())
		}
	}
}

func makeFormerBucket(t *testing.T, dir string) {
	bucket := &mem.Store{}
	must(t, Init(t.Context(), bucket))
	folder := filepath.Join(dir, "folder")
	must(t, os.MkdirAll(folder, 0o755))
	h := &stuck{Store: bucket, is: true}
	s := openStore(t, Config{Blobs: h, State: durable.OS{}, Dir: folder, Owner: &Owner{Host: "host", Path: "one"}})
	mustBackup(t, s, "10.0.0.1", day(1), bucketDisk())
	must(t, s.Delete(t.Context(), mustBackup(t, s, "10.0.0.1", day(2), newDisk(seeds(1000, 10)))))
	if err := collectAll(s); !errors.Is(err, errNet) {
		t.Fatalf("the collection ends with %v", err)
	}
	list, err := bucket.List(t.Context(), "")
	must(t, err)
	for _, b := range list {
		text, err := blob.ReadAll(t.Context(), bucket, b.Name, 1<<20)
		must(t, err)
		name := filepath.Join(dir, "blobs", b.Name)
		must(t, errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text, 0o644)))
	}
}

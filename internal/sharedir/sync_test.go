package sharedir

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"testbox-imaging/internal/durable"
)

// unsyncable is a file system on which the first sync of an image fails. The
// next one does not: the kernel tells of lost pages once.
type unsyncable struct{ durable.FS }

type unsyncableFile struct {
	durable.File
	failed bool
}

var errSync = errors.New("sync failed")

func (f *unsyncableFile) Sync() error {
	if f.failed {
		return f.File.Sync()
	}
	f.failed = true
	return errSync
}

func (u unsyncable) Create(path string, mode fs.FileMode) (durable.File, error) {
	f, err := u.FS.Create(path, mode)
	if !strings.Contains(path, rawgzExt) || err != nil {
		return f, err
	}
	return &unsyncableFile{File: f}, nil
}

// TestWriteSyncsOnTheWay: a long image is made durable while it is written, and
// a failure of that is not forgotten.
func TestWriteSyncsOnTheWay(t *testing.T) {
	f := openFolder(t, newArea(t))
	set, err := f.Begin("aaaaaaaaaaaaaaaa")
	must(t, err)
	f.fsys = unsyncable{f.fsys}
	img, err := set.Create("sda")
	must(t, err)
	piece := make([]byte, 16<<20)
	for written := 0; written < syncEvery-len(piece); written += len(piece) {
		_, err := img.Write(piece)
		must(t, err)
	}
	if _, err := img.Write(piece); !errors.Is(err, errSync) {
		t.Fatalf("after %d bytes: %v", syncEvery, err)
	}
	if _, err := img.Write(piece); !errors.Is(err, errSync) {
		t.Fatalf("the failure is forgotten: %v", err)
	}
	facts := factsOf(armingA, "sda", nil)
	facts.FileSize = img.size
	if err := set.Finish("sda", facts); !errors.Is(err, errSync) {
		t.Fatalf("the image is finished: %v", err)
	}
}

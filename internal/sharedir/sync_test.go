package sharedir

import (
	"errors"
	"io/fs"
	"testing"

	"testbox-imaging/internal/durable"
)

// unsyncable is a file system on which no image can be made durable.
type unsyncable struct{ durable.FS }

type unsyncableFile struct{ durable.File }

var errSync = errors.New("sync failed")

func (unsyncableFile) Sync() error { return errSync }

func (u unsyncable) Create(path string, mode fs.FileMode) (durable.File, error) {
	f, err := u.FS.Create(path, mode)
	if _, ext, ok := splitFile(path); ok && ext == sidecarExt || err != nil {
		return f, err
	}
	return unsyncableFile{f}, nil
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
	piece := make([]byte, 1<<20)
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
}

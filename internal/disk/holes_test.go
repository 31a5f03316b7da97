package disk

import (
	"bytes"
	"os"
	"testing"
)

// TestNextData: a file tells its holes, and what it tells is zero when read; a
// block device tells none.
func TestNextData(t *testing.T) {
	const size = 16 << 20
	devDir, file, d := fileDisk(t, size, 512)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	want := make([]byte, size)
	for _, off := range []int64{1 << 20, 9<<20 + 5} {
		data := bytes.Repeat([]byte("data"), 1000)
		copy(want[off:], data)
		_, err := f.WriteAt(data, off)
		must(t, err)
	}
	dev := open(t, devDir, d, false)
	defer dev.Close()
	runs, holes := 0, int64(0)
	for at := int64(0); at < size; runs++ {
		from, to := dev.NextData(at)
		if from < at || from > size || to < from || to == from && from < size {
			t.Fatalf("the run %d to %d behind %d", from, to, at)
		}
		if !bytes.Equal(want[at:from], make([]byte, from-at)) {
			t.Fatalf("bytes %d to %d are no zeros", at, from)
		}
		holes += from - at
		at = to
		if from == size {
			at = size
		}
	}
	if runs > 3 || holes < 8<<20 {
		t.Errorf("%d runs, holes of %d bytes; does the file system of %s know holes?", runs, holes, file)
	}
	if from, to := dev.NextData(size - 512); from != size || to != size {
		t.Errorf("at the end: %d to %d", from, to)
	}
	dev.f.Close() // asking fails
	dev.askHoles.Do(func() {})
	if from, to := dev.NextData(512); from != 512 || to != size {
		t.Errorf("where nobody knows: %d to %d", from, to)
	}
}

func TestNextDataLoop(t *testing.T) {
	devDir, _, _, d := loopDisk(t, 4<<20, 512)
	dev := open(t, devDir, d, false)
	defer dev.Close()
	if from, to := dev.NextData(1 << 20); from != 1<<20 || to != 4<<20 {
		t.Errorf("a device tells of a hole: %d to %d", from, to)
	}
}

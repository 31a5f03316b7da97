package usedmap

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// The map of a large disk needs its metadata and nothing else.
func TestTerabyte(t *testing.T) {
	testenv.Root(t)
	const size = 1 << 40
	for _, f := range formats {
		var args []string
		switch f.name {
		case "fat16": // has no such size
			continue
		case "fat32":
			args = []string{"-F", "32", "-s", "128"}
		case "ext2":
			args = []string{"-t", "ext2", "-i", "1048576"} // or mkfs writes for a minute
		case "ntfs":
			args = []string{"-Q"}
		}
		t.Run(f.name, func(t *testing.T) {
			img := f.kind.Make(t, size, args...)
			f.kind.Fill(t, img, 4, 16<<20)
			file, err := os.Open(img)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			r := &counted{ReaderAt: file}
			begin, cpu := time.Now(), realfs.ProcessorTime(t)
			m, err := Read(context.Background(), r, size, 512)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB in %d reads, %v, %v of processor time", r.bytes>>20, r.reads, time.Since(begin).Round(time.Millisecond),
				(realfs.ProcessorTime(t) - cpu).Round(time.Millisecond))
			checkMap(t, m)
			if m.FreeBytes() < size/10*9 || r.bytes > size>>11 {
				t.Errorf("%d bytes are free, %d were read: %+v", m.FreeBytes(), r.bytes, m.Parts)
			}
		})
	}
}

// counted counts what is read.
type counted struct {
	io.ReaderAt
	bytes, reads int64
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	c.bytes += int64(len(b))
	c.reads++
	return c.ReaderAt.ReadAt(b, off)
}

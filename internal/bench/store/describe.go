package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// describe says what the disks hold.
func (d data) describe(out io.Writer) error {
	for _, name := range []string{"a", "a5", "a5s", "b", "ntfs"} {
		f, err := os.Open(d.path(name + ".img"))
		if err != nil {
			return err
		}
		used, stale, err := written(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(out, "%-5s %5d MB written in what is used, %5d MB in what is not\n", name, used/1e6, stale/1e6)
	}
	return nil
}

// written is how many bytes of a sparse disk image were ever written: where
// its file systems have something, and where they have it no more.
func written(f *os.File) (used, stale int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	m, err := usedmap.Read(context.Background(), f, st.Size(), 512)
	if err != nil {
		return 0, 0, err
	}
	for at := int64(0); at < st.Size(); {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err == nil {
			at, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		}
		if err != nil {
			return 0, 0, err
		}
		free := common(image.Range{Off: from, Len: at - from}, m.Free)
		used, stale = used+at-from-free, stale+free
	}
	return used, stale, nil
}

// common is how many bytes of a range others have too.
func common(r image.Range, others []image.Range) (n int64) {
	for _, o := range others {
		n += r.Clip(o.Off, o.End()).Len
	}
	return n
}

package imagefs

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// file is a disk in the folder.
type file struct {
	fs.Inode
	File
	log func(format string, args ...any)

	mu     sync.Mutex // guards the fields below
	said   int        // number of log lines for this file
	bad    int64      // start of the bytes that the last log line is about
	badEnd int64      // end of these bytes
}

var _ interface {
	fs.NodeGetattrer
	fs.NodeOpener
	fs.NodeReader
} = (*file)(nil)

// Getattr implements fs.NodeGetattrer.
func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = fuse.S_IFREG | 0o400
	out.Size = uint64(f.Size)
	out.Blocks = (out.Size + 511) / 512
	out.SetTimes(nil, &f.ModTime, &f.ModTime)
	return 0
}

// Open implements fs.NodeOpener.
func (f *file) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read implements fs.NodeReader. It gives all bytes or none, since the kernel takes
// fewer bytes for the end of the file. After a read that fails, the kernel asks for
// each page by itself, so that only pages with bad bytes are lost.
func (f *file) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if off < 0 || off >= f.Size {
		return fuse.ReadResultData(nil), 0
	}
	p = p[:min(int64(len(p)), f.Size-off)]
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return fuse.ReadResultData(p), 0
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("the reader has %d bytes of %d: %w", n, len(p), io.ErrUnexpectedEOF)
	}
	f.report(off, off+int64(len(p)), err)
	return nil, syscall.EIO
}

// maxSaid bounds the number of log lines for one file.
const maxSaid = 100

// report logs an error of a read. It logs nothing if the bytes touch those of the
// last error.
func (f *file) report(off, end int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said > 0 && off >= f.bad && off <= f.badEnd {
		f.badEnd = max(f.badEnd, end)
		return
	}
	f.bad, f.badEnd = off, end
	if f.said++; f.said <= maxSaid {
		f.log("%s.raw cannot be read from byte %d to %d: %v", f.Name, off, end, err)
	}
	if f.said == maxSaid {
		f.log("%s.raw: further errors are not logged", f.Name)
	}
}

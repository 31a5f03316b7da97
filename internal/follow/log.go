package follow

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"testbox-imaging/internal/sharedir"
)

// logReader reads a box's log as it grows. Between two reads the log can be
// missing, rotated away, truncated or replaced.
type logReader struct {
	path string
	file *os.File
	off  int64
	part []byte // beginning of a line whose end has not come yet
}

// maxLogLine is the length in bytes at which a longer line is split.
const maxLogLine = 64 << 10

// skip starts the reader behind the current content of the log, except for the
// last most bytes.
func (r *logReader) skip(most int64) error {
	f, err := sharedir.OpenHere(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	r.file, r.off = f, max(0, st.Size()-most)
	return nil
}

// lines returns the lines that came since the last call. It opens the file anew
// each time, so that an NFS client asks the server for the current content.
func (r *logReader) lines() (lines []string, err error) {
	f, err := sharedir.OpenHere(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r.drain(), nil
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New(r.path + " is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if r.file != nil {
		if was, err := r.file.Stat(); err != nil || !os.SameFile(was, st) {
			lines = r.drain()
		}
	}
	if r.close(); st.Size() < r.off {
		r.off, r.part = 0, nil // the log was truncated
	}
	r.file = f
	more, err := r.read()
	return append(lines, more...), err
}

// drain reads the rest of a log that was renamed or removed.
func (r *logReader) drain() []string {
	if r.file == nil {
		return nil
	}
	lines, _ := r.read() // an NFS server may not know the removed file any more
	if len(r.part) > 0 {
		lines = append(lines, string(r.part))
	}
	r.close()
	r.off, r.part = 0, nil
	return lines
}

func (r *logReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

func (r *logReader) read() (lines []string, err error) {
	buf := make([]byte, maxLogLine)
	for {
		n, err := r.file.ReadAt(buf, r.off)
		r.off += int64(n)
		r.part = append(r.part, buf[:n]...)
		for {
			line, rest, found := bytes.Cut(r.part, []byte("\n"))
			if !found {
				break
			}
			lines, r.part = append(lines, string(line)), rest
		}
		if len(r.part) > maxLogLine {
			lines, r.part = append(lines, string(r.part)), nil
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}

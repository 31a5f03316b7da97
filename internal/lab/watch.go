package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/pause"
)

// Watch reads a text file to which others append, such as a serial console or a
// log, and waits for lines in it. A line that has matched is not looked at
// again.
type Watch struct {
	Path   string
	Alive  func() error // asked while waiting, and an error ends the wait; may be nil
	offset int64
}

// pollEvery is how often a Watch looks into the file.
const pollEvery = 50 * time.Millisecond

// maxLine is how many bytes of a line that has not ended yet are kept.
const maxLine = 1 << 16

// SkipAll makes the Watch ignore everything that is in the file now.
func (w *Watch) SkipAll() {
	if st, err := os.Stat(w.Path); err == nil {
		w.offset = st.Size()
	}
}

// Wait returns the next line that matches re. The next Wait goes on behind that
// line. Wait fails at the timeout, when ctx ends, or when the writer of the
// file has died.
func (w *Watch) Wait(ctx context.Context, re *regexp.Regexp, timeout time.Duration) (string, error) {
	from, end := w.offset, time.Now().Add(timeout)
	for {
		dead := error(nil)
		if w.Alive != nil {
			dead = w.Alive()
		}
		if line, ok, err := w.scan(re); err != nil || ok {
			return line, err
		}
		if dead == nil && time.Now().After(end) {
			dead = fmt.Errorf("not within %v", timeout)
		}
		if dead == nil {
			dead = pause.For(ctx, pollEvery)
		}
		if dead != nil {
			return "", fmt.Errorf("wait for %q in %s: %w; it ends with:\n%s", re, w.Path, dead, tail(w.Path, from, 15))
		}
	}
}

// scan looks at the lines that were not passed yet. A last line without an end
// is looked at too, but it is only passed if it matches or is longer than
// maxLine.
func (w *Watch) scan(re *regexp.Regexp) (string, bool, error) {
	data, err := readFrom(w.Path, w.offset)
	if err != nil {
		return "", false, err
	}
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		whole := n > 0
		if !whole {
			n = len(data)
		}
		line := strings.TrimRight(string(data[:n]), "\r\n")
		match := re.MatchString(line)
		if whole || match || n > maxLine {
			w.offset += int64(n)
		}
		if match {
			return line, true, nil
		}
		data = data[n:]
	}
	return "", false, nil
}

// readFrom reads a file from offset on. A file that does not exist yet, or that
// became shorter, has nothing new.
func readFrom(path string, offset int64) ([]byte, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() <= offset {
		return nil, err
	}
	data := make([]byte, min(st.Size()-offset, 4<<20))
	n, err := f.ReadAt(data, offset)
	if n > 0 {
		err = nil
	}
	return data[:n], err
}

// tail returns the last n lines of a file behind offset, for messages.
func tail(path string, offset int64, n int) string {
	data, err := readFrom(path, offset)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(data), "?")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Text is all of the file.
func (w *Watch) Text() (string, error) {
	data, err := os.ReadFile(w.Path)
	return string(data), err
}

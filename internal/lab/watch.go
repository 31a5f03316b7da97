package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// Watch reads a text file that others append to (a serial console, a log) and
// waits for what shows up in it. What was matched once is behind it.
type Watch struct {
	Path   string
	Alive  func() error // asked while waiting: an error ends the wait; nil means nothing to ask
	offset int64
}

// pollEvery is how often a Watch looks.
const pollEvery = 50 * time.Millisecond

// maxLine bounds what is kept of a line that has not ended yet, in bytes.
const maxLine = 1 << 16

// SkipAll puts everything that is in the file now behind the watch.
func (w *Watch) SkipAll() {
	if st, err := os.Stat(w.Path); err == nil {
		w.offset = st.Size()
	}
}

// Wait returns the first line from here on that matches re, and goes on behind
// that line. It fails at timeout, when ctx ends or when what writes has died.
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
			dead = sleep(ctx, pollEvery)
		}
		if dead != nil {
			return "", fmt.Errorf("wait for %q in %s: %w; it ends with:\n%s", re, w.Path, dead, tail(w.Path, from, 15))
		}
	}
}

// scan looks at the lines not seen yet; a last line without its end is looked
// at but not passed unless it matches.
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

// readFrom reads a file from offset on; a file that is not there yet is empty,
// one that became shorter has nothing new.
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

// tail is the last n lines of a file behind offset, for messages.
func tail(path string, offset int64, n int) string {
	data, err := readFrom(path, offset)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(data), "?")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// sleep waits, or returns early with ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

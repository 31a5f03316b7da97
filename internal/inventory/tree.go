package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// guard stops waiting for calls that need too long. A read of /sys can hang for
// ever in a driver or in firmware, and nothing can end it. Its goroutine is
// left behind. After maxHung such calls, no new one is started.
type guard struct {
	ctx   context.Context
	limit time.Duration // for one call
	mu    sync.Mutex    // guards hung
	hung  int
}

// maxHung limits the threads that hanging reads occupy.
const maxHung = 8

var (
	errHung   = errors.New("no answer in time")
	errGaveUp = errors.New("not tried, because too many earlier reads hang")
	errLarge  = errors.New("larger than expected")
)

func (g *guard) gaveUp() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hung >= maxHung
}

// timed runs f. f may end long after timed has returned errHung, so f must
// share nothing with its caller.
func timed[T any](g *guard, f func() (T, error)) (T, error) {
	var zero T
	if err := g.ctx.Err(); err != nil {
		return zero, err
	}
	if g.gaveUp() {
		return zero, errGaveUp
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	timer := time.NewTimer(g.limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-g.ctx.Done():
		return zero, g.ctx.Err()
	case <-timer.C:
		g.mu.Lock()
		g.hung++
		g.mu.Unlock()
		return zero, errHung
	}
}

// tree reads a file system with limits. Its errors name the full path.
type tree struct {
	fsys  fs.FS
	top   string // "/sys" or "/proc", for messages
	guard *guard
}

func (t tree) fail(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", path.Join(t.top, name), err)
}

// read returns a file's bytes. A file longer than limit is an error.
func (t tree) read(name string, limit int64) ([]byte, error) {
	b, err := timed(t.guard, func() ([]byte, error) {
		f, err := t.fsys.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, limit+1))
		if err == nil && int64(len(b)) > limit {
			err = fmt.Errorf("%w: more than %d bytes", errLarge, limit)
		}
		return b, err
	})
	if err != nil {
		return nil, t.fail(name, err)
	}
	return b, nil
}

// list returns a folder's entries, sorted.
func (t tree) list(name string) ([]fs.DirEntry, error) {
	es, err := timed(t.guard, func() ([]fs.DirEntry, error) { return fs.ReadDir(t.fsys, name) })
	if err != nil {
		return nil, t.fail(name, err)
	}
	return es, nil
}

// link returns the target of a symbolic link as it is written, or "" if there
// is no link.
func (t tree) link(name string) string {
	s, err := timed(t.guard, func() (string, error) { return fs.ReadLink(t.fsys, name) })
	if err != nil {
		return ""
	}
	return s
}

// linkBase returns the last element of a link's target. /sys names drivers in
// this way.
func (t tree) linkBase(name string) string {
	if s := t.link(name); s != "" {
		return clean(path.Base(s))
	}
	return ""
}

// exists reports whether a file or folder exists.
func (t tree) exists(name string) bool {
	_, err := timed(t.guard, func() (fs.FileInfo, error) { return fs.Stat(t.fsys, name) })
	return err == nil
}

// attr returns the first line of a small file. It is "" if the file cannot be
// read. That is normal for many files of /sys, such as the speed of a card
// without a link.
func (t tree) attr(name string) string {
	b, err := t.read(name, 64<<10)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return clean(line)
}

// maxText is the length in bytes to which texts from outside are cut.
const maxText = 256

// clean makes a text from outside safe to print on one line. It removes blanks
// around the text, replaces characters that are not printable by '?', and
// limits the length.
func clean(s string) string { return cleanTo(s, maxText) }

func cleanTo(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.Trim(s, " \t\r\n\x00"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.TrimSpace(s)
}

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

// guard ends what takes too long. A read of /sys can hang for ever in a
// driver or in firmware; nothing can end it, so it is left behind in its
// goroutine, and after maxHung of them nothing new is tried.
type guard struct {
	ctx   context.Context
	limit time.Duration // for one call
	mu    sync.Mutex    // guards hung
	hung  int
}

// maxHung bounds the threads that hanging reads keep.
const maxHung = 8

var (
	errHung   = errors.New("no answer in time")
	errGaveUp = errors.New("not tried, because too many reads before hang")
	errLarge  = errors.New("larger than expected")
)

func (g *guard) gaveUp() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hung >= maxHung
}

// timed runs f, which must keep to itself whatever it holds, because it may
// end long after timed returned errHung.
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

// tree reads a file system with limits. Errors name the full path.
type tree struct {
	fsys  fs.FS
	top   string // "/sys": for messages
	guard *guard
}

func (t tree) fail(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", path.Join(t.top, name), err)
}

// read gives a file's bytes; one longer than limit is an error.
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

// list gives a folder's entries, sorted.
func (t tree) list(name string) ([]fs.DirEntry, error) {
	es, err := timed(t.guard, func() ([]fs.DirEntry, error) { return fs.ReadDir(t.fsys, name) })
	if err != nil {
		return nil, t.fail(name, err)
	}
	return es, nil
}

// link gives where a symbolic link leads, as it is written; "" when there is none.
func (t tree) link(name string) string {
	s, err := timed(t.guard, func() (string, error) { return fs.ReadLink(t.fsys, name) })
	if err != nil {
		return ""
	}
	return s
}

// linkBase is the last element of where a link leads, the way /sys names drivers.
func (t tree) linkBase(name string) string {
	if s := t.link(name); s != "" {
		return clean(path.Base(s))
	}
	return ""
}

// exists reports whether a file or folder is there.
func (t tree) exists(name string) bool {
	_, err := timed(t.guard, func() (fs.FileInfo, error) { return fs.Stat(t.fsys, name) })
	return err == nil
}

// attr is a small file of one line, as most of /sys is; "" when it cannot be
// read, which is normal for many of them (the speed of a card without a link).
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

// clean makes a text from outside safe to print on one line: blanks around it
// are taken off, what is not printable becomes '?', the length is limited.
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

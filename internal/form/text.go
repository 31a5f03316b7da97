package form

import (
	"bytes"
	"unicode/utf8"
)

// text gives the form of a file that has only text at its beginning and its end.
// It may be a log, a list of checksums, or a page that a server sent instead of
// the file.
func (f *file) text() *Form {
	head, tail := f.head[:min(len(f.head), 4096)], f.tail[max(len(f.tail)-512, 0):]
	if len(head) == 0 || !isText(head) || !isText(tail) {
		return nil
	}
	if f.size >= 512 && bytes.IndexByte(head, '\n') < 0 && bytes.IndexByte(tail, '\n') < 0 {
		return nil // text without a newline may be the pattern of a disk test, such as 55 everywhere
	}
	what, start := "a text file", bytes.ToLower(bytes.TrimSpace(head))
	if bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html")) {
		what = "a web page"
	}
	return &Form{What: what, How: "look at what it says"}
}

// isText reports whether b is text. A character of several bytes may be cut off at
// either end.
func isText(b []byte) bool {
	for range utf8.UTFMax - 1 {
		if len(b) > 0 && !utf8.RuneStart(b[0]) {
			b = b[1:]
		}
	}
	for len(b) > 0 {
		if !utf8.FullRune(b) {
			return true
		}
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || r == 0x7f || r < ' ' && (r < '\b' || r > '\r') && r != 0x1b {
			return false
		}
		b = b[n:]
	}
	return true
}

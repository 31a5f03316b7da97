package form

import (
	"bytes"
	"unicode/utf8"
)

// text is the form of a file that is nothing but text at its beginning and its
// end: the page with which a server answers instead of a file, a log, a list of
// checksums.
func (f *file) text() *Form {
	head, tail := f.head[:min(len(f.head), 4096)], f.tail[max(len(f.tail)-512, 0):]
	if len(head) == 0 || !isText(head) || !isText(tail) {
		return nil
	}
	if f.size >= 512 && bytes.IndexByte(head, '\n') < 0 && bytes.IndexByte(tail, '\n') < 0 {
		return nil // a pattern that a test of disks writes, such as 55 all over
	}
	what, start := "a text file", bytes.ToLower(bytes.TrimSpace(head))
	if bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html")) {
		what = "a web page"
	}
	return &Form{What: what, How: "look at what it says"}
}

// isText allows for a character of several bytes that is cut at either end.
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

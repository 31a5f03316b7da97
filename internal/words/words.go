// Package words puts numbers, durations and foreign texts into sentences.
package words

import (
	"fmt"
	"strings"
	"time"
)

// Integer is any number that can be counted with.
type Integer interface {
	~int | ~int64 | ~uint32 | ~uint64
}

// Count is a number of things: "1 backup", "2 backups". The plural of the word
// is made with an "s" unless it is given.
func Count[N Integer](n N, one string, many ...string) string {
	return fmt.Sprintf("%d %s", n, Noun(n, one, many...))
}

// Noun is the word alone, as it stands behind the number n.
func Noun[N Integer](n N, one string, many ...string) string {
	switch {
	case n == 1:
		return one
	case len(many) > 0:
		return many[0]
	}
	return one + "s"
}

// Verb is the form of a verb that fits a number of things: "is" or "are".
func Verb[N Integer](n N, one, many string) string { return Noun(n, one, many) }

// Duration is d's String without parts that are zero, as in "24h" instead of
// "24h0m0s".
func Duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ASCII bounds a text from outside to so many bytes. It puts "?" in the place of
// all that is not printable ASCII, so that the text does no harm in a log.
func ASCII(s string, most int) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s[:min(len(s), most)])
}

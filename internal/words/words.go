// Package words puts numbers into sentences.
package words

import "fmt"

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

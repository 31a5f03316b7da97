package image

import (
	"fmt"
	"strings"
	"unicode"
)

// SizeText is a size for people, with three significant digits.
func SizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), -1
	for v >= 999.5 && unit < 5 {
		v, unit = v/1024, unit+1
	}
	digits := 0
	if v < 9.995 {
		digits = 2
	} else if v < 99.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, v, "KMGTPE"[unit])
}

// SourcesText says from where chunks came, or "" if nothing is known of that.
func SourcesText(fromServer, fromPeers int64) string {
	switch {
	case fromPeers > 0:
		return fmt.Sprintf("%s came from other boxes, %s from the server", SizeText(fromPeers), SizeText(fromServer))
	case fromServer > 0:
		return fmt.Sprintf("%s came from the server, nothing from other boxes", SizeText(fromServer))
	}
	return ""
}

// Printable replaces every character that is not printable, since a terminal could
// take it for a command. Labels and names come from disks, so they can have any.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

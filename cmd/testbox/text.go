package main

import (
	"testbox-imaging/internal/image"
)

// bytesText is a size for people.
func bytesText(n int64) string { return image.SizeText(n) }

// printable is text from a disk, made fit for a terminal.
func printable(s string) string { return image.Printable(s) }

// or is s, or other if s is empty.
func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

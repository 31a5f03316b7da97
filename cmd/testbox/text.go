package main

import (
	"testbox-imaging/internal/image"
)

// bytesText is a size as text for people.
func bytesText(n int64) string { return image.SizeText(n) }

// printable makes text from a disk safe for a terminal.
func printable(s string) string { return image.Printable(s) }

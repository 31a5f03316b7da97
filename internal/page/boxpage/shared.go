package boxpage

import (
	"html/template"
	"time"
)

// Functions are what templates of all pages may call.
func Functions(now func() time.Time) template.FuncMap { return functions(now) }

// Plain replaces the characters of a text that turn its direction, or that are not seen.
func Plain(s string) string { return plain(s) }

// Span is a time in words, like "3 hours".
func Span(d time.Duration) string { return span(d) }

package boxpage

import (
	"bytes"
	"html/template"
	"io/fs"
	"strings"
	"time"
	"unicode"

	"testbox-imaging/internal/words"
)

// Templates are the templates of some pages. They are read and made safe once.
type Templates struct{ set *template.Template }

// ReadTemplates reads templates that are part of the program. now is the clock of the pages; nil means time.Now.
func ReadTemplates(files fs.FS, pattern string, now func() time.Time) Templates {
	return Templates{template.Must(template.New("").Funcs(functions(now)).ParseFS(files, pattern))}
}

// Render makes the text of a template, with nothing in it that turns the direction of a text.
func (t Templates) Render(name string, data any) (template.HTML, error) {
	var b bytes.Buffer
	if err := t.set.ExecuteTemplate(&b, name, data); err != nil {
		return "", err
	}
	return template.HTML(Plain(b.String())), nil
}

// Plain replaces the characters that turn the direction of a text, or that are not seen. With
// them a text could look as if it said something else.
func Plain(s string) string {
	i := 0
	for i < len(s) && (' ' <= s[i] && s[i] <= '~' || s[i] == '\n' || s[i] == '\t') {
		i++ // nearly all of nearly all pages is like that
	}
	if i == len(s) {
		return s
	}
	return s[:i] + strings.Map(func(r rune) rune {
		if ' ' <= r && r <= '~' || r == '\n' || r == '\t' {
			return r
		}
		if unicode.Is(unicode.Cf, r) || unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s[i:])
}

// Span is a time in words, like "3 hours".
func Span(d time.Duration) string {
	switch {
	case d < time.Hour:
		return words.Count(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return words.Count(int(d/time.Hour), "hour")
	}
	return words.Count(int(d/(24*time.Hour)), "day")
}

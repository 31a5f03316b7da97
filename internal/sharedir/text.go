package sharedir

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/words"
)

// Limits of text from outside, such as tools, firmware and error texts.
const (
	maxLine = 4096    // bytes of one line of a log
	maxText = 1 << 20 // bytes of one call
)

// visibleLines splits text into lines and makes visible what a terminal would
// obey or hide. These are control characters, text direction marks, and bytes
// that are no UTF-8. An empty text is one empty line.
func visibleLines(text string) []string {
	if len(text) > maxText {
		text = fmt.Sprintf("%s\n[%s left out]", text[:maxText], words.Count(len(text)-maxText, "more byte"))
	}
	text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = visible(l)
	}
	return lines
}

// visible makes one line visible and cuts it to maxLine.
func visible(line string) string {
	var b strings.Builder
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRuneInString(line[i:])
		if b.Len() > maxLine {
			fmt.Fprintf(&b, " [%s left out]", words.Count(len(line)-i, "more byte"))
			break
		}
		switch {
		case r == utf8.RuneError && n == 1, r != '\t' && r < 0x80 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, line[i])
		case r != '\t' && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(line[i : i+n])
		}
		i += n
	}
	return b.String()
}

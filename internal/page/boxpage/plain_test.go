package boxpage

import (
	"strings"
	"testing"
	"unicode"
)

// TestPlain: each character that is not seen, or that turns the direction of a text, is replaced, wherever it is.
func TestPlain(t *testing.T) {
	for _, around := range []string{"", "a", "<p>\n\t", "\u00e9", "\u65e5"} {
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if r > 0x3000 && r%97 != 0 && !unicode.Is(unicode.Cf, r) {
				continue
			}
			want := string(r)
			if unicode.Is(unicode.Cf, r) || unicode.IsControl(r) && !strings.ContainsRune("\n\t", r) {
				want = "\ufffd"
			}
			if got := Plain(around + string(r) + around); got != around+want+around {
				t.Fatalf("%U between %q becomes %q, not %q", r, around, got, around+want+around)
			}
		}
		if got := Plain(around + "\xff"); got != around+"\ufffd" {
			t.Errorf("what is no UTF-8 becomes %q", got)
		}
	}
}

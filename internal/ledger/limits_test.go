package ledger

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// What is stored of a text from outside has its limit and one form, whatever the
// text is.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"", "a", "\x00", "\xff\xfe", "52:54:00:12:34:56", "5254.0012.3456", "564D4A2C11F58E2BDEADBEEF00112233",
		strings.Repeat("ä", MaxText), strings.Repeat("\U000e0001", MaxText), strings.Repeat("x", MaxText-1) + "€"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := printable(s)
		if !utf8.ValidString(p) || strings.ContainsFunc(p, unprintable) || len(p) > MaxText+len(cutOff) {
			t.Errorf("%q becomes %q", s, p)
		}
		if checkText("it", s, MaxText) == nil && p != s {
			t.Errorf("%q is a text, and becomes %q", s, p)
		}
		for _, canonical := range []func(string) (string, error){canonicalMAC, canonicalUUID} {
			c, err := canonical(s)
			if err != nil {
				continue
			}
			if again, err := canonical(c); err != nil || again != c || len(c) > MaxWord {
				t.Errorf("%q becomes %q, and that %q, %v", s, c, again, err)
			}
		}
		if checkID("it", s) == nil && strings.ContainsAny(s, "/\\ \n'") {
			t.Errorf("%q is an id", s)
		}
		if c := clip(s); !utf8.ValidString(c) {
			t.Errorf("%q is clipped to %q", s, c)
		}
	})
}

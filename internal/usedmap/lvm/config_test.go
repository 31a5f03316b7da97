package lvm

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	s, err := parseText("a{b=1 c = [ ]# no\nd=[\"x\",-2.5 , \"q\\\"\\\\z\"]\n\n# all\ne { f{g=\"\"} } }\vh.i+j_k-l=0\x00\x00")
	if err != nil {
		t.Fatal(err)
	}
	a := s.section("a")
	if n, err := a.num("b", 1); err != nil || n != 1 {
		t.Error(n, err)
	}
	if c, err := a.strs("c"); err != nil || len(c) != 0 {
		t.Error(c, err)
	}
	if d := a.entry("d").values; len(d) != 3 || d[0].text != "x" || d[1] != (value{"-2.5", true}) || d[2].text != `q"\z` {
		t.Errorf("%v", d)
	}
	if g, err := a.section("e").section("f").str("g"); err != nil || g != "" {
		t.Error(g, err)
	}
	if n, err := s.num("h.i+j_k-l", 0); err != nil || n != 0 {
		t.Error(n, err)
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat("a{", 9) + strings.Repeat("}", 9)
	for _, text := range []string{
		"a", "a=", "a={", "a{", "}", "a{}}", "a=[1", "a=[1,", "a=[1 2]", "a=[,]", "a=[1,]", "a=\"x", "a=\"x\\", "a=\"\\\"", "a='x'", "a=x",
		"\"a\"=1",
		"a/b=1", "a=1 a=2", "a{} a{}", "a=1 a{}", "=1", "a=1,2", "a 1", "a=1\x00b=2", "a=[[1]]", deep,
		"x=[" + strings.Repeat("1,", maxEntries) + "1]", strings.Repeat("a{", 1<<20),
	} {
		if _, err := parseText(text); err == nil {
			t.Errorf("%.40q is taken", text)
		}
	}
	if _, err := parseText(deep[2:16] + strings.Repeat("}", 7)); err != nil {
		t.Error(err)
	}
	if _, err := parseText("a=1\nb=2\nc=\n"); err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Error(err)
	}
}

// Texts made to cost much do not.
func TestParseIsBounded(t *testing.T) {
	for _, unit := range []string{"%d=1 ", "%d{} ", "%d{a=1} ", "%d{a{b{c{d=1}}}} ", "%d=[1,2,3] ", "%d=\"\\\\\\\\\\\\\" "} {
		var b strings.Builder
		for i := 0; i < 140_000; i++ { // more than any text of 4 MiB may have
			fmt.Fprintf(&b, unit, i)
		}
		text := b.String()
		var err error
		if n := allocated(func() { _, err = parseText(text) }); n > 60<<20 || err == nil {
			t.Errorf("%q: %d bytes of memory, %v", unit, n, err)
		}
	}
}

package main

import (
	"strings"
	"testing"
)

// TestProgressOnTerminal: a line that is too long for the terminal loses what
// stands at its end, and no half of a word is left.
func TestProgressOnTerminal(t *testing.T) {
	const line = "sda, disk 1 of 2: check 17 %, 590 MiB/s, 0:03 left, all in 0:28, then writing and reading back"
	for width, want := range map[int]string{
		200: line,
		79:  "sda, disk 1 of 2: check 17 %, 590 MiB/s, 0:03 left, all in 0:28",
		30:  "sda, disk 1 of 2: check 17 %",
		2:   "sd",
	} {
		var b strings.Builder
		p := &progressLine{w: &b, width: width}
		p.show(line)
		if got := strings.TrimPrefix(b.String(), "\r"); got != want {
			t.Errorf("%d columns show %q, want %q", width, got, want)
		}
		b.Reset()
		p.end()
		if got := strings.Trim(b.String(), "\r"); got != strings.Repeat(" ", len(want)) {
			t.Errorf("%d columns: the end prints %q", width, got)
		}
	}
}

// TestClearLine: what others say while a line is shown begins on a clear one.
func TestClearLine(t *testing.T) {
	var b strings.Builder
	p := &progressLine{w: &b, width: 40}
	p.show("sda: check 22 %")
	clearLine()
	if want := "\rsda: check 22 %\r" + strings.Repeat(" ", 15) + "\r"; b.String() != want {
		t.Errorf("the terminal has %q, want %q", b.String(), want)
	}
	b.Reset()
	clearLine()
	p.end()
	if b.String() != "" {
		t.Errorf("a line that is not shown is cleared by %q", b.String())
	}
}

package bootcfg

import (
	"strings"
	"testing"
)

func TestParsePrefix(t *testing.T) {
	for name, want := range map[string]string{
		"0A58":    "10.88.0.0 10.88.255.255",
		"0A58000": "10.88.0.0 10.88.0.15",
		"0":       "0.0.0.0 15.255.255.255",
		"FFF":     "255.240.0.0 255.255.255.255",
		"0a58":    "", "0A58000B": "", "": "", "default": "", "0A5G": "",
	} {
		first, last, ok := ParsePrefix(name)
		if got := strings.TrimSpace(first + " " + last); got != want || ok != (want != "") {
			t.Errorf("%q gives %q, %v", name, got, ok)
		}
	}
}

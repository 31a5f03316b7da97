package bootcfg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
)

// TestLaterFiles has the names that PXELINUX asks for after a box's own, and no
// others.
func TestLaterFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"0": "", "0A": "", "0A5": "", "0A58": "", "0A580": "", "0A5800": "", "0A58000": "", "0A58000B": "", "default": string(DefaultConfig()),
		"A": "", "B": "", "0A58001": "", "0A59": "", "0A58000B0": "", "0A58.tmp": "", "58000B": "", "01-52-54-00-12-34-56": "", "0A58000C": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	addr, err := box.ParseAddr("10.88.0.11")
	if err != nil {
		t.Fatal(err)
	}
	later, err := LaterFiles(dir, addr)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range later {
		names = append(names, l.Name)
		if l.Why == nil {
			t.Errorf("%s is empty and is taken for local boot", l.Name)
		}
	}
	if got := strings.Join(names, " "); got != "0A58000 0A5800 0A580 0A58 0A5 0A 0" {
		t.Errorf("the names are %s", got)
	}
	if all := NotLocal(dir, addr); len(all) != 7 {
		t.Errorf("not local boot are %v", all)
	}
}

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
